#!/usr/bin/python
"""Ansible module: makes one release the running one on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_activate
short_description: Starts a release's units, passes traffic to them and stops the others
description:
  - The units are systemd instances named after the release, each with a unit file of its own that the release
    brings along, so two releases run side by side and neither changes the other's definition.
  - New instances start first and must report that they are ready. If one does not, the new ones are
    stopped, the old ones go on untouched, and the module fails with what systemd says of it and the journal's lines
    that are the application's own. Units of the release that is the current one are left to systemd, which tries again.
  - Workers start before the web, which may send tasks that they alone know; with O(as_before) the web starts first.
    The old web ends before the old workers, and these go on for some seconds while they get tasks that the new ones do not know.
  - An instance of that same release that still finishes what it was at is left to it; another starts beside it.
  - Then services, timers and Beat change over (the old one stops before the new one starts; Beat ticks unless another host's
    does), the web socket is pointed at the new instance, the old instances are asked to finish, and the new ones are enabled for boot.
  - An old instance that ends on its own account, such as one that is being restarted, is asked to finish too, for it would come back.
options:
  app: {description: "The application's name, which begins each unit's name.", type: str, required: true}
  release: {description: The release id., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  web: {description: Whether Gunicorn runs on this host., type: bool, default: false}
  queues: {description: The queues that this host serves., type: list, elements: str, default: []}
  beat: {description: Whether Beat runs on this host., type: bool, default: false}
  processes: {description: "Further parts that run on this host, such as C(service-bot) and C(timer-report).", type: list, elements: str, default: []}
  as_before:
    description:
      - Run the units that the release ran with on this host when it last was the running one, whatever
        O(web), O(queues) and O(beat) say. Without such a time those count.
    type: bool
    default: false
  deploy: {description: The deploy that this is a part of; for the history., type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- release_activate: {app: shop, release: 3f2a9c1b7d04, root: /srv/shop, web: true, queues: [default], beat: true}
"""

RETURN = r"""
started: {description: Instances that were started., type: list, returned: always}
stopped: {description: Instances that were asked to stop., type: list, returned: always}
queues: {description: Queues whose workers change., type: list, returned: always}
when: {description: "When this began, in seconds since the epoch.", type: int, returned: always}
until: {description: When it ended., type: int, returned: always}
"""

import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import ALONE, ENDED, PARTS, Application, point, replace
from ansible.module_utils.coldframe_commands import plain
from ansible.module_utils.coldframe_failures import own_lines, reason, remedies

WEB_SECONDS = 10  # that the old web may take for its last requests, before its workers are asked to stop
SERVICE_SECONDS = 3  # that a service must run before it counts as started
KNOWN_SECONDS = 20  # that the old workers may go on with tasks that the new ones do not know


class Activation:
    """One release on its way to be the running one."""

    def __init__(self, host: Application, release: str, parts: list[str], back: bool = False) -> None:
        """Compare the host with what is wanted; nothing is touched yet.

        :param back: whether the release ran before the current one: its web starts before its workers.
        """
        self.host, self.release, self.back = host, release, back
        self.states, self.enabled = host.instances(), host.enabled()
        self.units = {part: host.unit(part, release, self.states) for part in parts}
        self.wanted = list(self.units.values())
        self.running = sorted(host.runs(self.states))
        self.to_start = [unit for unit in self.wanted if self.states.get(unit) != "active"]
        self.to_stop = [unit for unit in self.running if unit not in self.wanted]
        self.web = self.units.get("web", "")
        self.socket = f"{host.app}-web.socket"
        self.pointer = host.units / f"{self.socket}.d" / "release.conf"
        self.pointer_text = f"[Socket]\nService={self.web}\n"
        self.listening = bool(self.web) and self.active(self.socket)
        self.started = self.active(f"{host.app}.target")

    def active(self, unit: str) -> bool:
        """Whether a unit is active."""
        return self.host.systemctl("is-active", unit, check=False)[0] == 0

    @property
    def files(self) -> dict[Path, str]:
        """The unit files of the wanted instances: path to text. Releases of version 0.1.0 have %i where @RELEASE@ is now."""
        source = self.host.root / "releases" / self.release / ".release/units"
        files = {unit: source / f"{part}{Path(unit).suffix}" for part, unit in self.units.items()}
        # A timer has a command beside it.
        files |= {
            unit.removesuffix("timer") + "service": file.with_suffix(".service")
            for unit, file in files.items()
            if unit.endswith(".timer")
        }
        return {
            self.host.units / unit: re.sub("@RELEASE@|(?<!%)%i", self.release, file.read_text())
            for unit, file in files.items()
        }

    def pointed(self) -> bool:
        """Whether the web socket, if there is one, leads to this release."""
        return not self.web or (self.pointer.exists() and self.pointer.read_text() == self.pointer_text)

    def difference(self) -> dict[str, dict[str, Any]]:
        """Say what is, and what will be."""
        before = {"current": self.host.current, "running": self.running, "enabled": sorted(self.enabled)}
        after = {"current": self.release, "running": sorted(self.wanted), "enabled": sorted(self.wanted)}
        return {"before": before, "after": after}

    def changes(self) -> bool:
        """Whether there is anything to do."""
        difference = self.difference()
        unlike = difference["before"] != difference["after"] or not self.pointed()
        return bool(unlike or self.to_start or not self.started or (self.web and not self.listening))

    def run(self) -> None:
        """Do it, in the order that keeps the old release serving until the new one is ready."""
        host = self.host
        for path, text in self.files.items():
            replace(path, text, 0o644)
        if self.web and not self.listening:  # the first release: the socket needs a service that exists
            self.point_socket()
            host.systemctl("daemon-reload")
            host.systemctl("enable", "--now", self.socket)
        else:
            host.systemctl("daemon-reload")
        # What ended before it is started now is no restart of this deploy's: systemd's counter begins anew, too.
        leftovers = [unit for unit, state in self.states.items() if state == "failed" or unit in self.to_start]
        if leftovers:
            host.systemctl("reset-failed", *leftovers, check=False)
        workers, web = self.halves(self.to_start)
        for units in (web, workers) if self.back else (workers, web):
            self.start(units)
        self.swap_alone()
        if not self.pointed():
            self.point_socket()
            host.systemctl("daemon-reload")
        workers, web = self.halves(self.to_stop)
        self.stop(web)
        if gone := sorted(self.enabled - set(self.wanted)):
            host.systemctl("disable", "--no-reload", *gone)
        if set(self.wanted) - self.enabled:
            host.systemctl("enable", "--no-reload", *self.wanted)
        host.systemctl("daemon-reload")  # else the target would still start what was enabled before
        if not self.started:
            host.systemctl("enable", "--now", f"{host.app}.target")
        release = host.root / "releases" / self.release
        point(host.root / "current", f"releases/{self.release}")
        (release / ".release/ready").touch()
        self.see_last_tasks(workers, web)
        self.stop(workers)

    def halves(self, units: list[str]) -> tuple[list[str], list[str]]:
        """List the workers among units, and the web's; Beat changes over on its own."""
        return (
            [unit for unit in units if self.host.part(unit).startswith("worker-")],
            [unit for unit in units if self.host.part(unit) == "web"],
        )

    def see_last_tasks(self, workers: list[str], web: list[str]) -> None:
        """Wait, some seconds at most, until the old web sends nothing more and old workers have done what they alone know."""
        if not workers:
            return
        until = time.monotonic() + WEB_SECONDS
        while (
            any(self.host.instances().get(unit, "inactive") not in ENDED for unit in web) and time.monotonic() < until
        ):
            time.sleep(0.2)
        until = time.monotonic() + KNOWN_SECONDS
        while time.monotonic() < until and (self.any(workers, "returning") or self.any(self.wanted, "parking")):
            time.sleep(0.5)

    def any(self, units: list[str], doing: str) -> bool:
        """Whether a unit's status says that it does so with tasks of another release (coldframe.worker.unknown)."""
        return any(f", {doing} " in unit.get("StatusText", "") for unit in self.host.show("Id,StatusText", units))

    def point_socket(self) -> None:
        """Lead the web socket to this release, from systemd's next reload on."""
        self.pointer.parent.mkdir(exist_ok=True)
        replace(self.pointer, self.pointer_text, 0o644)

    def stop(self, units: list[str]) -> None:
        """Ask units to finish what they are at, without waiting for it."""
        if units:
            self.host.systemctl("stop", "--no-block", *units)

    def start(self, units: list[str]) -> None:
        """Start units and wait until all are ready; else undo and fail."""
        self.since = time.time()
        if units and self.host.systemctl("start", *units, check=False)[0]:
            failed = [unit for unit in units if not self.active(unit)]
            self.give_up(failed)

    def swap_alone(self) -> None:
        """Start this release's services, timers and Beat, each kind when the other release's has stopped.

        Another host's Beat may tick in between. What changed over already goes back when one does not start.
        """
        others = [unit for unit, state in self.states.items() if unit not in self.wanted and state not in ENDED]
        others = [unit for unit in others if not self.host.is_command(unit)]
        stopped, started = list[str](), list[str]()
        for kind in ALONE:
            old = [
                unit for unit in others if self.host.part(unit).startswith(kind)
            ]  # one that only ends is awaited too
            new = [unit for unit in self.to_start if self.host.part(unit).startswith(kind)]
            if old:
                self.host.systemctl("stop", *old)
            self.since = time.time()
            failed = new if new and self.host.systemctl("start", *new, check=False)[0] else self.ended_early(new)
            stopped, started = stopped + old, started + new
            if failed:
                if not self.is_current:
                    self.host.systemctl("stop", *started, check=False)
                if stopped:
                    self.host.systemctl("start", *stopped, check=False)
                self.give_up(failed)

    def ended_early(self, new: list[str]) -> list[str]:
        """List the services that were started and end within some seconds: systemd calls one active that has only begun."""
        services = [unit for unit in new if self.host.part(unit).startswith("service-")]
        until = time.monotonic() + SERVICE_SECONDS
        while services and time.monotonic() < until:
            time.sleep(0.5)
            shown = self.host.show("Id,ActiveState,NRestarts", services)
            ended = [
                unit["Id"] for unit in shown if (unit.get("ActiveState"), unit.get("NRestarts")) != ("active", "0")
            ]
            if ended:
                return ended
        return []

    @property
    def is_current(self) -> bool:
        """Whether the release is the one that is to run already."""
        return self.host.current == self.release

    def give_up(self, failed: list[str]) -> None:
        """Fail with the reasons of the units that did not become ready; stop what was started, if another release runs."""
        told = "".join(f"\n{self.why(unit)}" for unit in failed)
        before = self.host.current
        if self.is_current:
            what = (
                f"The release {self.release} is the current one, and not all of it starts. What does was left running, "
                "and systemd goes on trying to start the rest."
            )
        else:
            self.host.systemctl("stop", *self.to_start, check=False)
            self.host.systemctl("reset-failed", *self.to_start, check=False)
            rest = f"{before} was left running" if before else "nothing ran before it"
            what = f"The new release {self.release} does not start; {rest}."
        self.host.module.fail_json(msg=f"{what} Not ready: {told}", failed_units=failed)

    def why(self, unit: str) -> str:
        """Say why a unit did not become ready: systemd's word, the application's lines in the journal, and what helps."""
        journal = plain(self.host.journal(unit, self.since))
        lines = own_lines(journal, f"{self.host.root}/releases/")
        said = reason(journal)
        return "\n".join([f"{unit}{f' ({said})' if said else ''}:", lines, *remedies(lines)])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "deploy": {"type": "str", "default": ""},
            **PARTS,
        },
        supports_check_mode=True,
    )
    p, when = module.params, int(time.time())
    host = Application(module, p["app"], p["root"])
    parts = host.parts(p["release"], **{name: p[name] for name in PARTS})
    activation = Activation(host, p["release"], parts, back=p["as_before"])
    changing = [host.part(unit) for unit in activation.to_start + activation.to_stop]
    result = {
        "changed": activation.changes(),
        "started": activation.to_start,
        "stopped": activation.to_stop,
        "queues": sorted({part.removeprefix("worker-") for part in changing if part.startswith("worker-")}),
        "diff": activation.difference(),
    }
    if result["changed"] and not module.check_mode:
        if not (host.root / "releases" / p["release"] / ".release/id").exists():
            module.fail_json(msg=f"release is {p['release']!r}, which is not in {host.root}/releases.")
        activation.run()
        host.note(p["deploy"], "activated", release=p["release"], parts=parts)
    module.exit_json(**result, when=when, until=int(time.time()))


if __name__ == "__main__":
    main()
