#!/usr/bin/python
"""Ansible module: what a deploy must know of a host before it touches anything."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_state
short_description: Reads a host's releases, units, history and lock, and the few facts that the roles use
description:
  - Changes nothing. One round trip instead of fact gathering and several commands.
  - Sets the facts C(distribution), C(distribution_major_version), C(python_version), C(memtotal_mb), C(virtualization_type), C(all_ipv4_addresses) and C(all_ipv6_addresses), each as ansible.builtin.setup names and writes it.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  history: {description: How many of the last deploys to tell., type: int, default: 0}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_state: {app: shop, root: /srv/shop, history: 20}
"""

RETURN = r"""
current: {description: The running release; empty before the first., type: str, returned: always}
previous: {description: The release that ran before it and is still here., type: str, returned: always}
releases: {description: "Releases that are whole on the host, the newest first.", type: list, returned: always}
packages: {description: Debian packages that are installed., type: list, returned: always}
groups: {description: The groups of users., type: list, returned: always}
queues: {description: Queues that the running release has workers for., type: list, returned: always}
units: {description: "Instances that are not stopped or start at boot: unit, release, state, doing, since, restarts, age, ended.", type: list, returned: always}
hostname: {description: The host's name., type: str, returned: always}
others: {description: "Other applications of Coldframe on this host, name to when and by whom each was last deployed.", type: dict, returned: always}
foreign: {description: "What services that Coldframe did not set up hold, inventory group to what.", type: dict, returned: always}
lock: {description: Who deploys now; empty when nobody does., type: dict, returned: always}
deploys: {description: "The last deploys, the newest first.", type: list, returned: always}
"""

import grp
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application
from ansible.module_utils.coldframe_host import foreign_services, other_applications


def facts(module: AnsibleModule) -> dict[str, object]:
    """Gather the facts that the roles use, in setup's words."""
    release = platform.freedesktop_os_release()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    addresses = module.run_command(["hostname", "--all-ip-addresses"])[1].split()
    return {
        "all_ipv4_addresses": [address for address in addresses if ":" not in address],
        "all_ipv6_addresses": [address for address in addresses if ":" in address],
        "distribution": release.get("NAME", "").split(" ")[0],
        "distribution_major_version": release.get("VERSION_ID", "").split(".")[0],
        "python_version": platform.python_version(),
        "memtotal_mb": pages // 2**20,
        "virtualization_type": module.run_command(["systemd-detect-virt"])[1].strip(),
    }


def deploys(events: list[dict], lock: dict, count: int) -> list[dict]:
    """Fold the history's events into one entry per deploy, the newest first."""
    entries: dict[str, dict] = {}
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
            "history": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    host = Application(module, module.params["app"], module.params["root"])
    _, installed, _ = module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n"])
    lock = host.lock()
    module.exit_json(
        changed=False,
        ansible_facts=facts(module),
        current=host.current,
        previous=host.previous(),
        releases=host.releases(),
        queues=host.queues(),
        groups=[group.gr_name for group in grp.getgrall()],
        packages=[line.split()[1] for line in installed.splitlines() if line.startswith("installed ")],
        units=host.status(),
        hostname=platform.node(),
        others=other_applications(host.app),
        foreign=foreign_services(module.run_command),
        lock=lock,
        deploys=deploys(host.history(), lock, module.params["history"]),
    )


if __name__ == "__main__":
    main()
