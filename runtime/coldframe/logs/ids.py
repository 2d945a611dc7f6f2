"""Knows which request and which task this code works for.

A request has an id from the edge, or a new one. A task takes over the id of the request or task that sends it, in the header
`request_id` of its message. What nothing leads to, such as a periodic task of Beat, gets a new id when it is sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

HEADER = "request_id"  # of a task's message
VALID = re.compile(r"[A-Za-z0-9._:=+/@-]{1,128}")  # nginx has the same (site.conf.j2)


class Work(NamedTuple):
    """What this code works for; each is empty where there is none."""

    request_id: str = ""
    task_id: str = ""
    task_name: str = ""


NOTHING = Work()
_work: ContextVar[Work] = ContextVar("coldframe_work", default=NOTHING)


def current() -> Work:
    """Return what this code works for: in this thread, coroutine or greenlet."""
    return _work.get()


def new() -> str:
    """Return a new id: 32 hexadecimal digits, as nginx makes them."""
    return os.urandom(16).hex()


def accepted(value: object) -> str:
    """Return an id that came from outside, or an empty text for what is none."""
    return value if isinstance(value, str) and VALID.fullmatch(value) else ""


def of_request(value: object = "") -> str:
    """Work for a request from now on; return its id.

    :param value: the id that came with it. What is no id is replaced by a new one.
    """
    known = accepted(value) or new()
    _work.set(Work(known))
    return known


def to_send() -> str:
    """Return the id for a task that is sent now."""
    return current().request_id or new()


@contextmanager
def of_message(headers: Any) -> Iterator[None]:
    """Work for a task in the block, in the worker's main process.

    :param headers: of its message. They get an id if they have none.
    """
    if isinstance(headers, dict):
        headers[HEADER] = known = accepted(headers.get(HEADER)) or new()
        work = Work(known, str(headers.get("id", "")), str(headers.get("task", "")))
    else:
        work = NOTHING
    before = _work.set(work)
    try:
        yield
    finally:
        _work.reset(before)


def on_task_prerun(task: Any, task_id: str, **_: Any) -> None:
    """Work for a task until it has ended, where it runs. A task that another one calls (`apply`) has that one's id."""
    before, request = current(), task.request
    _work.set(Work(accepted(request.get(HEADER)) or before.request_id or new(), task_id, task.name))
    request.coldframe_before = before


def on_task_postrun(task: Any, **_: Any) -> None:
    """Work for what this thread worked for before the task."""
    _work.set(task.request.get("coldframe_before") or NOTHING)


def install() -> None:
    """Follow the tasks that run in this process."""
    from celery.signals import task_postrun, task_prerun

    task_prerun.connect(on_task_prerun)
    task_postrun.connect(on_task_postrun)
