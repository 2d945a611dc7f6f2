"""Tasks run where they are sent: for what leads from one to the next. And what that hides."""

import json

import pytest
from django.db import transaction
from kombu.exceptions import EncodeError

from orders import tasks
from orders.models import Charge, Intent, Order
from shop.celery import app

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker")]

ORDER = {"sku": "tulip-7", "quantity": 2, "email": "a@example.org", "idempotency_key": "key-0001"}


def place(client):
    return client.post("/orders/", json.dumps(ORDER), content_type="application/json").json()


def test_a_request_leads_to_the_last_of_its_tasks_without_a_broker(client, eager, broker):
    broker.stop()
    placed = place(client)
    assert client.get(f"/orders/{placed['id']}/").json()["state"] == "confirmed"
    assert Charge.objects.get().amount_cents == 500
    assert not Intent.objects.filter(done_at=None).exists()


def test_a_failure_reaches_who_sent_the_task(eager):
    """With task_eager_propagates; with a worker, nobody but the result has it."""
    with pytest.raises(Order.DoesNotExist):
        tasks.charge_order.delay("00000000-0000-0000-0000-000000000000")


def test_an_argument_that_is_no_json_is_found_and_apply_hides_it(eager):
    with pytest.raises(EncodeError):
        tasks.echo.delay(object())
    tasks.echo.apply([object()], throw=True)


def test_hidden_that_a_worker_does_not_see_what_is_not_committed(eager, broker):
    with transaction.atomic():
        order = Order.objects.create(**ORDER)
        tasks.charge_order.delay(str(order.pk))  # not by on_commit: wrong, and it works
        assert Charge.objects.filter(order=order).exists()
        transaction.set_rollback(True)
    assert broker.waiting("critical") == 0
    assert not Order.objects.exists()


def test_hidden_that_a_queue_does_not_exist(eager):
    tasks.echo.apply_async([1], queue="nowhere")
    app.conf.task_always_eager = False
    with pytest.raises(Exception, match="nowhere"):
        tasks.echo.apply_async([1], queue="nowhere")
