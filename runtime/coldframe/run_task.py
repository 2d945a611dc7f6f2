"""Sends one task of the application, as its own code sends it: with the queue, the expiry and the retries that the task has.

    python -m coldframe.run_task [TASK] [--args JSON] [--kwargs JSON] [--queue QUEUE] [--wait SECONDS]

Without TASK it prints the application's tasks and their queues. The exit status is 0 when the task was sent (with --wait: and
has succeeded), 1 when it failed or has not ended in time, and 2 when nothing was sent.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from typing import Any, NoReturn

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.exceptions import CeleryError
from celery.result import AsyncResult

from coldframe import versions
from coldframe.release.shapes import INTERNAL

PAUSE = 0.3  # seconds between two looks at a result


class Refused(Exception):
    """Nothing was sent, and why."""


def own(app: Celery) -> list[str]:
    """Return the names of the application's tasks, in order."""
    return sorted(name for name in app.tasks if not name.startswith(INTERNAL))


def queue_of(app: Celery, name: str) -> str:
    """Return the queue to which a task is sent, as long as its arguments do not decide; "?" if that is not to be told."""
    task = app.tasks[name]
    options = {
        key: value for key, value in task._get_exec_options().items() if key in ("queue", "routing_key", "exchange")
    }
    try:
        queue = app.amqp.router.route(options, name, task_type=task).get("queue") or app.amqp.default_queue
    except Exception:  # a router of the application's
        return "?"
    return str(getattr(queue, "name", queue))


def task_of(app: Celery, name: str) -> Any:
    """Return a task by its name. Raises Refused, with names that are like it."""
    if name in app.tasks:
        return app.tasks[name]
    known = own(app)
    like = difflib.get_close_matches(name, known, 3, 0.5)
    like += [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2] and each not in like]
    shown = f"Did you mean {' or '.join(like)}?" if like else f"It has: {', '.join(known) or 'none'}."
    raise Refused(f"the application has no task {name}. {shown}")


def send(app: Celery, name: str, args: list[Any], kwargs: dict[str, Any], queue: str, keeps: bool) -> AsyncResult[Any]:
    """Send a task.

    :param queue: in place of the task's own; may be empty.
    :param keeps: whether the result must be kept.

    Raises Refused when it cannot be sent so.
    """
    task = task_of(app, name)
    if queue and queue not in app.amqp.queues:
        raise Refused(f"celery_queues has no queue {queue}. It has: {', '.join(sorted(app.amqp.queues))}.")
    if keeps and (task.ignore_result or isinstance(app.backend, DisabledBackend)):
        raise Refused(
            f"the result of {name} is not kept (ignore_result), so that its end cannot be awaited. Leave WAIT out."
        )
    try:
        return task.apply_async(args, kwargs, **({"queue": queue} if queue else {}))
    except (TypeError, ValueError, CeleryError) as error:  # its signature is another one, its queue closed, and so on
        raise Refused(f"{name} cannot be sent: {error}") from error


def ended(result: AsyncResult[Any], seconds: float) -> bool:
    """Wait until a task has ended, for at most so many seconds; return whether it has."""
    until = time.monotonic() + seconds
    while not result.ready():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE)
    return True


def run(app: Celery, asked: argparse.Namespace) -> int:
    """Do what is asked, print what became of it, and return the exit status. Raises Refused."""
    if not asked.task:
        for name in own(app):
            print(f"{name}  ({queue_of(app, name)})")
        return 0
    result = send(app, asked.task, asked.args, asked.kwargs, asked.queue, asked.wait is not None)
    print(f"{asked.task} was sent to the queue {asked.queue or queue_of(app, asked.task)}: {result.id}", flush=True)
    if asked.wait is None:
        return 0
    if not ended(result, asked.wait):
        print(f"It has not ended within {asked.wait:g} s, and goes on; its state is {result.state}.", file=sys.stderr)
        return 1
    if result.successful():
        print(json.dumps(result.result, default=str, ensure_ascii=False))
        return 0
    print(result.traceback or f"{type(result.result).__name__}: {result.result}", file=sys.stderr)
    return 1


def typed(kind: type) -> Any:
    """Return a reader of JSON of a type, for argparse."""

    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError
        return value

    read.__name__ = f"JSON ({kind.__name__})"
    return read


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line. Exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser("python -m coldframe.run_task", description="Sends one task of the application.")
    parser.add_argument("task", nargs="?", default="", help="its name; without it the tasks are listed")
    parser.add_argument("--args", type=typed(list), default=[], help="positional arguments: a list of JSON")
    parser.add_argument("--kwargs", type=typed(dict), default={}, help="arguments by name: an object of JSON")
    parser.add_argument("--queue", default="", help="in place of the task's own")
    parser.add_argument("--wait", type=float, help="wait for its end, for at most so many seconds")
    return parser.parse_args(words)


def main(words: list[str]) -> NoReturn:
    """Load the application as a release's processes do, and do what is asked."""
    asked = arguments(words)
    versions.require()
    from coldframe import overlay
    from coldframe.sending import amqp, control

    amqp.install()
    control.install()
    overlay.load()
    import django
    from celery.app.utils import find_app

    from coldframe.overlay.deployment import Deployment

    django.setup()
    app = find_app(Deployment.read().celery)
    app.loader.import_default_modules()
    app.finalize()
    try:
        sys.exit(run(app, asked))
    except Refused as error:
        print(f"Nothing was sent: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
