"""A systemd in memory, for modules that speak to it through commands."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils import coldframe


class Failure(Exception):
    """What fail_json raises here."""


class FakeModule:
    """Stands in for AnsibleModule: keeps units' states, and which of them cannot start."""

    check_mode = False
    journal = ""

    def __init__(self) -> None:
        """Begin with nothing loaded."""
        self.states: dict[str, str] = {}
        self.broken: set[str] = set()
        self.jobs: dict[str, str] = {}
        self.doing: dict[str, str] = {}
        self.restarts: dict[str, int] = {}
        self.calls: list[tuple[str, ...]] = []

    def fail_json(self, msg: str, **_: Any) -> NoReturn:
        """Fail as a module does."""
        raise Failure(msg)

    def run_command(self, arguments: list[str]) -> tuple[int, str, str]:
        """Answer as the program would."""
        if arguments[0] == "journalctl":
            return 0, f"journal of {arguments[-1]}\n{self.journal}", ""
        verb, *rest = arguments[1:]
        options, units = [w for w in rest if w.startswith("--")], [w for w in rest if not w.startswith("--")]
        self.calls.append((verb, *units))
        if verb == "list-units":
            found = [u for u in self.states if fnmatch.fnmatch(u, units[0])]
            return 0, "".join(f"{u} loaded {self.states[u]} x\n" for u in found), ""
        if verb == "list-jobs":
            return 0, "".join(f"  7 {unit} {kind} running\n" for unit, kind in self.jobs.items()), ""
        if verb == "show":
            shown = (
                f"Id={u}\nStatusText={self.doing.get(u, '')}\nActiveState={self.states.get(u, 'inactive')}\n"
                f"NRestarts={self.restarts.get(u, 0)}"
                for u in units
            )
            return 0, "\n\n".join(shown), ""
        if verb == "is-active":
            return (0 if self.states.get(units[0]) == "active" else 3), "", ""
        if verb == "start" or (verb == "enable" and "--now" in options):
            for unit in units:
                self.states[unit] = "failed" if unit in self.broken else "active"
        if verb == "stop":
            for unit in units:
                self.states[unit] = "deactivating" if "--no-block" in options else "inactive"
                self.jobs[unit] = "stop"
        wants = coldframe.UNITS / "shop.target.wants"
        wants.mkdir(exist_ok=True)
        for unit in units:
            if verb == "enable":
                (wants / unit).touch()
            if verb == "disable":
                (wants / unit).unlink()
        return (1 if any(u in self.broken for u in units) and verb == "start" else 0), "", ""


def place(root: Path, release: str, *parts: str) -> None:
    """Put a release's folder with its unit files in place."""
    units = root / "releases" / release / ".release/units"
    units.mkdir(parents=True)
    (units.parent / "id").write_text(release)
    for part in parts:
        (units / f"{part}.service").write_text(f"{part} of {release}\n")
