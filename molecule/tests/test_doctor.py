"""make doctor finds nothing wrong with a host that works, and tells all at once what would stop a deploy."""

import pytest
from support.playbooks import ansible, output
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("edge")]
# As apt does (fcntl(2)); flock(1) takes another kind of lock.
HOLD = (
    "import fcntl, pathlib, time; file = open('/var/lib/dpkg/lock-frontend', 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); "
    "pathlib.Path('/run/doctor-apt').touch(); time.sleep(300)"
)


def doctor(inventory, *arguments):
    return ansible("bin/doctor", str(inventory), "playbooks/doctor.yml", *arguments)


def outcomes(result, name):
    """The outcomes of a check, of all hosts."""
    return {line.split()[0] for line in result.stdout.splitlines() if f"  {name}  " in line}


def test_a_host_that_works_has_no_problem_and_nothing_is_changed(inventory, host):
    folders = "/etc/systemd /etc/nginx /etc/redis /etc/credstore /var/lib/coldframe"
    look = f"find {folders} -type f -printf '%p %T@\\n' | sort"
    before = host.check_output(look)
    result = doctor(inventory)
    assert result.returncode == 0, output(result)
    assert "Nothing was found that would stop a deploy." in result.stdout
    for name in (
        "SSH",
        "sudo",
        "Debian",
        "Python",
        "clock",
        "disk",
        "packages",
        "ports",
        "memory",
        "nginx",
        "secrets",
        "check-app",
    ):
        assert outcomes(result, name) in ({"ok"}, {"warning"}, {"ok", "warning"}), f"{name}: {result.stdout}"
    assert host.check_output(look) == before


def test_all_that_would_stop_a_deploy_is_told_at_once(inventory, host):
    try:
        host.check_output(f'systemd-run --quiet --collect --unit=doctor-apt python3 -c "{HOLD}"')
        host.check_output("systemctl stop nginx")
        host.check_output("systemd-run --quiet --collect --unit=doctor-http python3 -m http.server 80")
        wait_for(lambda: "python3" in host.check_output("ss -Hltnp 'sport = :80'"), 20, "it listens")
        wait_for(lambda: host.run("test -e /run/doctor-apt").rc == 0, 20, "it holds the lock")
        result = doctor(inventory)
        assert result.returncode == 1
        assert outcomes(result, "ports") >= {"problem"}
        assert "'python3' listens on port 80, which nginx needs" in output(result)
        assert outcomes(result, "packages") >= {"warning"}
        assert "holds /var/lib/dpkg/lock-frontend. A deploy waits for its end" in output(result)
        wrong = doctor(inventory, "-e", '{"celery_default_queue": 5}')
        assert wrong.returncode == 1 and outcomes(wrong, "variables") == {"problem"}
        assert outcomes(wrong, "packages") >= {"warning"}, "a wrong variable does not hide the rest"
    finally:
        host.run("systemctl stop doctor-apt doctor-http; rm -f /run/doctor-apt")
        host.check_output("systemctl start nginx")


def test_a_host_that_is_not_there_is_one_line(host, tmp_path):
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all: {hosts: {gone: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    result = doctor(hosts)
    told = [line for line in result.stdout.splitlines() if line.startswith("problem ") and " gone " in line]
    assert result.returncode == 1 and len(told) == 1 and "nothing listens for SSH" in told[0]
    assert "UNREACHABLE" not in output(result)
