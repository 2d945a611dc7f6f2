"""POST /webhooks/payment/."""

import json
import uuid

import pytest
from django.conf import settings
from django.test import Client

from orders import webhooks
from orders.models import Intent, Order, PaymentEvent

pytestmark = pytest.mark.django_db(transaction=True)


def tell(client: Client, body: object, key: str | None = None, signature: str | None = None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if signature is None:
        signature = webhooks.sign(raw, key or webhooks.signing_key(settings.SECRET_KEY))
    headers = {"X-Signature": signature}
    return client.post("/webhooks/payment/", raw, "application/json", headers=headers)


@pytest.fixture
def order(db) -> Order:
    return Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )


@pytest.fixture
def event(order) -> dict:
    return {"id": "evt_1", "order_id": str(order.pk), "type": "paid"}


def test_an_event_is_stored_once_and_worked_off_once(client, broker, order, event):
    assert [tell(client, event).status_code for _ in range(3)] == [202] * 3
    stored, intent = PaymentEvent.objects.get(), Intent.objects.get()
    assert broker.waiting("default") == 1
    for _ in range(2):
        webhooks.process_payment.apply([stored.pk], task_id=str(intent.pk), throw=True)
    order.refresh_from_db()
    intent.refresh_from_db()
    assert order.paid_at == stored.received_at
    assert intent.done_at


def test_an_event_is_taken_while_the_broker_is_away(client, broker, event):
    broker.stop()
    assert tell(client, event).status_code == 202
    assert Intent.objects.get().sent == 0


def test_a_key_that_still_verifies_is_taken(client, broker, event):
    key = webhooks.signing_key(settings.SECRET_KEY_FALLBACKS[0])
    assert tell(client, event, key).status_code == 202


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä", "\0"], ids=ascii)
def test_who_has_no_key_is_refused(client, broker, event, signature):
    answer = tell(client, event, signature=signature)
    assert answer.status_code == 403
    assert list(answer.json()["errors"]) == ["__all__"]
    assert not PaymentEvent.objects.exists()


def test_a_signature_holds_for_its_body_alone(client, broker, event):
    signature = webhooks.sign(json.dumps(event).encode(), webhooks.signing_key())
    event["order_id"] = str(uuid.uuid4())
    assert tell(client, event, signature=signature).status_code == 403


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{", ["__all__"]),
        (b"[]", ["__all__"]),
        ({}, ["id", "order_id"]),
        ({"id": 7, "order_id": 7}, ["id", "order_id"]),
        ({"id": "x" * 65, "order_id": "x"}, ["id", "order_id"]),
        ({"id": "\0", "order_id": "\0"}, ["id", "order_id"]),
        ({"id": "\ud800", "order_id": "\ud800"}, ["id", "order_id"]),
    ],
    ids=ascii,
)
def test_what_is_signed_but_wrong_is_named(client, broker, body, fields):
    answer = tell(client, body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == fields


def test_a_body_that_is_too_large_is_not_even_verified(client):
    assert tell(client, b"x" * 20_000).status_code == 413
