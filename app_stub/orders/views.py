"""The API: place an order, see it, and ask how its task is doing.

The client makes up an idempotency key for each order. When it does not know what became
of a request, it repeats it with the same key: nothing is ordered twice.
"""

from typing import Any
from uuid import UUID

from celery.result import AsyncResult
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from orders.forms import OrderForm
from orders.models import Callback, Order
from orders.outbox import intend
from orders.requests import Refused, read_json, refuse
from orders.tasks import charge_order

POLL_FOR = 60 * 60  # seconds for which the page of an order loads itself


@csrf_exempt  # another method is answered 405, not taken for forgery
@require_safe
def front(request: HttpRequest) -> HttpResponse:
    """What people see who type the address."""
    return render(request, "orders/front.html")


@csrf_exempt  # no cookie speaks for the client here
@require_POST
def create_order(request: HttpRequest) -> JsonResponse:
    try:
        form = OrderForm(read_json(request))
    except Refused as error:
        return error.answer
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    return accept(**form.cleaned_data)


def accept(idempotency_key: str, callback_url: str, **content: Any) -> JsonResponse:
    """Store the order, and with it the intent to charge for it, whether the broker is up or not.

    Of two requests at once with one key, the unique key lets one create the order; the other
    waits for it and finds it.
    """
    with transaction.atomic():
        order, created = Order.objects.get_or_create(
            idempotency_key=idempotency_key, defaults=content
        )
        if created and callback_url:
            Callback.objects.create(order=order, url=callback_url)
        content["callback_url"] = callback_url
        if any(getattr(order, name) != value for name, value in content.items()):
            return refuse(409, "Already used for another order.", field="idempotency_key")
        if created:
            intend(charge_order, str(order.pk), task_id=order.task_id)
    answer = {
        "id": order.pk,
        "task_id": order.task_id,
        "status_url": reverse("task", args=[order.task_id]),
    }
    return JsonResponse(answer, status=201 if created else 200)


@csrf_exempt  # another method is answered 405, not taken for forgery
@require_safe
@vary_on_headers("Accept")
def show_order(request: HttpRequest, order_id: UUID) -> HttpResponse:
    """In JSON, or for a browser a page that loads itself until the order is confirmed."""
    order = get_object_or_404(Order.objects.select_related("charge"), pk=order_id)
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        return render(request, "orders/order.html", {"order": order, "wait": wait_for(order)})
    names = ["id", "sku", "quantity", "state", "task_id", "created_at"]  # no address
    return JsonResponse({name: getattr(order, name) for name in names})


def wait_for(order: Order) -> int:
    """After how many seconds to look again: the longer it takes, the later; 0 is never.

    By then somebody must look at it (dead letters), and a forgotten tab should ask no more.
    """
    age = (timezone.now() - order.created_at).total_seconds()
    if order.state == "confirmed" or age > POLL_FOR:
        return 0
    return max(2, min(int(age / 5), 30))


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
