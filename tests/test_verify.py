"""make verify asks the servers of ENV as Ansible reaches them."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTS = """
all:
  vars: {domain: example.com, jump: "ops@gate.{{ domain }}", ansible_ssh_common_args: "-J {{ jump }}"}
  hosts:
    one: {ansible_host: "one.{{ domain }}", ansible_port: 2200, another: "not {{ jump }}"}
    two: {ansible_ssh_private_key_file: "/keys/{{ inventory_hostname }}"}
"""


@pytest.fixture
def verify(tmp_path):
    """Run the program with a pytest that tells how it was called, and its inventory."""
    (tmp_path / "pytest").write_text(
        '#!/bin/sh\necho "$COLDFRAME_INVENTORY $@"\n'
        'for each; do case "$each" in --ansible-inventory=*) cat "${each#*=}";; esac; done\nexit 7\n'
    )
    (tmp_path / "pytest").chmod(0o755)

    def run(environment):
        around = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "1"}
        program = [ROOT / "bin/verify", environment]
        return subprocess.run(program, env=os.environ | around, capture_output=True, text=True, check=False)

    return run


def test_servers_are_reached_as_ansible_reaches_them_and_no_other_variable_is_passed_on(verify, tmp_path):
    folder = tmp_path / "production"
    folder.mkdir()
    (folder / "hosts.yml").write_text(HOSTS)
    result = verify(str(folder))
    called, _, inventory = result.stdout.partition("\n")
    assert result.returncode == 7 and called.startswith(f"{folder} --verbose --sudo --hosts=ansible://all ")
    assert "not changes and not example and not attack molecule/tests" in called
    assert '"one": {"ansible_host": "one.example.com", "ansible_port": "2200"' in inventory
    assert inventory.count('"-J ops@gate.example.com"') == 2 and '"/keys/two"' in inventory
    assert "{{" not in inventory and "not " not in inventory


def test_sandbox_is_reached_by_its_own_configuration(verify):
    result = verify("sandbox")
    assert "--hosts=ssh://sandbox --ssh-config=.sandbox/" in result.stdout and result.returncode == 7


def test_inventory_that_is_not_there_is_refused_with_those_that_are(verify):
    result = verify("nowhere")
    assert result.returncode == 1 and "Set ENV to one of:" in result.stderr and "sandbox" in result.stderr
