"""The playbook that boots a sandbox host, with a podman that only keeps files: what was never started is made anew."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]
# A container is a file with its state, when it was started, ports and folder. One that is busy gets no ports.
PODMAN = """#!/bin/sh
echo "$*" >> "$FAKE/log"
file=$FAKE/container
case $1 in
container)
    # What is asked for, in one line.
    asked='--format={{ .State.Running }} {{ .State.StartedAt }} {{ index .Config.Labels "coldframe.ports" }}'
    [ "$3" = "$asked "'{{ index .Config.Labels "coldframe.state" }}' ] || { echo "asked for $3" >&2; exit 1; }
    [ -e "$file" ] || exit 125
    cat "$file" ;;
rm) rm -f "$file" ;;
run)
    started='true 2026-01-02 03:04:05 +0000 UTC'
    [ -e "$FAKE/busy" ] && started='false 0001-01-01 00:00:00 +0000 UTC'
    for word; do
        case $word in
        --label=coldframe.ports=*) ports=${word#--label=coldframe.ports=} ;;
        --label=coldframe.state=*) state=${word#--label=coldframe.state=} ;;
        esac
    done
    echo "$started $ports $state" > "$file" ;;
start) [ -e "$FAKE/busy" ] || sed -i 's/^false/true/' "$file" ;;
esac
if [ -e "$FAKE/busy" ] && { [ "$1" = run ] || [ "$1" = start ]; }; then
    echo 'Error: cannot listen on the TCP port: listen tcp4 127.0.0.1:2399: bind: address already in use' >&2
    exit 126
fi
exit 0
"""
NEVER, STOPPED = "false 0001-01-01 00:00:00 +0000 UTC", "false 2026-01-02 03:04:05 +0000 UTC"


@pytest.fixture
def boot(tmp_path):
    """Boot a host; return the exit code, what was said, and the podman commands."""
    programs = {"podman": PODMAN, "build": "#!/bin/sh\necho localhost/host\n", "ssh": "#!/bin/sh\necho running\n"}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "hosts.yml").write_text("all: {hosts: {sandbox: {}}}\n")

    def run(container="", busy=False, **more):
        (tmp_path / "container").write_text(container) if container else (tmp_path / "container").unlink(
            missing_ok=True
        )
        (tmp_path / "busy").touch() if busy else (tmp_path / "busy").unlink(missing_ok=True)
        (tmp_path / "log").write_text("")
        ports = {f"sandbox_{name}_port": 2399 + number for number, name in enumerate(("ssh", "https", "http"))}
        variables = {
            "docker_host": str(tmp_path),
            "sandbox_name": "mine",
            "sandbox_suite": "trixie",
            "sandbox_state": str(tmp_path / "state"),
            **ports,
            **more,
        }
        command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "playbooks/sandbox.yml"]
        around = {"FAKE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_STRATEGY": "linear"}
        done = subprocess.run(
            [*command, "-e", json.dumps(variables)],
            cwd=ROOT,
            env=os.environ | PLAIN | around,
            capture_output=True,
            text=True,
            check=False,
        )
        verbs = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
        return done.returncode, " ".join((done.stdout + done.stderr).split()), verbs

    run.state = tmp_path / "state"
    return run


PROJECT = {"try_app": "/home/ann/shop"}


def test_host_that_is_not_there_is_created_and_a_stopped_one_is_started(boot):
    code, said, verbs = boot()
    assert code == 0 and verbs == ["container", "run"], said
    assert (boot.state / "ssh_config").exists()
    code, said, verbs = boot(f"{STOPPED} 2399/2400/2401 {boot.state}\n")
    assert code == 0 and verbs == ["container", "start"], said


def test_container_that_was_never_started_is_made_anew_with_the_ports_of_now(boot):
    code, said, verbs = boot(f"{NEVER} 1/2/3 {boot.state}\n")
    assert code == 0 and verbs == ["container", "rm", "run"], said
    code, said, verbs = boot(f"{NEVER} 1/2/3 /elsewhere\n")
    assert code == 2 and verbs == ["container"] and "is not of this checkout (/elsewhere)" in said, "not ours to remove"


@pytest.mark.parametrize(
    ("more", "way"),
    [({}, "make deploy SANDBOX_SSH_PORT=..."), (PROJECT, "'make try APP=/home/ann/shop' chooses others")],
)
def test_ports_that_are_taken_leave_no_container_behind(boot, more, way):
    code, said, verbs = boot(busy=True, **more)
    assert code == 2 and verbs == ["container", "run", "rm"], said
    assert "One of the ports of mine (ssh/https/http: 2399/2400/2401) is taken" in said and way in said
    assert not (boot.state / "ssh_config").exists()


@pytest.mark.parametrize(
    ("more", "down"),
    [({}, "make sandbox-down"), (PROJECT, "make try-down APP=/home/ann/shop")],
    ids=["example", "project"],
)
def test_messages_name_the_commands_of_this_host_and_nothing_raw(boot, more, down):
    stopped = f"{STOPPED} 2399/2400/2401 {boot.state}\n"
    code, said, verbs = boot(stopped, busy=True, **more)
    assert code == 2 and verbs == ["container", "start"] and f"with all its data: {down}, then make" in said, said
    for container, told in (
        (
            f"{STOPPED} 1/2/3 {boot.state}\n",
            "mine has the ports (ssh/https/http) 1/2/3, and cannot change to 2399/2400/2401.",
        ),
        (f"{STOPPED} 2399/2400/2401 /other/checkout\n", "is not of this checkout (/other/checkout)."),
        (f"{STOPPED}  \n", "is not of this checkout (Coldframe did not make it)."),
    ):
        code, said, verbs = boot(container, **more)
        assert code == 2 and verbs == ["container"] and told in said and down in said, said
        assert "false 2026" not in said and "0001-01-01" not in said
    assert all("make sandbox-down" not in each for each in [said] if more)
