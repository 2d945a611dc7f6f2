"""The work that a request does not wait for.

A task may be delivered twice, or twice at once: each is written so that it counts once.
Arguments are primary keys, never objects: an object would be old when the task runs, and
its content would lie about in the broker. Which queue a task goes to is the deployment's
choice (task_routes).
"""

import logging
from typing import Any

from celery import Task, shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from orders import mail
from orders.callbacks import NotDelivered, deliver
from orders.models import Callback, Charge, Heartbeat, Order
from orders.outbox import done, intend

log = logging.getLogger(__name__)

PRICE_CENTS = 250  # stands for a price list
HEARTBEATS_KEPT = 100

# A database that restarts is back soon: try again after some seconds, each time later and
# at random, so that a full queue does not come back as one wave. The longest wait must be
# shorter than the broker's visibility timeout, or the task would be delivered twice.
RETRY: dict[str, Any] = {
    "autoretry_for": (OperationalError, InterfaceError),
    "retry_backoff": True,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    "max_retries": 10,
    "default_retry_delay": 1,  # after its process was killed
}


@shared_task(bind=True, name="orders.tasks.charge_order", ignore_result=False, **RETRY)
def charge_order(self: Task, order_id: str) -> dict[str, Any]:
    """Charge for the order, once; a repeat finds the charge and returns the same.

    The charge, the mark that this task is done and the intent of the next one are stored
    together or not at all.
    """
    with transaction.atomic():
        order = Order.objects.get(pk=order_id)
        charge, created = Charge.objects.get_or_create(
            order=order, defaults={"amount_cents": order.quantity * PRICE_CENTS}
        )
        if created:
            intend(send_confirmation, order_id)
            if order.callback_url:
                intend(tell_result, order_id)
        done(self.request.id)
    return {"order_id": order_id, "charge_id": charge.pk, "amount_cents": charge.amount_cents}


MAIL = RETRY | {"autoretry_for": (*RETRY["autoretry_for"], mail.NotSent)}


@shared_task(bind=True, name="orders.tasks.send_confirmation", ignore_result=True, **MAIL)
def send_confirmation(self: Task, order_id: str) -> None:
    """Confirm the order; of several deliveries only the first finds it unconfirmed.

    Others wait at the row meanwhile, at most for EMAIL_TIMEOUT at each step.
    """
    with transaction.atomic():
        unconfirmed = Order.objects.select_for_update().filter(pk=order_id, confirmed_at=None)
        if order := unconfirmed.first():
            if settings.EMAIL_HOST:
                mail.confirm(order)
            unconfirmed.update(confirmed_at=timezone.now())
            log.info("order %s confirmed", order_id)
        done(self.request.id)


TELL = RETRY | {"autoretry_for": (*RETRY["autoretry_for"], NotDelivered)}


@shared_task(bind=True, name="orders.tasks.tell_result", ignore_result=True, **TELL)
def tell_result(self: Task, order_id: str) -> None:
    """Tell the client what became of the order; the task's id is the event's, at each try."""
    callback = Callback.objects.select_related("order__charge").get(order_id=order_id)
    if not callback.delivered_at:
        deliver(callback, self.request.id)
    with transaction.atomic():
        Callback.objects.filter(pk=callback.pk, delivered_at=None).update(
            delivered_at=timezone.now()
        )
        done(self.request.id)


@shared_task(name="orders.tasks.heartbeat", ignore_result=True, **RETRY)
def heartbeat() -> None:
    """Leave a trace that the schedule runs; only the newest traces are kept."""
    Heartbeat.objects.create()
    newest = Heartbeat.objects.order_by("-pk").values("pk")[:HEARTBEATS_KEPT]
    Heartbeat.objects.exclude(pk__in=newest).delete()


@shared_task(name="orders.tasks.echo", ignore_result=False)
def echo(value: Any) -> Any:
    """Return what came: a check that the queue is served, all the way and back."""
    return value
