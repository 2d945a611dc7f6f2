"""What the payment provider tells: verified, stored once, answered at once, and then worked off.

The provider repeats an event until it is answered, so the answer waits for nothing but the
database, and the event's id makes a repeat harmless.
"""

import hmac

from celery import Task, shared_task
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orders.forms import PaymentEventForm
from orders.models import Order, PaymentEvent
from orders.outbox import done, intend
from orders.requests import Refused, read_json
from orders.signatures import derive_key, sign
from orders.tasks import RETRY


def signing_key(secret: str = "") -> str:
    """What is entered at the provider's."""
    return derive_key("orders.webhooks", "payment", secret)


def is_signed(body: bytes, signature: str) -> bool:
    """By the key of today or of one that still verifies; compared in constant time."""
    keys = map(signing_key, [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    return any(hmac.compare_digest(sign(body, key).encode(), signature.encode()) for key in keys)


@csrf_exempt  # the signature speaks for the sender
@require_POST
def receive_payment(request: HttpRequest) -> JsonResponse:
    signature = request.headers.get("X-Signature", "")
    try:
        body = read_json(request, is_trusted=lambda raw: is_signed(raw, signature))
    except Refused as error:
        return error.answer
    form = PaymentEventForm(body)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    content = form.cleaned_data
    with transaction.atomic():
        event, created = PaymentEvent.objects.get_or_create(
            id=content["id"], defaults={"order_id": content["order_id"]}
        )
        if created:
            intend(process_payment, event.pk)
    return JsonResponse({"id": event.pk}, status=202)


@shared_task(bind=True, name="orders.webhooks.process_payment", ignore_result=True, **RETRY)
def process_payment(self: Task, event_id: str) -> None:
    """Note that the order is paid; an order that is not there fails, for somebody to look at."""
    with transaction.atomic():
        event = PaymentEvent.objects.get(pk=event_id)
        order = Order.objects.select_for_update().get(pk=event.order_id)
        if not order.paid_at:
            order.paid_at = event.received_at
            order.save(update_fields=["paid_at"])
        done(self.request.id)
