"""The table of stored tasks."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class DelayedTask(models.Model):
    """A message that is not in the broker yet. One task id may have several, as in a queue."""

    id = models.BigAutoField(primary_key=True)
    task_id = models.CharField(max_length=255, db_index=True)
    name = models.TextField()
    queue = models.TextField()
    due = models.FloatField(db_index=True)  # when it is sent, in seconds since 1970: the same whatever USE_TZ is
    revoked = models.BooleanField(default=False)
    message = models.TextField()  # JSON: the arguments of the publish

    class Meta:
        """No permissions: an application lists all permissions in its admin."""

        default_permissions: ClassVar[tuple[str, ...]] = ()

    def __str__(self) -> str:
        """Return name and id as Celery logs them."""
        return f"{self.name}[{self.task_id}]"
