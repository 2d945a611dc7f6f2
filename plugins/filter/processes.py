"""Further processes of the application (`app_services`) and commands at certain times (`app_timers`), and their units."""

from __future__ import annotations

import posixpath
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

SCHEMA = Path(__file__).parents[2] / "roles/app/meta/schema.yml"
MANAGE = ["python", "-m", "coldframe.manage"]  # runs manage.py with the deployment's settings


@cache
def _defaults(variable: str) -> dict[str, Any]:
    """Read the defaults of the options of an entry."""
    options = yaml_load(SCHEMA.read_text())["properties"][variable]["additionalProperties"]["properties"]
    return {name: schema["default"] for name, schema in options.items() if "default" in schema}


def process_table(entries: dict[str, Any], variable: str) -> dict[str, dict[str, Any]]:
    """Fill in the options that entries leave out.

    :param entries: the variable's, in which `variable_problems` found nothing.
    :param variable: `app_services` or `app_timers`.
    """
    return {name: _defaults(variable) | entry for name, entry in entries.items()}


def process_units(services: dict[str, Any], timers: dict[str, Any]) -> list[dict[str, Any]]:
    """List the unit files of a release: the file's name, its template, and the name and options of the entry.

    :param services: what `process_table` returns of `app_services`.
    :param timers: the same of `app_timers`.
    """
    kinds = [("service", "service", services), ("timer", "service", timers), ("timer", "timer", timers)]
    return [
        {"file": f"{part}-{name}.{kind}", "template": f"{part}@.{kind}.j2", "name": name, "options": options}
        for part, kind, entries in kinds
        for name, options in entries.items()
    ]


def host_processes(
    services: dict[str, Any], timers: dict[str, Any], groups: dict[str, list[str]], host: str
) -> list[str]:
    """List the parts of a release, besides web, workers and Beat, that run on a host.

    :param services: what `process_table` returns of `app_services`.
    :param timers: the same of `app_timers`. They are on the first host of the group `beat`.
    :param groups: Ansible's groups.
    :param host: the host's name in the inventory.
    :returns: names such as `service-bot` and `timer-report`.
    """
    places = {"one": groups.get("beat", [])[:1], "web": groups.get("web", []), "workers": groups.get("workers", [])}
    return [f"service-{name}" for name, options in services.items() if host in places[options["hosts"]]] + [
        f"timer-{name}" for name in timers if host in places["one"]
    ]


def host_options(services: dict[str, Any], timers: dict[str, Any], running: list[str]) -> dict[str, dict[str, Any]]:
    """Return the options of those that run on a host.

    :param services: what `process_table` returns of `app_services`.
    :param timers: the same of `app_timers`.
    :param running: what `host_processes` returns.
    """
    kinds = {"service": services, "timer": timers}
    return {part: kinds[part.partition("-")[0]][part.partition("-")[2]] for part in running}


def systemd_command(command: str, folder: str) -> str:
    """Write a command as ExecStart= reads it. Nothing in it is replaced, and no shell runs it.

    :param command: words as in a shell. `manage.py` as the first one runs with the settings of the deployment.
    :param folder: the release's, to which the path of a program is relative. systemd takes absolute paths and names only.
    """
    program, *arguments = shlex.split(command)
    if "/" in program:
        program = posixpath.normpath(posixpath.join(folder, program))
    words = [*(MANAGE if program == "manage.py" else []), program, *arguments]
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"})
    return " ".join(f'"{word.translate(escapes)}"' for word in words)


def calendar_problems(results: list[dict[str, Any]]) -> list[str]:
    """Say which times of `app_timers` systemd cannot read, and which of them never come.

    :param results: of `systemd-analyze calendar` for each timer.
    """
    problems = []
    for result in results:
        where = f"app_timers.{result['item']['key']}.calendar is {result['item']['value']['calendar']!r}, which"
        if result.get("rc"):
            problems.append(
                f"{where} systemd cannot read; it must be a time as OnCalendar= has it, such as '*-*-* 03:00' or 'Mon 08:30' "
                "('systemd-analyze calendar' explains one)."
            )
        elif re.search(r"Next elapse: never", result.get("stdout", "")):
            problems.append(
                f"{where} never comes: the date is past, or no month has such a day. Write a time that comes again, such as "
                "'*-*-01 03:00', or remove the timer."
            )
    return problems


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        each = (process_table, process_units, host_processes, host_options, systemd_command, calendar_problems)
        return {filter_.__name__: filter_ for filter_ in each}
