"""The hosts of a deployed application: commands on them, its database, its broker, what its long tasks noted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import testinfra
from support.deployment import Deployment, deployed
from support.hosts import redis_client, root_shell
from support.playbooks import ROOT, ansible
from waits import wait_for

BROKER = "redis-server@broker"
PODMAN = str(ROOT / "docker/host/podman")


class Cluster:
    """Hosts by name; a group stands for its first host."""

    def __init__(self, inventory: str, deployment: Deployment) -> None:
        """Find the hosts of the inventory that one of them is in."""
        self.app, self.url, self.groups = deployment.app_name, deployment.app_url, deployment.groups
        self.queues = list(deployment.celery_queues)
        self.deployments = {name: deployed(inventory, name) for name in sorted(deployment.hosts)}
        self.config = str(Path(deployment.sandbox_state, "ssh_config"))
        self.hosts = {
            name: testinfra.get_host(f"ssh://{name}", ssh_config=self.config, sudo=True) for name in self.deployments
        }
        data = self.name("redis")
        self.redis = redis_client(root_shell(self.hosts[data]), self.deployments[data])

    def name(self, group: str) -> str:
        """The first host of a group."""
        return self.groups[group][0]

    def run(self, group: str, command: str, *arguments: str) -> str:
        """Run a command as root on the first host of a group; return what it prints.

        Raises AssertionError when it fails, RuntimeError when the host is not reached.
        """
        return self.hosts[self.name(group)].check_output(command, *arguments)

    def psql(self, commands: str) -> str:
        """Send the application's database commands, as its superuser; return what it answers."""
        psql = "runuser -u postgres -- psql -qXAt --set=ON_ERROR_STOP=1 --dbname=%s --command=%s 2>/dev/null"
        return self.run("postgresql", psql, self.app, commands)

    def sql(self, query: str) -> Any:
        """Ask the application's database for rows: a list of objects, names to values."""
        return json.loads(self.psql(f"SELECT coalesce(json_agg(row), '[]') FROM ({query}) AS row"))  # noqa: S608

    def holds(self) -> dict[str, list[dict[str, Any]]]:
        """Map each long task's key to what was noted of it, on whichever host it ran."""
        notes: dict[str, list[dict[str, Any]]] = {}
        for name in self.groups["workers"]:
            path = f"/srv/{self.app}/shared/media/holds.jsonl"
            for line in self.hosts[name].check_output(f"cat {path} || true").splitlines():
                notes.setdefault((note := json.loads(line))["key"], []).append(note)
        return notes

    def reboot(self, group: str) -> None:
        """Reboot the first host of a group, and return when its kernel would be up again.

        A container does not start again by itself: it is gone, and is started as a machine is switched on.
        """
        name = self.name(group)
        container = self.deployments[name].sandbox_name
        self.hosts[name].run("systemctl reboot --no-block")
        subprocess.run(["ssh", "-F", self.config, "-O", "exit", name], capture_output=True, check=False)
        wait_for(lambda: self.podman("inspect", "--format={{.State.Running}}", container) == "false", 60, "it is down")
        self.podman("start", container)
        # Unlike a machine's, its network card has another address each time.
        for other in set(self.hosts) - {name}:
            self.hosts[other].run(f"ip neigh flush to {self.deployments[name].app_private_address}")

    def failed(self) -> dict[str, str]:
        """The units that systemd has given up, by host; a host without one is left out."""
        units = {name: host.check_output("systemctl --failed --plain --no-legend") for name, host in self.hosts.items()}
        return {name: failed for name, failed in units.items() if failed}

    def podman(self, *arguments: str) -> str:
        """Ask podman, which holds the hosts."""
        result = ansible(PODMAN, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def journals(self, since: float) -> str:
        """What the hosts' services logged last, since a time (seconds since 1970)."""
        units = f"--unit='{self.app}-*' --unit='redis-server@*' --unit='postgresql@*'"
        usual = r" INFO \| 20[01] \| received$\| succeeded in "
        command = (
            f"journalctl --no-pager --output=short-iso --since=@{since:.0f} {units} | grep -v '{usual}' | tail -n 40"
        )
        return "\n".join(f"--- {name}\n{host.run(command).stdout}" for name, host in self.hosts.items())
