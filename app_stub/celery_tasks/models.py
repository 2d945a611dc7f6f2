"""What was enqueued, and what became of it."""

import uuid

from django.db import models


class EnqueuedTask(models.Model):
    """A task that was enqueued. Its id is the task's in Celery too."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    path = models.CharField(max_length=255)  # of the function: the task's name in Celery
    backend = models.CharField(max_length=64)  # its name in TASKS
    queue_name = models.CharField(max_length=64)
    priority = models.SmallIntegerField()
    run_after = models.DateTimeField(null=True)
    args = models.JSONField(default=list)
    kwargs = models.JSONField(default=dict)
    status = models.CharField(max_length=16)  # of TaskResultStatus
    enqueued_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    last_attempted_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True, db_index=True)
    worker_ids = models.JSONField(default=list)  # one for each attempt
    errors = models.JSONField(default=list)  # pairs: the path of the exception's class, traceback
    return_value = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.path}[{self.pk}]"
