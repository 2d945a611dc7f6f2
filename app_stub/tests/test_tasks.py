"""What the tasks do when they come once, twice, and twice at once."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from celery.signals import task_retry
from django.db import OperationalError, connection
from kombu.exceptions import EncodeError

from orders import tasks
from orders.models import Charge, Heartbeat, Order

with_commits = pytest.mark.django_db(transaction=True)


@pytest.fixture
def order(db) -> Order:
    return Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )


@with_commits
def test_a_second_delivery_charges_nothing_and_returns_the_same(order, broker):
    first = tasks.charge_order(str(order.pk))
    assert first == {
        "order_id": str(order.pk),
        "charge_id": Charge.objects.get().pk,
        "amount_cents": 750,
    }
    assert tasks.charge_order(str(order.pk)) == first
    assert Charge.objects.count() == 1
    assert broker.waiting("default") == 1  # one confirmation


@with_commits
def test_two_deliveries_at_once_charge_once(order, broker):
    def deliver(_: int):
        try:
            together.wait(timeout=5)
            return tasks.charge_order(str(order.pk))
        finally:
            connection.close()

    together = Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(deliver, range(8)))
    assert Charge.objects.count() == 1
    assert all(result == results[0] for result in results)


def test_an_order_is_confirmed_once(order, caplog):
    caplog.set_level(logging.INFO)
    tasks.send_confirmation(str(order.pk))
    order.refresh_from_db()
    confirmed_at = order.confirmed_at
    tasks.send_confirmation(str(order.pk))
    order.refresh_from_db()
    assert order.confirmed_at == confirmed_at
    assert caplog.messages == [f"order {order.pk} confirmed"]


@pytest.mark.django_db
def test_only_the_newest_heartbeats_are_kept():
    Heartbeat.objects.bulk_create(Heartbeat() for _ in range(105))
    tasks.heartbeat()
    assert Heartbeat.objects.count() == 100
    assert not Heartbeat.objects.filter(pk__lt=Heartbeat.objects.latest("pk").pk - 99).exists()


@with_commits
def test_a_lost_database_is_tried_again_a_bounded_number_of_times(order, no_database, broker):
    """Celery's eager mode repeats like a worker, but does not wait in between."""
    tries = []

    @task_retry.connect  # a weak reference: it ends with this test
    def count(request, **_):
        tries.append(request.retries)

    with no_database():
        outcome = tasks.charge_order.apply(args=[str(order.pk)])
    assert isinstance(outcome.result, OperationalError)
    assert tries == list(range(10))
    assert tasks.charge_order.apply(args=[str(order.pk)]).state == "SUCCESS"


def test_only_json_can_be_sent(broker):
    with pytest.raises(EncodeError):
        tasks.echo.delay(object())
    assert broker.waiting("default") == 0
