"""What a stack in containers does (make compose-test): the one whose folder COMPOSE_STACK names, and which runs.

It stops and starts services, and sends tasks that change nothing of the application's. Those of the example send some of its own.
"""

import base64
import json
import os
import ssl
import subprocess
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from stack import Stack, tool
from support.hosts import wait_for

PROBE_SECONDS = 90  # Beat sends a probe to each queue every 30
BEGIN = """
import json, os, time
from pathlib import Path
from celery import Celery
from coldframe import credentials
app = Celery("test")
app.conf.update(json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text()))
"""


@pytest.fixture(scope="session")
def running():
    """The stack."""
    return Stack(Path(os.environ["COMPOSE_STACK"]), tool())


@pytest.fixture(scope="session")
def execute(running):
    """Run a command in a service's container; return its output."""

    def execute(service, *command):
        done = running.tool.run("exec", running.container(service), *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return execute


@pytest.fixture(scope="session")
def as_beat(running, execute):
    """Run Python as Beat, which sends tasks and reads when each queue was served; return what it prints."""
    return lambda code: execute("beat", running.about["python"], "-c", BEGIN + textwrap.dedent(code))


@pytest.fixture(scope="session")
def ask(running):
    """Send a request to the site; return the status and the body."""

    def ask(path, login="", **options):
        headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
        if "body" in options:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            running.about["url"] + path,
            headers=headers,
            method=options.get("method", "GET"),
            data=json.dumps(options["body"]).encode() if "body" in options else None,
        )
        try:
            context = ssl._create_unverified_context()  # nobody has signed it
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    return ask


def done_probe(as_beat, queue):
    """Return what is known of the last probe of a queue that a worker has executed."""
    return json.loads(as_beat(f"print((credentials.locks().get('probe:done:{queue}') or b'{{}}').decode())"))


def waiting(as_beat, queue):
    """Return how many messages wait in a queue."""
    return int(as_beat(f"print(app.connection().default_channel.client.llen('{queue}'))"))


def test_what_runs_is_what_was_written(running):
    assert running.changed() == []


def test_everything_is_healthy(running):
    for service, each in running.services.items():
        if "healthcheck" in each:
            well, said = running.healthy(service)
            assert well, f"{service}: {said}"


def test_web_answers_and_the_smoke_test_passes(running, ask):
    assert ask("/")[0] < 500
    smoke = running.about["smoke"]
    if not smoke:
        pytest.skip("the inventory has no smoke_request")
    given = {name: smoke[name] for name in ("method", "body") if name in smoke}
    status, body = ask(smoke["path"], **given)
    assert status in smoke.get("status", [200]), body
    if "status_url" not in body:
        return
    where = json.loads(body)["status_url"]
    wait_for(lambda: json.loads(ask(where)[1])["state"] == "SUCCESS", 60, "the task is done")


def test_static_files_are_answered_by_nginx(running, ask, execute):
    folder = execute("nginx", "sh", "-c", "echo /srv/*/current/.release/static")
    file = execute("nginx", "find", folder, "-name", "*.css", "-size", "+0", "-print", "-quit")
    assert file, "the application has static files"
    assert ask("/static/" + file.removeprefix(f"{folder}/"))[0] == 200
    assert "gunicorn" not in execute("nginx", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_worker_of_every_queue_executes_what_beat_sends(running, as_beat):
    for queue in running.about["queues"]:
        worker = wait_for(lambda queue=queue: done_probe(as_beat, queue), PROBE_SECONDS, f"{queue} is served")["worker"]
        assert worker == f"{queue}-{running.about['release']}@worker-{queue}"


def test_flower_asks_for_a_login(running, ask):
    if not running.about["flower"]:
        pytest.skip("the inventory has no Flower")
    password = (running.folder / "secrets/flower/flower_password").read_text()
    assert ask("/flower/")[0] == 401
    assert ask("/flower/", login=f"{running.about['flower']}:wrong")[0] == 401
    login = f"{running.about['flower']}:{password}"
    assert ask("/flower/", login=login)[0] == 200
    names = {f"{queue}-{running.about['release']}@worker-{queue}" for queue in running.about["queues"]}
    wait_for(
        lambda: names <= set(json.loads(ask("/flower/api/workers", login=login)[1])), 60, "Flower knows the workers"
    )


def test_no_process_is_root_or_can_become_it(running, execute):
    for service in running.services:
        if service == "prepare":
            continue
        states = execute(service, "sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null")
        values = {name: set() for name in ("Uid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs")}
        for line in states.splitlines():
            name, _, value = line.partition(":")
            if name in values:
                values[name] |= set(value.split())
        assert "0" not in values["Uid"] and values["Uid"], service
        assert values["NoNewPrivs"] == {"1"}, service
        assert all(set(values[name]) == {"0" * 16} for name in ("CapPrm", "CapEff", "CapBnd")), f"{service}: {values}"


def test_no_container_can_write_its_image(running):
    for service in running.services:
        if service != "prepare":
            done = running.tool.run("exec", running.container(service), "sh", "-c", "touch /usr/x /srv/x /etc/x")
            assert done.returncode and "Read-only file system" in done.stderr, f"{service}: {done.stderr}"


def test_no_secret_is_in_the_environment_or_the_arguments(running, execute):
    secrets = {path.read_text() for path in (running.folder / "secrets").glob("*/*password*")}
    secrets |= {path.read_text() for path in (running.folder / "secrets").glob("*/secret_key")}
    for service in running.services:
        shown = running.tool.run("container", "inspect", running.container(service)).stdout
        if service != "prepare":
            shown += execute(service, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/1/environ | tr '\\0' ' '")
        assert not [secret for secret in secrets if secret in shown], service


def test_one_user_cannot_read_the_secrets_of_another(running, execute):
    assert "redis_password" in execute("web", "ls", "/run/credentials")
    own = (running.folder / "secrets/web/redis_password").read_text()
    assert execute("web", "cat", "/run/credentials/redis_password") == own
    for service in ("worker-" + running.about["queues"][0], "beat"):
        assert execute(service, "cat", "/run/credentials/redis_password") != own


def test_queued_tasks_survive_a_restart_of_the_broker(running, as_beat):
    queue = running.about["queues"][0]
    worker = f"worker-{queue}"
    running.tool.composed(running.folder, "stop", worker)
    try:
        last = float(
            as_beat(f"""
            for number in range(20):
                sent = time.time() + number
                app.send_task("coldframe.probe", ("{queue}", sent), queue="{queue}")
            print(sent)
            """)
        )
        assert waiting(as_beat, queue) >= 20
        running.tool.composed(running.folder, "restart", "redis-broker")
        running.wait("redis-broker")
        assert waiting(as_beat, queue) >= 20, "the broker's log has them"
    finally:
        running.tool.composed(running.folder, "start", worker)
    running.wait(worker)
    wait_for(lambda: waiting(as_beat, queue) == 0, 60, "the queue is empty")
    wait_for(lambda: done_probe(as_beat, queue)["sent"] >= last, 60, "the last one is done")


def sql(running, text):
    """Run a statement as the administrator; return its output."""
    database = running.services["postgresql"]["command"][2]
    return running.tool.run("exec", running.container("postgresql"), "psql", "-XAtqd", database, "-c", text)


def test_stop_cuts_no_task_short(running, execute):
    """A task of the example that waits for a table: its worker is asked to stop meanwhile, and ends after it."""
    counted = sql(running, "SELECT max(id) FROM orders_heartbeat")
    if counted.returncode:
        pytest.skip("it is not the example")
    hold = "BEGIN; LOCK TABLE orders_heartbeat IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(12); COMMIT"
    holder = threading.Thread(target=sql, args=(running, hold))
    holder.start()
    locked = "SELECT count(*) FROM pg_locks WHERE relation = 'orders_heartbeat'::regclass AND {} granted"
    wait_for(lambda: sql(running, locked.format("")).stdout.strip() == "1", 10, "the table is locked")
    execute("web", running.about["python"], "-m", "coldframe.run_task", "orders.tasks.heartbeat")
    wait_for(lambda: int(sql(running, locked.format("NOT")).stdout or 0) > 0, 10, "the task waits")
    begun = time.monotonic()
    running.tool.composed(running.folder, "stop", "worker-bulk")
    took = time.monotonic() - begun
    holder.join()
    try:
        assert took > 2, "it has waited for the task"
        code = running.inspect("container", running.container("worker-bulk"), "{{.State.ExitCode}}")
        assert code == "0", "it was not killed"
        assert int(sql(running, "SELECT max(id) FROM orders_heartbeat").stdout) > int(counted.stdout or 0)
    finally:
        running.tool.composed(running.folder, "start", "worker-bulk")
        running.wait("worker-bulk")


def test_a_process_that_ends_is_started_again(running, execute):
    queue = running.about["queues"][0]
    service = f"worker-{queue}"
    before = running.inspect("container", running.container(service), "{{.State.StartedAt}}")
    execute(service, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    wait_for(
        lambda: (
            running.inspect("container", running.container(service), "{{.State.StartedAt}}") != before
            and running.state(service) == "running"
        ),
        60,
        "it runs again",
    )
    running.wait(service)


def test_stack_that_runs_is_brought_up_without_a_change(running):
    command = [
        "make",
        "--no-print-directory",
        "compose-up",
        f"ENV={running.about['inventory']}",
        f"COMPOSE_NAME={running.name}",
    ]
    before = {
        service: running.inspect("container", running.container(service), "{{.Id}}") for service in running.services
    }
    subprocess.run(command, cwd=running.folder.parents[1], check=True, capture_output=True)
    assert before == {
        service: running.inspect("container", running.container(service), "{{.Id}}") for service in running.services
    }
