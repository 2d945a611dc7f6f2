"""What is intended is done: whatever the broker loses, refuses, or does not answer."""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from signal import SIGSTOP

import pytest
from django.db import connection, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from orders import outbox, tasks
from orders.models import DeadLetter, Intent, Order
from shop.celery import app

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def order(db) -> Order:
    return Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )


def intent(order: Order, **changes) -> Intent:
    """An intent to charge for the order, overdue unless it is said to be otherwise."""
    values = {"id": order.task_id, "task": tasks.charge_order.name, "args": [str(order.pk)],
              "due_at": timezone.now()}  # fmt: skip
    return Intent.objects.create(**values | changes)


def deliver(broker, queue: str) -> list[str]:
    """Run what waits in a queue, as a worker would; return the ids."""
    ids = []
    while raw := broker.redis.rpop(queue):
        headers = json.loads(raw)["headers"]
        task, args = app.tasks[headers["task"]], json.loads(headers["argsrepr"].replace("'", '"'))
        task.apply(args, task_id=headers["id"], throw=True)
        ids.append(headers["id"])
    return ids


def test_an_overdue_intent_is_sent_again_under_its_id_until_it_is_done(order, broker):
    intent(order)
    outbox.sweep()
    outbox.sweep()  # not overdue any more
    assert deliver(broker, "critical") == [str(order.task_id)]
    done = Intent.objects.get(pk=order.task_id)
    assert (done.sent, done.due_at) == (2, None)
    assert done.done_at
    Intent.objects.filter(pk=order.task_id).update(due_at=timezone.now(), done_at=None)
    outbox.sweep()
    assert deliver(broker, "critical") == [str(order.task_id)]
    assert deliver(broker, "default") == [str(Intent.objects.latest("created_at").pk)]
    order.refresh_from_db()
    assert order.state == "confirmed"
    assert set(Intent.objects.values_list("due_at", flat=True)) == {None}


def test_an_intent_is_not_sent_before_the_broker_would_deliver_again(order, broker):
    visibility = app.conf.broker_transport_options["visibility_timeout"]
    with transaction.atomic():
        fresh = outbox.intend(tasks.send_confirmation, str(order.pk))
    outbox.sweep()
    assert broker.waiting("default") == 1
    assert fresh.due_at > timezone.now() + timedelta(seconds=visibility)
    waits = [outbox.patience(sent).total_seconds() for sent in range(1, 8)]
    assert waits == [(visibility + outbox.MARGIN) * factor for factor in (1, 2, 4, 8, 8, 8, 8)]


def test_what_waits_for_its_turn_is_not_sent_again_what_was_overtaken_is(order, broker):
    now = timezone.now()
    intent(order, id=uuid.uuid4(), due_at=None, done_at=now)
    waits = intent(order)
    outbox.sweep()
    waits.refresh_from_db()
    assert broker.waiting("critical") == 0
    assert (waits.sent, waits.due_at > now) == (1, True)
    never_sent = intent(order, id=uuid.uuid4(), sent=0)
    outbox.sweep()
    never_sent.refresh_from_db()
    assert (broker.waiting("critical"), never_sent.sent) == (1, 1)
    intent(order, id=uuid.uuid4(), due_at=None, done_at=now)
    Intent.objects.filter(pk=waits.pk).update(due_at=now)
    outbox.sweep()
    assert broker.waiting("critical") == 2


def test_a_queue_in_which_nothing_is_done_any_more_holds_nothing_up(order, broker):
    long_ago = timezone.now() - timedelta(seconds=outbox.LATELY)
    intent(order, id=uuid.uuid4(), due_at=None, done_at=long_ago)
    intent(order)
    outbox.sweep()
    assert broker.waiting("critical") == 1


def test_an_effect_and_its_mark_are_stored_together_or_not_at_all(order, broker, monkeypatch):
    intent(order)
    monkeypatch.setattr(tasks, "done", lambda task_id: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    assert Order.objects.get().state == "accepted"
    assert [each.pk for each in Intent.objects.all()] == [order.task_id]  # none for the next task
    assert broker.waiting("default") == 0


def test_two_sweeps_at_once_send_each_intent_once(order, broker):
    for _ in range(200):
        intent(order, id=uuid.uuid4())

    def sweep(_: int):
        try:
            outbox.sweep()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(sweep, range(4)))
    assert broker.waiting("critical") == 200


def test_while_the_broker_is_away_everything_stays_overdue(order, broker):
    intent(order)
    broker.stop()
    outbox.sweep()
    assert Intent.objects.get().due_at < timezone.now()
    broker.start()
    outbox.sweep()
    assert broker.waiting("critical") == 1


def test_what_no_task_is_called_does_not_hold_up_the_others(order, broker):
    intent(order, id=uuid.uuid4(), task="orders.tasks.gone")
    intent(order)
    outbox.sweep()
    assert broker.waiting("critical") == 1


def test_what_is_sent_and_sent_and_never_done_is_a_dead_letter(order, broker):
    intent(order, sent=outbox.TIMES_SENT)
    outbox.sweep()
    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.args) == (str(order.task_id), [str(order.pk)])
    assert broker.waiting("critical") == 0
    assert Intent.objects.get().due_at is None


def test_what_will_be_sent_is_told_to_a_deploy_and_what_is_over_is_not(order, broker):
    intent(order, id=uuid.uuid4(), done_at=timezone.now(), due_at=None)
    intent(order, id=uuid.uuid4(), due_at=None)  # a dead letter
    assert list(outbox.stored()) == []
    intent(order)
    assert list(outbox.stored()) == [(tasks.charge_order.name, [str(order.pk)], {})]


def test_what_is_long_over_is_forgotten(order, broker):
    now = timezone.now()
    intent(order, id=uuid.uuid4(), due_at=None, done_at=now - timedelta(days=2))
    kept = intent(order, due_at=None, done_at=now)
    DeadLetter.note("old", "task", [], error="")
    DeadLetter.objects.update(failed_at=now - timedelta(days=31))
    DeadLetter.note("new", "task", [], error="")
    outbox.sweep()
    assert Intent.objects.get() == kept
    assert DeadLetter.objects.get().task_id == "new"


def test_a_broker_that_hangs_is_waited_for_by_few(order, broker, monkeypatch):
    """By one caller in QUIET seconds; what the others intend is overdue at once."""
    monkeypatch.setattr(outbox, "QUIET", 0.5)
    broker.process.send_signal(SIGSTOP)
    waits = []
    for _ in range(20):
        began = time.monotonic()
        with transaction.atomic():
            outbox.intend(tasks.send_confirmation, str(order.pk))
        waits.append(time.monotonic() - began)
    assert Intent.objects.filter(due_at__lte=timezone.now(), sent=0).count() == 20
    assert waits[0] > 0.5  # the socket's time-out in these tests
    assert sorted(waits)[-3] < 0.5, waits
    broker.stop()
    broker.start()
    time.sleep(0.5)
    with transaction.atomic():
        outbox.intend(tasks.send_confirmation, str(order.pk))
    assert broker.waiting("default") == 1
    assert outbox._quiet_until == 0


def test_no_retry_waits_as_long_as_the_broker_does():
    visibility = app.conf.broker_transport_options["visibility_timeout"]
    assert tasks.RETRY["retry_backoff_max"] < visibility
    assert tasks.RETRY["default_retry_delay"] < visibility


def test_a_full_broker_says_so_as_one_that_is_away(broker):
    """Nobody who sends a task needs to know Redis' own errors."""
    broker.redis.config_set("maxmemory", 1)
    with pytest.raises(OperationalError, match=r"(?i)maxmemory"):
        tasks.echo.delay(1)
    broker.stop()
