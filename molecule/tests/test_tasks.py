"""Work is done: orders, queues, the periodic task. These tests leave rows behind."""

import hmac
import itertools
import json
import re
import time
import uuid

import pytest
from support.hosts import entries
from support.units import once
from waits import wait_for

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
def test_order_is_taken_while_the_broker_is_down_and_charged_when_it_is_back(host, deployment, order):
    if "redis" not in deployment.group_names:
        pytest.skip("the broker runs elsewhere")
    host.check_output("systemctl stop redis-server@broker")
    try:
        began = time.monotonic()
        placed = deployment.request("/orders/", order)
        assert placed.status == 201 and time.monotonic() - began < 5
        assert deployment.request("/readyz/").status == 503
    finally:
        host.check_output("systemctl start redis-server@broker")
    status = placed.json["status_url"]
    wait_for(lambda: deployment.request(status).json["state"] == "SUCCESS", 45, "the sweep has sent what was left")
    path = f"/orders/{placed.json['id']}/"
    wait_for(lambda: deployment.request(path).json["state"] == "confirmed", 30, "the order is confirmed")


@edge
def test_patterns_of_the_stub_work_through_the_deployed_queues(deployment, order, manage):
    """A signed webhook, a chord, a lock, and a dead letter."""
    placed = deployment.request("/orders/", order).json
    key, now = json.loads(
        manage(
            "import json; from django.utils import timezone; from orders.webhooks import signing_key; "
            "print(json.dumps([signing_key(), timezone.now().isoformat()]))"
        )
    )
    body = json.dumps({"id": f"event-{uuid.uuid4()}", "order_id": placed["id"]}).encode()
    signature = {"X-Signature": hmac.new(key.encode(), body, "sha256").hexdigest()}
    assert deployment.request("/webhooks/payment/", body, headers=signature).status == 202
    assert deployment.request("/webhooks/payment/", body + b" ", headers=signature).status == 403
    code = (
        "import json, uuid\n"
        "from django.db import transaction\n"
        "from orders import reports, webhooks\n"
        "from orders.models import PaymentEvent\n"
        "from orders.outbox import intend\n"
        "event = PaymentEvent.objects.create(id=uuid.uuid4(), order_id=uuid.uuid4())\n"
        "with transaction.atomic():\n"
        f"    intents = [intend(reports.report_day, {now[:10]!r}), intend(webhooks.process_payment, str(event.pk))]\n"
        "print(reports.rebuild_reports.delay().get(timeout=30), *(intent.pk for intent in intents))"
    )
    rebuilt, reported, failed = manage(code).split()
    assert rebuilt in ("written", "skipped")
    seen = (
        "from orders.models import DeadLetter, Intent, Order; "
        f"print(bool(Order.objects.get(pk={placed['id']!r}).paid_at), bool(Intent.objects.get(pk={reported!r}).done_at), "
        f"*DeadLetter.objects.filter(task_id={failed!r}).values_list('task', flat=True))"
    )
    expected = "True True orders.webhooks.process_payment"
    wait_for(lambda: manage(seen) == expected, 30, "the payment is noted, the day reported, the failure kept")


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
@pytest.mark.one_host
@pytest.mark.thorough  # test_beat has it tick each second
def test_beat_ticks(manage):
    """The periodic task of each minute leaves a trace that advances."""
    code = "from orders.models import Heartbeat; print(Heartbeat.objects.order_by('at').values_list('at', flat=True).last())"
    before = manage(code)
    wait_for(lambda: manage(code) != before, 75, "a new heartbeat")


@pytest.mark.group("beat")
def test_beat_ticks_once_a_minute(host, deployment):
    """When it is sent counts: it may be executed later, behind what other tests send to the queue.

    Only the ticks of one release are compared: another one may have had another database (test_managed.py), with its own times.
    """
    # With nothing to show, as on a host whose Beat has only stood by, journalctl exits with 1.
    grep = f"--unit='{deployment.app_name}-beat@*.service' --grep='Sending due task heartbeat' || true"

    def gaps():
        """The seconds between two ticks."""
        sent = {}
        for entry in entries(host, grep):
            sent.setdefault(once(entry["_SYSTEMD_UNIT"]), []).append(int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
        return [later - earlier for times in sent.values() for earlier, later in itertools.pairwise(times)]

    if len(deployment.groups["beat"]) == 1:
        wait_for(gaps, 150, "there are two ticks")  # on a new host; the first one comes after a minute
    assert [gap for gap in gaps() if gap < 50] == []


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
    """After all of the above, no user of Redis has met a limit of its access list; strangers without a password have."""
    log = redis("ACL LOG 128")
    assert set(re.findall(r"^reason\n(.*)$", log, re.MULTILINE)) <= {"auth"}, log
