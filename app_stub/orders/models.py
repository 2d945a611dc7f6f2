"""What an order is and what has happened to it.

Facts, not flags: an order is charged if its Charge exists and confirmed if the time is
noted. The database allows one of each, whatever is delivered how often.
"""

import uuid

from django.db import models


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


class Charge(models.Model):
    """The one charge of an order. A second one is refused by the database itself."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT)
    amount_cents = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.amount_cents} cents for order {self.order_id}"


class Heartbeat(models.Model):
    """The trace of the periodic task: that it runs, and when it last did."""

    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.at.isoformat()
