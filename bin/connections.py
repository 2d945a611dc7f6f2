"""How Ansible reaches the hosts of an inventory, for programs that connect themselves."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The password of a vault beside the inventory, outside of this project.
VAULT_PASSWORD = ".vault_pass"  # noqa: S105
# What Ansible itself is told of a connection, each as ansible_NAME.
VARIABLES = ("host", "port", "user", "ssh_private_key_file", "ssh_common_args", "ssh_extra_args", "connection")
ANSWER = re.compile(r"^(\S+) \| SUCCESS => (\{.*?^\})", re.M | re.S)


def inventory_of(environment: str, root: Path = ROOT) -> Path:
    """Return the folder of the inventory that ENV names: one of inventories/, or any by its path, relative to this project."""
    if "/" not in environment:
        return root / "inventories" / environment
    return Path(os.path.normpath(root / Path(environment).expanduser()))


def environment_of(inventory: Path, root: Path = ROOT) -> str:
    """Return the ENV that names an inventory."""
    if inventory.parent == root / "inventories":
        return inventory.name
    return str(inventory.relative_to(root) if inventory.is_relative_to(root) else inventory)


def vault_password_of(inventory: Path, root: Path = ROOT) -> Path:
    """Return the file with the password of an inventory's vault, unless ANSIBLE_VAULT_PASSWORD_FILE names another."""
    if inventory.parent == root / "inventories":
        return root / ".vault" / inventory.name
    return inventory / VAULT_PASSWORD


def sandbox_config() -> Path:
    """Return the file that tells ssh how to reach the host that `make sandbox` boots."""
    return ROOT / ".sandbox" / os.environ.get("SANDBOX_NAME", "coldframe-sandbox") / "ssh_config"


def make_sandbox_secrets(inventory: Path) -> None:
    """Create the secrets of a sandbox host's inventory, unless they are there. Without them its variables cannot be worked out."""
    values = inventory / "group_vars/all"
    if (values / "sandbox.yml").exists():
        file = (inventory / ".host" if (values / "try.yml").exists() else sandbox_config().parent) / "secrets.yml"
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            command = [sys.executable, str(ROOT / "bin/secrets"), "make", str(file)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def environments(root: Path = ROOT) -> str:
    """Name the inventories of this project, and those of `make try`."""
    tried = [path.parent for path in sorted(root.glob(".sandbox/*/hosts.yml"))]
    return " ".join(environment_of(path, root) for path in [*sorted(root.glob("inventories/*")), *tried])


def interrupted(what: str) -> int:
    """Say that a command was interrupted by Ctrl-C; return its exit status, as a shell has it.

    :param what: the command, such as `make new`.
    """
    print(f"\n{what}: interrupted.", file=sys.stderr)
    return 130


def ansible(*command: str) -> str:
    """Run one of Ansible's programs; return what it prints. End this program with that when it fails."""
    plain = {
        "ANSIBLE_STRATEGY": "linear",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    result = subprocess.run(command, cwd=ROOT, env=os.environ | plain, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    return result.stdout


def ssh_arguments(name: str, found: dict[str, str]) -> list[str]:
    """Return the arguments with which ssh reaches a host as Ansible does.

    Raises ValueError for a host that Ansible reaches in another way.

    :param found: of that host, as `connections` returns it.
    """
    if found["connection"] not in ("", "ssh", "smart"):
        raise ValueError(f"{name} is reached by the connection {found['connection']!r}, which is no SSH.")
    options = {"-p": found["port"], "-l": found["user"], "-i": os.path.expanduser(found["ssh_private_key_file"])}
    arguments = [part for option, value in options.items() if value for part in (option, value)]
    return [*shlex.split(f"{found['ssh_common_args']} {found['ssh_extra_args']}"), *arguments, found["host"] or name]


def connections(inventory: str, hosts: str = "all") -> dict[str, dict[str, str]]:
    """Map each of these hosts to its `VARIABLES`, templates worked out; empty texts where nothing is said."""
    return variables_of(inventory, hosts, {each: f"ansible_{each}" for each in VARIABLES})


def variables_of(inventory: str, hosts: str, names: dict[str, str]) -> dict[str, dict[str, str]]:
    """Map each of these hosts to texts, templates worked out: name to the value of a variable, or empty.

    :param names: name to the variable.
    """
    asked = ", ".join(f"'{name}': {variable} | default('') | string" for name, variable in names.items())
    message = f"msg={{{{ {{{asked}}} | to_json }}}}"
    found = {}
    for name, answer in ANSWER.findall(
        ansible("ansible", hosts, "-i", inventory, "-m", "ansible.builtin.debug", "-a", message)
    ):
        said = json.loads(answer)["msg"]
        found[name] = json.loads(said) if isinstance(said, str) else said
    return found


def played(inventory: str, path: str, given: dict[str, Any], *arguments: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Run a playbook; return the task, the host and the result of each task that told something.

    Raises ValueError when Ansible did not get that far, with its last words.

    :param given: further variables.
    :param arguments: of ansible-playbook.
    """
    environment = {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = ["ansible-playbook", "-i", inventory, path, *arguments, "-e", json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    start = done.stdout.find("{")
    try:
        plays = json.loads(done.stdout[start:])["plays"] if start >= 0 else []
    except ValueError:
        plays = []
    if not plays:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        error = [line for line in words if line.startswith(("[ERROR]", "ERROR"))]
        raise ValueError((error or words or [f"ansible-playbook ended with {done.returncode}"])[-1])
    return [
        (task["task"]["name"], host, result)
        for play in plays
        for task in play["tasks"]
        for host, result in task.get("hosts", {}).items()
    ]
