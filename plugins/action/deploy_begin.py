"""The controller's part of deploy_begin: says who deploys, and takes over the lock of a deploy that has ended."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


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


class ActionModule(ActionBase):
    """Runs the module, and once more with leave to take over when the holder ran on this controller and has ended."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args | {"holder": holder()}
        answer: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        lock = answer.get("lock") or {}
        here = lock.get("controller") == arguments["holder"]["controller"]
        if answer.get("failed") and here and started(lock["pid"]) != lock["started"]:
            self._display.display(f"The deploy of {lock['who']} was cut off; its lock is taken over.", color="yellow")
            arguments["take_over"] = lock["deploy"]
            answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result | answer
