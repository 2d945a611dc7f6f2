"""Finds the queues of a project's tasks, and their longest time limits, without importing it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from static import UNKNOWN, evaluate, keyword, name_of

if TYPE_CHECKING:
    from project import Reader

SENDERS = {
    "task",
    "shared_task",
    "apply_async",
    "set",
    "send_task",
    "signature",
    "subtask",
    "periodic_task",
    "Signature",
}


@dataclass
class Queue:
    """A queue that the project names: where, and the longest time limit of its tasks, in seconds."""

    where: str
    time_limit: int = 0


class QueueReader:
    """Reads the queues of one project."""

    def __init__(self, reader: Reader) -> None:
        """Remember the reader of the rest, which knows the settings."""
        self.reader = reader
        self.dynamic: list[str] = []  # places that name a queue by an expression

    def queue(self, name: Any, where: str, time_limit: Any = 0) -> None:
        """Keep a queue that is named somewhere."""
        if not isinstance(name, str) or not name:
            self.dynamic.append(where)
            return
        queue = self.reader.project.queues.setdefault(name, Queue(where))
        if isinstance(time_limit, (int, float)) and time_limit > queue.time_limit:
            queue.time_limit = int(time_limit)

    def routed(self, value: Any, where: str) -> None:
        """Keep the queues of routes: a mapping, or a list of mappings, pairs and functions."""
        if isinstance(value, dict):
            for target in value.values():
                self.queue_of(target, where)
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, list) and len(each) == 2 and isinstance(each[0], str):
                    self.queue_of(each[1], where)
                elif each is UNKNOWN or isinstance(each, str):
                    self.reader.ask(f"{where} routes tasks by code: add each queue that it chooses to celery_queues.")
                else:
                    self.routed(each, where)
        elif value is UNKNOWN or isinstance(value, str):
            self.reader.ask(f"{where} routes tasks by code: add each queue that it chooses to celery_queues.")

    def queue_of(self, target: Any, where: str) -> None:
        """Keep the queue of one route: its name, or a mapping with `queue`."""
        if isinstance(target, dict):
            if "queue" in target:
                inner = target["queue"]
                self.queue(inner["queue"] if isinstance(inner, dict) and "queue" in inner else inner, where)
        else:
            self.queue(target, where)

    def read(self) -> None:
        """Find every queue that settings, tasks and callers name, and the longest time limits."""
        if (default := self.reader.celery_setting("task_default_queue")) and isinstance(default.value, str):
            self.reader.project.default_queue = default.value
            self.reader.find("default queue", default.value, self.reader.at(default.place))
        standard = self.reader.project.default_queue or "default"
        self.reader.project.queues[standard] = Queue("the default queue")
        if routes := self.reader.celery_setting("task_routes"):
            self.routed(routes.value, self.reader.at(routes.place))
        if queues := self.reader.celery_setting("task_queues"):
            named = queues.value
            for each in (
                [{"queue": name} for name in named]
                if isinstance(named, dict)
                else named
                if isinstance(named, list)
                else []
            ):
                self.queue_of(each, self.reader.at(queues.place))
        if schedule := self.reader.celery_setting("beat_schedule"):
            entries = list(schedule.value.values()) if isinstance(schedule.value, dict) else []
            if entries:
                told = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
                self.reader.find("schedule", told, self.reader.at(schedule.place))
            for options in (entry.get("options") for entry in entries if isinstance(entry, dict)):
                if isinstance(options, dict) and "queue" in options:
                    self.queue(options["queue"], self.reader.at(schedule.place))
        if (zone := self.reader.celery_setting("timezone")) and isinstance(zone.value, str):
            self.reader.find("Celery's time zone", zone.value, self.reader.at(zone.place))
        if scheduler := self.reader.celery_setting("beat_scheduler"):
            self.reader.find("celery_beat_scheduler", scheduler.value, self.reader.at(scheduler.place))
        for path in self.reader.files.paths:
            if path.name != "manage.py" and re.search(r"elery|queue|apply_async", self.reader.files.text(path)):
                self.read_tasks(path, standard)
        if self.dynamic:
            more = f" and {len(self.dynamic) - 5} more" if len(self.dynamic) > 5 else ""
            self.reader.ask(
                f"Which queues are chosen in {', '.join(self.dynamic[:5])}{more}? Their names are not in the text: add what "
                "celery_queues does not have."
            )
        if (limit := self.reader.celery_setting("task_time_limit")) and isinstance(limit.value, (int, float)):
            for queue in self.reader.project.queues.values():
                queue.time_limit = max(queue.time_limit, int(limit.value))
            self.reader.find("task time limit", int(limit.value), self.reader.at(limit.place))

    def read_tasks(self, path: Path, standard: str) -> None:
        """Find the queues and limits that the tasks of a module have, and those that its calls name."""
        names = {name: values[-1].value for name, values in self.reader.settings.items()} | self.reader.files.constants(
            path, self.reader.places
        )
        tree = self.reader.files.tree(path)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ClassDef) and any("Task" in name_of(base) for base in node.bases):
                own = {name_of(each.targets[0]): each for each in node.body if isinstance(each, ast.Assign)}
                limit = evaluate(own["time_limit"].value, names) if "time_limit" in own else 0
                if "queue" in own:
                    self.queue(evaluate(own["queue"].value, names), f"{path}:{own['queue'].lineno}", limit)
                elif limit:
                    self.queue(standard, f"{path}:{node.lineno}", limit)
            if not isinstance(node, ast.Call) or name_of(node.func).rpartition(".")[2] not in SENDERS:
                continue
            values = {each: keyword(node, each) for each in ("queue", "time_limit")}
            known = {each: evaluate(value, names) for each, value in values.items() if value is not None}
            limits = known.get("time_limit", 0)
            if "queue" in known:
                if known["queue"] is UNKNOWN and isinstance(values["queue"], ast.Name):
                    continue  # an argument of a function, or a loop: its caller names it
                self.queue(known["queue"], f"{path}:{node.lineno}", limits)
            elif isinstance(limits, (int, float)) and limits:
                self.queue(standard, f"{path}:{node.lineno}", limits)
