"""Tells what Beat will send within the next 24 hours, by queue, against what the workers of each queue can do.

    python -m coldframe.schedule WORKERS

WORKERS is a JSON list with an object for each host that has workers: `queues`, name to `tasks` (how many it runs at the same time) and
`tasks_per_processor`, of which one is 0, and `processors`. Nothing is sent or written.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import schedules

from coldframe import settings_check
from coldframe.overlay.celery import RESULTS_APP
from coldframe.release import tasks

SPAN = 24 * 3600  # seconds that are looked at
MOST = 100_000  # times of one entry that are counted
RECENT = 20  # results of a task whose run time is averaged
LINES = 20  # collisions that are printed


@dataclass
class Entry:
    """An entry of Beat, and when it is sent."""

    name: str
    task: str
    queue: str
    times: list[float] = field(default_factory=list)
    """Seconds since 1970, in order."""
    wrong: str = ""
    """Why it leads nowhere, or cannot be told; or empty."""


def times(
    plan: Any, last: datetime | None, start: datetime, end: datetime, begins: datetime | None = None
) -> list[float]:
    """Return when a schedule is due, in seconds since 1970, `MOST` times at most.

    :param plan: one of Celery's or of django-celery-beat's.
    :param last: when it was due last; None if it never was.
    :param begins: from when on it is due at all. An interval that never was is due then.

    Raises what a schedule of another kind raises.
    """
    if clocked := getattr(plan, "clocked_time", None):
        return [clocked.timestamp()] if start <= clocked < end else []
    if isinstance(plan, schedules.schedule):
        every = max(plan.run_every.total_seconds(), 1e-3)
        due = begins.timestamp() if begins and not last else (last or start).timestamp() + every
        first = max(start.timestamp(), due, begins.timestamp() if begins else 0)
        return [first + number * every for number in range(min(MOST, max(0, -int((first - end.timestamp()) // every))))]
    plan, found = copy.copy(plan), list[float]()
    at = start.astimezone(plan.tz)
    while len(found) < MOST:
        plan.nowfun = lambda now=at: now
        at = later(plan, at, timedelta(seconds=max(plan.remaining_estimate(at).total_seconds(), 1)))
        if at >= end:
            break
        if not begins or at >= begins:
            found.append(at.timestamp())
    return found


def later(plan: Any, at: datetime, span: timedelta) -> datetime:
    """Return when a schedule is due next.

    :param span: what its `remaining_estimate` returned. From Celery 5.5 on these are the seconds that pass until then. With Celery 5.4
        it is the difference between the two times on the clock, which is another one if the clocks change in between. It is the latter
        if only then the hour is one of the schedule's.
    """
    passed, hours = (at.astimezone(UTC) + span).astimezone(plan.tz), getattr(plan, "hour", None)
    shown = at + span
    by_clock = hours and passed.hour not in hours and shown.hour in hours and shown.timestamp() > at.timestamp()
    return shown if by_clock else passed


def planned(app: Any, start: datetime, end: datetime) -> Iterator[Entry]:
    """List what Beat sends: the schedule of the settings, and the enabled entries of django-celery-beat's table."""
    own, rows = app.conf.beat_schedule or {}, {row.name: row for row in tasks.table()}
    for name, value in own.items():
        if name in rows and not rows[name].enabled:
            continue
        queue = (value.get("options") or {}).get("queue")
        last = getattr(rows.get(name), "last_run_at", None)
        plan = schedules.maybe_schedule(value["schedule"], value.get("relative", False), app=app)
        yield entry(app, str(name), str(value["task"]), queue, plan, last, start, end)
    for name, row in rows.items():
        if name in own or not row.enabled:
            continue
        made = entry(app, name, row.task, row.queue, row.schedule, row.last_run_at, start, end, row.start_time)
        until = row.expires.timestamp() if row.expires else end.timestamp()
        made.times = [at for at in made.times if at < until][: 1 if row.one_off else None]
        yield made


def entry(
    app: Any,
    name: str,
    task: str,
    queue: Any,
    plan: Any,
    last: datetime | None,
    start: datetime,
    end: datetime,
    begins: datetime | None = None,
) -> Entry:
    """Return an entry with its times."""
    known = app.tasks.get(task)
    queue = (
        str(getattr(queue, "name", queue) or "") or (settings_check.queue_of(app, task, known) if known else "?") or "?"
    )
    made = Entry(name, task, queue)
    if known is None:
        made.wrong = f"the release has no task {task}"
    elif queue not in ("?", *app.amqp.queues):
        made.wrong = f"celery_queues has no queue {queue}"
    try:
        made.times = times(plan, last, start, end, begins)
    except Exception as error:  # a schedule of the application's own
        made.wrong = made.wrong or f"its schedule {type(plan).__name__} does not tell when it is due ({error})"
    return made


def durations(names: set[str]) -> dict[str, float]:
    """Return the average run time of tasks in seconds, of their last results in django-celery-results with a start and an end."""
    from django.apps import apps

    if not apps.is_installed(RESULTS_APP):
        return {}
    model, found = apps.get_model(RESULTS_APP, "TaskResult"), {}
    if "date_started" not in {each.name for each in model._meta.get_fields()}:
        return {}
    for name in names:
        done = model.objects.filter(task_name=name, status="SUCCESS", date_started__isnull=False).order_by("-date_done")
        if took := [(row.date_done - row.date_started).total_seconds() for row in done[:RECENT]]:
            found[name] = sum(took) / len(took)
    return found


def capacity(workers: list[dict[str, Any]]) -> Counter[str]:
    """Return how many tasks of each queue are executed at the same time.

    :param workers: of each host its `processors`, and its `queues` with what the queue table has of them.
    """
    found: Counter[str] = Counter()
    for host in workers:
        for queue, options in host["queues"].items():
            found[queue] += options["tasks"] + options["tasks_per_processor"] * host["processors"]
    return found


def shown(at: float) -> str:
    """Write a time."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def plural(count: int, what: str) -> str:
    """Write a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def lines(entries: list[Entry], processes: Counter[str], took: dict[str, float], start: datetime) -> Iterator[str]:
    """Write the report: queues, entries, and what is wrong."""
    yield f"What Beat sends within 24 hours from {start:%Y-%m-%d %H:%M:%S}; all times are UTC."
    queues: dict[str, list[Entry]] = defaultdict(list)
    for each in entries:
        queues[each.queue].append(each)
    for queue in sorted({*processes, *queues} - {"?"}):
        sent = sum(len(each.times) for each in queues[queue])
        text = f"{queue:<20} {plural(sent, 'task')}, {processes[queue]} at the same time"
        known = sum(len(each.times) * took[each.task] for each in queues[queue] if each.task in took)
        if known and processes[queue]:
            text += f"; by the last run times {known:.0f} s of work, {100 * known / processes[queue] / SPAN:.1f} % of what they can do"
            unknown = {each.task for each in queues[queue] if each.times} - set(took)
            text += f" (without {plural(len(unknown), 'task')} whose run time is not known)" if unknown else ""
        yield text
    if entries:
        yield "Entries"
    for each in sorted(entries, key=lambda each: (each.times[:1] or [float("inf")], each.name)):
        count = f"{plural(len(each.times), 'time')}{' or more' if len(each.times) == MOST else ''}"
        run = f", about {took[each.task]:.1f} s" if each.task in took else ""
        when = f"{count}, next at {shown(each.times[0])}" if each.times else "not within this time"
        yield f"{each.name:<20} {each.task} to {each.queue}: {when}{run}"
    if wrong := [*nowhere(entries), *collisions(queues, processes)]:
        yield "Look at"
        yield from wrong


def nowhere(entries: list[Entry]) -> Iterator[str]:
    """Say which entries lead nowhere."""
    for each in entries:
        if each.wrong:
            yield f"{each.name}: {each.wrong}."


def collisions(queues: dict[str, list[Entry]], processes: Counter[str]) -> Iterator[str]:
    """Say which entries are sent in the same second to a queue that cannot begin all of them at once."""
    found: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for queue, entries in sorted(queues.items()):
        seconds: dict[int, list[str]] = defaultdict(list)
        for each in entries:
            for time in each.times:
                seconds[int(time)].append(each.name)
        for second, names in sorted(seconds.items()):
            if len(names) > max(processes[queue], 1):
                found.setdefault((queue, tuple(sorted(names))), []).append(second)
    for (queue, together), at in list(found.items())[:LINES]:
        yield (
            f"{len(together)} tasks are sent to {queue} in the same second, and it begins {processes[queue]} at once: "
            f"{', '.join(together)}; {plural(len(at), 'time')}, the first at {shown(at[0])}."
        )
    if len(found) > LINES:
        yield f"There are {len(found) - LINES} more such groups."


def main(words: list[str]) -> None:
    """Print the report. The application's own output goes to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)
    app, start = tasks.load(), datetime.now(UTC)
    entries = list(planned(app, start, start + timedelta(seconds=SPAN)))
    took = durations({each.task for each in entries if each.times})
    with os.fdopen(channel, "w") as stream:
        for line in lines(entries, capacity(json.loads(words[0])), took, start):
            print(line, file=stream)


if __name__ == "__main__":
    main(sys.argv[1:])
