"""POST /orders/ and GET /orders/<id>/."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from signal import SIGSTOP
from threading import Barrier

import pytest
from django.db import connection, transaction
from django.test import Client

from orders.models import Order
from orders.outbox import sweep
from orders.tasks import charge_order, send_confirmation

ORDER = {"sku": "tulip-7", "quantity": 3, "email": "a@example.org", "idempotency_key": "key-0001"}

with_database = pytest.mark.django_db
with_commits = pytest.mark.django_db(transaction=True)


def post(client: Client, order: object = ORDER, **changes):
    body = order if isinstance(order, bytes) else json.dumps({**order, **changes})
    return client.post("/orders/", body, content_type="application/json")


@with_commits
def test_an_order_is_stored_and_its_task_dispatched(client, broker):
    answer = post(client)
    order = Order.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {
        "id": str(order.pk),
        "task_id": str(order.task_id),
        "status_url": f"/tasks/{order.task_id}/",
    }
    [message] = map(json.loads, broker.redis.lrange("critical", 0, -1))
    assert message["headers"]["task"] == "orders.tasks.charge_order"
    assert message["headers"]["id"] == str(order.task_id)
    assert message["headers"]["argsrepr"] == f"['{order.pk}']"
    assert message["content-type"] == "application/json"


WRONG = {
    "sku": ["", None, "x" * 65, "a b", "a\n", "a\0", "ä", 7, True, ["a"]],
    "quantity": [None, 0, -1, 1001, 10**30, "3", 3.5, 1e308, True, [3], {}],
    "email": ["", None, "a", "a@b", " a@example.org", "a" * 250 + "@example.org", 7, ["a"],
              "a@example.org\0", "a@\ud800.org"],
    "idempotency_key": ["", None, "short", "x" * 65, "with blank", 12345678,
                        "key-0001\n", "key-000\0", "key-000ä", "key-000\ud800"],
}  # fmt: skip


@with_database
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]], ids=ascii
)
def test_a_wrong_value_is_named(client, field, value):
    answer = post(client, **{field: value})
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert not Order.objects.exists()


@with_database
def test_every_missing_field_is_named(client):
    answer = post(client, b"{}")
    assert answer.status_code == 400
    assert set(answer.json()["errors"]) == set(ORDER)


@with_database
@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b"[]",
        b"null",
        b'"sku"',
        b"\xff",
        json.dumps(ORDER).encode("utf-16"),
        b"[" * 9000,
        json.dumps({**ORDER, "more": float("nan")}).encode(),
        json.dumps({**ORDER, "more": float("-inf")}).encode(),
    ],
    ids=lambda body: ascii(body[:9]),
)
def test_a_body_that_is_no_json_object_is_refused(client, body):
    answer = post(client, body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["__all__"]


@with_database
def test_a_body_that_is_too_large_is_refused(client):
    answer = post(client, sku="x" * 20_000)
    assert answer.status_code == 413
    assert list(answer.json()["errors"]) == ["__all__"]


@with_database
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(client, content_type):
    answer = client.post("/orders/", json.dumps(ORDER), content_type=content_type)
    assert answer.status_code == 415
    assert list(answer.json()["errors"]) == ["__all__"]


@with_commits
def test_a_whole_number_may_have_a_point(client, broker):
    """To JSON Schema, and to many a client, 3.0 is an integer."""
    assert post(client, quantity=3.0).status_code == 201
    assert post(client, quantity=3).status_code == 200


PATHS = ["/healthz/", "/readyz/", f"/orders/{uuid.uuid4()}/", f"/tasks/{uuid.uuid4()}/"]
POSTED = ["/orders/", "/webhooks/payment/"]


@pytest.mark.parametrize(
    ("path", "method"),
    [*((path, "GET") for path in POSTED), *((path, "POST") for path in PATHS)]
    + [(path, method) for path in [*POSTED, *PATHS] for method in ("PUT", "PATCH", "DELETE")],
    ids=lambda value: value.split("/")[1] if "/" in value else value,
)
def test_other_methods_are_refused(path, method):
    """As a stranger sends them: the test client's own requests are never taken for forgery."""
    client = Client(enforce_csrf_checks=True, headers={"X-Forwarded-Proto": "https"})
    assert client.generic(method, path).status_code == 405


@with_commits
def test_a_repeat_gets_the_same_answer_and_no_second_charge(client, broker):
    first = post(client)
    charge_order(first.json()["id"])
    again = post(client)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert Order.objects.count() == 1
    assert broker.waiting("critical") == 1


@with_commits
@pytest.mark.parametrize(
    "change", [{"sku": "rose"}, {"quantity": 4}, {"email": "b@example.org"}], ids=str
)
def test_a_key_is_not_taken_for_another_order(client, broker, change):
    post(client)
    answer = post(client, **change)
    assert answer.status_code == 409
    assert list(answer.json()["errors"]) == ["idempotency_key"]
    assert broker.waiting("critical") == 1


@with_commits
def test_of_simultaneous_requests_with_one_key_one_creates(broker):
    def request(_: int):
        try:
            together.wait(timeout=5)
            return post(Client(headers={"X-Forwarded-Proto": "https"}))
        finally:
            connection.close()

    together = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(request, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.content for answer in answers}) == 1
    assert Order.objects.count() == 1


@with_commits
def test_nothing_is_dispatched_before_the_commit(client, broker):
    with transaction.atomic():
        post(client)
        assert broker.waiting("critical") == 0
    assert broker.waiting("critical") == 1


@with_commits
def test_nothing_is_dispatched_after_a_rollback(client, broker):
    with transaction.atomic():
        post(client)
        transaction.set_rollback(True)
    assert broker.waiting("critical") == 0
    assert not Order.objects.exists()


def stop(broker):
    broker.stop()


def hang(broker):
    broker.process.send_signal(SIGSTOP)


def fill(broker):
    broker.redis.config_set("maxmemory", 1)


@with_commits
@pytest.mark.parametrize("harm", [stop, hang, fill])
def test_without_a_broker_an_order_is_taken_and_sent_later(client, broker, harm: Callable):
    post(client, idempotency_key="another-one")  # so that a connection is in the pool
    harm(broker)
    taken = post(client)
    assert taken.status_code == 201
    again = post(client)
    assert (again.status_code, again.json()) == (200, taken.json())

    broker.stop()
    broker.start()
    sweep()
    [message] = map(json.loads, broker.redis.lrange("critical", 0, -1))
    assert message["headers"]["id"] == taken.json()["task_id"]


@with_commits
def test_an_order_shows_how_far_it_is(client, broker):
    url = f"/orders/{post(client).json()['id']}/"
    order = Order.objects.get()
    shown = client.get(url).json()
    assert shown == {
        "id": str(order.pk),
        "sku": "tulip-7",
        "quantity": 3,
        "state": "accepted",
        "task_id": str(order.task_id),
        "created_at": shown["created_at"],
    }
    charge_order(str(order.pk))
    assert client.get(url).json()["state"] == "charged"
    send_confirmation(str(order.pk))
    assert client.get(url).json()["state"] == "confirmed"


@with_database
@pytest.mark.parametrize("path", [f"/orders/{uuid.uuid4()}/", "/orders/1/", "/nowhere/"])
def test_what_is_not_there_is_404_in_json(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()["errors"]) == ["__all__"]
