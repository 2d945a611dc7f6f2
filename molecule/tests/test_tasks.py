"""Work is done: orders, queues, the periodic task. These tests leave rows behind."""

import json
import uuid

import pytest
from conftest import wait_for

pytestmark = pytest.mark.changes
edge = pytest.mark.group("edge")


@pytest.fixture
def order():
    """A new order, as a shop would send it."""
    return {"sku": "apple-1", "quantity": 2, "email": "someone@example.com", "idempotency_key": f"test-{uuid.uuid4()}"}


@edge
def test_order_is_charged_on_critical_and_confirmed(deployment, order, manage):
    placed = deployment.request("/orders/", order)
    assert placed.status == 201
    assert set(placed.json) == {"id", "task_id", "status_url"}
    task = wait_for(
        lambda: (t := deployment.request(placed.json["status_url"]).json)["state"] == "SUCCESS" and t,
        15,
        "the order is charged",
    )
    assert task["result"]["order_id"] == placed.json["id"]
    worker = manage(
        "from django_celery_results.models import TaskResult; "
        f"print(TaskResult.objects.get(task_id='{placed.json['task_id']}').worker)"
    )
    assert worker.startswith("critical-"), worker
    path = f"/orders/{placed.json['id']}/"
    wait_for(lambda: deployment.request(path).json["state"] == "confirmed", 15, "the order is confirmed")


@edge
def test_same_key_is_the_same_order(deployment, order, manage):
    first, second = deployment.request("/orders/", order), deployment.request("/orders/", order)
    assert (first.status, second.status) == (201, 200)
    assert first.json == second.json
    wait_for(
        lambda: deployment.request(first.json["status_url"]).json["state"] == "SUCCESS", 15, "the order is charged"
    )
    assert (
        manage(f"from orders.models import Charge; print(Charge.objects.filter(order_id='{first.json['id']}').count())")
        == "1"
    )


@edge
def test_bad_input_is_told_field_by_field(deployment):
    answer = deployment.request("/orders/", {"sku": "", "quantity": 0, "email": "no"})
    assert answer.status == 400
    assert set(answer.json["errors"]) == {"sku", "quantity", "email", "idempotency_key"}
    assert deployment.request("/orders/", b"{").status == 400


@edge
def test_each_queue_executes_a_task_sent_to_it(deployment, manage):
    code = (
        "import json; from orders.tasks import echo; from django_celery_results.models import TaskResult; "
        f"sent = {{q: echo.apply_async(args=[q], queue=q) for q in {list(deployment.celery_queues)!r}}}; "
        "done = {q: r.get(timeout=20) for q, r in sent.items()}; "
        "print(json.dumps({q: [done[q], TaskResult.objects.get(task_id=r.id).worker] for q, r in sent.items()}))"
    )
    for queue, (value, worker) in json.loads(manage(code)).items():
        assert value == queue
        assert worker.startswith(f"{queue}-"), f"{queue} was served by {worker}"


@edge
def test_a_queue_that_is_not_in_the_table_is_refused(manage):
    code = (
        "from orders.tasks import echo\n"
        "try: echo.apply_async(args=[1], queue='nowhere'); print('sent')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    assert manage(code) == "QueueNotFound"


@edge
def test_beat_ticks(manage):
    """The periodic task of each minute leaves a trace that advances."""
    code = "from orders.models import Heartbeat; print(Heartbeat.objects.order_by('at').values_list('at', flat=True).last())"
    before = manage(code)
    wait_for(lambda: manage(code) != before, 75, "a new heartbeat")


@edge
def test_beat_ticks_once_a_minute(manage):
    code = (
        "from orders.models import Heartbeat; t = list(Heartbeat.objects.order_by('at').values_list('at', flat=True)); "
        "print(min([(b - a).total_seconds() for a, b in zip(t, t[1:])] or [60]))"
    )
    assert float(manage(code)) > 50


@pytest.mark.group("beat")
def test_only_one_beat_runs(host):
    processes = host.check_output("pgrep --full --list-full '[c]oldframe.process --app=.* beat '").splitlines()
    assert len(processes) == 1, processes


@edge
def test_pickle_is_refused_and_the_queue_goes_on(host, manage):
    code = (
        "from orders.tasks import echo; "
        "bad = echo.apply_async(args=['pickled'], serializer='pickle', queue='default'); "
        "good = echo.apply_async(args=['json'], queue='default'); "
        "print(good.get(timeout=20), bad.state)"
    )
    since = host.check_output("date +%s")
    assert manage(code) == "json PENDING"
    assert "Refusing to deserialize" in host.check_output(f"journalctl --unit='*-worker-default@*' --since=@{since}")


@pytest.mark.group("redis")
def test_broker_refused_nothing_that_the_application_needs(redis):
    """After all of the above, no user of Redis has met a limit of its access list."""
    assert redis("ACL LOG") == ""
