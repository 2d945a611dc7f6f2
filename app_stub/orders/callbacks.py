"""The result of an order, sent to the address that its client named.

The task is intended (orders/outbox.py), so an event is delivered at least once: a receiver that has
its id already answers 200 and does nothing more. It verifies the signature, and that the time in
it is not long ago: `X-Signature: t=SECONDS,v1=HEX`, an HMAC with SHA-256 of "SECONDS.BODY". While a
key is changed there are two `v1`, and one of them must be right.
"""

import json
import time
from typing import Any

from django.conf import settings

from orders.models import Callback
from orders.signatures import derive_key, sign
from shop import outgoing
from shop.breaker import CircuitBreakerError, breaker

NOT_NOW = (408, 425, 429)  # of 4xx, those that a later try may not get


class NotDelivered(Exception):
    """The receiver cannot be reached, or cannot take it now: it is tried again."""


class NotDeliverable(Exception):
    """The receiver does not want it, or may not be called: a dead letter at once."""


def signing_key(host: str, secret: str = "") -> str:
    """What the receiver's operator is given: each host has a key of its own."""
    return derive_key("orders.callbacks", host, secret)


def signature(body: bytes, host: str, at: int) -> str:
    """Of the key of today, and of those that a receiver may still have."""
    keys = [signing_key(host, key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]
    signed = b"%d.%s" % (at, body)
    return ",".join([f"t={at}", *(f"v1={sign(signed, key)}" for key in keys)])


def event(callback: Callback, event_id: str) -> dict[str, Any]:
    """The same at each try: an event has the time of what it tells of."""
    charge = callback.order.charge
    return {
        "id": event_id,
        "type": "order.charged",
        "order_id": str(callback.order_id),
        "amount_cents": charge.amount_cents,
        "at": charge.created_at.isoformat(),
    }


def deliver(callback: Callback, event_id: str) -> None:
    """Send the event once. No transaction may be open: it takes as long as the receiver wants."""
    body = json.dumps(event(callback, event_id)).encode()
    try:
        host = outgoing.read(callback.url).host
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "shop",
            "X-Event-Id": event_id,
            "X-Signature": signature(body, host, int(time.time())),
        }
        receiver = breaker(host, outgoing.Refused)
        status = receiver.call(outgoing.post, callback.url, body, headers)
    except outgoing.Refused as error:
        raise NotDeliverable(str(error)) from None
    except outgoing.Unreachable as error:
        raise NotDelivered(str(error)) from None
    except CircuitBreakerError:
        raise NotDelivered("the receiver was not reached lately, and was not called") from None
    if 300 <= status < 500 and status not in NOT_NOW:
        raise NotDeliverable(f"the receiver answered {status}")
    if not 200 <= status < 300:
        raise NotDelivered(f"the receiver answered {status}")
