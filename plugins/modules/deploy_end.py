#!/usr/bin/python
"""Ansible module: ends a deploy on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_end
short_description: Notes how a deploy ended, removes old releases, and gives the lock back
description:
  - Ends what M(deploy_begin) began. In check mode it says which releases would go, and changes nothing.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  deploy: {description: The deploy that ends., type: str, required: true}
  outcome: {description: How it ended., type: str, choices: [done, failed], default: done}
  reason: {description: Why it failed., type: str, default: ""}
  keep:
    description:
      - How many releases stay for a rollback. What runs, drains or starts at boot, and the current and the
        previous release, always stay, with their environments. 0 removes nothing.
    type: int
    default: 0
  release: {description: "The release that a deploy in check mode would make the current one, which stays.", type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_end: {app: shop, root: /srv/shop, deploy: "{{ release_begun.deploy }}", keep: 5}
"""

RETURN = r"""
removed: {description: What was removed., type: list, returned: always}
exposure: {description: "How exposed each running unit is, by C(systemd-analyze security); 0 to 10.", type: dict, returned: when not in check mode}
artifact: {description: "What M(release_unpack) noted of the current release's file, and C(lock_sha256), the digest of its lock file.", type: dict, returned: always}
packages:
  description:
    - "What is installed: C(python), the packages of the current release's environment, and C(debian), each name to version; C(lock),
      the text of its lock file; C(debian_version)."
  type: dict
  returned: when not in check mode
when: {description: "When this began, in seconds since the epoch.", type: int, returned: always}
until: {description: When it ended., type: int, returned: always}
units: {description: "As of M(deploy_state).", type: list, returned: always}
"""

import hashlib
import json
import platform
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, Module, remove


def exposure(module: Module, units: list[dict[str, Any]]) -> dict[str, float]:
    """Map the services that run to systemd's score of their sandbox."""
    names = [unit["unit"] for unit in units if unit["unit"].endswith(".service") and unit["state"] == "active"]
    if not names:
        return {}
    output = module.run_command(["systemd-analyze", "security", "--no-pager", *names])[1]
    return {name: float(score) for name, score in re.findall(r"Overall exposure level for (\S+): ([\d.]+)", output)}


def artifact(release: Path) -> dict[str, str]:
    """Read what a release's file and its lock file were; less for a release of an earlier Coldframe."""
    found: dict[str, str] = {}
    note, lock = release / ".release/artifact.json", release / ".release/requirements.txt"
    if note.exists():
        found |= json.loads(note.read_text())
    if lock.exists():
        found["lock_sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    return found


def packages(module: Module, release: Path) -> dict[str, Any]:
    """Read which packages of Python a release has, and which of Debian the host has."""
    lock = release / ".release/requirements.txt"
    folders = [
        path.name.removesuffix(".dist-info") for path in release.glob(".venv/lib/python3*/site-packages/*.dist-info")
    ]
    listed = module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\\n"])[
        1
    ]
    lines = [line.split() for line in listed.splitlines()]
    return {
        "python": {name: version for name, _, version in (folder.partition("-") for folder in folders)},
        "lock": lock.read_text() if lock.exists() else "",
        "debian": {line[1]: line[2] for line in lines if len(line) == 3 and line[0] == "installed"},
        "debian_version": platform.freedesktop_os_release().get("VERSION_ID", ""),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "deploy": {"type": "str", "required": True},
            "outcome": {"type": "str", "choices": ["done", "failed"], "default": "done"},
            "reason": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 0},
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    p, when = module.params, int(time.time())
    host = Application(module, p["app"], p["root"])
    paths = host.prunable(p["keep"], p["release"]) if p["keep"] else []
    if not module.check_mode:
        if p["outcome"] == "failed":  # a release that had to go again is nothing to roll back to
            for event in host.activations():
                if event["deploy"] == p["deploy"] and event["release"] != host.current:
                    remove(host.root / "releases" / event["release"] / ".release/ready")
        for path in paths:
            remove(path)
        if paths:
            host.keep_static()
        if p["outcome"] == "done":
            host.see_to_shared()
        if any(path.parent == host.units for path in paths):
            host.systemctl("daemon-reload")
        if host.lock().get("deploy") == p["deploy"]:
            host.finish(p["deploy"], p["outcome"], **({"reason": p["reason"]} if p["reason"] else {}))
    units, reported = host.status(), p["outcome"] == "done" and not module.check_mode
    module.exit_json(
        changed=bool(paths),
        removed=[str(path) for path in paths],
        units=units,
        exposure=exposure(module, units) if reported else {},
        packages=packages(module, host.root / "current") if reported else {},
        artifact=artifact(host.root / "current"),
        when=when,
        until=int(time.time()),
    )


if __name__ == "__main__":
    main()
