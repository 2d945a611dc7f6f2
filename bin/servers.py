"""A command of make for the servers of an inventory: what Ansible knows of them, and which of them is meant."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from connections import inventory_of, played, sandbox_config, ssh_arguments

# A command as root, where root logs in and where another account may use sudo.
AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec {0}; else exec sudo {0}; fi'


class Command:
    """One run of a command."""

    def __init__(self, verb: str, environment: str, playbook: str, options: list[str]) -> None:
        """Remember what is asked.

        :param verb: the target of make.
        :param environment: ENV.
        :param playbook: the path of servers.yml.
        :param options: variables of make, each NAME=VALUE.
        """
        self.verb, self.environment, self.playbook = verb, environment, playbook
        self.options = dict(option.split("=", 1) for option in options)
        self.hosts: dict[str, dict[str, str]] = {}
        self.app: dict[str, Any] = {}
        self.login: dict[str, str] = {}

    def fail(self, message: str) -> NoReturn:
        """End with a message."""
        sys.exit(f"make {self.verb}: {message}")

    def is_set(self, name: str) -> bool:
        """Whether a switch, such as ADMIN=1, is on."""
        return self.options.get(name, "") not in ("", "0")

    def one_of(self, name: str, value: str, known: list[str]) -> None:
        """End if an option's value is none of those that there are."""
        if value not in known:
            self.fail(f"{name}={value}: set {name} to one of: {' '.join(known)}")

    def read(self, login: str = "") -> None:
        """Ask Ansible for the hosts and the application.

        :param login: a Redis user whose login is needed.
        """
        if self.environment == "sandbox" and not sandbox_config().exists():
            self.fail("there is no sandbox host: run 'make deploy' first.")
        try:
            told = played(str(inventory_of(self.environment)), self.playbook, {"servers_login": login})
        except ValueError as error:
            self.fail(f"Ansible cannot read {self.environment}: {error}")
        for task, host, result in told:
            if result.get("failed"):
                self.fail(f"Ansible cannot read {self.environment}: {result.get('msg')}")
            if task == "Host":
                self.hosts[host] = result["msg"]
            elif task == "Application":
                self.app = result["msg"]
            elif task == "Login" and not result.get("skipped"):
                self.login = result["msg"]
        if not self.hosts:
            self.fail(f"{self.environment} has no hosts.")

    def host(self, groups: tuple[str, ...], what: str) -> str:
        """Return the host that HOST names, or the first one of these groups.

        :param what: they have, in words.
        """
        having = list(dict.fromkeys(host for group in groups for host in self.app["groups"].get(group, [])))
        name = self.options.get("HOST", "")
        if not having:
            self.fail(f"no host of {self.environment} has {what}.")
        if name and name not in having:
            self.fail(f"HOST={name} has not {what}. Set HOST to one of: {' '.join(having)}")
        return name or having[0]

    def ssh_to(self, host: str) -> list[str]:
        """Return ssh's arguments for a host."""
        try:
            return ssh_arguments(host, self.hosts[host])
        except ValueError as error:
            self.fail(str(error))
