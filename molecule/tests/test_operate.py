"""The commands for operators, make manage to make maintenance, from the controller."""

import re

import pytest
from support.playbooks import ansible, output
from support.units import instances
from waits import wait_for

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


def test_task_is_sent_by_hand_and_its_result_printed(make):
    name = "orders.reports.add_up"
    assert f"{name}  (" in make("run-task").stdout
    result = make("run-task", f"TASK={name}", "TASK_ARGS=[[[1, 2], [3, 4]]]", "WAIT=60")
    assert result.stdout.splitlines()[-1:] == ["[4, 6]"], result.stderr
    refused = make("run-task", f"TASK={name}s")
    assert refused.returncode != 0 and f"Nothing was sent: the application has no task {name}s" in refused.stderr


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


def test_logs_are_in_order_and_chosen(make, deployment):
    lines = make("logs", "SINCE=-10min").stdout.splitlines()
    times = [line[:23] for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", line)]
    assert times == sorted(times) and len(times) > 0
    queue = next(iter(deployment.celery_queues))
    chosen = make("logs", f"UNIT=worker-{queue}", "SINCE=-1d").stdout.splitlines()
    assert chosen and all(f" worker-{queue}@" in line[:60] for line in chosen if line[:1].isdigit())


def test_logs_find_a_task_by_its_id(make, deployment, manage, redis):
    module, _, app = deployment.app_celery.partition(":")
    queue, name = deployment.celery_default_queue or "default", "nobody.knows.this"
    task = manage(
        f"from importlib import import_module; app = getattr(import_module({module!r}), {app!r} or 'app'); "
        f"print(app.send_task({name!r}, queue={queue!r}).id)"
    )
    try:
        said = f"{name}[{task}] is unknown here"
        wait_for(lambda: said in make("logs", f"ID={task}").stdout, 60, "it is logged")
    finally:
        redis(f"DEL unknown:{queue}:{name}\nSREM unknown:{queue} {name}")


def test_queues_are_told_and_a_change_needs_an_answer(make, deployment, redis):
    queue, name = deployment.celery_default_queue or "default", "nobody.knows.this"
    redis(f'LPUSH dead:{queue} "1700000000 {{\\"headers\\": {{\\"task\\": \\"{name}\\"}}}}"')
    try:
        told = " ".join(make("queues").stdout.split())
        assert re.search(rf"{queue} \d+ waiting \d+ taken \d+ parked [1-9]\d* dead letters", told), told
        refused = make("queues", f"RETRY={queue}")
        assert refused.returncode != 0 and f"answer with CONFIRM={deployment.app_name}" in output(refused)
        tried = make("queues", f"RETRY={queue}", "DRY_RUN=1")
        assert tried.returncode == 0 and "dead letters will be sent again" in output(tried)
        assert int(redis(f"LLEN dead:{queue}")) >= 1
        wrong = make("queues", "RETRY=nowhere")
        assert wrong.returncode != 0 and "set one of PAUSE, RESUME and RETRY to a queue (" in output(wrong)
    finally:
        redis(f"DEL dead:{queue}")


def test_messages_of_a_task_are_deleted(make, deployment, manage, redis):
    queue, name = deployment.celery_default_queue or "default", "nobody.knows.this"
    manage(f"from celery import current_app as app; app.send_task({name!r}, queue={queue!r})")
    wait_for(lambda: redis(f"LLEN unknown:{queue}:{name}") == "1", 20, "no worker knows it")
    done = make("queues", f"PURGE={name}", f"QUEUE={queue}", f"CONFIRM={deployment.app_name}")
    assert done.returncode == 0 and f"1 messages of {name} will be deleted ({queue}: 1)" in output(done)
    assert redis(f"EXISTS unknown:{queue}:{name}") == "0"


def test_queue_is_paused_and_resumed(make, deployment, host):
    app, queue = deployment.app_name, next(iter(deployment.celery_queues))
    yes = f"CONFIRM={app}"
    try:
        assert make("queues", f"PAUSE={queue}", yes).returncode == 0
        wait_for(lambda: not instances(host, app, f"worker-{queue}"), 60, "its workers are stopped")
    finally:
        assert make("queues", f"RESUME={queue}", yes).returncode == 0
    wait_for(lambda: instances(host, app, f"worker-{queue}", "active"), 60, "its workers run")


def test_visitors_get_a_page_while_it_is_maintained(make, deployment, tmp_path):
    page = tmp_path / "soon.html"
    page.write_text("<p>Back at noon")
    try:
        assert make("maintenance", "STATE=on", f"PAGE={page}").returncode == 0
        answer = deployment.request("/")
        assert (answer.status, answer.body) == (503, "<p>Back at noon")
        assert make("maintenance", "STATE=on", "ALLOW=0.0.0.0/0,::/0").returncode == 0
        assert deployment.request("/").status != 503
    finally:
        assert make("maintenance", "STATE=off").returncode == 0
    assert deployment.request("/").status != 503
    assert make("maintenance", "STATE=maybe").returncode != 0
