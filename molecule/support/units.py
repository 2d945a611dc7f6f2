"""The application's units on a host: those that run, those that should, and their journals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from support.deployment import Deployment

RELEASED = {"web", "workers", "beat", "edge"}  # the groups whose hosts get the release


def wanted(deployment: Deployment, release: str) -> set[str]:
    """Return the instances of a release that this host must run."""
    app, groups = deployment.app_name, deployment.group_names
    units = []
    if "web" in groups:
        units.append(f"{app}-web@{release}.service")
    if "workers" in groups:
        queues = deployment.celery_host_queues or list(deployment.celery_queues)
        units += [f"{app}-worker-{queue}@{release}.service" for queue in queues]
    if "beat" in groups:
        units.append(f"{app}-beat@{release}.service")
    return set(units)


def instances(host: Any, app: str, part: str = "*", state: str = "") -> set[str]:
    """Return the application's instances that are not stopped; with the state `active`, without those that drain."""
    which = f"--state={state} " if state else ""
    lines = host.check_output(f"systemctl list-units {which}--plain --no-legend --full '{app}-{part}@*.service'")
    return {line.split()[0] for line in lines.splitlines()}


def once(unit: str) -> str:
    """Return an instance's name without the number of one that runs beside itself (:2)."""
    return re.sub(r":\d+(?=\.service$)", "", unit)


def running(host: Any, app: str) -> set[str]:
    """Return the application's instances that are not stopped, by their names without such a number."""
    return {once(unit) for unit in instances(host, app)}


def current(host: Any, app: str) -> str:
    """Return the current release's id."""
    return str(host.file(f"/srv/{app}/current").linked_to).rsplit("/", 1)[-1]


def children(host: Any, unit: str) -> tuple[str, set[str]]:
    """Return the main process of a worker's unit, and those of its pool."""
    main = host.check_output(f"systemctl show --property=MainPID --value {unit}")
    return main, set(host.run(f"pgrep --parent {main}").stdout.split())


def logged(lines: Iterable[tuple[float, str]], text: str) -> list[float]:
    """Return the times, in seconds since 1970, of those lines of a journal that contain a text."""
    return [at for at, line in lines if text in line]


def newest_report(host: Any, app: str) -> tuple[str, dict[str, Any]]:
    """Return the path of the newest report of a deploy or rollback on the host, and the report."""
    path = host.check_output(f"ls /var/lib/coldframe/{app}/reports/*.json | tail -1")
    return path, json.loads(host.check_output(f"cat {path}"))
