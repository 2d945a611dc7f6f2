"""Sends stored tasks that are due. The Beat that ticks does so at each turn."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from coldframe import delayed
from coldframe.delayed import store

PATIENCE = 5.0  # seconds for which one turn sends
AGAIN = 10.0  # seconds until a message that could not be sent is tried again
FAILURES = 10  # of one turn, at most
LOOK = 10.0  # seconds between two counts
EXPIRED = "1970-01-01T00:00:00+00:00"
logger = logging.getLogger(__name__)


class Sender:
    """Sends stored tasks, and says how many are left."""

    def __init__(self, app: Any) -> None:
        """Begin with nothing known.

        :param app: the Celery application, whose broker it is.
        """
        self.app, self.status, self.counted = app, "", 0.0

    def send_due(self) -> bool:
        """Send what is due, for some seconds at most; return whether more may be. Raises nothing."""
        if not delayed.installed():
            return False
        from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections

        until, failures = time.monotonic() + PATIENCE, 0
        try:
            close_old_connections()
            while failures < FAILURES and time.monotonic() < until:
                sent = self.send_next()
                if sent is None:
                    break
                failures += not sent
            self.count()
            return failures < FAILURES and time.monotonic() >= until
        except Exception as error:
            logger.warning("Tasks that are stored until they are due cannot be sent: %s", error)
            connections[DEFAULT_DB_ALIAS].close()
        return False

    def send_next(self) -> bool | None:
        """Send the one that has been due for longest; return whether that succeeded, or None if none is due.

        Raises the errors of the database.
        """
        from django.db import DEFAULT_DB_ALIAS, transaction

        rows, row = store.rows(), None
        try:
            with transaction.atomic(using=DEFAULT_DB_ALIAS):
                row = locked(rows.filter(due__lte=time.time()).order_by("due", "id")).first()
                if row is None:
                    return None
                # Where a database cannot skip what is locked, another sender may have been first.
                if rows.filter(pk=row.pk).delete()[0]:
                    self.publish(row)
                    logger.info("Sent %s to %s, which was stored until now.", row, row.queue)
                return True
        except Exception as error:
            if row is None or isinstance(error, database_errors()):
                raise
            logger.exception("%s was not sent. It is tried again in %.0f s.", row, AGAIN)
            rows.filter(pk=row.pk).update(due=time.time() + AGAIN)
            return False

    def publish(self, row: Any) -> None:
        """Publish a stored message. Raises what the broker raises, and ValueError for a message that cannot be read."""
        body, options = store.unpacked(row.message)
        if row.revoked:
            options["headers"]["expires"] = EXPIRED
        queue = self.queue(row)
        if queue != row.queue and options.get("routing_key") == row.queue:
            options["routing_key"] = queue
        options |= {"retry": True, "retry_policy": dict(self.app.conf.task_publish_retry_policy)}
        with self.app.producer_or_acquire() as producer:
            producer.publish(body, declare=[self.app.amqp.queues[queue]], **options)

    def queue(self, row: Any) -> str:
        """Return its queue; if that was removed meanwhile, the one to which the routes lead now."""
        queues = self.app.amqp.queues
        if row.queue in queues:
            return str(row.queue)
        try:
            queue = self.app.amqp.router.route({}, row.name, (), {})["queue"]
        except Exception:  # the application's router needs arguments
            queue = self.app.conf.task_default_queue
        logger.warning("The queue %s no longer exists: %s goes to %s.", row.queue, row, getattr(queue, "name", queue))
        return str(getattr(queue, "name", queue))

    def count(self) -> None:
        """Count what is stored, now and then. Raises the errors of the database."""
        from django.db.models import Count, Min

        now = time.monotonic()
        if self.counted and now < self.counted + LOOK:
            return
        self.counted = now
        found = store.rows().aggregate(number=Count("pk"), next=Min("due"))
        self.status = ""
        if found["number"]:
            due = datetime.fromtimestamp(found["next"], UTC)
            self.status = f"stored tasks: {found['number']}, the next is due at {due:%Y-%m-%d %H:%M:%S} UTC"


def locked(rows: Any) -> Any:
    """Lock rows until the end of the transaction, and leave out those that another one has locked."""
    from django.db import connections

    return rows.select_for_update(skip_locked=connections[rows.db].features.has_select_for_update_skip_locked)


def database_errors() -> type[Exception]:
    """Return the class of the errors of the database."""
    from django.db import Error

    return Error  # type: ignore[no-any-return]
