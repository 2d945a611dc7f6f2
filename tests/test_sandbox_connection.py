"""Sandboxes of several checkouts, whose hosts have one name, are not mixed up."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path():
    """Where Ansible keeps an open connection to the host of a sandbox."""

    def ask(name):
        command = ["ansible", "-i", "inventories/sandbox", "sandbox", "-m", "debug", "-a", "var=ansible_control_path"]
        environment = os.environ | {"SANDBOX_NAME": name, "ANSIBLE_STRATEGY": "linear"}
        return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    return ask


def test_each_sandbox_has_connections_of_its_own(path):
    one, two = path("one"), path("two")
    assert "%(directory)s/" in one and one != two
