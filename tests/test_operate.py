"""make manage, shell, dbshell and redis-cli run the right command on the right server, with what it is given as it is."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PASSWORD = "p'a$s \"w`"  # noqa: S105
# ssh as if each host were this machine, where the command begins after the host's name.
SSH = """#!/bin/sh
echo "$@" | sed 's/ umask .*//; s/ if .*//' >>"$CALLED"
while [ $# -gt 1 ]; do shift; done
exec sh -c "$1"
"""
# What a host has: each tells how it was called.
PROGRAM = """#!/usr/bin/env python3
import json, os, sys
passed = {name: os.environ[name] for name in os.environ if name.startswith(("DJANGO_", "PG", "REDISCLI", "MANAGE", "MINE"))}
print(json.dumps([sys.argv[0].rpartition("/")[2], sys.argv[1:], passed, sys.stdin.read()]))
sys.exit(7)
"""
HOSTS = {
    "all": {
        "vars": {
            "ansible_user": "ops",
            "domain": "example.com",
            "app_name": "blog",
            "celery_queues": {"default": {}},
            "app_redis_passwords": {"admin": "of-admin", "reader": PASSWORD},
        },
        "hosts": {
            name: {"ansible_host": f"{name}.{{{{ domain }}}}", "app_private_address": f"10.0.0.{n}"}
            for n, name in enumerate(("one", "two", "data"), 1)
        },
        "children": {
            "web": {"hosts": {"two": {}}},
            "workers": {"hosts": {"one": {}}},
            **{group: {"hosts": {"data": {}}} for group in ("redis", "postgresql", "edge")},
        },
    }
}


@pytest.fixture
def make(tmp_path):
    """Run a verb by make, against hosts that are all this machine."""
    (tmp_path / "bin").mkdir()
    for name, text in {"ssh": SSH, **dict.fromkeys(("blog-manage", "psql", "redis-cli"), PROGRAM)}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def run(verb, *words, given="", variables=None, **environment):
        hosts = json.loads(json.dumps(HOSTS))
        hosts["all"]["vars"] |= variables or {}
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site/hosts.yml").write_text(json.dumps(hosts))
        (tmp_path / "called").unlink(missing_ok=True)
        own = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CALLED": str(tmp_path / "called")}
        command = ["make", "--silent", verb, f"ENV={tmp_path}/site", *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "MAKE"))}
        result = subprocess.run(
            command, cwd=ROOT, env=kept | own | environment, input=given, capture_output=True, text=True, check=False
        )
        result.called = (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []
        return result

    return run


def ran(result):
    """What the host's program says of its run."""
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("migrate --plan", ["migrate", "--plan"]),
        ("""shell -c 'print("a  b", 1)'""", ["shell", "-c", 'print("a  b", 1)']),
        ("""shell -c "print('$HOME $(id) `id` \\n')" """, ["shell", "-c", "print('$HOME $(id) `id` \\n')"]),
        ("loaddata *.json ~ a\\ b '' #c", ["loaddata", "*.json", "~", "a b", "", "#c"]),
        ("dumpdata a;b && c | d > e", ["dumpdata", "a;b", "&&", "c", "|", "d", ">", "e"]),
    ],
)
def test_manage_gets_the_words_of_cmd_as_they_are(make, command, words):
    name, arguments, _, _ = ran(make("manage", f"CMD={command}"))
    assert (name, arguments) == ("blog-manage", words)


def test_manage_gets_input_and_variables_and_its_status_is_told(make):
    result = make(
        "manage", "CMD=x", given="a\nb", DJANGO_X=PASSWORD, MINE="m\nn", MANAGE_ENVIRONMENT="MINE", OTHER="no"
    )
    _, _, passed, read = ran(result)
    assert read == "a\nb"
    assert passed == {"DJANGO_X": PASSWORD, "MINE": "m\nn", "MANAGE_ENVIRONMENT": "MINE"}
    assert result.returncode != 0 and "Error 7" in result.stderr
    assert PASSWORD not in "".join(result.called), "it stands in no command line"
    assert list(Path("/dev/shm").glob("coldframe.*")) == []  # noqa: S108


def test_manage_runs_on_the_first_web_host_or_on_the_named_one(make):
    assert {call.split()[-1] for call in make("manage", "CMD=x").called} == {"two.example.com"}
    assert {call.split()[-1] for call in make("manage", "CMD=x", "HOST=one").called} == {"one.example.com"}
    assert ran(make("shell"))[1] == ["shell"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["manage", "CMD=x", "HOST=data"],
            "HOST=data has not the application's manage.py. Set HOST to one of: two one",
        ),
        (["manage", "CMD=x", "HOST=web"], "Set HOST to one of: two one"),
        (["manage", "CMD=x 'y"], "CMD=x 'y: No closing quotation"),
        (["redis-cli", "INSTANCE=queue"], "INSTANCE=queue: set INSTANCE to one of: broker cache"),
        (["dbshell", "HOST=two"], "Set HOST to one of: data"),
        (["dbshell", "ADMIN=1"], "answer with CONFIRM=blog; the answer was ''. Nothing was done."),
        (
            ["run-task", "TASK=a.b", "TASK_ARGS={}", "TASK_KWARGS=month=5", "WAIT=soon"],
            """TASK_ARGS={} must be JSON such as [1, "a"]; TASK_KWARGS=month=5 must be JSON such as {"month": 5}; """
            "WAIT=soon must be a number of seconds, such as 60. Nothing was sent.",
        ),
        (["run-task", "TASK=-x"], "TASK=-x must be the name of a task"),
        (
            ["run-task", "TASK_ARGS=[1]", "WAIT=2"],
            "TASK_ARGS is of no use without TASK; WAIT is of no use without TASK",
        ),
        (["redis-cli", "ADMIN=1", "CONFIRM=shop"], "the answer was 'shop'. Nothing was done."),
    ],
)
def test_what_is_wrong_is_refused_before_a_server_is_asked(make, words, said):
    result = make(*words)
    assert result.returncode != 0 and said in result.stderr and result.called == []


@pytest.mark.parametrize("verb", ["ssh", "manage", "shell", "dbshell", "redis-cli", "run-task", "logs", "queues"])
def test_an_inventory_that_is_not_there_is_not_the_sandbox(make, verb):
    result = make(verb, "ENV=production", "CMD=x")
    assert result.returncode != 0 and "ENV=production: there is no inventories/production" in result.stderr
    assert result.called == []


def test_run_task_passes_json_on_as_it_is(make):
    given = """{"a b": "$(id) 'c' \\"d\\" -e"}"""
    name, words, _, _ = ran(
        make("run-task", "TASK=a.b", "TASK_ARGS=[1, -2]", f"TASK_KWARGS={given}", "QUEUE=-q", "WAIT=1.5")
    )
    assert name == "blog-manage" and words[:3] == ["--module", "coldframe.run_task", "a.b"]
    assert words[3:] == ["--args=[1, -2]", f"--kwargs={given}", "--queue=-q", "--wait=1.5"]
    assert ran(make("run-task", "TASK="))[1] == ["--module", "coldframe.run_task"]


def test_dbshell_is_the_owner_of_the_database(make):
    name, arguments, passed, read = ran(make("dbshell", given="select 1"))
    assert (name, read) == ("psql", "select 1")
    assert arguments == ["--host=/run/postgresql", "--username=postgres", "--dbname=blog"]
    assert passed == {"PGOPTIONS": "-c role=blog"}
    assert ran(make("dbshell", "ADMIN=1", "CONFIRM=blog"))[2] == {}


def test_dbshell_of_a_provider_is_the_applications_own(make):
    url = {"app_database_url": "postgres://me@db.example.net/site"}
    result = make("dbshell", "CMD=-c 'select 1'", variables=url)
    assert ran(result)[:2] == ["blog-manage", ["dbshell", "--", "-c", "select 1"]]


def test_redis_cli_is_a_user_who_may_only_read(make):
    name, arguments, passed, _ = ran(make("redis-cli", "CMD=llen 'a b'"))
    assert (name, passed) == ("redis-cli", {"REDISCLI_AUTH": PASSWORD})
    assert arguments == ["-s", "/run/redis-broker/redis-server.sock", "--user", "reader", "llen", "a b"]
    name, arguments, passed, _ = ran(make("redis-cli", "INSTANCE=cache", "ADMIN=1", "CONFIRM=blog"))
    assert arguments == ["-s", "/run/redis-cache/redis-server.sock", "--user", "admin"]
    assert passed == {"REDISCLI_AUTH": "of-admin"}


def test_redis_cli_of_a_provider_needs_its_administrator(make):
    broker = {
        "app_broker_url": "rediss://me@redis.example.net:6380/2",
        "app_broker_password": "given",  # pragma: allowlist secret
    }
    assert "set ADMIN=1" in make("redis-cli", variables=broker).stderr
    result = make("redis-cli", "ADMIN=1", "CONFIRM=blog", variables=broker)
    assert {call.split()[-1] for call in result.called} == {"two.example.com"}
    _, arguments, passed, _ = ran(result)
    assert passed == {"REDISCLI_AUTH": "given"}
    assert arguments[:3] == ["--tls", "--sni", "redis.example.net"] and arguments[-4:] == ["-n", "2", "--user", "me"]
