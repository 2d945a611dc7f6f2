"""What a deploy or a rollback did, as one document."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

FORMAT = 1  # of the document
SECRET_LENGTH = 6  # of what is looked for: shorter ones are in ordinary words
HIDDEN = "(secret)"
# The tasks in a worker's status line, which names the first ones and counts the others.
RUNNING = re.compile(r"[^ ]\[[^\]]+\]| and (\d+) more")


def _phases(host: Mapping[str, Any]) -> dict[str, int]:
    """Return how many seconds each phase took on a host: each ends where the next one begins."""
    begun, activated = host.get("release_begun") or {}, host.get("release_activated") or {}
    unpacked, ended = host.get("release_unpacked") or {}, host.get("release_ended") or {}
    times = {
        "preflight": (host.get("app_state") or {}).get("when"),
        "services": begun.get("when"),
        "place": unpacked.get("when"),
        "activate": activated.get("when"),
        "check": activated.get("until"),
        "finish": ended.get("when"),
    }
    known = [(name, time) for name, time in times.items() if time is not None]
    known.append(("", ended.get("until")))
    return {name: max(0, end - start) for (name, start), (_, end) in itertools.pairwise(known) if end is not None}


def _smoke(host: Mapping[str, Any]) -> dict[str, int]:
    """Count the requests of the smoke test that a host sent or that were sent through it, and those that failed."""
    further = (host.get("smoke_further") or {}).get("results") or []
    answers = [*(host.get(name) or {} for name in ("smoke_answer", "smoke_task")), *further]
    sent = [answer for answer in answers if "status" in answer or answer.get("failed")]
    return {"requests": len(sent), "failed": sum(bool(answer.get("failed")) for answer in sent)}


def _running(unit: Mapping[str, Any]) -> int:
    """Count the tasks that a worker executes, by its status line."""
    _, _, tasks = unit.get("doing", "").rpartition(", running ")
    return sum(int(task[1] or 1) for task in RUNNING.finditer(tasks))


def _host(host: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a deploy did on a host."""
    begun, activated, ended = (host.get(f"release_{part}") or {} for part in ("begun", "activated", "ended"))
    prepared = host.get("release_prepared") or {}
    started, stopped = activated.get("started") or [], activated.get("stopped") or []
    draining = [unit for unit in ended.get("units") or [] if unit.get("state") == "draining"]
    return {
        "before": begun.get("current", ""),
        "changed": {
            "configuration": bool(begun.get("converge")) or "deploy_converge" in (host.get("group_names") or []),
            "files": bool((host.get("release_unpacked") or {}).get("changed")),
            "packages": bool((host.get("release_environment") or {}).get("changed")),
            "static_files": bool(prepared.get("collected")),
        },
        "started": started,
        "stopped": stopped,
        "draining": [unit["unit"] for unit in draining],
        "draining_tasks": sum(map(_running, draining)),
        "units": [
            {
                "unit": unit["unit"],
                "state": unit["state"],
                "doing": unit.get("doing", "").removeprefix(unit["state"]).removeprefix(", "),
                "exposure": (ended.get("exposure") or {}).get(unit["unit"]),
            }
            for unit in ended.get("units") or []
        ],
        "removed": ended.get("removed") or [],
        "smoke": _smoke(host),
        "seconds": _phases(host),
    }


def without_secrets(value: Any, secrets: Iterable[str]) -> Any:
    """Return a document in which no text has one of the secrets, nor a line of one."""
    found = {
        line.strip()
        for secret in secrets
        for line in [secret, *secret.splitlines()]
        if "-----" not in line or "\n" in line
    }
    words = sorted((word for word in found if len(word) >= SECRET_LENGTH), key=len, reverse=True)

    def clean(part: Any) -> Any:
        if isinstance(part, str):
            for word in words:
                part = part.replace(word, HIDDEN)
            return part
        if isinstance(part, Mapping):
            return {clean(key): clean(each) for key, each in part.items()}
        return [clean(each) for each in part] if isinstance(part, list | tuple) else part

    return clean(value)


def _texts(value: Any) -> list[str]:
    """List the texts in a value."""
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def deploy_report(hosts: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], secrets: Any) -> dict[str, Any]:
    """Write down what a deploy did.

    :param hosts: of the run, name to variables, such as Ansible's entries of hostvars.
    :param facts: what is the same for all of them: application, version, action, outcome, release, source, sha256, contract and tasks.
    :param secrets: none of the texts in it is in the document.
    """
    first = next((host for host in hosts.values() if host.get("release_prepared")), {})
    prepared = first.get("release_prepared") or {}
    begun = [host["release_begun"] for host in hosts.values() if host.get("release_begun")]
    artifacts = [(host.get("release_ended") or {}).get("artifact") or {} for host in hosts.values()]
    artifact = next((each for each in artifacts if each), {})
    watched: Mapping[str, Any] = next(
        (host["release_watched"] for host in hosts.values() if "tasks" in host.get("release_watched", {})), {}
    )
    when = min((each["when"] for each in begun), default=0)
    document = {
        "format": FORMAT,
        **facts,
        "when": datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "who": next((each["who"] for each in begun if each.get("who")), ""),
        "source": facts.get("source") or artifact.get("source", ""),
        "sha256": facts.get("sha256") or artifact.get("sha256", ""),
        "signer": artifact.get("signer", ""),
        "lock_sha256": artifact.get("lock_sha256", ""),
        "migrations": {
            "judged": [each["migration"] for each in prepared.get("plan") or []],
            "applied": prepared.get("applied") or [],
            "notes": prepared.get("report") or [],
        },
        "watch": {
            "seconds": watched.get("watched", 0),
            "tasks": watched.get("tasks") or [],
            "problems": watched.get("problems") or [],
            "notes": watched.get("notes") or [],
        },
        "hosts": {name: _host(host) for name, host in hosts.items()},
    }
    cleaned: dict[str, Any] = without_secrets(json.loads(json.dumps(document, default=str)), _texts(secrets))
    return cleaned


def report_packages(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Map each host of a run to the packages that M(deploy_end) found there.

    :param hosts: name to variables, such as Ansible's entries of hostvars.
    """
    return {name: dict((host.get("release_ended") or {}).get("packages") or {}) for name, host in hosts.items()}


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"deploy_report": deploy_report, "report_packages": report_packages}
