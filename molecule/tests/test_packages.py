"""Another program installs packages when a deploy comes: it is named, and waited for."""

import os
import subprocess

import pytest
from support.playbooks import PLAIN, ROOT

pytestmark = [pytest.mark.one_host, pytest.mark.changes]
# As apt does (fcntl(2)); flock(1) takes another kind of lock.
HOLD = (
    "import fcntl, pathlib, time; file = open('/var/lib/dpkg/lock-frontend', 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "pathlib.Path('/run/other-apt').touch(); time.sleep(300)"
)
HELD = "timeout 60 sh -c 'until test -e /run/other-apt; do sleep 0.1; done'"


@pytest.fixture
def held(host):
    """Dpkg's lock is held, until `systemctl stop other-apt`."""
    host.run("rm -f /run/other-apt")
    host.check_output(f'systemd-run --quiet --collect --unit=other-apt python3 -c "{HOLD}"')
    host.check_output(HELD)
    yield
    host.run("systemctl stop other-apt; rm -f /run/other-apt")


def wait(inventory, host, seconds, until="", then=None):
    """Run the tasks that wait; when they have printed `until`, do `then`. Return the exit code and what they printed."""
    command = [
        "ansible",
        host.backend.get_hostname(),
        "-i",
        inventory,
        "--become",
        "-e",
        f"app_apt_lock_timeout={seconds}",
    ]
    command += ["-m", "ansible.builtin.include_role", "-a", "name=packages tasks_from=wait.yml"]
    environment = os.environ | PLAIN | {"ANSIBLE_STRATEGY": "linear"}
    told = ""
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in process.stdout:
            told += line
            if then and until in line:
                then()
                then = None
    return process.returncode, " ".join(told.split())


def test_another_installation_is_named_and_waited_for(host, inventory, held):
    code, told = wait(inventory, host, 300, "waiting", lambda: host.check_output("systemctl stop other-apt"))
    assert code == 0, told
    assert "python3 (" in told and "holds /var/lib/dpkg/lock-frontend: waiting for its end, 300 s at most" in told
    code, told = wait(inventory, host, 300)
    assert code == 0 and "waiting" not in told, told


def test_one_that_does_not_end_fails_the_deploy_by_name(host, inventory, held):
    code, told = wait(inventory, host, 5)
    assert code != 0
    assert "No package could be installed for 5 s: python3 (" in told and "app_apt_lock_timeout" in told
