#!/usr/bin/python
"""Ansible module: what a deploy must know of a host before it touches anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_state
short_description: Reads a host's releases, units, history and lock, and the few facts that the roles use
description:
  - Changes nothing. One round trip instead of fact gathering and several commands.
  - Sets the facts C(distribution), C(distribution_major_version), C(memtotal_mb), C(swaptotal_mb), C(processor_vcpus), C(virtualization_type), C(all_ipv4_addresses) and C(all_ipv6_addresses), each as ansible.builtin.setup names and writes it.
  - In a container memory and processors are those that it may use, where the machine's would be more.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  python: {description: The Python that runs the application., type: path, default: /usr/bin/python3}
  history: {description: How many of the last deploys to tell., type: int, default: 0}
  surroundings:
    description: Whether to find out too how the host is reached, what listens on its ports, and whether a container allows a unit's sandbox.
    type: bool
    default: false
author: Coldframe
"""

EXAMPLES = r"""
- deploy_state: {app: shop, root: /srv/shop, history: 20, surroundings: true}
"""

RETURN = r"""
current: {description: The running release; empty before the first., type: str, returned: always}
previous: {description: The release that ran before it and is still here., type: str, returned: always}
releases: {description: "Releases that are whole on the host, the newest first.", type: list, returned: always}
python:
  description: "C(version) of that Python, such as 3.13.5; empty if it cannot be used, and C(error) says why."
  type: dict
  returned: always
packages: {description: Debian packages that are installed., type: list, returned: always}
groups: {description: The groups of users., type: list, returned: always}
queues: {description: Queues that the running release has workers for., type: list, returned: always}
release_queues: {description: "The same of each of C(releases), release to queues.", type: dict, returned: always}
clusters: {description: "Clusters of PostgreSQL that the host has: C(VERSION/NAME) to port.", type: dict, returned: always}
units: {description: "Instances that are not stopped or start at boot: unit, release, state, doing, since, restarts, age, ended.", type: list, returned: always}
hostname: {description: The host's name., type: str, returned: always}
others: {description: "Other applications of Coldframe on this host, name to C(deployed), when and by whom each was last, and C(record).", type: dict, returned: always}
record: {description: "What the application takes of this host, as M(deploy_begin) noted it. Empty before the first deploy.", type: dict, returned: always}
foreign: {description: "What services that Coldframe did not set up hold, inventory group to what.", type: dict, returned: always}
ssh_ports: {description: "TCP ports on which the SSH server listens, or systemd for it.", type: list, returned: with C(surroundings)}
listeners: {description: "TCP ports that others may reach, port to the name of the process that listens.", type: dict, returned: with C(surroundings)}
disk_free_mb: {description: "Free space of the file systems that a deploy fills, folder to MiB.", type: dict, returned: with C(surroundings)}
synchronized: {description: Whether the clock is synchronized., type: bool, returned: with C(surroundings)}
umask: {description: "The umask of root's processes, such as C(022).", type: str, returned: with C(surroundings)}
key_login: {description: Whether the journal has a login of the account that deploys with a key., type: bool, returned: with C(surroundings)}
sandbox_error:
  description: Why a service with a sandbox does not start in this container. Empty if it does, and on a host that is no container.
  type: str
  returned: with C(surroundings)
signers: {description: "The public keys whose releases the host takes. Empty: it takes those without a signature.", type: list, returned: always}
inputs:
  description: "The O(deploy_begin#module:inputs) of the last deploy, if it came to its end and the host is as it left it; else empty."
  type: str
  returned: always
when: {description: "When this began, in seconds since the epoch.", type: int, returned: always}
lock: {description: Who deploys now; empty when nobody does., type: dict, returned: always}
deploys: {description: "The last deploys, the newest first.", type: list, returned: always}
"""

import grp
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application
from ansible.module_utils.coldframe_host import (
    foreign_services,
    key_login,
    listeners,
    other_applications,
    sandbox_error,
    ssh_ports,
    synchronized,
)
from ansible.module_utils.coldframe_machine import file_systems, meminfo
from ansible.module_utils.coldframe_signatures import keys_of


def limits(folder: Path, *names: str) -> list[int]:
    """Read the numbers in the first of these files of a control group that is there; "max" is none."""
    for name in names:
        if (folder / name).exists():
            return [int(word) for word in (folder / name).read_text().split() if word.lstrip("-").isdigit()]
    return []


def memory(proc: Path = Path("/proc"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes of memory this system may use: the machine's, or its container's, where that has less."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = limits(group, "memory.max", "memory/memory.limit_in_bytes")
    return min([pages, *(size for size in [meminfo("MemTotal", proc), *limit[:1]] if size > 0)])


def processors(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors this system may use: the machine's, or its container's share, rounded up."""
    share = limits(group, "cpu.max")
    if not share:
        share = limits(group, "cpu/cpu.cfs_quota_us") + limits(group, "cpu/cpu.cfs_period_us")
    here = len(os.sched_getaffinity(0))
    return max(1, min(here, -(-share[0] // share[1]))) if len(share) == 2 and share[0] > 0 else here


def facts(module: AnsibleModule) -> dict[str, object]:
    """Gather the facts that the roles use, in setup's words."""
    release = platform.freedesktop_os_release()
    addresses = module.run_command(["hostname", "--all-ip-addresses"])[1].split()
    return {
        "all_ipv4_addresses": [address for address in addresses if ":" not in address],
        "all_ipv6_addresses": [address for address in addresses if ":" in address],
        "distribution": release.get("NAME", "").split(" ")[0],
        "distribution_major_version": release.get("VERSION_ID", "").split(".")[0],
        "memtotal_mb": memory() // 2**20,
        "swaptotal_mb": meminfo("SwapTotal") // 2**20,
        "processor_vcpus": processors(),
        "virtualization_type": module.run_command(["systemd-detect-virt"])[1].strip(),
    }


def interpreter(module: AnsibleModule, path: str) -> dict[str, str]:
    """Say which version a Python has, or why it cannot be used."""
    if not os.access(path, os.X_OK):
        return {"version": "", "error": "is not there"}
    asked = "import platform; print(platform.python_implementation(), platform.python_version())"
    status, said, errors = module.run_command([path, "-I", "-c", asked])
    name, _, version = said.strip().partition(" ")
    if status or not re.fullmatch(r"\d+[.]\d+[.]\S+", version):
        return {"version": "", "error": f"is no Python that runs: {(errors or said).strip()[-300:]}"}
    return {"version": version, "error": "" if name == "CPython" else f"is {name}, and not CPython"}


def disk_free() -> dict[str, int]:
    """Map each file system that a deploy fills to its free space in MiB, by the first of the folders that is on it."""
    return {folder: space.f_bavail * space.f_frsize // 2**20 for folder, space in file_systems().items()}


def umask() -> str:
    """Return this process' umask, such as 022."""
    mask = os.umask(0o077)
    os.umask(mask)
    return f"{mask:03o}"


def clusters(folder: Path = Path("/etc/postgresql")) -> dict[str, int]:
    """Map each cluster of PostgreSQL, as `15/main`, to its port, as Debian's tools find them."""
    found = {}
    for file in sorted(folder.glob("*/*/postgresql.conf")):
        ports = re.findall(r"^\s*port\s*=?\s*'?(\d+)", file.read_text(errors="replace"), re.M)
        found[f"{file.parts[-3]}/{file.parts[-2]}"] = int(ports[-1]) if ports else 5432
    return found


def deploys(events: list[dict[str, Any]], lock: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Fold the history's events into one entry per deploy, the newest first."""
    entries: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "begun":
            entries[event["deploy"]] = {"outcome": "did not finish", **event}
        elif event["event"] == "ended" and event["deploy"] in entries:
            begun = entries[event["deploy"]]
            begun |= {k: v for k, v in event.items() if k in ("outcome", "reason")}
            begun["seconds"] = event["when"] - begun["when"]
    if lock and lock.get("deploy") in entries:
        entries[lock["deploy"]]["outcome"] = "running, or cut off"
    return list(reversed(entries.values()))[:count]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "history": {"type": "int", "default": 0},
            "surroundings": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    when = int(time.time())
    host = Application(module, module.params["app"], module.params["root"])
    _, installed, _ = module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n"])
    lock = host.lock()
    around: dict[str, object] = {}
    if module.params["surroundings"]:
        run = module.run_command
        around = {"ssh_ports": ssh_ports(run), "key_login": key_login(run), "sandbox_error": sandbox_error(run)}
        around |= {"listeners": listeners(run), "synchronized": synchronized()}
        around |= {"disk_free_mb": disk_free(), "umask": umask()}
    module.exit_json(
        changed=False,
        ansible_facts=facts(module),
        **around,
        current=host.current,
        previous=host.previous(),
        releases=host.releases(),
        queues=host.queues(),
        release_queues={release: host.queues(release) for release in host.releases()},
        groups=[group.gr_name for group in grp.getgrall()],
        python=interpreter(module, module.params["python"]),
        packages=[line.split()[1] for line in installed.splitlines() if line.startswith("installed ")],
        clusters=clusters(),
        units=host.status(),
        hostname=platform.node(),
        others=other_applications(host.app),
        record=host.record(),
        foreign=foreign_services(module.run_command),
        signers=keys_of(host.signers),
        inputs=host.inputs(),
        when=when,
        lock=lock,
        deploys=deploys(host.history(), lock, module.params["history"]),
    )


if __name__ == "__main__":
    main()
