"""The API: place an order, see it, and ask how its task is doing.

The client makes up an idempotency key for each order. When it does not know what became
of a request, it repeats it with the same key: nothing is ordered twice, and a dispatch
that failed is made good.
"""

import json
import logging
from typing import Any
from uuid import UUID

from celery.result import AsyncResult
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe
from kombu.exceptions import OperationalError as BrokerUnreachable

from orders.forms import OrderForm
from orders.models import Order
from orders.tasks import charge_order

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 1024
RETRY_AFTER_SECONDS = 5


@csrf_exempt  # no cookie speaks for the client here
@require_POST
def create_order(request: HttpRequest) -> JsonResponse:
    if request.content_type != "application/json":
        return refuse(415, "Send application/json.")
    if int(request.headers.get("Content-Length") or 0) > MAX_BODY_BYTES:
        return refuse(413, f"Send at most {MAX_BODY_BYTES} bytes.")
    try:
        body = json.loads(request.body.decode(), parse_constant=no_constant)
    except (ValueError, RecursionError):  # neither UTF-8 nor JSON, or nested without end
        return refuse(400, "Send valid JSON.")
    if not isinstance(body, dict):
        return refuse(400, "Send a JSON object.")
    form = OrderForm(body)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    return accept(**form.cleaned_data)


def no_constant(name: str) -> None:
    """NaN and Infinity are Python's, not JSON."""
    raise ValueError(name)


def accept(idempotency_key: str, **content: Any) -> JsonResponse:
    """Store the order and, only once it is committed, dispatch its task.

    Before the commit a worker could look for an order that is not there yet, or never
    will be. Of two requests at once with one key, the unique key lets one create the
    order; the other waits for it and finds it.
    """
    try:
        with transaction.atomic():
            order, created = Order.objects.get_or_create(
                idempotency_key=idempotency_key, defaults=content
            )
            if any(getattr(order, name) != value for name, value in content.items()):
                return refuse(409, "Already used for another order.", field="idempotency_key")
            if not order.is_charged:
                transaction.on_commit(lambda: dispatch(order))
    except BrokerUnreachable:
        log.warning("broker unreachable: order %s waits for its request to be repeated", order.pk)
        response = refuse(503, "The order is stored, but not under way. Repeat the request.")
        response["Retry-After"] = RETRY_AFTER_SECONDS
        return response
    answer = {
        "id": order.pk,
        "task_id": order.task_id,
        "status_url": reverse("task", args=[order.task_id]),
    }
    return JsonResponse(answer, status=201 if created else 200)


def dispatch(order: Order) -> None:
    """Always under the same task id: a repeat is the same task, and charges once."""
    charge_order.apply_async([str(order.pk)], task_id=str(order.task_id))


def refuse(status: int, message: str, field: str = "__all__") -> JsonResponse:
    return JsonResponse({"errors": {field: [message]}}, status=status)


@csrf_exempt  # another method is answered 405, not taken for forgery
@require_safe
def show_order(request: HttpRequest, order_id: UUID) -> JsonResponse:
    order = get_object_or_404(Order.objects.select_related("charge"), pk=order_id)
    names = ["id", "sku", "quantity", "state", "task_id", "created_at"]  # no address
    return JsonResponse({name: getattr(order, name) for name in names})


@csrf_exempt
@require_safe
def show_task(request: HttpRequest, task_id: UUID) -> JsonResponse:
    """The state of any task. One that was never sent is PENDING too: Celery cannot tell."""
    task = AsyncResult(str(task_id))
    state, result = task.state, None
    if state == "SUCCESS":
        result = task.result
    elif state == "FAILURE":
        result = type(task.result).__name__  # no message, no traceback: they tell too much
    return JsonResponse({"task_id": task_id, "state": state, "result": result})
