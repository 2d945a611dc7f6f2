#!/usr/bin/python
"""Ansible module: whether another program installs packages now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_lock
short_description: Says whether apt or dpkg is in use on the host, and by whom
description:
  - Changes nothing. Looks at the locks of dpkg and apt, and at cloud-init, which installs packages at a server's first boot.
options: {}
author: Coldframe
"""

EXAMPLES = r"""
- apt_lock:
  register: lock
  until: not lock.holder
  retries: 60
  delay: 5
"""

RETURN = r"""
holder: {description: Who installs packages and what it holds; empty when nobody does., type: str, returned: always}
"""

import fcntl
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")


def owner(path: Path, proc: Path = Path("/proc")) -> str:
    """Name the process that locks a file, as the kernel lists it; without a name when it cannot be told."""
    inode = str(path.stat().st_ino)
    for line in (proc / "locks").read_text().splitlines():
        _, kind, _, access, pid, place, *_ = line.replace("-> ", "").split()
        if (kind, access, place.rpartition(":")[2]) == ("POSIX", "WRITE", inode):
            name = proc / pid / "comm"
            return f"{name.read_text().strip() if name.exists() else 'a process'} ({pid})"
    return "a process"


def holder(paths: tuple[str, ...] = LOCKS) -> str:
    """Say who holds the first of the locks that is held; empty when none is. Takes each for a moment (fcntl(2))."""
    for path in map(Path, paths):
        if not path.exists():
            continue
        with path.open("r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return f"{owner(path)} holds {path}"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    found = holder()
    if not found and shutil.which("cloud-init"):
        _, output, _ = module.run_command(["cloud-init", "status"])
        found = "cloud-init still sets this server up" if "status: running" in output else ""
    module.exit_json(changed=False, holder=found)


if __name__ == "__main__":
    main()
