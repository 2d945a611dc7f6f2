"""What an order is and what has happened to it.

Facts, not flags: an order is charged if its Charge exists and confirmed if the time is
noted. The database allows one of each, whatever is delivered how often.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import models
from django.db.models import Q
from django.utils import timezone


class Order(models.Model):
    """What a customer asked for, under the key that the client made up for the request."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    idempotency_key = models.CharField(max_length=64, unique=True)
    sku = models.CharField(max_length=64)
    quantity = models.PositiveSmallIntegerField()
    email = models.EmailField()
    # Made with the order, so that the client can ask for the task before it is sent.
    task_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.sku}"

    @property
    def state(self) -> str:
        if self.confirmed_at:
            return "confirmed"
        return "charged" if self.is_charged else "accepted"

    @property
    def is_charged(self) -> bool:
        return hasattr(self, "charge")

    @property
    def callback_url(self) -> str:
        return self.callback.url if hasattr(self, "callback") else ""


class Charge(models.Model):
    """The one charge of an order. A second one is refused by the database itself."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT)
    amount_cents = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.amount_cents} cents for order {self.order_id}"


class Callback(models.Model):
    """Where the client wants an order's result sent to. See orders/callbacks.py."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT)
    url = models.CharField(max_length=500)
    delivered_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.url} for order {self.order_id}"


class Heartbeat(models.Model):
    """The trace of the periodic task: that it runs, and when it last did."""

    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.at.isoformat()


class Intent(models.Model):
    """A task that must be done, written with the reason for it. See orders/outbox.py."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # the task's
    task = models.CharField(max_length=200)
    args = models.JSONField(default=list)
    sent = models.PositiveSmallIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField(null=True)  # to be sent then; never, if it is done or dead
    done_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["due_at"], name="intent_due", condition=Q(due_at__isnull=False)),
            models.Index(
                fields=["done_at"], name="intent_done", condition=Q(done_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task}[{self.pk}]"


class DeadLetter(models.Model):
    """A task that failed for good. See orders/dead_letters.py."""

    task_id = models.CharField(max_length=255, unique=True)
    task = models.CharField(max_length=200)
    # JSON as text: what made a task fail may be what a JSON column would refuse.
    arguments = models.TextField()
    queue = models.CharField(max_length=200, blank=True)
    error = models.TextField()
    traceback = models.TextField(blank=True)  # its end
    failed_at = models.DateTimeField(db_index=True)
    requeued_at = models.DateTimeField(null=True)

    TEXT_KEPT = 4000  # characters of an error and of a traceback

    def __str__(self) -> str:
        return f"{self.task}[{self.task_id}]"

    @classmethod
    def note(
        cls,
        task_id: uuid.UUID | str,
        task: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        error: str,
        traceback: str = "",
        queue: str = "",
    ) -> None:
        """One row a task: what fails again after it was sent again is the same letter."""
        content = {
            "task": task,
            "arguments": json.dumps([args, kwargs or {}], default=str),
            "queue": queue,
            "error": error[: cls.TEXT_KEPT].replace("\0", ""),
            "traceback": traceback[-cls.TEXT_KEPT :].replace("\0", ""),
            "failed_at": timezone.now(),
            "requeued_at": None,
        }
        cls.objects.update_or_create(task_id=str(task_id), defaults=content)

    @property
    def args(self) -> list[Any]:
        return json.loads(self.arguments)[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        return json.loads(self.arguments)[1]


class PaymentEvent(models.Model):
    """What the payment provider told, once for each of its ids. See orders/webhooks.py."""

    id = models.CharField(primary_key=True, max_length=64)
    order_id = models.UUIDField()  # what it says; whether there is such an order, the task finds
    received_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.pk}: order {self.order_id} is paid"


class Report(models.Model):
    """What was charged on a day. See orders/reports.py."""

    day = models.DateField(unique=True)
    charges = models.PositiveIntegerField()
    amount_cents = models.PositiveBigIntegerField()
    written_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.day}: {self.amount_cents} cents of {self.charges} charges"
