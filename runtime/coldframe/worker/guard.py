"""Keeps messages that are no tasks from stopping a worker.

Who may put messages into a queue may put anything there, by mistake too. Celery 5.7 refuses an unknown
task and a serializer that is not accepted; by most other faults its main process ends, and it ends
again whenever the message, which nobody acknowledges, is delivered again.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from types import NoneType
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport.redis import Channel
from kombu.transport.virtual.base import Transport

SHOWN = 500  # characters of a refused message in the log
# What the headers of a task may leave out, and of which types it is.
HEADERS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("root_id", "parent_id", "group", "shadow", "argsrepr", "kwargsrepr", "origin"), (str, NoneType)),
    **dict.fromkeys(("eta", "expires"), (str, NoneType)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), (int, NoneType)),
    "timelimit": (list, NoneType),
    "stamped_headers": (list, NoneType),
    "stamps": (dict, NoneType),
}
logger = logging.getLogger(__name__)


def is_message(raw: Any) -> bool:
    """Whether that is a message as kombu puts it into Redis."""
    match raw:
        case {
            "properties": {"delivery_tag": str(), "delivery_info": dict(), **properties},
            "headers": dict() | None,
            "body": str() | None as body,
            "content-type": str() | None,
            "content-encoding": str() | None,
        }:
            try:
                b64decode(body if body and properties.get("body_encoding") else "")
            except ValueError:
                return False
            texts = (properties.get(name) for name in ("reply_to", "correlation_id"))
            known = properties.get("body_encoding") in (None, "base64")
            return known and all(isinstance(text, (str, NoneType)) for text in texts)
    return False


def flaw(message: Any) -> str:
    """Say why a message is no task; empty when it is one.

    Raises what kombu raises when the body cannot be decoded, which Celery knows how to refuse.
    """
    if not (isinstance(message.headers.get("task"), str) and isinstance(message.headers.get("id"), str)):
        return "the headers have no task and id"
    for name, types in HEADERS.items():
        if not isinstance(message.headers.get(name), types):
            return f"the header {name} is {message.headers[name]!r}"
    limits = message.headers.get("timelimit") or [None, None]
    if len(limits) != 2 or not all(isinstance(limit, (int, float, NoneType)) for limit in limits):
        return f"the header timelimit is {limits!r}"
    match message.payload:
        case [list(), dict(), dict() | None as options]:
            lists = [(options or {}).get(name) or [] for name in ("callbacks", "errbacks", "chain")]
            follow = [*lists, [(options or {}).get("chord") or {}]]
            if all(isinstance(tasks, list) and all(isinstance(task, dict) for task in tasks) for tasks in follow):
                return ""
            return "what is to follow the task is no list of tasks"
    return "the body is not a list of arguments, keywords and options"


def install() -> None:
    """Put the guard before the functions of kombu and Celery that take messages in."""
    brpop_read, deliver, create_task_handler = Channel._brpop_read, Transport._deliver, Consumer.create_task_handler

    def guarded_brpop_read(channel: Any, **options: Any) -> Any:
        try:
            return brpop_read(channel, **options)
        except (json.JSONDecodeError, RecursionError) as error:
            logger.error("A message that is no JSON was thrown away: %s", error)

    def guarded_deliver(transport: Any, raw: Any, queue: str) -> None:
        if is_message(raw):
            deliver(transport, raw, queue)
        else:
            logger.error("What is no message was thrown away from %s: %.*r", queue, SHOWN, raw)

    def guarded_create_task_handler(consumer: Any, *arguments: Any, **options: Any) -> Any:
        handle = create_task_handler(consumer, *arguments, **options)

        def on_task_received(message: Any) -> None:
            try:
                wrong = flaw(message)
            except (ContentDisallowed, DecodeError):
                wrong = ""
            if wrong:
                consumer.on_invalid_task(None, message, InvalidTaskError(wrong))
            else:
                handle(message)

        return on_task_received

    Channel._brpop_read = guarded_brpop_read
    Transport._deliver = guarded_deliver
    Consumer.create_task_handler = guarded_create_task_handler
