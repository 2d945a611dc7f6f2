"""A backend of Django's tasks on Celery's workers: `@task`, `.enqueue()`, `.get_result()`.

It serves django.tasks of Django 6.0, and with older versions of Django the package django-tasks.
Each task is one of Celery's too, with the path of its function as its name, such as
`orders.tasks.send_news`. So routes, time limits, logs and dead letters know it by that name.

TASKS = {
    "default": {
        "BACKEND": "celery_tasks.backend.CeleryBackend",
        "QUEUES": ["default", "bulk"],  # what queue_name may be; [] allows all
        "OPTIONS": {"HIGH_PRIORITY_QUEUE": "critical", "LOW_PRIORITY_QUEUE": "bulk"},
    }
}

- A task is sent when the transaction is committed in which it was enqueued, and not at all if that
  is rolled back. It is a row of EnqueuedTask, which the worker reads: the message has only its id.
- `queue_name` is the queue, which the deployment must have. The name "default" stands for the queue
  that Celery's routes choose.
- A priority is a queue: a positive one HIGH_PRIORITY_QUEUE, a negative one LOW_PRIORITY_QUEUE, but
  for tasks that name a queue. Without these options another priority than 0 is refused.
- A task that the broker has is delivered at least once. One that was successful is not executed
  again. A process that is killed between the commit and the broker sends none (orders/outbox.py).
- Rows of tasks that have ended are removed with Celery's results: after `result_expires`, by
  `celery.backend_cleanup`.
"""

import uuid
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from celery import Task as CeleryTask
from celery import current_app, shared_task
from celery.signals import task_failure, task_success
from django.core import checks
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, close_old_connections, transaction
from django.utils import timezone
from django.utils.module_loading import import_string
from kombu.exceptions import KombuError

from celery_tasks.models import EnqueuedTask

try:
    from django.tasks import DEFAULT_TASK_QUEUE_NAME, TaskContext, TaskResult, TaskResultStatus
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskError
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
except ImportError:  # before Django 6.0
    from django_tasks import DEFAULT_TASK_QUEUE_NAME, TaskContext, TaskResult, TaskResultStatus
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskError
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json

# A worker that cannot read the row, because the database restarts, tries again.
RETRY: dict[str, Any] = {"max_retries": 10, "default_retry_delay": 5}
_registered: set[str] = set()


class RegisteredTask(Task):
    """A task that Celery's workers know, from the moment in which its module is imported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.module_path not in _registered:
            _registered.add(self.module_path)
            shared_task(bind=True, name=self.module_path, ignore_result=True, **RETRY)(execute)


class CeleryBackend(BaseTaskBackend):
    """See above."""

    task_class = RegisteredTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.high = self.options.get("HIGH_PRIORITY_QUEUE")
        self.low = self.options.get("LOW_PRIORITY_QUEUE")
        self.supports_priority = bool(self.high and self.low)

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        self.validate_task(task)
        row = EnqueuedTask.objects.create(
            path=task.module_path,
            backend=self.alias,
            queue_name=task.queue_name,
            priority=task.priority,
            run_after=task.run_after,
            args=normalize_json(list(args)),
            kwargs=normalize_json(dict(kwargs)),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
        )
        result = result_of(row, task)
        transaction.on_commit(partial(send, row, self.queue_of(task)))
        task_enqueued.send(type(self), task_result=result)
        return result

    def queue_of(self, task: Task) -> str | None:
        """The queue, or None where Celery's routes decide."""
        if task.queue_name != DEFAULT_TASK_QUEUE_NAME:
            return task.queue_name
        return {1: self.high, 0: None, -1: self.low}[(task.priority > 0) - (task.priority < 0)]

    def get_result(self, result_id: str) -> TaskResult:
        try:
            row = EnqueuedTask.objects.get(pk=result_id, backend=self.alias)
        except (EnqueuedTask.DoesNotExist, ValidationError):
            raise TaskResultDoesNotExist(result_id) from None
        return result_of(row)

    def check(self, **_: Any) -> Iterable[checks.CheckMessage]:
        """Each queue that is named must be one of Celery's."""
        known = set(current_app.amqp.queues)
        named = {*self.queues, self.high, self.low} - {DEFAULT_TASK_QUEUE_NAME, None}
        for name in sorted(named - known):
            yield checks.Error(
                f"TASKS[{self.alias!r}] names the queue {name!r}, which Celery has not.",
                hint=f"Its queues are {', '.join(sorted(known))}.",
                id="celery_tasks.E001",
            )


def result_of(row: EnqueuedTask, task: Task | None = None) -> TaskResult:
    """What Django shows of a row."""
    task = task or import_string(row.path).using(
        queue_name=row.queue_name,
        priority=row.priority,
        run_after=row.run_after,
        backend=row.backend,
    )
    result = TaskResult(
        task=task,
        id=str(row.pk),
        status=TaskResultStatus(row.status),
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        last_attempted_at=row.last_attempted_at,
        finished_at=row.finished_at,
        args=row.args,
        kwargs=row.kwargs,
        backend=row.backend,
        errors=[TaskError(exception_class_path=path, traceback=text) for path, text in row.errors],
        worker_ids=list(row.worker_ids),
    )
    object.__setattr__(result, "_return_value", row.return_value)  # as Django's own backends do
    return result


def send(row: EnqueuedTask, queue: str | None) -> None:
    """Send the message, after the commit. If the broker does not take it, the task has failed."""
    task = current_app.tasks[row.path]
    try:
        task.apply_async(task_id=str(row.pk), queue=queue, eta=row.run_after)
    except KombuError as error:
        fail(row, error, "the broker did not take it")
        raise


def execute(celery_task: CeleryTask) -> None:
    """Execute a task, in a worker: the row with the id of the request."""
    try:
        row = begin(celery_task.request)
    except (InterfaceError, OperationalError) as error:
        raise celery_task.retry(exc=error) from None
    if row is None:
        return
    result = result_of(row)
    sender = type(result.task.get_backend())
    task_started.send(sender, task_result=result)
    context = [TaskContext(task_result=result)] if result.task.takes_context else []
    # What this raises is noted by `failed`, as is what ended the process.
    row.return_value = normalize_json(result.task.call(*context, *row.args, **row.kwargs))
    row.status, row.finished_at = TaskResultStatus.SUCCESSFUL, timezone.now()
    row.save(update_fields=["return_value", "status", "finished_at"])
    task_finished.send_robust(sender, task_result=result_of(row))


@transaction.atomic
def begin(request: Any) -> EnqueuedTask | None:
    """Note an attempt, unless the task has been successful."""
    row = EnqueuedTask.objects.select_for_update().get(pk=request.id)
    if row.status == TaskResultStatus.SUCCESSFUL:
        return None
    row.last_attempted_at = timezone.now()
    row.started_at = row.started_at or row.last_attempted_at
    row.status, row.finished_at = TaskResultStatus.RUNNING, None
    row.worker_ids.append(request.hostname or "")
    row.save()
    return row


@task_failure.connect
def failed(sender: CeleryTask, task_id: str, exception: Exception, einfo: Any, **_: Any) -> None:
    """Note a failure: of the function, at a time limit, or of the process."""
    if sender.name in _registered:
        close_old_connections()
        with transaction.atomic():  # one that was successful stays so, whatever came after it
            rows = EnqueuedTask.objects.select_for_update().exclude(
                status=TaskResultStatus.SUCCESSFUL
            )
            if row := rows.filter(pk=uuid.UUID(task_id)).first():
                fail(row, exception, str(einfo.traceback) if einfo else "")


def fail(row: EnqueuedTask, exception: Exception, traceback: str) -> None:
    kind = type(exception)
    row.errors.append([f"{kind.__module__}.{kind.__qualname__}", traceback.replace("\0", "")])
    row.status, row.finished_at = TaskResultStatus.FAILED, timezone.now()
    row.save(update_fields=["errors", "status", "finished_at"])
    result = result_of(row)
    task_finished.send(type(result.task.get_backend()), task_result=result)


@task_success.connect
def forget(sender: CeleryTask, **_: Any) -> None:
    """Remove old rows whenever Celery has removed its old results."""
    expires = current_app.conf.result_expires
    if sender.name == "celery.backend_cleanup" and expires:
        age = expires if isinstance(expires, timedelta) else timedelta(seconds=expires)
        EnqueuedTask.objects.filter(finished_at__lt=timezone.now() - age).delete()
