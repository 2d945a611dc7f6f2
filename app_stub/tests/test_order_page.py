"""GET /orders/<id>/ by a browser: a page that loads itself, without JavaScript."""

import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from orders.models import Order

pytestmark = pytest.mark.django_db

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.fixture(scope="module", autouse=True)
def static_files():
    call_command("collectstatic", interactive=False, verbosity=0)


@pytest.fixture
def order() -> Order:
    return Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )


def show(client, order, accept=BROWSER):
    return client.get(f"/orders/{order.pk}/", headers={"Accept": accept} if accept else {})


def refresh(answer) -> int | None:
    found = re.search(r'<meta http-equiv="refresh" content="(\d+)">', answer.text)
    return found and int(found[1])


def test_the_page_loads_itself_until_the_order_is_confirmed(client, order):
    answer = show(client, order)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "accepted" in answer.text and "3 x tulip-7" in answer.text
    assert "a@example.org" not in answer.text
    assert refresh(answer) == 2
    Order.objects.update(confirmed_at=timezone.now())
    answer = show(client, order)
    assert "confirmed" in answer.text and refresh(answer) is None


@pytest.mark.parametrize(("age", "wait"), [(1, 2), (50, 10), (1000, 30), (3500, 30), (3700, None)])
def test_the_longer_it_takes_the_later_it_looks_again(client, order, age, wait):
    Order.objects.update(created_at=timezone.now() - timedelta(seconds=age))
    assert refresh(show(client, order)) == wait


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "image/png", "x", "\0"])
def test_a_client_of_the_api_gets_json(client, order, accept):
    answer = show(client, order, accept)
    assert answer.json()["state"] == "accepted"
    assert answer.headers["Vary"] == "Accept"
