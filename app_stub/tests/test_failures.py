"""What becomes of tasks that fail for good, with a real worker and its processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sick_tasks
from celery import Task, current_app
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.result import AsyncResult
from conftest import BROKER
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.urls import reverse
from django.utils import timezone
from test_worker import eventually

from orders import dead_letters, outbox, reports, webhooks
from orders.models import Charge, DeadLetter, Intent, Order, PaymentEvent, Report
from orders.outbox import intend
from shop.locks import lock

TESTS = Path(__file__).parent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def worker(pytestconfig, django_db_setup, tmp_path_factory) -> Iterator[None]:
    """A worker as a deployment has it, beside these tests."""
    broker, folder = pytestconfig.stash[BROKER], tmp_path_factory.mktemp("worker")
    settings = json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text())
    settings["broker_transport_options"]["socket_timeout"] = 5
    (folder / "celery.json").write_text(json.dumps(settings))
    url = os.environ["DATABASE_URL"].rpartition("/")[0]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "--include", "sick_tasks",
         "--concurrency", "2", "--without-gossip", "--without-mingle"],
        cwd=TESTS.parent,
        env=os.environ
        | {
            "CELERY_SETTINGS_FILE": str(folder / "celery.json"),
            "DATABASE_URL": f"{url}/{connection.settings_dict['NAME']}",
            "PYTHONPATH": str(TESTS),
        },
    )  # fmt: skip
    clients = broker.redis.client_list
    eventually(lambda: any(c["cmd"] == "brpop" for c in clients()), seconds=90)
    yield
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(autouse=True)
def clean(broker):
    """Nothing is left in the queues by the test before."""


def letter(task: Task) -> DeadLetter:
    kept = DeadLetter.objects.filter(task=task.name)
    eventually(kept.exists, seconds=60)
    # The worker notes a failure, perhaps twice, in one turn of its loop. When it answers that is
    # over, and it writes nothing while the database is emptied after the test.
    assert current_app.control.ping(timeout=30, limit=1)
    return kept.get()


def test_a_failed_task_is_kept_and_sent_again(worker, client, tmp_path):
    """Also one that was never an intent; the admin's button sends it under its id."""
    file = tmp_path / "late.txt"
    sent = sick_tasks.fail.apply_async([str(file)], queue="bulk", ignore_result=False)
    kept = letter(sick_tasks.fail)
    assert (kept.task_id, kept.task, kept.queue) == (sent.id, "sick.fail", "bulk")
    assert (kept.args, kept.kwargs) == ([str(file)], {})
    assert kept.error.startswith("FileNotFoundError: ")
    assert kept.traceback.rstrip().endswith(kept.error.partition(": ")[2])

    file.write_text("here")
    client.force_login(User.objects.create_superuser("gardener"))
    page = reverse("admin:orders_deadletter_changelist")
    client.post(page, {"action": "send_again", "_selected_action": [kept.pk]})
    eventually(lambda: AsyncResult(sent.id).result == "here", seconds=60)
    assert DeadLetter.objects.get().requeued_at


def test_a_task_that_kills_its_process_is_tried_as_often_as_it_says(worker, tmp_path):
    trace = tmp_path / "trace"
    with transaction.atomic():
        intent = intend(sick_tasks.poison, str(trace))
    kept = letter(sick_tasks.poison)
    assert kept.task_id == str(intent.pk)
    assert kept.error.startswith("WorkerLostError")
    assert trace.read_text() == "run\n" * 3
    assert Intent.objects.get().due_at is None  # nobody sends it any more


def test_a_task_that_is_killed_at_its_limit_is_kept(worker):
    sick_tasks.endless.apply_async(soft_time_limit=1, time_limit=2)
    assert letter(sick_tasks.endless).error.startswith("TimeLimitExceeded")


@pytest.mark.parametrize(
    ("error", "sent", "kept"),
    [
        (OperationalError("the connection is closed"), 1, False),
        (Reject(OperationalError("Timeout connecting to server")), 1, False),
        (SoftTimeLimitExceeded(), 2, False),
        (SoftTimeLimitExceeded(), 3, True),
        (ValueError("no order is free"), 1, True),
    ],
)
def test_an_intent_whose_task_was_cut_off_is_left_to_the_sweep_for_a_while(error, sent, kept):
    intent = Intent.objects.create(task=sick_tasks.fail.name, due_at=timezone.now(), sent=sent)
    dead_letters.keep(sick_tasks.fail, str(intent.pk), error, [], {}, None)
    assert DeadLetter.objects.exists() is kept
    assert (Intent.objects.get().due_at is None) is kept


def test_a_failed_intent_waits_for_somebody_and_is_then_done(worker):
    """A payment for an order that is not there, until it is."""
    order = Order(idempotency_key="key-0001", sku="s", quantity=1, email="a@example.org")
    event = PaymentEvent.objects.create(id="e1", order_id=order.pk)
    with transaction.atomic():
        intend(webhooks.process_payment, event.pk)
    kept = letter(webhooks.process_payment)
    assert kept.error.startswith("DoesNotExist")
    order.save()
    dead_letters.send_again(kept)
    outbox.sweep()
    eventually(lambda: Intent.objects.get().done_at, seconds=60)
    order.refresh_from_db()
    assert order.paid_at == event.received_at


@pytest.fixture
def charges(db) -> dict[str, list[int]]:
    """Charges of some days ago, by day: how many, and the cents of all."""
    now = timezone.now()
    for days in (3, 3, 1):
        order = Order.objects.create(
            idempotency_key=f"key-{Order.objects.count()}", sku="s", quantity=1, email="a@b.cd"
        )
        Charge.objects.create(order=order, amount_cents=days)
    for number, charge in enumerate(Charge.objects.order_by("-amount_cents")):
        at = now - timedelta(days=charge.amount_cents, minutes=number)
        Charge.objects.filter(pk=charge.pk).update(created_at=at)
    found: dict[str, list[int]] = {}
    for charge in Charge.objects.all():
        sums = found.setdefault(str(charge.created_at.date()), [0, 0])
        sums[:] = [sums[0] + 1, sums[1] + charge.amount_cents]
    return found


def written() -> dict[str, list[int]]:
    reported = Report.objects.filter(charges__gt=0)
    return {str(each.day): [each.charges, each.amount_cents] for each in reported}


def test_the_hours_of_a_day_are_summed_up_and_written_once_all_are_done(worker, charges):
    day = min(charges)
    with transaction.atomic():
        intend(reports.report_day, day)
    eventually(lambda: Intent.objects.get().done_at, seconds=60)
    assert written() == {day: charges[day]}


def test_at_the_soft_time_limit_the_rest_is_left_to_a_retry(worker, charges):
    Report.objects.create(day=sick_tasks.SLOW, charges=0, amount_cents=0)
    done = reports.rebuild_reports.apply_async(soft_time_limit=1)
    assert done.get(timeout=60) == "written"
    assert not Report.objects.filter(day=sick_tasks.SLOW).exists()
    assert written() == charges


def test_who_finds_the_lock_taken_leaves_the_work_to_its_holder(charges, broker):
    with lock("reports") as mine:
        assert mine
        assert reports.rebuild_reports() == "skipped"
        broker.redis.select(1)
        assert 0 < broker.redis.ttl("lock:reports") <= 30  # the longest time limit
        broker.redis.select(0)
    assert not written()
    assert reports.rebuild_reports() == "written"
    assert written() == charges
