"""make doctor tells everything that would stop a deploy at once, a line for each check, and what to do."""

import importlib.machinery
import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
loader = importlib.machinery.SourceFileLoader("make_doctor", str(ROOT / "bin/doctor"))
doctor = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_doctor", loader))
loader.exec_module(doctor)

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/ops/.ssh/known_hosts:3
  remove with:
  ssh-keygen -f '/home/ops/.ssh/known_hosts' -R '[web.example.org]:2200'
Host key for [web.example.org]:2200 has changed and you have requested strict checking.
Host key verification failed.
"""
ARGUMENTS = ["-p", "2200", "-l", "ops", "web.example.org"]


@pytest.mark.parametrize(
    ("said", "told", "remedy"),
    [
        (CHANGED, "the host key has changed", "remove the old key here: ssh-keygen -f '/home/ops/.ssh/known_hosts' -R '[web"),
        ("Host key verification failed.\n", "the host key is unknown", "ssh -p 2200 -l ops web.example.org"),
        ("No ED25519 host key is known for web.example.org and you have requested strict checking.\n"
         "Host key verification failed.\n", "the host key is unknown", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"),
        ("ops@web.example.org: Permission denied (publickey,password).\n", "the login is refused",
         "ssh-copy-id -p 2200 ops@web.example.org"),
        ("ssh: Could not resolve hostname web.example.org: Name or service not known\n", "the name is unknown",
         "Correct ansible_host"),
        ("ssh: connect to host web.example.org port 2200: Connection refused\n", "nothing listens for SSH", "ansible_port"),
        ("ssh: connect to host web.example.org port 2200: Connection timed out\n", "no answer", "open the port of SSH"),
        ("no answer within 60 s", "no answer", "open the port of SSH"),
        ("Can't open user config file /x: No such file or directory\n", "there is no such host yet", "make sandbox ENV=mine"),
        ("kex_exchange_identification: Connection closed by remote host\n", "no connection", "Connection closed by remote host"),
    ],
)  # fmt: skip
def test_why_ssh_cannot_log_in_is_told_with_what_to_do(said, told, remedy):
    found = doctor.refusal(said, ARGUMENTS, "mine")
    assert found[0] == told and remedy in found[1]


def lines(capsys):
    return [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]


def test_remedies_come_last_with_their_numbers_and_only_problems_count(capsys):
    report = doctor.Report()
    report.checked("one", "a", "fine", [])
    report.checked("one", "b", "so so", [], ["Mind it."])
    assert report.end() == 0
    assert "Nothing was found that would stop a deploy. 1 warning: a deploy works" in capsys.readouterr().out
    report.checked("one", "c", "bad", ["Do this.", "Do that."], ["Mind it."])
    assert report.end() == 1
    out = capsys.readouterr().out
    assert out.startswith("problem  one") and "bad (see 2, 3, 1)" in out
    assert (
        "  1. one: Mind it.\n  2. one: Do this.\n  3. one: Do that.\n\n2 problems would stop a deploy. 1 warning:"
        in out
    )
    report.checked("two", "d", "bad", ["Mind it."])
    report.end()
    assert "3 problems would stop a deploy. 1 warning:" in capsys.readouterr().out, "as many as are listed"


SSH = """#!/bin/sh
# Answers as OpenSSH does, by the name of the host; a server is this machine.
for last; do previous=$host host=$now now=$last; done
case $host in
changed) printf '%s' "$CHANGED" >&2; exit 255 ;;
unknown) echo 'Host key verification failed.' >&2; exit 255 ;;
closed) echo 'ssh: connect to host closed port 22: Connection refused' >&2; exit 255 ;;
late) echo user=ops; echo sudo=yes; echo python=3.13.5; echo 'os=Debian GNU/Linux'; echo version=13; echo locale=
    echo "at=$(($(date +%s) - ${LATE:-100}))"; exit 0 ;;
asks) echo user=ops; echo 'sudo=sudo: a password is required'; echo python=; echo os=Ubuntu; echo version=24.04
    echo locale='locale: Cannot set LC_ALL'; echo "at=$(date +%s)"; exit 0 ;;
esac
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Have an ssh that answers as its host's name says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH)
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CHANGED", CHANGED)
    return tmp_path


def host(name):
    return dict.fromkeys(doctor.connections.__globals__["VARIABLES"], "") | {"host": name}


def reached(name, **asked):
    """Log in to a host; return whether Ansible can work there, and what was found."""
    report = doctor.Report()
    fine = doctor.reach(report, name, host(name), asked, "mine", doctor.login([name]))
    return fine, report


@pytest.mark.parametrize(
    ("late", "outcome"), [("2", "ok"), ("100", "warning"), ("-100", "warning"), ("90000", "problem")]
)
def test_clock_of_a_server_is_compared_with_this_machines(ssh, monkeypatch, capsys, late, outcome):
    monkeypatch.setenv("LATE", late)
    fine, report = reached("late")
    clock = next(line for line in capsys.readouterr().out.splitlines() if " clock " in line)
    assert fine and clock.startswith(outcome)
    if outcome != "ok":
        assert ("ahead of" if late < "0" else "behind") in clock and "timedatectl set-ntp true" in report.remedies[0]


def test_all_that_a_login_shows_is_told_at_once(ssh, capsys):
    fine, report = reached("asks")
    told = {line.split()[2]: line for line in capsys.readouterr().out.splitlines()}
    assert not fine
    outcomes = {name: line.split()[0] for name, line in told.items()}
    assert outcomes == {
        "SSH": "ok",
        "sudo": "problem",
        "Debian": "problem",
        "Python": "problem",
        "clock": "ok",
        "locale": "warning",
    }
    said = "\n".join(report.remedies)
    assert "echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops" in said and "apt install python3" in said
    assert "This host runs Ubuntu 24. Supported are Debian 12" in said
    given = {"password": "True"}  # pragma: allowlist secret
    assert not any("sudo" in remedy for remedy in reached("asks", **given)[1].remedies)


def test_programs_and_locale_of_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    report = doctor.Report()
    doctor.this_machine(report)
    assert not report.found["problem"], capsys.readouterr().out
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    doctor.this_machine(report)
    out = capsys.readouterr().out
    assert "ssh, ssh-keygen, git: not found" in out and "xx_XX.UTF-8, which is not installed" in out
    assert report.found["problem"] == 2


STATE = {"current": "", "disk_free_mb": {"/": 20480}, "lock": {}, "synchronized": True, "umask": "022"}


@pytest.mark.parametrize(
    ("state", "apt", "container", "outcome", "said"),
    [
        ({}, "", [], (0, 0), ""),
        ({"disk_free_mb": {"/": 20480, "/var": 500}}, "", [], (1, 0), "Only 500 MiB are free in /var."),
        ({"disk_free_mb": {"/": 500}, "current": "0123456789ab"}, "", [], (0, 1), "Only 500 MiB are free in /."),
        ({"disk_free_mb": {"/": 3000}}, "", [], (0, 1), "Only 3000 MiB are free in /."),
        ({"lock": {"who": "anna@desk"}}, "", [], (1, 0), "make unlock"),
        ({"synchronized": False}, "", [], (0, 1), "base_time_sync"),
        (
            {},
            "apt-get (31) holds /var/lib/dpkg/lock",
            [],
            (0, 1),
            "apt-get (31) holds /var/lib/dpkg/lock. A deploy waits",
        ),
        ({}, "", ["This host is a container."], (1, 0), "This host is a container."),
        ({"umask": "077"}, "", [], (0, 0), ""),
    ],
)
def test_what_a_server_has(capsys, state, apt, container, outcome, said):
    report = doctor.Report()
    doctor.look(report, "one", {}, STATE | state, apt, container)
    assert (report.found["problem"], report.found["warning"]) == outcome, capsys.readouterr().out
    assert said in "".join(report.remedies)


ASKED = {
    "url": "https://www.example.org",
    "names": "old.example.org *.example.org",
    "acme": "False",
    "balanced": "False",
}
OWN = {"192.0.2.1"}


def found(monkeypatch, records, ports, own=OWN, **asked):
    """Check a site; return the outcome of each check."""
    monkeypatch.setattr(doctor, "addresses", lambda name: set(records.get(name, ())))
    monkeypatch.setattr(doctor, "answers", lambda name, port: ports.get(port, "refused"))
    report, told = doctor.Report(), {}
    monkeypatch.setattr(report, "tell", lambda outcome, where, name, *_: told.__setitem__(f"{where} {name}", outcome))
    doctor.site(report, ASKED | asked, own, ["one"])
    return told


def test_names_of_the_site_must_lead_to_the_edge(monkeypatch):
    here = {"www.example.org": OWN, "old.example.org": OWN}
    right = dict.fromkeys(
        ["www.example.org DNS", "old.example.org DNS", "www.example.org port 443", "www.example.org port 80"], "ok"
    )
    assert found(monkeypatch, here, {443: "open"}) == right
    old = found(monkeypatch, here | {"old.example.org": {"192.0.2.9"}}, {})
    assert old == right | {"old.example.org DNS": "warning"}
    assert found(monkeypatch, here | {"old.example.org": {"192.0.2.9"}}, {}, balanced="True") == right
    assert (
        found(monkeypatch, here | {"old.example.org": {"192.0.2.9"}}, {}, acme="True")["old.example.org DNS"]
        == "problem"
    )
    assert found(monkeypatch, here | {"old.example.org": {*OWN, "192.0.2.9"}}, {})["old.example.org DNS"] == "warning"
    assert found(monkeypatch, {}, {}) == {"www.example.org DNS": "problem", "old.example.org DNS": "warning"}
    assert found(monkeypatch, {"localhost": {"127.0.0.1"}}, {}, url="https://localhost:8443", names="") == {
        "localhost DNS": "ok",
        "localhost port 8443": "ok",
    }


def test_a_port_that_does_not_answer_stops_what_needs_it(monkeypatch):
    here = {"www.example.org": OWN}
    told = found(monkeypatch, here, {443: "no answer", 80: "no answer"}, names="")
    assert (told["www.example.org port 443"], told["www.example.org port 80"]) == ("problem", "warning")
    assert found(monkeypatch, here, {80: "no answer"}, names="", acme="True")["www.example.org port 80"] == "problem"


def test_what_is_wrong_with_all_hosts_is_told_once(capsys):
    report = doctor.Report()
    results = [
        ("Check the inventory", "one", {"msg": {"secrets": ["s"], "queues": []}}),
        ("Check the inventory", "two", {"msg": {"secrets": ["s", "t"], "queues": []}}),
    ]
    assert doctor.inventory_checks(report, results, 2) == {"secrets"}
    assert report.remedies == ["inventory: s", "inventory: two: t"]
    assert report.found == {"ok": 1, "warning": 0, "problem": 1}


def checked(monkeypatch, *tasks, wrong=()):
    """Check an application, with what the playbook found; return the line, the remedies, and the playbooks that ran."""
    ran, told = [], []
    monkeypatch.setattr(doctor, "played", lambda *arguments: ran.append(arguments[1]) or [*tasks])
    report = doctor.Report()
    monkeypatch.setattr(report, "tell", lambda *line: told.append(line))
    doctor.application(report, "hosts.yml", "live", [], set(wrong))
    ((outcome, _, _, text, *remedies),) = told
    return outcome, text, [list(each) for each in remedies], ran


def test_application_is_checked_unless_the_inventory_is_wrong(monkeypatch):
    right = ("Check that the application can be deployed", "one", {"msg": "All assertions passed"})
    command = "make check-app ENV=live"
    assert checked(monkeypatch, right) == ("ok", "right", [[], []], ["playbooks/check_app.yml"])
    assert checked(monkeypatch, right, wrong=["secrets"])[0] == "ok", "it needs none"
    outcome, text, _, ran = checked(monkeypatch, right, wrong=["source", "secrets"])
    assert (outcome, ran) == ("warning", []) and text == f"not checked. When the inventory is right: {command}"
    message = "shop/settings.py:3: KeyError: 'ACME'\n    Set it in app_environment.\nMEDIA_ROOT is wrong."
    failed = (right[0], "one", {"failed": True, "msg": message})
    mail = ("Warn of what may fail", "one", {"msg": ["Warning: No e-mail is sent."]})
    first, second = message.rsplit("\n", 1)
    assert checked(monkeypatch, mail, failed)[:3] == ("problem", "2 wrong", [[first, second], ["No e-mail is sent."]])
    left = ("Report what is left to the hosts", "one", {"msg": ["a", "b"]})
    outcome, text, remedies, _ = checked(
        monkeypatch, ("Rescued", "one", {"failed": True, "msg": "x"}), mail, left, right
    )
    assert (outcome, text) == ("warning", f"right; 2 left to the servers, see {command}")
    assert remedies == [[], ["No e-mail is sent."]]
    off = ("Say that nothing was loaded", "one", {"msg": "..."})
    assert checked(monkeypatch, off, right)[1] == "not loaded: release_check_on_controller is false"


APP = {
    "app_name": "blog",
    "app_source": "/nowhere/blog",
    "app_settings_module": "blog.settings",
    "app_wsgi": "blog.wsgi:application",
    "app_celery": "blog.celery:app",
    "app_url": "https://localhost",
    "celery_queues": {"default": {}},
    "smoke_request": {"path": "/"},
}


def run(ssh, hosts, variables, *arguments):
    names = ("redis", "postgresql", "web", "workers", "beat", "flower", "edge")
    groups = {group: {"hosts": dict.fromkeys(hosts)} for group in names}
    inventory = {"all": {"hosts": hosts, "vars": APP | variables, "children": groups}}
    (ssh / "hosts.yml").write_text(yaml.safe_dump(inventory))
    return subprocess.run(
        [ROOT / "bin/doctor", str(ssh / "hosts.yml"), "playbooks/doctor.yml", *arguments],
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "C.UTF-8", "ANSIBLE_STRATEGY": "linear"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_hosts_that_cannot_be_reached_have_one_line_each_and_the_inventory_is_checked_all_the_same(ssh):
    done = run(ssh, {"changed": None, "unknown": None, "closed": None}, {})
    assert done.returncode == 1 and done.stderr == ""
    for name, told in {"changed": "has changed", "unknown": "is unknown", "closed": "nothing listens for SSH"}.items():
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("problem ") and line.split()[1] == name)
        assert told in line
    assert not any(word in done.stdout for word in ("TASK", "fatal", "UNREACHABLE", "Traceback"))
    assert "app_source is '/nowhere/blog'" in done.stdout
    (secrets,) = (line for line in done.stdout.splitlines() if "app_secret_key" in line)
    assert f"'make secrets ENV={ssh}' makes them" in secrets and "app_redis_passwords.web" in secrets
    told = {line.split()[2]: line for line in done.stdout.splitlines() if line.split()[1:2] == ["inventory"]}
    assert "missing" in told["secrets"] and "wrong" not in told["secrets"]
    assert "warning  application" in done.stdout and "check-app        not checked." in done.stdout
    assert "make check-app ENV=" in done.stdout
    assert "The inventory group 'redis' has 3 hosts" in done.stdout


def test_wrong_variables_are_told_beside_the_rest_and_hosts_can_be_chosen(ssh):
    done = run(
        ssh,
        {"closed": None, "unknown": None},
        {"celery_queues": {"default": {"concurrency": 0}}, "app_wsg": "x"},
        "-l",
        "closed",
    )
    assert done.returncode == 1 and done.stderr == ""
    assert "2 wrong; what depends on them is checked when they are right (see " in done.stdout
    assert "celery_queues.default.concurrency is 0" in done.stdout and "Is app_wsgi meant?" in done.stdout
    assert [line.split()[1] for line in done.stdout.splitlines() if line.split()[1:2] in (["closed"], ["unknown"])] == [
        "closed"
    ]


def test_inventory_that_ansible_cannot_read_is_one_problem(ssh):
    (ssh / "group_vars").mkdir()
    (ssh / "group_vars/all.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    done = run(ssh, {"closed": None}, {})
    assert done.returncode == 1 and "encrypted files, and their password is missing or wrong" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("problem")]) == 1
    (ssh / "group_vars/all.yml").unlink()
    done = run(ssh, {}, {})
    assert done.returncode == 1 and "hosts.yml has no host." in done.stdout
