"""Judges the tasks of a release by what waits for them: names, parameters and queues."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible brings module_utils to the hosts, and not to its own plugins.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
from ansible.module_utils import coldframe_shapes as shapes  # noqa: E402

SHOWN = 30  # tasks that a message describes
PLACES = {
    "waiting": "in the queue {}",
    "taken": "with a worker of {}",
    "parked": "parked for {}",
    "kept": "kept by the application",
}
EARLIER = re.compile(r"No module named '?coldframe\b")  # what Python says of a runtime that does not have this
REMEDY = """Expand first and contract later: keep the old name as an alias, or the old parameters with defaults, for one release, until none
of these is left. Then take it away in another one."""


def task_registry(asked: dict[str, Any]) -> dict[str, Any]:
    """Read what a release says of its tasks (coldframe.release.tasks).

    :param asked: what Ansible registered for its command; empty if it was not asked.
    :returns: that, or only `error`, why there is nothing.
    """
    if asked.get("rc") == 0:
        try:
            found: dict[str, Any] = json.loads(asked.get("stdout", ""))
            return {**found}
        except (ValueError, TypeError):
            return {"error": "what it said cannot be read"}
    errors = str(asked.get("stderr") or asked.get("msg") or "it was not asked")
    if EARLIER.search(errors):
        return {"error": "that release is of an earlier Coldframe, which does not tell its tasks"}
    if "\nTimeout (" in f"\n{errors}":  # faulthandler's word
        return {"error": "the release did not tell its tasks in time"}
    return {"error": errors.strip().rpartition("\n")[2][-300:]}


def task_judgement(
    coming: dict[str, Any],
    running: dict[str, Any],
    broker: dict[str, Any],
    allowed: list[str] | str,
    back_to: str = "",
) -> dict[str, list[str]]:
    """Say which tasks that wait the next release could not execute.

    :param coming: what `task_registry` returns of the next release.
    :param running: of the running one. One of the two has `stored` and `entries`. What is wrong with both of them is no
        problem of the deploy.
    :param broker: what the module broker_messages returned.
    :param allowed: `release_allow_tasks`; from the command line one text with commas.
    :param back_to: the next release, where it is one from before. A rollback is not refused.
    :returns: `problems`, which refuse a deploy, and `notes`.
    """
    named = [each.strip() for each in allowed.split(",")] if isinstance(allowed, str) else allowed
    if "tasks" not in coming:
        return {
            "problems": [],
            "notes": [
                f"What waits for tasks was not judged: {coming.get('error', 'the application was not loaded on the controller')}."
            ],
        }
    judge = Judge(coming, running, f"release {back_to}" if back_to else "the new release")
    notes = []
    if "messages" in broker:
        judge.messages(broker["messages"])
        notes += list(_unread(broker))
    else:
        notes.append(f"The messages in the broker were not judged: {broker.get('msg', 'it was not asked')}.")
    database = running if "stored" in running else coming
    if "stored" in database:
        judge.messages(each | {"place": "stored"} for each in database["stored"]["messages"])
        held, read = database["stored"]["held"], database["stored"]["read"]
        notes += (
            [f"Stored until they are due: of {held} tasks the arguments of {read} were read."] if held > read else []
        )
    else:
        notes.append(f"Stored tasks and Beat's table were not judged: {running.get('error', 'no release was asked')}.")
    kept = database.get("kept", {})
    judge.messages(each | {"place": "kept"} for each in kept.get("messages", []))
    notes += [f"Tasks that the application keeps were not judged: {kept['error']}."] if "error" in kept else []
    judge.schedule(database.get("entries", {}))
    found = judge.found
    notes = judge.notes() + notes
    if back_to:
        return {"problems": [], "notes": ([_rollback(found, back_to)] if found else []) + notes}
    problems = []
    if refused := {name: found[name] for name in found if name not in named}:
        problems.append(_refusal(refused, [name for name in named if name in found]))
    # What waits may be gone by now: a task that the release takes away or changes may be named all the same.
    if wrong := [name for name in named if name not in found and not judge.changed(name)]:
        problems.append(
            f"release_allow_tasks has {', '.join(wrong)}, and nothing is wrong with {'it' if len(wrong) == 1 else 'them'} in this "
            f"deploy: the release neither removes the task nor changes its parameters (to be allowed: {', '.join(found) or 'none'}). "
            "Take it out of ALLOW_TASKS."
        )
    notes = [f"Allowed: {line}" for name in found if name in named for line in found[name]] + notes
    return {"problems": problems, "notes": notes}


def _refusal(refused: dict[str, list[str]], allowed: list[str]) -> str:
    """Say what is refused, and the ways out."""
    lines = [f"    {line}" for name in list(refused)[:SHOWN] for line in refused[name]]
    more = [f"    and {len(refused) - SHOWN} more"] if len(refused) > SHOWN else []
    names = [*allowed, *refused]
    return "\n".join(
        [
            f"The new release could not execute what waits for {len(refused)} task{'' if len(refused) == 1 else 's'}:",
            *lines,
            *more,
            " ".join(REMEDY.split()),
            "Or accept it: such messages are parked, and become dead letters after celery_unknown_task_seconds unless a release "
            "that can execute them comes first:",
            f"    make deploy ALLOW_TASKS='{','.join(names)}' (release_allow_tasks: [{', '.join(names)}])",
        ]
    )


def _rollback(found: dict[str, list[str]], release: str) -> str:
    """Say what an older release will not execute."""
    lines = [f"    {line}" for name in list(found)[:SHOWN] for line in found[name]]
    more = [f"    and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "\n".join(
        [
            f"Release {release} cannot execute what waits for {len(found)} task{'' if len(found) == 1 else 's'}. The rollback goes on: "
            "what it cannot execute is parked, and executed by the next release that can, if that comes within "
            "celery_unknown_task_seconds:",
            *lines,
            *more,
        ]
    )


def _unread(broker: dict[str, Any]) -> Iterator[str]:
    """Say which messages were not judged, or only by their names."""
    for each in broker["sampled"]:
        where = PLACES[each["place"]].format(each["queue"]) if each["queue"] else "with workers"
        yield f"Of {each['held']} messages {where} {each['read']} were read."
    for each in broker["unknown"]:
        yield f"{_number(each['count'], 'message')} {PLACES[each['place']].format(each['queue'])}: not judged, for it {each['why']}."
    reasons: dict[tuple[str, str], int] = {}
    for each in broker["messages"]:
        if each["unread"]:
            key = each["unread"], PLACES[each["place"]].format(each["queue"])
            reasons[key] = reasons.get(key, 0) + each["count"]
    for (why, where), count in reasons.items():
        yield f"{_number(count, 'message')} {where}: judged by the name of the task alone, for the body {why}."


def _number(count: int, what: str) -> str:
    """Write a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _call(args: int, kwargs: list[str]) -> str:
    """Describe the arguments of a call."""
    parts = [_number(args, "positional argument")] if args or not kwargs else []
    return " and ".join([*parts, *([", ".join(f"{name}=" for name in kwargs)] if kwargs else [])])


class Judge:
    """Compares two releases by what waits, and keeps what it found for each task."""

    def __init__(self, coming: dict[str, Any], running: dict[str, Any], name: str) -> None:
        """Begin with nothing found.

        :param name: of the next release, in sentences.
        """
        self.coming, self.running, self.name = coming, running, name
        self.lacking: dict[str, dict[str, int]] = {}  # task to places with numbers
        self.misfits: dict[tuple[str, str], dict[str, int]] = {}  # task and reason to the same
        self.wrong: dict[str, list[str]] = {}  # task to sentences about entries of Beat
        self.before: dict[str, int] = {}  # what is wrong with the running release too, with numbers

    def messages(self, found: Iterable[dict[str, Any]]) -> None:
        """Judge messages."""
        for each in found:
            where = PLACES.get(each["place"], "stored for {} until due").format(each["queue"])
            self.call(each, where, each["count"])
            for name in each["further"]:
                follows = {"task": name, "args": None, "kwargs": []}
                self.call(follows, f"to follow {each['task']} {where}", each["count"])

    def call(self, what: dict[str, Any], where: str, count: int) -> None:
        """Judge a call: note it if the next release cannot execute it."""
        name = what["task"]
        if name.startswith(shapes.INTERNAL):
            return
        if name not in self.coming["tasks"]:
            if self.was_wrong(what):
                self.before[name] = self.before.get(name, 0) + count
            else:
                places = self.lacking.setdefault(name, {})
                places[where] = places.get(where, 0) + count
        elif why := self.misfit(self.coming, what):
            # One that the running release does not have is parked there, too, and comes back.
            if name in self.running.get("tasks", {}) and self.was_wrong(what):
                self.before[name] = self.before.get(name, 0) + count
            else:
                places = self.misfits.setdefault((name, why), {})
                where = f"{where} with {_call(what['args'], what['kwargs'])}"
                places[where] = places.get(where, 0) + count

    def changed(self, name: str) -> bool:
        """Whether the next release takes a task away, or changes its parameters."""
        before, after = (release.get("tasks", {}).get(name) for release in (self.running, self.coming))
        return bool(before) and (not after or before["parameters"] != after["parameters"])

    def misfit(self, release: dict[str, Any], what: dict[str, Any]) -> str:
        """Say why a call does not fit the task of a release; empty if it does."""
        return shapes.misfit(release["tasks"][what["task"]]["parameters"], what["args"], what["kwargs"])

    def was_wrong(self, what: dict[str, Any]) -> bool:
        """Whether the running release cannot execute a call either."""
        if "tasks" not in self.running:
            return False
        return what["task"] not in self.running["tasks"] or bool(self.misfit(self.running, what))

    def schedule(self, table: dict[str, Any]) -> None:
        """Judge what Beat sends.

        :param table: the entries of django-celery-beat. Beat writes those of the release over them at its start.
        """
        own, before = self.coming["schedule"], self.running.get("schedule", {})
        for name, entry in own.items():
            if before.get(name) != entry or not self.was_wrong(entry):
                self.entry(f"CELERY_BEAT_SCHEDULE[{name!r}]", entry, {})
        for name, entry in table.items():
            if name not in own:
                self.entry(f"The periodic task {name!r} of Beat's table", entry, self.running)

    def entry(self, which: str, entry: dict[str, Any], before: dict[str, Any]) -> None:
        """Judge an entry.

        :param before: the release with which it may have been wrong already; empty if that does not count.
        """
        task, queue = entry["task"], entry["queue"]
        tells = self.wrong.setdefault(task, [])
        if task.startswith(shapes.INTERNAL):
            return
        if task not in self.coming["tasks"]:
            if not ("tasks" in before and task not in before["tasks"]):
                tells.append(f"{which} sends it, and {self.name} does not have it.")
        elif (why := self.misfit(self.coming, entry)) and not ("tasks" in before and self.was_wrong(entry)):
            tells.append(f"{which} sends it with {_call(entry['args'], entry['kwargs'])}: {why}.")
        if queue and queue not in self.coming["queues"] and not ("queues" in before and queue not in before["queues"]):
            tells.append(f"{which} sends it to the queue {queue!r}, which is not in celery_queues.")

    @property
    def found(self) -> dict[str, list[str]]:
        """What is wrong: task to sentences."""
        found: dict[str, list[str]] = {}
        for name, places in self.lacking.items():
            found.setdefault(name, []).append(
                f"{name} is not in {self.name}{self.renamed(name)}, and waits: {_places(places)}."
            )
        for (name, why), places in self.misfits.items():
            found.setdefault(name, []).append(
                f"{name} does not take the arguments of what waits ({why}): {_places(places)}."
            )
        for name, tells in self.wrong.items():
            if tells:
                found.setdefault(name, []).extend(f"{name}: {each}" for each in tells)
        return dict(sorted(found.items()))

    def renamed(self, name: str) -> str:
        """Name a new task that may be the old one."""
        new = [each for each in self.coming["tasks"] if each not in self.running.get("tasks", {})]
        ends = {each.rpartition(".")[2]: each for each in new}
        like = difflib.get_close_matches(name.rpartition(".")[2], ends, 1)
        return f" (renamed to {ends[like[0]]}?)" if like and "tasks" in self.running else ""

    def notes(self) -> list[str]:
        """Say what the running release cannot execute either."""
        return [
            f"{name}: the running release cannot execute {_number(count, 'message')} of it either."
            for name, count in sorted(self.before.items())
        ]


def _places(places: dict[str, int]) -> str:
    """Write places with numbers."""
    return ", ".join(f"{count} {where}" for where, count in places.items())


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"task_judgement": task_judgement, "task_registry": task_registry}
