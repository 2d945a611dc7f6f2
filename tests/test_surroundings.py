"""How a host is reached by SSH, and whether a container starts services with a sandbox: read before anything is touched."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.coldframe_host import key_login, listeners, sandbox_error, ssh_ports, synchronized

ROOT = Path(__file__).parents[1]
LISTENERS = """\
LISTEN 0      128          0.0.0.0:2222      0.0.0.0:*    users:(("sshd",pid=211,fd=6))
LISTEN 0      128             [::]:2222         [::]:*    users:(("sshd",pid=211,fd=7))
LISTEN 0      4096       127.0.0.1:5432      0.0.0.0:*    users:(("postgres",pid=99,fd=5))
LISTEN 0      4096               *:9090            *:*    users:(("systemd",pid=1,fd=80))
"""


def answers(**commands):
    """Run nothing: give the answer to each command, by its first word, and fail all others."""

    def run(argv):
        return next((commands[word] for word in commands if word in " ".join(argv)), (1, "", ""))

    return run


def test_ports_of_ssh_are_those_of_its_server_and_its_socket():
    assert ssh_ports(answers(ss=(0, LISTENERS, ""))) == [2222], "a socket of systemd's that is not SSH's does not count"
    listen = "0.0.0.0:22 (Stream)\\n[::]:22 (Stream)\\n/run/ssh (Stream)\\n"
    run = answers(show=(0, listen, ""), active=(0, "", ""), ss=(0, LISTENERS, ""))
    assert ssh_ports(run) == [22, 2222]
    assert ssh_ports(answers()) == [], "there is no ss on the host"


def test_listeners_are_those_that_others_may_reach():
    more = 'LISTEN 0 511 [::1]:6379 [::]:*  users:(("redis-server",pid=9,fd=6))\nLISTEN 0 511 0.0.0.0:80 0.0.0.0:*\n'
    assert listeners(answers(ss=(0, LISTENERS + more, ""))) == {"2222": "sshd", "9090": "systemd", "80": ""}
    assert listeners(answers()) == {}


def test_clock_counts_as_synchronized_where_nobody_can_tell():
    assert synchronized(lambda _: 0) and synchronized(lambda _: -1)
    assert not synchronized(lambda _: 5)
    assert synchronized() in (True, False), "the kernel's own answer"


@pytest.mark.parametrize(("journal", "seen"), [("Nov 02 one sshd[7]: Accepted publickey for ...\n", True), ("", False)])
def test_login_with_a_key_is_looked_for_with_the_account_that_deploys(monkeypatch, journal, seen):
    for account, pattern in (("", "for root from "), ("o.brien", r"for o\.brien from ")):
        monkeypatch.setenv("SUDO_USER", account)
        asked = []
        assert key_login(lambda argv, asked=asked: (asked.append(argv[-1]), (0, journal, ""))[1]) is seen
        assert asked[0].endswith(pattern)


def test_sandbox_is_tried_in_a_container_alone():
    failed = (226, "", "Failed to set up mount namespacing\n")
    assert sandbox_error(answers(**{"systemd-run": failed})) == "", "it is no container"
    detected = {"systemd-detect-virt": (0, "", "")}
    assert sandbox_error(answers(**detected, **{"systemd-run": failed})) == "rc 226: Failed to set up mount namespacing"
    assert sandbox_error(answers(**detected, **{"systemd-run": (0, "", "")})) == ""


PROBLEMS = {
    "right": ({}, []),
    "without-key": ({"key_login": False}, ["base_ssh_hardening is true"]),
    "closed": ({"sandbox_error": "rc 226: no", "ssh_ports": []}, ["it (rc 226: no)", "firewall_enabled is true"]),
}


def test_all_that_is_wrong_is_reported(tmp_path):
    """The roles' variables find it, without another look at the host."""
    right = {"key_login": True, "sandbox_error": "", "ssh_ports": [22]}
    hosts = {name: {"app_state": right | state} for name, (state, _) in PROBLEMS.items()}
    values = {
        "base_ssh_hardening": True,
        "firewall_enabled": True,
        "__base_memory": [],
        "ansible_facts": {"virtualization_type": "lxc"},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / f"roles/{name}/vars/main.yml") for name in ("base", "firewall")],
        "tasks": [{"ansible.builtin.debug": {"msg": "{{ __base_problems + __firewall_problems }}"}}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml"), "-e", json.dumps(values)],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_STRATEGY": "linear",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]
    for host, (_, problems) in PROBLEMS.items():
        assert len(found[host]["msg"]) == len(problems), found[host]
        for message, part in zip(found[host]["msg"], problems, strict=True):
            assert part in message
