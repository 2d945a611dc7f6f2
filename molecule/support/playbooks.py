"""Runs of playbooks and other programs, and what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Ansible prints plain text. Molecule's environment asks for colours.
PLAIN = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_NOCOLOR": "1",
    "LC_ALL": "C.UTF-8",
}
Finished = subprocess.CompletedProcess[str]
SHORT = re.compile(r"^Tasks that changed something:(.+)\. [\d.]+ s in all\.$", re.MULTILINE)
EDGE = [
    {
        "hosts": "edge",
        "become": True,
        "tasks": [
            {"ansible.builtin.import_role": {"name": "app", "tasks_from": "state.yml"}},
            {"ansible.builtin.import_role": {"name": "nginx"}},
        ],
    }
]


def ansible(*command: str, **environment: str) -> Finished:
    """Run one of Ansible's programs, or another, in the project's folder with further environment variables.

    Raises subprocess.TimeoutExpired after 15 minutes.
    """
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | PLAIN | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def play(inventory: str | Path, playbook: str, *arguments: str) -> Finished:
    """Run a playbook by its name, such as `deploy`."""
    return ansible("ansible-playbook", "-i", str(inventory), f"playbooks/{playbook}.yml", *arguments)


def deploy(inventory: str, *arguments: str, **variables: Any) -> Finished:
    """Deploy with variables that override the inventory's."""
    return play(inventory, "deploy", *arguments, "-e", json.dumps(variables))


def roll_back(inventory: str, release: str) -> Finished:
    """Make a release run again that is on the host."""
    return play(inventory, "rollback", "-e", f"release_rollback_to={release}")


def restore(inventory: str, release: str) -> None:
    """Make the inventory's own release run again: by a rollback, which is quicker, or by a deploy if the host no longer has it.

    Raises AssertionError.
    """
    result = roll_back(inventory, release)
    if result.returncode:
        result = deploy(inventory)
    assert result.returncode == 0, result.stdout


def converge_edge(inventory: str, folder: Path, **variables: Any) -> Finished:
    """Run the role nginx with variables that override the inventory's.

    :param folder: takes the playbook.
    """
    playbook = folder / "edge.yml"
    playbook.write_text(json.dumps(EDGE))
    return ansible("ansible-playbook", "-i", inventory, str(playbook), "-e", json.dumps(variables))


def changed(result: Finished) -> int:
    """Count the tasks that changed something, on all hosts together: by Ansible's recap, or by the short account of make."""
    recap, short = re.findall(r"changed=(\d+)", result.stdout), SHORT.findall(result.stdout)
    assert recap or short or result.returncode, f"neither a recap nor a short account: {result.stdout}"
    return sum(map(int, recap + re.findall(r" (\d+)(?=,|$)", "\n".join(short), re.MULTILINE)))


def output(result: Finished) -> str:
    """Return what a run printed, on one line."""
    return re.sub(r"\s+", " ", result.stdout + result.stderr)
