"""What must not be lost stands in the database, and is sent until it is done.

The broker alone can lose a task: one that is handed to a worker which dies that moment, or
one that could not be sent because the broker was away. So whoever wants a task done writes
an Intent in the transaction of the reason for it, the task marks it done in the transaction
of its effect, and the sweep sends again what is overdue. A task may come more than once for
it, and must count once.
"""

import logging
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from celery import Task, current_app, shared_task
from celery.exceptions import NotRegistered
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone
from kombu.exceptions import KombuError

from orders.models import DeadLetter, Intent

log = logging.getLogger(__name__)

MARGIN = 60  # seconds beyond those after which the broker itself delivers again
LATELY = 30  # seconds; a queue in which something was done since then is served
TIMES_SENT = 10  # and never done: somebody must look at it
BATCH = 500
BATCHES = 20  # of one sweep
DONE_KEPT = timedelta(days=1)
DEAD_KEPT = timedelta(days=30)
IMPATIENT = 1  # second
QUIET = 5  # seconds in which this process does not try again a broker that did not answer

_quiet_until = 0.0  # on the monotonic clock; 0 while the broker answers


def intend(task: Task, *args: Any, task_id: UUID | None = None) -> Intent:
    """Write down, in the open transaction, that the task is to be done; send it after the commit.

    It is written as if it were sent, so that the usual case costs no second write.
    """
    due_at = timezone.now() + patience(sent=1)
    intent = Intent.objects.create(
        id=task_id or uuid4(), task=task.name, args=list(args), due_at=due_at
    )
    transaction.on_commit(partial(send_or_leave, intent), robust=True)
    return intent


def done(task_id: str | None) -> None:
    """Mark the intent of a task's request, in the transaction of the task's effect."""
    find(task_id).update(done_at=timezone.now(), due_at=None)


def find(task_id: str | None) -> QuerySet[Intent]:
    """The undone intent under a task's id, or nothing: not every task is intended."""
    try:
        return Intent.objects.filter(pk=UUID(str(task_id)), done_at=None)
    except ValueError:  # called as a function, or sent under another kind of id
        return Intent.objects.none()


def stored() -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """List the tasks of undone intents: a deploy refuses a release that could not execute them."""
    undone = Intent.objects.filter(done_at=None, due_at__isnull=False).values_list("task", "args")
    for task, args in undone.iterator():
        yield task, args, {}


def patience(sent: int) -> timedelta:
    """How long to wait for a task that was sent so often before it is sent again.

    As long as the broker may still deliver it; then longer, for perhaps the queue is long.
    """
    seconds = current_app.conf.broker_transport_options["visibility_timeout"] + MARGIN
    return timedelta(seconds=seconds * 2 ** min(sent - 1, 3))


def send(intent: Intent) -> None:
    """Always under the same task id: a repeat is the same task.

    On a connection that has died the first try fails at once, and the second has a new one.
    After a try that had to wait there is none.
    """
    task, began = current_app.tasks[intent.task], time.monotonic()
    for tries_left in (1, 0):
        try:
            task.apply_async(intent.args, task_id=str(intent.pk), retry_policy={"max_retries": 0})
            return
        except KombuError:
            if not tries_left or time.monotonic() - began > IMPATIENT:
                raise


def send_or_leave(intent: Intent) -> None:
    """Send it, or leave it to the sweep: nobody waits long for a broker that is away.

    After a failure one caller tries again now and then; the others do not wait with it.
    """
    global _quiet_until
    if (now := time.monotonic()) >= _quiet_until:
        if _quiet_until:
            _quiet_until = now + QUIET
        try:
            send(intent)
        except KombuError as error:
            log.warning("the broker does not take %s, the sweep will send it: %s", intent, error)
            _quiet_until = time.monotonic() + QUIET
        else:
            _quiet_until = 0.0
            return
    Intent.objects.filter(pk=intent.pk, done_at=None).update(due_at=timezone.now(), sent=0)


@shared_task(name="orders.outbox.sweep", ignore_result=True)
def sweep() -> None:
    """Send what is overdue, and forget what is long over. In the schedule, every few seconds."""
    try:
        for _ in range(BATCHES):
            if send_overdue() < BATCH:
                break
    except KombuError as error:
        log.warning("the broker takes nothing, the next sweep tries again: %s", error)
    for over in (
        Intent.objects.filter(done_at__lt=timezone.now() - DONE_KEPT),
        DeadLetter.objects.filter(failed_at__lt=timezone.now() - DEAD_KEPT),
    ):
        over.model.objects.filter(pk__in=over.values("pk")[: BATCH * BATCHES]).delete()


def newest_done() -> dict[str, datetime]:
    """When the newest intent was written of those done lately, for each task.

    A queue is served in turn: what was written later waits still. Were it sent again, a queue that
    is long would grow by it, and never be short again.
    """
    since = timezone.now() - timedelta(seconds=LATELY)
    done = Intent.objects.filter(done_at__gt=since).values_list("task")
    return dict(done.annotate(Max("created_at")))


@transaction.atomic
def send_overdue() -> int:
    """Send a batch, but for what waits for its turn; rows that another sweep holds are left to it.

    If the broker fails halfway, the batch stays overdue, and some of it is sent twice.
    """
    overdue = Intent.objects.select_for_update(skip_locked=True).filter(due_at__lte=timezone.now())
    batch, newest = overdue.order_by("due_at")[:BATCH], newest_done()
    for intent in batch:
        if intent.sent and intent.created_at > newest.get(intent.task, intent.created_at):
            intent.due_at = timezone.now() + timedelta(seconds=MARGIN)
        elif intent.sent < TIMES_SENT:
            try:
                send(intent)
            except NotRegistered:
                log.error("no task is called %s: %s", intent.task, intent)
            intent.sent += 1
            intent.due_at = timezone.now() + patience(intent.sent)
        else:
            DeadLetter.note(intent.pk, intent.task, intent.args, error="sent, but never done")
            intent.due_at = None
        intent.save(update_fields=["sent", "due_at"])
    return len(batch)
