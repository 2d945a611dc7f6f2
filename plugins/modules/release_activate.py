#!/usr/bin/python
"""Ansible module: makes one release the running one on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_activate
short_description: Starts a release's units, passes traffic to them and stops the others
description:
  - The units are systemd template instances named after the release, so two releases can run side by side.
  - New instances start first and must report that they are ready. If one does not, the new ones are
    stopped, the old ones go on untouched, and the module fails with the journal's last lines.
  - Then the web socket is pointed at the new instance, Beat changes over (the old one stops before the
    new one starts), the old instances are asked to finish, and the new ones are enabled for boot.
options:
  app: {description: "The application's name, which begins each unit's name.", type: str, required: true}
  release: {description: The release id., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  web: {description: Whether Gunicorn runs on this host., type: bool, default: false}
  queues: {description: The queues that this host serves., type: list, elements: str, default: []}
  beat: {description: Whether Beat runs on this host., type: bool, default: false}
  drain_wait:
    description: Seconds to wait for the workers of a removed queue before their unit file is left to the next run.
    type: int
    default: 15
author: Coldframe
"""

EXAMPLES = r"""
- release_activate: {app: shop, release: 3f2a9c1b7d04, root: /srv/shop, web: true, queues: [default], beat: true}
"""

RETURN = r"""
started: {description: Instances that were started., type: list, returned: always}
stopped: {description: Instances that were asked to stop., type: list, returned: always}
draining: {description: Removed queues whose workers still finish tasks., type: list, returned: always}
"""

import os
import re
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UNITS = Path("/etc/systemd/system")


class Host:
    """What systemd on this host is asked and told about one application."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for running commands."""
        self.module = module
        self.app = module.params["app"]

    def systemctl(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        """Run systemctl; return its exit code and output.

        Raises the module's failure when it exits with another code than 0, unless check is off.
        """
        code, output, errors = self.module.run_command(["systemctl", *arguments])
        if check and code:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {errors.strip()}", rc=code)
        return code, output if not code else output + errors

    def instances(self) -> dict[str, str]:
        """Map each loaded instance of the application to its active state."""
        _, output = self.systemctl("list-units", "--all", "--plain", "--no-legend", "--full", f"{self.app}-*@*.service")
        return {line.split()[0]: line.split()[2] for line in output.splitlines() if line.strip()}

    def enabled(self) -> set[str]:
        """List the instances that start at boot."""
        return {path.name for path in (UNITS / f"{self.app}.target.wants").glob(f"{self.app}-*@*.service")}

    def journal(self, unit: str) -> str:
        """Return the last lines that a unit logged."""
        return self.module.run_command(["journalctl", "--no-pager", "--output=cat", "--lines=30", f"--unit={unit}"])[1]

    def start(self, units: list[str], undo: list[str]) -> None:
        """Start units and wait until all are ready; else stop everything in undo and fail."""
        if not units:
            return
        self.systemctl("reset-failed", *units, check=False)
        if self.systemctl("start", *units, check=False)[0] == 0:
            return
        failed = [unit for unit in units if self.systemctl("is-active", unit, check=False)[0]]
        journals = {unit: self.journal(unit) for unit in failed}
        self.systemctl("stop", *undo, check=False)
        self.systemctl("reset-failed", *undo, check=False)
        self.module.fail_json(
            msg="The new release does not start; the one before it was left running. Not ready: "
            + "".join(f"\n{unit}:\n{text}" for unit, text in journals.items()),
            failed_units=failed,
        )


def stale_templates(app: str, queues: list[str]) -> list[Path]:
    """List the unit files of queues that this host does not serve any more."""
    keep = {f"{app}-worker-{queue}@.service" for queue in queues}
    return [path for path in UNITS.glob(f"{app}-worker-*@.service") if path.name not in keep]


def point_link(link: Path, target: str) -> None:
    """Move a symbolic link in one step."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "web": {"type": "bool", "default": False},
            "queues": {"type": "list", "elements": "str", "default": []},
            "beat": {"type": "bool", "default": False},
            "drain_wait": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    app, release = parameters["app"], parameters["release"]
    host = Host(module)

    web = [f"{app}-web@{release}.service"] if parameters["web"] else []
    workers = [f"{app}-worker-{queue}@{release}.service" for queue in parameters["queues"]]
    beat = [f"{app}-beat@{release}.service"] if parameters["beat"] else []
    wanted = web + workers + beat

    states, enabled = host.instances(), host.enabled()
    running = [unit for unit, state in states.items() if state in ("active", "activating", "reloading")]
    to_start = [unit for unit in wanted if states.get(unit) != "active"]
    to_stop = [unit for unit in running if unit not in wanted]
    link = Path(parameters["root"]) / "current"
    current = os.path.basename(os.readlink(link)) if link.is_symlink() else ""
    pointer = UNITS / f"{app}-web.socket.d" / "release.conf"
    pointer_text = f"[Socket]\nService={app}-web@{release}.service\n"
    point = bool(web) and (not pointer.exists() or pointer.read_text() != pointer_text)
    listening = host.systemctl("is-active", f"{app}-web.socket", check=False)[0] == 0
    stale = stale_templates(app, parameters["queues"])

    before = {"current": current, "running": sorted(running), "enabled": sorted(enabled)}
    after = {"current": release, "running": sorted(wanted), "enabled": sorted(wanted)}
    changed = before != after or bool(to_start or stale) or point or bool(web and not listening)
    result = {
        "changed": changed,
        "started": to_start,
        "stopped": to_stop,
        "draining": [],
        "diff": {"before": before, "after": after},
    }
    if module.check_mode or not changed:
        module.exit_json(**result)

    def point_socket() -> None:
        pointer.parent.mkdir(exist_ok=True)
        pointer.write_text(pointer_text)
        host.systemctl("daemon-reload")

    failed = [unit for unit, state in states.items() if state == "failed" and unit not in wanted]
    if failed:  # leftovers of a release that is gone
        host.systemctl("reset-failed", *failed, check=False)
    if web and not listening:  # the first release: the socket needs a service that exists
        point_socket()
        host.systemctl("enable", "--now", f"{app}-web.socket")
    host.start([unit for unit in to_start if unit not in beat], undo=to_start)

    new_beat = [unit for unit in beat if unit in to_start]
    old_beat = [unit for unit in to_stop if unit.startswith(f"{app}-beat@")]
    if old_beat:
        host.systemctl("stop", *old_beat)
    if new_beat:
        host.systemctl("reset-failed", *new_beat, check=False)
        if host.systemctl("start", *new_beat, check=False)[0]:
            journal = host.journal(new_beat[0])
            host.systemctl("stop", *to_start, check=False)
            if old_beat:
                host.systemctl("start", *old_beat, check=False)
            module.fail_json(msg=f"Beat of the new release does not start; the one before it runs again.\n{journal}")

    if point:
        point_socket()
    if to_stop:
        host.systemctl("stop", "--no-block", *to_stop)
    gone = sorted(enabled - set(wanted))
    if gone:
        host.systemctl("disable", "--no-reload", *gone)
    if set(wanted) - enabled:
        host.systemctl("enable", "--no-reload", *wanted)
    point_link(link, f"releases/{release}")

    # A unit file goes when nothing runs from it: without it, systemd would forget how long to wait.
    deadline = time.monotonic() + parameters["drain_wait"]
    while stale:
        states = host.instances()
        busy = [
            p
            for p in stale
            if any(
                re.fullmatch(re.escape(p.name).replace("@", "@.+", 1), u) and s not in ("inactive", "failed")
                for u, s in states.items()
            )
        ]
        for path in set(stale) - set(busy):
            path.unlink()
        stale = busy
        if time.monotonic() > deadline:
            result["draining"] = sorted(path.name for path in stale)
            break
        if stale:
            time.sleep(0.5)
    host.systemctl("daemon-reload")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
