"""Tasks that failed for good: kept with the reason, and sent again by who has read it."""

from typing import Any

from celery import Task, current_app
from celery.exceptions import Reject, SoftTimeLimitExceeded, TimeLimitExceeded
from celery.signals import task_failure, task_unknown
from django.db import (
    InterfaceError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    transaction,
)
from django.utils import timezone

from orders import outbox
from orders.models import DeadLetter

# Perhaps no fault of the task's: the database was away for too long, or cut off in the midst of a
# query; a limit was reached while waiting for it; the retry could not be sent (Celery's Reject).
TIMES_CUT_OFF = 3  # sent so often, it is the task's
CUT_OFF = (
    InterfaceError,
    OperationalError,
    ProgrammingError,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
)


@task_failure.connect
def keep(
    sender: Task, task_id: str, exception: Exception, args: Any, kwargs: Any, einfo: Any, **_: Any
) -> None:
    """Keep a task whose last try has failed; a retry is none.

    A task that killed its process, or was killed at its time limit, is told of in the
    worker's main process, whose connection may be long dead. While the database is down
    nothing can be kept: an intent then stays undone, and comes back with the sweep. So does
    one whose task was cut off, until it was sent three times.
    """
    close_old_connections()
    again = outbox.find(task_id).filter(sent__lt=TIMES_CUT_OFF)
    if isinstance(exception, CUT_OFF) and again.exists():
        return
    queue = (sender.request.delivery_info or {}).get("routing_key") or ""  # None: run eagerly
    with transaction.atomic():
        DeadLetter.note(
            task_id,
            sender.name,
            args,
            kwargs,
            queue=queue,
            error=f"{type(exception).__name__}: {exception}",
            traceback=str(einfo.traceback) if einfo else "",
        )
        outbox.find(task_id).update(due_at=None)


@task_unknown.connect
def keep_unknown(message: Any, name: str, id: str, **_: Any) -> None:
    """Keep a task that no release has known for as long as the deployment allows."""
    close_old_connections()
    args, kwargs, _ = message.payload
    queue = (message.delivery_info or {}).get("routing_key", "")
    with transaction.atomic():
        DeadLetter.note(id, name, args, kwargs, queue=queue, error="NotRegistered", traceback="")
        outbox.find(id).update(due_at=None)


@transaction.atomic
def send_again(letter: DeadLetter) -> None:
    """Under its id: its state stays where the client asks for it, its intent is still the same.

    An intent is sent by the sweep. Any other task is sent here, by its route of today; one that
    this release does not know waits for one that does.
    """
    letter.requeued_at = timezone.now()
    letter.save(update_fields=["requeued_at"])
    if not outbox.find(letter.task_id).update(due_at=timezone.now(), sent=0):
        task = current_app.tasks.get(letter.task) or current_app.signature(letter.task)
        task.apply_async(letter.args, letter.kwargs, task_id=letter.task_id)
