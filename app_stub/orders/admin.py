"""The admin's pages. The schedule and the results bring their own."""

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from kombu.exceptions import KombuError

from orders import dead_letters
from orders.models import (
    Callback,
    Charge,
    DeadLetter,
    Heartbeat,
    Intent,
    Order,
    PaymentEvent,
    Report,
)


class ReadOnlyAdmin(admin.ModelAdmin):
    """Records of what happened: to be read, not to be made up."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """Who did what in the admin: Django writes a row for each form, and `send_again` its own."""

    list_display = ["action_time", "user", "content_type", "object_repr", "change_message"]
    list_filter = ["action_flag", "user"]
    list_select_related = ["user", "content_type"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "sku", "quantity", "state", "created_at"]
    list_select_related = ["charge"]
    readonly_fields = ["task_id", "idempotency_key", "created_at", "confirmed_at", "paid_at"]


@admin.register(Charge)
class ChargeAdmin(ReadOnlyAdmin):
    list_display = ["order", "amount_cents", "created_at"]
    list_select_related = ["order"]


@admin.register(Callback)
class CallbackAdmin(ReadOnlyAdmin):
    list_display = ["order", "url", "delivered_at"]
    list_filter = [("delivered_at", admin.EmptyFieldListFilter)]
    list_select_related = ["order"]


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    list_display = ["at"]


@admin.register(Intent)
class IntentAdmin(ReadOnlyAdmin):
    list_display = ["id", "task", "created_at", "sent", "due_at", "done_at"]
    list_filter = ["task", ("done_at", admin.EmptyFieldListFilter)]
    show_full_result_count = False


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ["task", "task_id", "error", "queue", "failed_at", "requeued_at"]
    list_filter = ["task", ("requeued_at", admin.EmptyFieldListFilter)]
    ordering = ["-failed_at"]
    actions = ["send_again"]

    def has_send_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.change_deadletter")

    @admin.action(description="Send the selected tasks again", permissions=["send_again"])
    def send_again(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        """Send them, each with a row that says who did it; a row only of what was sent."""
        for letter in letters:
            try:
                with transaction.atomic():
                    self.log_change(request, letter, f"Sent again as {letter.task_id}.")
                    dead_letters.send_again(letter)
            except KombuError as error:
                return self.message_user(
                    request, f"{letter} and those after it not sent: {error}", messages.ERROR
                )
        self.message_user(request, "Sent again.")


@admin.register(PaymentEvent)
class PaymentEventAdmin(ReadOnlyAdmin):
    list_display = ["id", "order_id", "received_at"]


@admin.register(Report)
class ReportAdmin(ReadOnlyAdmin):
    list_display = ["day", "charges", "amount_cents", "written_at"]
