"""The admin, with its static files collected as a deployment collects them."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from orders.models import Charge, DeadLetter, Order

PAGES = [
    "orders_order",
    "orders_callback",
    "orders_charge",
    "orders_heartbeat",
    "orders_intent",
    "orders_deadletter",
    "orders_paymentevent",
    "orders_report",
    "admin_logentry",
    "django_celery_beat_periodictask",
    "django_celery_results_taskresult",
]


@pytest.fixture(scope="module")
def static_files():
    call_command("collectstatic", interactive=False, verbosity=0)


@pytest.mark.django_db
@pytest.mark.parametrize("page", PAGES)
def test_the_admin_lists(client, static_files, page):
    order = Order.objects.create(idempotency_key="k", sku="s", quantity=1, email="a@example.org")
    Charge.objects.create(order=order, amount_cents=1)
    client.force_login(User.objects.create_superuser("gardener"))
    answer = client.get(reverse(f"admin:{page}_changelist"))
    assert answer.status_code == 200
    assert re.search(r"/static/admin/css/base\.[0-9a-f]{12}\.css", answer.text)


@pytest.mark.django_db
def test_a_charge_is_read_only(client, static_files):
    order = Order.objects.create(idempotency_key="k", sku="s", quantity=1, email="a@example.org")
    charge = Charge.objects.create(order=order, amount_cents=1)
    client.force_login(User.objects.create_superuser("gardener"))
    url = reverse("admin:orders_charge_change", args=[charge.pk])
    assert client.get(url).status_code == 200
    assert client.post(url, {"amount_cents": 2}).status_code == 403
    assert client.get(reverse("admin:orders_charge_add")).status_code == 403


@pytest.fixture
def letter(broker) -> DeadLetter:
    DeadLetter.note("id-1", "orders.tasks.echo", ["x"], error="ValueError")
    return DeadLetter.objects.get()


def send_again(client, letter):
    client.force_login(User.objects.create_superuser("gardener"))
    page = reverse("admin:orders_deadletter_changelist")
    return client.post(page, {"action": "send_again", "_selected_action": [letter.pk]})


@pytest.mark.django_db(transaction=True)
def test_who_sends_a_task_again_is_noted(client, broker, letter):
    send_again(client, letter)
    assert broker.waiting("default") == 1
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_id) == ("gardener", str(letter.pk))
    assert entry.get_change_message() == "Sent again as id-1."
    assert entry.object_repr == str(letter)
    url = reverse("admin:admin_logentry_change", args=[entry.pk])
    assert client.post(url, {"change_message": ""}).status_code == 403
    assert client.post(reverse("admin:admin_logentry_delete", args=[entry.pk])).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_what_was_not_sent_again_is_not_noted(client, broker, letter):
    broker.stop()
    send_again(client, letter)
    assert not LogEntry.objects.exists()
    assert not DeadLetter.objects.get().requeued_at


@pytest.mark.django_db
@pytest.mark.parametrize(
    "key", ['"no-key-\\000"', '"no-key-\\377"', "n" * 4000, "nö-key-é"], ids=ascii
)
def test_a_session_that_cannot_be_leads_to_the_login(client, key):
    client.cookies.load({"sessionid": key})
    client.cookies["sessionid"].set("sessionid", key, key)  # sent as it stands
    assert client.get("/admin/").status_code == 302


def test_a_form_in_another_character_set_is_refused():
    client = Client(enforce_csrf_checks=True, headers={"X-Forwarded-Proto": "https"})
    client.cookies["csrftoken"] = token = "t" * 32
    answer = client.post(
        "/admin/login/",
        "username=a",
        content_type="application/x-www-form-urlencoded; charset=utf-16",
        headers={
            "Host": "shop.example.org",
            "Referer": "https://shop.example.org/",
            "X-CSRFToken": token,
        },
    )
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["__all__"]


@pytest.mark.django_db
def test_the_heartbeat_is_in_the_schedule():
    entry = PeriodicTask.objects.get(name="heartbeat")
    assert entry.enabled
    assert entry.last_run_at
    assert str(entry.interval) == "every minute"
    assert entry.task == "orders.tasks.heartbeat"


@pytest.mark.django_db
def test_the_sweep_is_in_the_schedule():
    entry = PeriodicTask.objects.get(name="sweep")
    assert (entry.task, entry.enabled) == ("orders.outbox.sweep", True)
    assert entry.interval.period == "seconds"
    assert (entry.interval.every, entry.expire_seconds) == (5, 60)
    assert entry.last_run_at


@pytest.mark.django_db(transaction=True)
def test_the_schedule_can_be_migrated_back_and_forth():
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes("orders")
    for targets, entries in [([("orders", "0001_initial")], 0), (newest, 3)]:
        MigrationExecutor(connection).migrate(targets)
        assert PeriodicTask.objects.exclude(name__startswith="celery").count() == entries


def test_the_front_page_leads_to_its_stylesheet_and_the_admin(client, static_files):
    answer = client.get("/")
    assert answer.status_code == 200 and 'href="/admin/"' in answer.text
    assert re.search(r"/static/orders/front\.[0-9a-f]{12}\.css", answer.text)
    assert client.post("/").status_code == 405
