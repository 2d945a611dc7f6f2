"""A queue that is flooded does not delay another one: `critical` is served while thousands of tasks wait in `bulk`.

FLOOD is how many; `make test FLOOD=50000` takes some minutes longer.
"""

import json
import os
import threading
import time
import uuid

import pytest
from support.load import Request, summary
from waits import wait_for

pytestmark = [pytest.mark.changes, pytest.mark.one_host, pytest.mark.example, pytest.mark.group("edge")]

FLOOD = int(os.environ.get("FLOOD", "3000"))
ORDERS = 40  # of each measurement, one every half second
LEAST = 20  # of them while the flood waits: a host that is quicker needs a larger FLOOD
# In the flood the 99th percentile is at most so many times the quiet one, or so many seconds, whichever is more: of ten
# milliseconds a stall of the machine makes any multiple. In one queue with the flood, an order would wait for half a minute.
TIMES, SECONDS = 10, 3.0
# A short task of the database. It finds nothing to change.
SEND = """
import uuid
from celery import current_app as app
from orders.batches import forget_batch
with app.producer_or_acquire() as producer:
    for _ in range({count}):
        forget_batch.apply_async([[str(uuid.uuid4())]], queue="bulk", producer=producer)
"""
PROBE = """
import time
from celery import current_app as app
for _ in range({count}):
    app.send_task("coldframe.probe", ("critical", time.time()), queue="critical")
    time.sleep(0.5)
"""
WAITS = """
import json
from orders.models import Order
rows = Order.objects.filter(email={email!r}, charge__isnull=False).values_list("created_at", "charge__created_at")
print(json.dumps([(charged - placed).total_seconds() for placed, charged in rows]))
"""


@pytest.fixture
def waiting(redis):
    """How many tasks wait in `bulk`."""
    return lambda: int(redis("LLEN bulk"))


@pytest.fixture
def waits(deployment, manage, redis):
    """Place orders, and send queue probes beside them; return the seconds that each waited in `critical`."""

    def measure(while_true=lambda: True):
        email, placed, probes = f"{uuid.uuid4()}@example.com", 0, {}
        sender = threading.Thread(target=manage, args=(PROBE.format(count=ORDERS),))
        sender.start()
        while placed < ORDERS and while_true():
            due = time.monotonic() + 0.5
            order = {"sku": "apple", "quantity": 1, "email": email, "idempotency_key": str(uuid.uuid4())}
            assert deployment.request("/orders/", order).status == 201
            placed += 1
            if noted := redis("SELECT 1\nGET probe:done:critical").splitlines()[1:]:
                note = json.loads(noted[0])
                probes[note["sent"]] = note["done"] - note["sent"]
            time.sleep(max(0, due - time.monotonic()))
        sender.join()
        code = WAITS.format(email=email)
        orders = wait_for(
            lambda: len(found := json.loads(manage(code))) == placed and found, 60, "each order is charged"
        )
        assert placed >= LEAST, f"the flood was over after {placed} orders: raise FLOOD, which is {FLOOD}"
        return orders, list(probes.values())

    return measure


def p99(seconds):
    return summary(Request(0, "", each, "") for each in seconds)["p99_ms"] / 1000


def test_orders_do_not_wait_for_a_flood_of_other_tasks(manage, redis, waiting, waits):
    quiet = [p99(each) for each in waits()]
    flood = threading.Thread(target=manage, args=(SEND.format(count=FLOOD),))
    try:
        flood.start()
        wait_for(lambda: waiting() > FLOOD / 3, 60 + FLOOD / 100, "the flood waits")
        orders, probes = waits(while_true=lambda: waiting() > 0)
    finally:
        flood.join()
        redis("DEL bulk")
    print(f"seconds that 99 % wait, orders and probes: {quiet} quiet, {p99(orders)} and {p99(probes)} in the flood")
    assert p99(orders) <= max(TIMES * quiet[0], SECONDS)
    assert p99(probes) <= max(TIMES * quiet[1], SECONDS)
