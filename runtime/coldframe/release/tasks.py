"""Lists the tasks of a release with their parameters and queues, and what is kept in the database for tasks.

    python -m coldframe.release.tasks >RESULT

A deploy compares two releases by it. Nothing is written, and no broker is asked: the web user may not read the queues.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from coldframe import delayed, settings_check
from coldframe.overlay.apps import PACKAGE
from coldframe.overlay.deployment import Deployment
from coldframe.release import shapes

LONGEST = 60  # seconds that this may take
MOST = 1000  # stored tasks whose arguments are read


def registry(app: Any) -> dict[str, Any]:
    """Return the tasks, the queues and Beat's schedule of a release.

    :param app: the Celery application, with all of its tasks.
    :returns: `tasks`, name to its `queue` (empty if its arguments decide) and `parameters` (shapes.parameters); `queues`, the
        names; `schedule`, the entries of `beat_schedule`, name to what it sends (`entry`).
    """
    tasks = {
        name: {"queue": settings_check.queue_of(app, name, task), "parameters": shapes.parameters(task)}
        for name, task in sorted(app.tasks.items())
        if not name.startswith(shapes.INTERNAL)
    }
    schedule = {
        str(name): entry(value.get("task"), value.get("args"), value.get("kwargs"), value.get("options"))
        for name, value in (app.conf.beat_schedule or {}).items()
        if isinstance(value, dict)
    }
    return {"tasks": tasks, "queues": sorted(app.amqp.queues), "schedule": schedule}


def entry(task: Any, args: Any, kwargs: Any, options: Any) -> dict[str, Any]:
    """Return what an entry of Beat sends: `task`, `queue`, which may be empty, and `args` and `kwargs` as in `shapes.shape`."""
    queue = (options or {}).get("queue") or ""
    try:
        number, names = len(args or ()), sorted(kwargs or {})
    except TypeError:
        number, names = None, []
    return {"task": str(task), "queue": str(getattr(queue, "name", queue)), "args": number, "kwargs": names}


def stored() -> dict[str, Any]:
    """Return the stored tasks (coldframe.delayed).

    :returns: `messages`, as shapes.counted returns them, each with its `queue`; `held` and `read`, how many there are and of how
        many the arguments were read, those that are due first.
    """
    if not delayed.installed():
        return {"messages": [], "held": 0, "read": 0}
    from django.db.models import Count

    from coldframe.delayed import store

    rows = store.rows().filter(revoked=False)
    found: list[dict[str, Any]] = []
    for row in rows.order_by("due", "id")[:MOST]:
        unknown = {"task": row.name, "args": None, "kwargs": [], "further": [], "unread": "cannot be read"}
        try:
            body, options = store.unpacked(row.message)
            known = shapes.shape(options.get("headers"), body, options["content_type"])
        except (ValueError, KeyError, TypeError):
            known = unknown
        found.append(known | {"queue": row.queue})
    read: dict[tuple[str, str], int] = {}
    for each in found:
        read[each["task"], each["queue"]] = read.get((each["task"], each["queue"]), 0) + 1
    total = 0
    # Names are counted in the database, so that none is missed.
    for name, queue, number in rows.order_by().values_list("name", "queue").annotate(Count("pk")):
        total += number
        if (rest := number - read.get((name, queue), 0)) > 0:
            unread = {"task": name, "args": None, "kwargs": [], "further": [], "unread": ""}
            found.append(unread | {"queue": queue, "count": rest})
    return {"messages": shapes.counted(found), "held": total, "read": min(total, MOST)}


def lister() -> Callable[[], Iterable[tuple[str, Sequence[Any], Mapping[str, Any]]]] | None:
    """Return the application's function that lists the tasks which it keeps itself (`app_stored_tasks`); None if there is none.

    Raises ImportError if it cannot be had, which names the variable.
    """
    if not (name := Deployment.read().stored_tasks):
        return None
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"app_stored_tasks is {name!r}, and Python says: {error}.") from error
    if not callable(found):
        raise ImportError(f"app_stored_tasks is {name!r}, which is no function.")
    return cast(Callable[[], Any], found)


def kept() -> dict[str, Any]:
    """Ask the application for the tasks that it keeps itself.

    :returns: `messages`, as shapes.counted returns them; or `error`, why there are none.
    """
    try:
        found = lister()
        return {"messages": shapes.counted(map(call, found() if found else ()))}
    except Exception as error:
        return {"error": f"{Deployment.read().stored_tasks} failed with {type(error).__name__}: {error}"}


def call(told: tuple[str, Sequence[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a task that the application keeps, as `shapes.shape` does. Raises TypeError or ValueError if it is none."""
    name, args, kwargs = told
    return {"task": str(name), "args": len(args), "kwargs": sorted(kwargs), "further": [], "unread": "", "queue": ""}


def table() -> Any:
    """Return the entries of django-celery-beat's table, also disabled ones; none where Beat does not read it."""
    from django.apps import apps

    if not apps.is_installed(PACKAGE) or not settings_check.given()[settings_check.OWN]["scheduler"].startswith(
        PACKAGE
    ):
        return []
    return apps.get_model(PACKAGE, "PeriodicTask").objects.order_by("name")


def entries() -> dict[str, Any]:
    """Return the enabled entries of django-celery-beat's table like the schedule in `registry`; none where Beat does not read it."""
    return {
        row.name: entry(row.task, loaded(row.args), loaded(row.kwargs), {"queue": row.queue})
        for row in table()
        if row.enabled
    }


def loaded(text: str | None) -> Any:
    """Return the value of a JSON text; of one that is none something that has no length."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return True


def load() -> Any:
    """Load the application as a release's processes do; return the Celery application with all of its tasks."""
    from coldframe import overlay, tracing
    from coldframe.sending import amqp

    tracing.forbid()
    amqp.install()
    overlay.load()
    import django
    from celery.app.utils import find_app

    django.setup()
    app = find_app(Deployment.read().celery)
    app.loader.import_default_modules()
    app.finalize()
    return app


def main() -> None:
    """Write all that as JSON. The application's own output goes to stderr."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    channel = os.dup(1)
    os.dup2(2, 1)
    result = registry(load())
    result |= {"stored": stored(), "kept": kept(), "entries": entries()}
    with os.fdopen(channel, "w") as stream:
        json.dump(result, stream)


if __name__ == "__main__":
    main()
