"""Looks at a release on the controller, before any server has it: what loads there, and what its settings lead to.

    python -m coldframe.release.controller <ORDER >RESULT

It does what coldframe.release.prepare does on a server, without the database, without a connection, and without writing.
What only a server can tell is left to it. The order and the result are a JSON object each.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldframe import places, settings_check
from coldframe.release import checks, errors, missing, offline, prepare, tasks, variables

# Messages about programs and libraries, which are Debian packages on the servers.
OF_DEBIAN = re.compile(
    r"shared object|\.so\b|(find|load|open|import|missing)\b.*\blibrar(y|ies)\b|GLIBC|failed to find lib|executable must be"
    r"|command not found|undefined symbol",
    re.IGNORECASE,
)
OUR_ERROR = f"{offline.ReadOnlyError.__module__}.{offline.ReadOnlyError.__qualname__}"
OURS = Path(__file__).parents[1]
# What fails on a server in the same way, whatever the secrets are.
CERTAIN = (ModuleNotFoundError, SyntaxError, NameError, offline.ReadOnlyError)


def examine(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Execute the order, and record in the result what was found.

    :param order: `celery`, `wsgi`, `load_timeout`, `check`, `check_level` and `check_ignore` as for
        `prepare.prepare`; `writable`, folders that a release's processes may write to, or None; `secrets`, whether the application
        has secrets of its own, which are placeholders here; `variables`, names of those that have placeholders, if only missing
        ones are of interest.
    :param result: filled step by step.
    """
    offline.install(order["writable"])
    problem = Problems(order, result)
    with prepare.time_limit(order):
        if not (problem.of(offline.without_database) and problem.of(prepare.set_up, order)):
            problem.missing()
            return
        loaded = [problem.of(prepare.load_wsgi, order), problem.of(report, order, result)]
    if order.get("variables"):
        return
    if loaded[1]:
        problem.of(settings, order, result)
        problem.of(lister, result)
    if order["check"]:
        problem.of(django, order, result, problem)
    if not all(loaded):
        problem.missing()


def report(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Load the Celery application with its tasks, say what is laid over the settings, and list the tasks."""
    from celery.app.utils import find_app

    from coldframe.overlay import report
    from coldframe.overlay.deployment import Deployment

    result["settings"] = report.text(report.lines(order["celery"]), Deployment.read().own)
    if not order.get("variables"):
        result["tasks"] = tasks.registry(find_app(order["celery"]))


def settings(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Check what the settings lead to."""
    for finding in settings_check.problems(order["celery"], reach=False):
        result["findings"].append({"place": finding.place, "text": str(finding)})
    result["warnings"] += [finding.text for finding in settings_check.warnings()]


def lister(result: dict[str, Any]) -> None:
    """Look for the function of `app_stored_tasks`."""
    try:
        tasks.lister()
    except ImportError as error:
        result["findings"].append({"place": "", "text": str(error)})


def django(order: dict[str, Any], result: dict[str, Any], problem: Problems) -> None:
    """Run Django's checks. Those of other packages may read tables, and run on a server."""
    try:
        checks.run(order, result, tables=False)
    except checks.Failed as failed:
        for finding in failed.without_tables:
            result["findings"].append(
                {"place": finding["place"], "text": checks.written(finding), "check": finding["id"]}
            )
        if others := [finding["id"] for finding in failed.findings if finding not in failed.without_tables]:
            result["left"].append(
                f"{len(others)} finding{'' if len(others) == 1 else 's'} of checks that are not Django's own may need the database: "
                f"{', '.join(dict.fromkeys(others))}."
            )
        if failed.__cause__:
            problem.note(failed.__cause__)


class Problems:
    """What goes wrong while an application is loaded: faults of its own, and what only a server can tell."""

    def __init__(self, order: dict[str, Any], result: dict[str, Any]) -> None:
        """Remember where to note them."""
        self.order, self.result, self.told = order, result, set[str]()

    def of(self, step: Callable[..., None], *arguments: Any) -> bool:
        """Do a step, and note how it fails; return whether it did not."""
        try:
            step(*arguments)
        except (Exception, SystemExit) as error:
            self.note(error)
            return False
        return True

    def note(self, error: BaseException) -> None:
        """Note an error, unless it was noted already: what fails in one application often fails in the other."""
        line = traceback.format_exception_only(error)[-1].strip().replace(OUR_ERROR, "OSError")
        place = origin(error)
        if line in self.told:
            return
        self.told.add(line)
        if self.order.get("variables"):
            self.result["reads"] += variables.reads(error, self.order["variables"])
        if variable := variables.missing(error):
            self.result["findings"].append({"place": place, "text": line, "variable": variable})
        elif self.is_certain(error):
            plain = self.order.get("variables") or (isinstance(error, CERTAIN) and place)
            text = line if plain else described(error)
            module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
            module = "" if module and missing.exists(module) else module
            self.result["findings"].append({"place": place, "text": text, "module": module})
        else:
            self.result["left"].append(": ".join(filter(None, (place, line))))

    def is_certain(self, error: BaseException) -> bool:
        """Whether a server would end with the same error."""
        called = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, ImportError | AttributeError | KeyError | TypeError) and Path(called).is_relative_to(OURS):
            return False  # a package that this one needs is not there, or of another version: the preflight tells it
        if isinstance(error, CERTAIN) or any(
            isinstance(each, offline.ReadOnlyError) for each in variables.chain(error)
        ):
            return True
        if (
            any(
                isinstance(each, offline.UnreachableError | offline.UnknownHostError) for each in variables.chain(error)
            )
            or offline.ASKED
        ):
            return False
        if isinstance(error, FileNotFoundError) and error.filename and called != subprocess.__file__:
            return Path(os.fsdecode(error.filename)).absolute().is_relative_to(Path.cwd())
        if isinstance(error, OSError) or OF_DEBIAN.search(str(error)):
            return False
        return not self.order["secrets"]

    def missing(self) -> None:
        """Note all modules that are not there, if one is not."""
        known = {finding.get("module") for finding in self.result["findings"]} - {None, ""}
        if not known:
            return
        for module, place in missing.modules(missing.entries(self.order)).items():
            if module not in known:
                text = f"ModuleNotFoundError: No module named {module!r}"
                self.result["findings"].append({"place": place, "text": text, "module": module})
            for finding in self.result["findings"]:
                if finding.get("module") == module and not finding["place"]:  # the settings name it
                    finding["place"], finding["text"] = place, finding["text"].splitlines()[-1]


def described(error: BaseException) -> str:
    """Return the text of an error, and below it the lines of the application that it came through."""
    text: str = errors.error_of(error)["text"]
    last = traceback.format_exception_only(error)[-1].strip()
    return f"{last}\n{text.removesuffix(last).rstrip()}" if text.startswith("Traceback") else text


def origin(error: BaseException) -> str:
    """Return the last line of the application's that an error came through, as `file:line`."""
    if isinstance(error, SyntaxError) and error.filename and (place := places.shown(error.filename, error.lineno or 1)):
        return place
    frames = traceback.extract_tb(error.__traceback__)
    return next((place for frame in reversed(frames) if (place := places.shown(frame.filename, frame.lineno or 1))), "")


def main() -> None:
    """Read the order, and write the result. The application's own output goes to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)
    result: dict[str, Any] = {
        # Each with `place`, `text`, and where that is known `module` or `variable`, the missing one, or `check`, an id.
        "findings": [],
        "warnings": [],  # what may fail, but need not
        "left": [],  # what only a server can tell
        "settings": "",  # what is laid over the application's settings, and what stays
        "checked": [],
        "ignored": [],
        "foreign": [],
        "tasks": {},  # of the Celery application (coldframe.release.tasks.registry)
        "reads": [],  # of the order's `variables`, those that are read where it failed
    }
    environment, folder = dict(os.environ), Path.cwd()
    order = json.load(sys.stdin)
    examine(order, result)
    if not order.get("variables"):
        variables.further(order, environment, folder, result)
    with os.fdopen(channel, "w") as stream:
        json.dump(result, stream, default=str)


if __name__ == "__main__":
    main()
