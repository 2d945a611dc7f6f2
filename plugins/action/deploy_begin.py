"""The controller's part of deploy_begin: says who deploys, signs for the signers, and takes over the lock of a deploy that has ended."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Ansible brings module_utils to the hosts, and not to its own plugins.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
from ansible.module_utils import coldframe_signatures as signatures  # noqa: E402


def started(pid: int) -> str:
    """When a process of this machine started, in ticks since boot (proc(5), field 22); empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "unknown"  # a controller without /proc


def controller() -> str:
    """Tell controllers apart: the same name here and there means that process ids can be compared."""
    machine = Path("/etc/machine-id").read_text() if Path("/etc/machine-id").exists() else ""
    space = os.readlink("/proc/self/ns/pid") if Path("/proc/self/ns/pid").exists() else ""
    return hashlib.sha256(f"{socket.gethostname()} {machine} {space}".encode()).hexdigest()[:12]


def holder() -> dict[str, Any]:
    """Who deploys: this run of ansible-playbook, which is the parent of the process that runs an action."""
    pid = os.getppid()
    here, since = controller(), started(pid)
    who = f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    return {"deploy": f"{here}-{pid}-{since}", "who": who, "controller": here, "pid": pid, "started": since}


def signed(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the list of signers as a host keeps it, and its signature by each of the keys; an empty one where there is no key.

    Raises AnsibleActionFail when a key cannot be read.
    """
    keys = [key for key in arguments.get("signing_keys") or [] if key]
    if not keys:
        return {"signers": "", "signatures": []}
    try:
        own = [signatures.public_key(key) for key in keys]
        text = signatures.allowed_signers([*own, *(arguments.get("signers") or [])])
        return {
            "signers": text,
            "signatures": [signatures.sign(text.encode(), key, signatures.SIGNERS) for key in keys],
        }
    except ValueError as error:
        raise AnsibleActionFail(f"release_signing_key cannot be used: {error}.") from error


class ActionModule(ActionBase):
    """Runs the module, and once more with leave to take over when the holder ran on this controller and has ended."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args | {"holder": holder()} | signed(self._task.args)
        arguments.pop("signing_keys", None)
        answer: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        lock = answer.get("lock") or {}
        here = lock.get("controller") == arguments["holder"]["controller"]
        if answer.get("failed") and here and started(lock["pid"]) != lock["started"]:
            self._display.display(f"The deploy of {lock['who']} was cut off; its lock is taken over.", color="yellow")
            arguments["take_over"] = lock["deploy"]
            answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result | answer
