"""make ssh reaches the server that ENV and HOST name, or says which there are."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTS = """
all:
  vars: {ansible_user: ops, domain: example.com}
  hosts:
    one: {ansible_host: "one.{{ domain }}", ansible_port: 2200, ansible_ssh_private_key_file: ~/key}
"""


@pytest.fixture
def ssh(tmp_path):
    """Run the program with an ssh that tells how it was called and what it was given."""
    (tmp_path / "ssh").write_text('#!/bin/sh\necho "$@"\ncat\nexit 7\n')
    (tmp_path / "ssh").chmod(0o755)

    def run(hosts, *arguments, command=""):
        (tmp_path / "hosts.yml").write_text(hosts)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": "/home/me", "COLDFRAME_COMMAND": command}
        program = [ROOT / "bin/ssh", str(tmp_path / "hosts.yml"), *arguments]
        return subprocess.run(
            program, env=os.environ | environment, input="", capture_output=True, text=True, check=False
        )

    return run


def test_the_only_server_is_reached_as_ansible_reaches_it(ssh):
    result = ssh(HOSTS, command="echo 'a'\necho $HOME")
    called, _, given = result.stdout.partition("\n")
    assert called.startswith("-p 2200 -l ops -i /home/me/key one.example.com if ")
    assert (given, result.returncode) == ("echo 'a'\necho $HOME\n", 7)


@pytest.mark.parametrize("name", [(), ("three",)])
def test_of_several_servers_one_must_be_named(ssh, name):
    result = ssh(HOSTS + "    two: {ansible_host: two.example.com}\n", *name)
    assert result.returncode == 1 and "Set HOST to one of: one two" in result.stderr and result.stdout == ""
