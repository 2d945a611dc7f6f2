"""Work on many rows, in batches."""

import base64
import json
from datetime import timedelta

import pytest
from django.utils import timezone

from orders import batches
from orders.models import Order

pytestmark = pytest.mark.django_db(transaction=True)


def create(number: int, days: int | None, name: str) -> None:
    """Orders that were confirmed so many days ago, or not yet."""
    at = None if days is None else timezone.now() - timedelta(days=days)
    Order.objects.bulk_create(
        Order(
            idempotency_key=f"{name}-{each}",
            sku="tulip",
            quantity=1,
            email="a@example.org",
            confirmed_at=at,
        )
        for each in range(number)
    )


def sent(broker) -> list[list[str]]:
    """The keys that each waiting task has, and none waiting afterwards."""
    messages = [json.loads(each) for each in broker.redis.lrange("default", 0, -1)]
    broker.redis.delete("default")
    return [json.loads(base64.b64decode(each["body"]))[0][0] for each in messages]


def test_each_row_is_in_one_batch(broker, django_assert_num_queries):
    create(2 * batches.BATCH + 1, days=400, name="old")
    create(3, days=300, name="newer")
    create(3, days=None, name="unconfirmed")
    batches.forget_addresses()
    tasks = sorted(sent(broker), key=len)
    assert [len(task) for task in tasks] == [1, batches.BATCH, batches.BATCH]
    for task in tasks * 2:  # each delivered twice
        with django_assert_num_queries(1):
            batches.forget_batch(task)
    assert Order.objects.filter(email="").count() == 2 * batches.BATCH + 1
    assert not Order.objects.filter(email="").exclude(idempotency_key__startswith="old").exists()


def test_a_batch_that_was_lost_is_sent_by_the_next_run(broker):
    create(batches.BATCH + 1, days=400, name="old")
    batches.forget_addresses()
    lost, done = sorted(sent(broker), key=len)
    batches.forget_batch(done)
    batches.forget_addresses()
    assert sent(broker) == [lost]
    batches.forget_batch(lost)
    batches.forget_addresses()
    assert sent(broker) == []
