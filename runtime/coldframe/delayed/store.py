"""Stores messages instead of publishing them, and revokes what is stored."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from kombu.serialization import dumps
from kombu.utils import json

from coldframe import delayed

AHEAD = (
    10.0  # seconds before its ETA at which a message is sent, if its queue allows that: a worker then begins it in time
)
# Arguments of the publish that are not kept: decided when the message is sent, or, as the last one, relative to the time of
# the call. Redis ignores that; a worker reads the header `expires`.
LATER = {"retry", "retry_policy", "declare", "expiration"}
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def rows() -> Any:
    """Return the stored messages, a QuerySet. They are in the default database, whatever routers say."""
    from django.db import DEFAULT_DB_ALIAS

    from coldframe.delayed.models import DelayedTask

    return DelayedTask.objects.using(DEFAULT_DB_ALIAS)


class Producer:
    """Stands for a kombu.Producer in the function that sends a task: its message is stored, and its events are published.

    So the message is complete: that function has called the signal `before_task_publish`, whose receivers add headers.
    """

    def __init__(self, producer: Any, queue: str, due: float) -> None:
        """Remember how to store the message.

        :param producer: the real one.
        :param queue: the name of the queue.
        :param due: when the message is to be sent, in seconds since 1970.
        """
        self.producer, self.queue, self.due, self.stored = producer, queue, due, False

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the real one."""
        return getattr(self.producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        """Store the first message, which is the task's. Raises what the serializer and the database raise.

        A task that sends itself again, as a retry or a replacement, ends with an exception. That exception would undo
        what was stored in the task's transaction, so such a message is stored in a transaction of its own. Where that
        fails it is published, because it would be lost.
        """
        if self.stored:
            return self.producer.publish(body, **options)
        headers = options["headers"]
        again = bool(headers.get("retries") or headers.get("replaced_task_nesting"))
        values = {"task_id": headers["id"], "name": headers["task"], "queue": self.queue, "due": self.due}
        message = packed(body, **options)
        try:
            in_thread(lambda: rows().create(**values, message=message), again)
        except Exception:
            if not again:
                raise
            logger.exception(
                "%s[%s] cannot be stored until it is due. It is sent now and may run twice.",
                headers["task"],
                headers["id"],
            )
            return self.producer.publish(body, **options)
        self.stored = True
        return None


def packed(body: Any, *, serializer: str | None = None, **options: Any) -> str:
    """Return a message and the arguments of its publish as JSON. Raises EncodeError for a body that has no such form.

    :param serializer: of the body, which is serialized now.
    """
    content_type, encoding, data = dumps(body, serializer=serializer)
    kept = {name: value for name, value in options.items() if name not in LATER and value is not None}
    kept["exchange"] = getattr(kept.get("exchange"), "name", kept.get("exchange"))
    binary = isinstance(data, bytes)
    text = base64.b64encode(data).decode() if binary else data
    message = {"body": text, "binary": binary, "content_type": content_type, "content_encoding": encoding}
    return str(json.dumps({**message, "options": kept}))


def unpacked(message: str) -> tuple[Any, dict[str, Any]]:
    """Return the serialized body of a message, and the arguments of its publish."""
    values = json.loads(message)
    body = base64.b64decode(values["body"]) if values["binary"] else values["body"]
    forms = {name: values[name] for name in ("content_type", "content_encoding")}
    return body, values["options"] | forms


def revoke(ids: Iterable[str]) -> set[str]:
    """Revoke tasks that are stored, in the caller's transaction; return the ids of these.

    They are sent at once, as tasks that have expired: a worker then discards them, and records that in the result, in
    events and in a chord, as it does with any revoked task.
    """
    wanted = set(ids)
    if not wanted or not delayed.installed():
        return set()

    from django.db import DEFAULT_DB_ALIAS, transaction

    def mark() -> set[str]:
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            # This waits for one that is being sent, which is gone then. The command to the workers reaches it.
            found = dict(rows().select_for_update().filter(task_id__in=wanted).values_list("pk", "task_id"))
            if found:
                rows().filter(pk__in=found).update(revoked=True, due=0)
        return set(found.values())

    return in_thread(mark)


def in_thread(function: Callable[[], Result], always: bool = False) -> Result:
    """Call a function that uses the database: in a thread of its own where an event loop runs, which Django demands.

    :param always: in a thread, and so outside of the caller's transaction.
    """
    if not always:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function()
    from django.db import connections

    def call() -> Result:
        try:
            return function()
        finally:
            connections.close_all()  # of this thread

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()
