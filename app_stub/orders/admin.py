"""The admin's pages. The schedule and the results bring their own."""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from orders.models import Charge, Heartbeat, Order


class ReadOnlyAdmin(admin.ModelAdmin):
    """Records of what happened: to be read, not to be made up."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "sku", "quantity", "state", "created_at"]
    list_select_related = ["charge"]
    readonly_fields = ["task_id", "idempotency_key", "created_at", "confirmed_at"]


@admin.register(Charge)
class ChargeAdmin(ReadOnlyAdmin):
    list_display = ["order", "amount_cents", "created_at"]
    list_select_related = ["order"]


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    list_display = ["at"]
