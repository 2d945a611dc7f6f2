"""Ways to wait for something on a host, and to run there what its logs must not show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waits import wait_for

from support.deployment import Deployment


def wait_for_end(pid: int | str) -> None:
    """Wait until a process of this machine has ended. Its parent may not have read yet how it ended.

    Raises AssertionError after 20 seconds. A signal ends a process some time after it was sent.
    """

    def has_ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(has_ended, 20, f"the process {pid} has ended")


def entries(host: Any, what: str) -> list[dict[str, Any]]:
    """Return entries of a host's journal, oldest first, each a mapping of its fields.

    :param what: arguments of journalctl, such as `--unit=shop-web@*` or `REQUEST_ID=...`.
    """
    lines = host.check_output(f"journalctl --output=json --all --no-pager {what}").splitlines()
    found = [json.loads(line) for line in lines]
    for entry in found:
        if isinstance(text := entry.get("MESSAGE") or "", list):  # bytes of a text that cannot be printed
            text = bytes(text).decode(errors="replace")
        entry["MESSAGE"] = text
    return found


def root_shell(host: Any) -> Callable[[str], str]:
    """Make a function that runs a script as root and returns what it prints.

    sudo writes commands into the journal, but not their input: so a secret in the script is not logged.
    """

    def run(script: str) -> str:
        backend = host.backend
        if backend.NAME == "ansible":  # the SSH connection that it uses
            backend = backend.ansible_runner.get_host(
                backend.host, ssh_config=backend.ssh_config, ssh_identity_file=backend.ssh_identity_file
            ).backend
        words, arguments = backend._build_ssh_command("sudo sh -s")
        command = backend.quote(" ".join(words), *arguments)
        return subprocess.run(command, shell=True, input=script, capture_output=True, text=True, check=False).stdout  # noqa: S602

    return run


def redis_client(shell: Callable[[str], str], deployment: Deployment) -> Callable[..., str]:
    """Make a function that sends commands to a Redis instance as one of its users, and returns the answer."""

    def ask(command: str, user: str = "admin", instance: str = "broker") -> str:
        lines = f"AUTH {user} {json.dumps(deployment.app_redis_passwords[user])}\n{command}"
        socket = f"/run/redis-{deployment.prefix}{instance}/redis-server.sock"
        return shell(f"redis-cli -s {socket} <<'END' | tail -n +2\n{lines}\nEND\n").strip()

    return ask
