"""From the request to the confirmation, with a real worker."""

import json
import time
import uuid
from collections.abc import Callable

import pytest

from orders.models import Charge, Order
from orders.tasks import charge_order, echo

pytestmark = pytest.mark.django_db(transaction=True)


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_an_order_goes_all_the_way(client, celery_worker):
    body = {"sku": "tulip", "quantity": 2, "email": "a@example.org", "idempotency_key": "key-0001"}
    answer = client.post("/orders/", json.dumps(body), content_type="application/json").json()
    eventually(lambda: client.get(f"/orders/{answer['id']}/").json()["state"] == "confirmed")
    eventually(lambda: client.get(answer["status_url"]).json()["state"] == "SUCCESS")
    result = {"order_id": answer["id"], "charge_id": Charge.objects.get().pk, "amount_cents": 500}
    assert client.get(answer["status_url"]).json() == {
        "task_id": answer["task_id"],
        "state": "SUCCESS",
        "result": result,
    }


def test_a_task_delivered_twice_counts_once(celery_worker):
    order = Order.objects.create(
        idempotency_key="key-0001", sku="tulip", quantity=1, email="a@example.org"
    )
    charge_order.apply_async([str(order.pk)], task_id=str(order.task_id))
    again = charge_order.apply_async([str(order.pk)], task_id=str(order.task_id))
    last = echo.apply_async(["done"], queue="critical")  # one worker: this comes after both
    assert last.get(timeout=10) == "done"
    assert Charge.objects.count() == 1
    assert again.state == "SUCCESS"


def test_each_queue_runs_what_is_json_and_nothing_else(celery_worker):
    for queue in ("critical", "default", "bulk"):
        pickled = echo.apply_async(["x"], queue=queue, serializer="pickle")
        assert echo.apply_async([queue], queue=queue).get(timeout=10) == queue
        assert pickled.state == "PENDING"


def test_of_a_failure_only_the_class_is_told(client, celery_worker):
    failed = charge_order.delay(str(uuid.uuid4()))
    eventually(lambda: failed.state == "FAILURE")
    answer = client.get(f"/tasks/{failed.id}/")
    assert answer.json() == {"task_id": failed.id, "state": "FAILURE", "result": "DoesNotExist"}


def test_an_unknown_task_is_pending(client):
    unknown = str(uuid.uuid4())
    answer = client.get(f"/tasks/{unknown}/")
    assert answer.status_code == 200
    assert answer.json() == {"task_id": unknown, "state": "PENDING", "result": None}
