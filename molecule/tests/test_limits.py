"""Processes of a worker that are used up, grow, die, hang or stand still; and a worker that may not log in.

The unit is the deployed one of the queue `bulk`, with its sandbox; only it has these tasks too, and further options.
"""

import json
import re

import pytest
from support.units import children, current, instances, logged
from waits import wait_for

pytestmark = [pytest.mark.changes, pytest.mark.group("workers")]
FOLDER = "/run/trial"
LATE = 3  # seconds after its limit in which a task is ended
TASKS = '''
import logging
import os
import signal
import time

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_ready


@worker_ready.connect(weak=False)
def on_worker_ready(sender, **_):
    """By SIGUSR1 the connection for remote control seems half open, as after a network cut."""

    def half_open(*_):
        for channel in sender.connection.transport.channels:
            if client := vars(channel).get("subclient"):
                client.health_check_response_counter = 2

    signal.signal(signal.SIGUSR1, half_open)


@shared_task(name="trial.grow", ignore_result=False)
def grow(megabytes):
    b"x" * (megabytes << 20)
    return os.getpid()


@shared_task(bind=True, name="trial.poison", ignore_result=False, max_retries=2, default_retry_delay=0)
def poison(self):
    logging.warning("%s begins", self.request.id)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="trial.put_off", ignore_result=False)
def put_off(seconds):
    return grow.apply_async((0,), queue="bulk", countdown=seconds).id


class Long(Exception):
    """Much to send, and little to log."""

    def __str__(self):
        return "long"


@shared_task(bind=True, name="trial.fail", soft_time_limit=2, time_limit=30)
def fail(self):
    logging.warning("%s begins in %s", self.request.id, os.getpid())
    time.sleep(1)
    raise Long("x" * (8 << 20))


@shared_task(bind=True, name="trial.hang")
def hang(self):
    logging.warning("%s begins in %s", self.request.id, os.getpid())
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            pass
'''
SEND = """
import json
from functools import partial
from celery import current_app
send = partial(current_app.send_task, queue="bulk", ignore_result=False)
"""
GROWN = SEND + "print(json.dumps([each.get(timeout=60) for each in [send('trial.grow', ({},)) for _ in range({})]]))"


@pytest.fixture(scope="module")
def start(host, deployment):
    """Start the worker of the queue `bulk` anew, with further options, unless it runs with them; return its unit."""
    app = deployment.app_name
    if len(deployment.groups["workers"]) > 1 or not (units := instances(host, app, "worker-bulk")):
        pytest.skip("another host's worker would be given the tasks")
    unit, files = units.pop(), f"/srv/{app}/releases/{current(host, app)}/.release"
    dropin = f"/run/systemd/system/{unit}.d"
    arguments = host.check_output(f"cat {files}/worker-bulk.env").strip()
    started = []

    def write(path, text):
        host.check_output(f"mkdir -p {path.rpartition('/')[0]} && printf %%s %s >{path}", text)

    def run(options):
        if started != [options]:
            write(f"{FOLDER}/worker.env", f"{arguments} --include=trial --concurrency=2 {options}\n")
            host.check_output(f"systemctl restart {unit}")
            started[:] = [options]
        return unit

    write(f"{FOLDER}/trial.py", TASKS)
    environment = f"Environment=PYTHONPATH={files}/runtime:{FOLDER}\nEnvironmentFile={FOLDER}/worker.env\n"
    write(f"{dropin}/trial.conf", f"[Service]\n{environment}")
    host.check_output("systemctl daemon-reload")
    yield run
    host.check_output(f"rm -r {FOLDER} {dropin} && systemctl daemon-reload && systemctl restart {unit}")


@pytest.fixture
def worker(start):
    """A worker whose processes are replaced when they have used 200 MB."""
    return start("--max-memory-per-child=200000")


def to_the_database(host, process):
    """The connections of a process to PostgreSQL's socket; it has a network of its own."""
    listed = host.check_output(f"nsenter --net --target {process} ss --unix --processes --no-header")
    sockets = [line.split() for line in listed.splitlines()]
    served = {line[7] for line in sockets if line[4].endswith(".s.PGSQL.5432")}
    return [line for line in sockets if line[5] in served and f"pid={process}," in line[-1]]


@pytest.mark.thorough
def test_processes_that_are_used_up_are_replaced_inside_the_sandbox(start, journal, manage):
    unit = start("--concurrency=16 --max-tasks-per-child=1")
    assert len(set(json.loads(manage(GROWN.format(0, 100))))) == 100, "each task had a process of its own"
    runs = [re.search(r"trial.grow\[(\S+)\] succeeded", line) for _, line in journal(unit)]
    done = [match[1] for match in runs if match]
    assert len(done) == len(set(done)) == 100, "each was executed once"


def test_a_process_that_has_grown_is_replaced_and_no_other(host, worker, manage):
    main, before = children(host, worker)
    small = set(json.loads(manage(GROWN.format(0, 4))))
    (grown,) = json.loads(manage(GROWN.format(250, 1)))
    wait_for(lambda: host.run(f"kill -0 {grown}").rc, 5, "the process is gone")
    wait_for(lambda: len(children(host, worker)[1]) == 2, 5, "there is another")
    now, after = children(host, worker)
    assert now == main and before - {str(grown)} < after, "the others run on"
    assert {str(pid) for pid in small} <= before, "a small task costs no process"


def test_a_task_that_kills_its_process_three_times_is_given_up_and_holds_no_other_up(worker, journal, manage):
    code = """
poison = send("trial.poison")
others = [send("trial.grow", (0,)) for _ in range(10)]
done = [other.get(timeout=30) for other in others]
try:
    poison.get(timeout=30)
except Exception:
    pass
print(json.dumps([poison.id, poison.state, len(done)]))
"""
    sent, state, done = json.loads(manage(SEND + code))
    assert (state, done) == ("FAILURE", 10)
    kept = (
        f"from orders.models import DeadLetter; print(*DeadLetter.objects.filter(task_id='{sent}').values_list('task'))"
    )
    wait_for(lambda: manage(kept) == "('trial.poison',)", 10, "it is one dead letter")
    assert len(logged(journal(worker), f"{sent} begins")) == 3


@pytest.mark.group("redis")
def test_a_dropped_connection_that_a_process_has_too_does_not_slow_the_worker(host, worker, journal, manage):
    """After the worker has connected again, for then Celery does not say any more which event loop it has."""
    host.check_output("systemctl restart redis-server@broker")
    wait_for(lambda: logged(journal(worker), "Connected to"), 15, "the worker has connected again")
    main, before = children(host, worker)
    host.check_output(f"kill -KILL {min(before)}")
    wait_for(lambda: len(children(host, worker)[1] - before) == 1, 10, "a process was made after the connection")
    host.check_output(f"kill -USR1 {main}")
    wait_for(lambda: logged(journal(worker), "dropping stale connection"), 15, "the connection is dropped")
    manage(GROWN.format(0, 20))
    begun, done = logged(journal(worker), "dropping stale connection")[0], logged(journal(worker), "] succeeded")
    assert len(done) >= 20 and done[-1] - begun < 15


def test_a_task_with_a_longer_delay_than_its_queue_allows_is_stored_and_sent_when_it_is_due(
    worker, deployment, manage, journal
):
    """By web processes, manage.py and workers. What is revoked before is discarded by a worker."""
    code = f"""
import time
from coldframe.delayed.store import rows
from coldframe.web.hooks import load  # what Gunicorn does
load("{deployment.app_celery}")
longest = current_app.conf.task_longest_countdown["bulk"]
near, far = (send("trial.put_off", (seconds,)).get(timeout=30) for seconds in (1, longest + 60))
mine = send("trial.grow", (0,), countdown=longest + 60)
stored = {{row.task_id: row.due - time.time() for row in rows().filter(task_id__in=[near, far, mine.id])}}
assert set(stored) == {{far, mine.id}} and mine.state == "PENDING" and min(stored.values()) > longest, stored
current_app.control.revoke([far, mine.id])
current_app.conf.task_longest_countdown["bulk"] = 0
began = time.time()
due = send("trial.grow", (0,), countdown=8)
assert rows().filter(task_id=due.id).count() == 1
due.get(timeout=40)
print(json.dumps([[far, mine.id], time.time() - began, rows().filter(task_id__in=[far, mine.id, due.id]).count()]))
"""
    revoked, seconds, left = json.loads(manage(SEND + code))
    assert 8 <= seconds < 8 + 15 and left == 0
    for id_ in revoked:
        wait_for(
            lambda id_=id_: logged(journal(worker), f"Discarding revoked task: trial.grow[{id_}]"), 15, "discarded"
        )


@pytest.mark.group("redis")
@pytest.mark.parametrize(
    "fault, limits",
    [("restart", [6]), ("kill --signal=STOP", [12])],
    ids=["is restarted", "hangs"],
)
def test_a_tasks_limit_holds_while_the_broker(host, worker, journal, manage, redis, fault, limits):
    """Of a broker that hangs the worker awaits an answer, twice 10 seconds; only then does it say what it has done."""
    hang = "send('trial.hang', time_limit={}).id"
    ids = json.loads(manage(SEND + f"print(json.dumps([{', '.join(map(hang.format, limits))}]))"))
    wait_for(lambda: all(logged(journal(worker), f"{sent} begins") for sent in ids), 10, "the tasks have begun")
    host.check_output(f"systemctl {fault} redis-server@broker")
    try:
        for sent, limit in zip(ids, limits, strict=True):
            begun, line = next((at, line) for at, line in journal(worker) if f"{sent} begins" in line)
            pid = re.search(r"begins in (\d+)", line)[1]
            # What is dead has no program, but is there until the worker has looked after it.
            wait_for(lambda: host.run(f"readlink /proc/{pid}/exe").rc, limit + LATE, "its process is dead")  # noqa: B023
            assert -1 < float(host.check_output("date +%s.%N")) - begun - limit < LATE, "ended at its limit"
        ends = [
            f"Hard time limit ({limit}s) exceeded for trial.hang[{sent}]"
            for sent, limit in zip(ids, limits, strict=True)
        ]
        wait_for(lambda: all(logged(journal(worker), end) for end in ends), 30, "the worker says so")
    finally:
        host.check_output("systemctl kill --signal=CONT redis-server@broker")
    wait_for(lambda: redis("HLEN unacked") == "0", 30, "nothing is left that could be delivered again")
    lines = journal(worker)
    assert all(len(logged(lines, f"{sent} begins")) == 1 for sent in ids), "each was begun once"
    main, _ = children(host, worker)
    wait_for(lambda: not to_the_database(host, main), 5, "the main process, which stored that, keeps no connection")


def test_a_soft_limit_that_comes_after_a_task_spoils_nothing(host, worker, journal, manage):
    """The event loop comes to it late, while the task's process says how the task has ended."""
    main, before = children(host, worker)
    sent = json.loads(manage(SEND + "print(json.dumps(send('trial.fail', ignore_result=True).id))"))
    wait_for(lambda: logged(journal(worker), f"{sent} begins"), 10, "the task has begun")
    begun, line = next((at, line) for at, line in journal(worker) if f"{sent} begins" in line)
    pid = re.search(r"begins in (\d+)", line)[1]
    host.check_output(f"kill -STOP {main}")
    try:
        wait_for(lambda: "pipe" in host.check_output(f"cat /proc/{pid}/wchan"), 10, "nobody reads how it has ended")
        wait_for(lambda: float(host.check_output("date +%s.%N")) > begun + 3, 5, "its soft limit is over")
    finally:
        host.check_output(f"kill -CONT {main}")
    wait_for(lambda: logged(journal(worker), f"Soft time limit (2s) exceeded for trial.fail[{sent}]"), 10, "it is late")
    assert len(json.loads(manage(GROWN.format(0, 4)))) == 4
    assert children(host, worker) == (main, before), "no process has ended"


@pytest.mark.thorough
@pytest.mark.group("redis")
def test_a_worker_whose_processes_stand_still_is_restarted(host, worker, journal, manage, redis):
    main, pids = children(host, worker)
    limited = json.loads(manage(SEND + "print(json.dumps(send('trial.hang', time_limit=5).id))"))
    wait_for(lambda: logged(journal(worker), f"{limited} begins"), 10, "a task runs")
    host.check_output(f"kill -STOP {' '.join(pids)}")
    ended = f"Hard time limit (5s) exceeded for trial.hang[{limited}]"
    wait_for(lambda: logged(journal(worker), ended), 10, "the running task's process is ended at the limit")
    sent = json.loads(manage(SEND + "print(json.dumps([send('trial.grow', (0,)).id for _ in range(2)]))"))
    wait_for(lambda: children(host, worker)[0] not in (main, "0"), 60, "the worker is restarted")
    assert logged(journal(worker), "no process of the pool has begun"), "it says why"
    # What it held is delivered again after the visibility timeout, which a test does not wait for.
    for tag in redis("ZRANGE unacked_index 0 -1").split():
        redis(f"ZADD unacked_index 0 {tag}")
    done = "from celery.result import AsyncResult; print(*[AsyncResult(i).get(timeout=30) for i in {}])"
    assert len(manage(done.format(sent)).split()) == 2


@pytest.mark.thorough
@pytest.mark.group("redis")
def test_workers_that_may_not_log_in_are_not_restarted_and_consume_when_they_may(host, worker, journal, manage, redis):
    app = worker.partition("-worker")[0]
    units = sorted(instances(host, app, "worker-*"))
    before = [children(host, unit)[0] for unit in units]
    redis("ACL SETUSER worker resetpass >another")
    try:
        redis("CLIENT KILL USER worker")
        refused = "invalid username-password pair"
        wait_for(lambda: logged(journal(worker), refused), 30, "the worker says why")
        first = logged(journal(worker), refused)[0]
        wait_for(
            lambda: logged(journal(worker), refused)[-1] > first + 40,
            60,
            "it has tried for longer than the watchdog's time",
        )
    finally:
        redis("ACL LOAD")
    assert len(json.loads(manage(GROWN.format(0, 1)))) == 1
    assert [children(host, unit)[0] for unit in units] == before
