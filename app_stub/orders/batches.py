"""Work on many rows: a task for each batch of them, not for each row, and none for them all.

A task for each row costs more than its work; one for all rows reaches its time limit, and begins
again from the start. Which rows are left is a question to the database, so that nothing is noted:
the next run finds a batch that was lost, and one that is delivered twice changes nothing.
"""

from datetime import timedelta

from celery import shared_task
from celery.utils.functional import chunks
from django.utils import timezone

from orders.models import Order
from orders.tasks import RETRY

BATCH = 500  # rows of a task: some seconds of work, and a message of some kilobytes
ADDRESSES_KEPT = timedelta(days=365)


@shared_task(name="orders.batches.forget_addresses", ignore_result=True, **RETRY)
def forget_addresses() -> None:
    """Have the e-mail addresses of old orders removed. The keys are read as they are sent."""
    old = Order.objects.filter(confirmed_at__lt=timezone.now() - ADDRESSES_KEPT).exclude(email="")
    for batch in chunks(old.order_by("pk").values_list("pk", flat=True).iterator(BATCH), BATCH):
        forget_batch.delay([str(key) for key in batch])


@shared_task(name="orders.batches.forget_batch", ignore_result=True, **RETRY)
def forget_batch(order_ids: list[str]) -> None:
    """Remove the addresses of a batch, in one statement."""
    Order.objects.filter(pk__in=order_ids).update(email="")
