"""Tells a message that is a task from one that is not, before Celery reads it.

Whoever may write to a queue may put anything there, also by mistake. Celery 5.7 rejects an unknown task and a
serializer that it does not accept. Most other faults end its main process, and end it again each time the
message is delivered again, because nobody acknowledges it.
"""

from __future__ import annotations

from base64 import b64decode
from types import NoneType
from typing import Any

# The optional headers of a task, and their types.
HEADERS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("root_id", "parent_id", "group", "shadow", "argsrepr", "kwargsrepr", "origin"), (str, NoneType)),
    **dict.fromkeys(("eta", "expires"), (str, NoneType)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), (int, NoneType)),
    "timelimit": (list, NoneType),
    "stamped_headers": (list, NoneType),
    "stamps": (dict, NoneType),
}


def is_message(raw: Any) -> bool:
    """Whether an item of a queue has the form in which kombu writes messages to Redis."""
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
    """Return why a message is no task; an empty text when it is one.

    Raises what kombu raises when the body cannot be decoded. Celery rejects such a message itself.
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
