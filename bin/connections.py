"""How Ansible reaches the hosts of an inventory, for programs that connect themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What Ansible itself is told of a connection, each as ansible_NAME.
VARIABLES = ("host", "port", "user", "ssh_private_key_file", "ssh_common_args", "ssh_extra_args", "connection")
ANSWER = re.compile(r"^(\S+) \| SUCCESS => (\{.*?^\})", re.M | re.S)


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


def connections(inventory: str, hosts: str = "all") -> dict[str, dict[str, str]]:
    """Map each of these hosts to its `VARIABLES`, templates worked out; empty texts where nothing is said."""
    asked = ", ".join(f"'{each}': ansible_{each} | default('') | string" for each in VARIABLES)
    message = f"msg={{{{ {{{asked}}} | to_json }}}}"
    found = {}
    for name, answer in ANSWER.findall(
        ansible("ansible", hosts, "-i", inventory, "-m", "ansible.builtin.debug", "-a", message)
    ):
        said = json.loads(answer)["msg"]
        found[name] = json.loads(said) if isinstance(said, str) else said
    return found
