"""The operator's commands: make manage, shell, dbshell and redis-cli, from the controller to the host that has what they need."""

import pytest
from support.playbooks import ansible

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("web")]


@pytest.fixture
def make(inventory):
    """Run a target of the Makefile for the inventory of the hosts."""

    def run(target, *words, **environment):
        return ansible("make", "--silent", target, f"ENV={inventory}", *words, **environment)

    return run


def test_manage_gets_words_and_variables(make):
    code = "import os; print(os.environ['DJANGO_X'], '$HOME', '*')"
    result = make("manage", f'CMD=shell --no-imports -c "{code}"', DJANGO_X="a 'b' $c")
    assert result.stdout.strip() == "a 'b' $c $HOME *", result.stderr


def test_status_of_manage_is_told(make):
    result = make("manage", "CMD=shell --no-imports -c 'raise SystemExit(7)'")
    assert result.returncode != 0 and "Error 7" in result.stderr


def test_dbshell_is_the_owner_of_the_database(make, deployment):
    app = deployment.app_name
    query = "CMD=--tuples-only --no-align --command='select current_user, current_database()'"
    assert make("dbshell", query).stdout.strip() == f"{app}|{app}"
    assert make("dbshell", query, "ADMIN=1", f"CONFIRM={app}").stdout.strip() == f"postgres|{app}"


def test_redis_cli_reads_and_changes_nothing(make, deployment, redis):
    queue = next(iter(deployment.celery_queues))
    assert make("redis-cli", f"CMD=exists '{queue} x'").stdout.strip() == "0"
    assert "aof_enabled:1" in make("redis-cli", "CMD=info").stdout
    assert make("redis-cli", "CMD=acl whoami", "ADMIN=1", f"CONFIRM={deployment.app_name}").stdout.strip() == "admin"
    try:
        assert "NOPERM" in make("redis-cli", f"CMD=lpush {queue} x").stdout
    finally:
        redis("ACL LOG RESET")


def test_nothing_of_the_commands_is_left_or_logged(make, host):
    word = "word-that-nobody-else-uses"
    make("manage", f"CMD={word}")
    assert host.run("ls /dev/shm/coldframe.*").rc != 0
    assert word not in host.check_output("journalctl --since=-2min --no-pager _COMM=sudo")
