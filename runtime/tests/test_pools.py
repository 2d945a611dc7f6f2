"""The pools `threads` and `gevent`: many tasks side by side in one process, of which none is lost."""

import json
import time

import pytest
from conftest import LIMIT, QUEUE, Worker
from waits import wait_for

MANY = 200
LIMITS = "--time-limit=60", "--soft-time-limit=50"
LATE = 4  # seconds after its limit in which a green thread is ended, on a busy machine too

pytestmark = pytest.mark.parametrize("pool", ["threads", "gevent"])


@pytest.fixture
def worker(start, pool):
    """A worker with that pool, and room for two tasks."""
    return start(f"--pool={pool}", *LIMITS)


def ends(worker, tasks, word="ends"):
    """How often each task has ended."""
    return [len(worker.noted(task.id, word)) for task in tasks]


def test_many_tasks_run_at_once_and_a_stop_finishes_them(server, start, send, pool):
    worker = start(f"--pool={pool}", f"--concurrency={MANY}", *LIMITS)
    tasks = [send("hold", 8) for _ in range(MANY)]
    wait_for(lambda: all(ends(worker, tasks, "begins")), 8, "all run")
    behind = [send("hold", 0) for _ in range(3)]
    assert server.client.hlen("unacked") == MANY and not any(ends(worker, tasks))
    assert worker.stop() < 20 and worker.process.returncode == 0
    assert ends(worker, tasks) == [1] * MANY and all(task.ended() == "SUCCESS" for task in tasks)
    assert server.client.hlen("unacked") == 0, "all are acknowledged"
    assert server.client.llen(QUEUE) == len(behind) and not any(ends(worker, behind))


def test_tasks_of_a_worker_that_is_killed_are_delivered_again(server, settings, environment, send, tmp_path, pool):
    server.start()
    server.client.flushall()
    file = tmp_path / "celery.json"
    options = settings["broker_transport_options"] | {"visibility_timeout": 12, "unacked_mutex_expire": 5}
    file.write_text(json.dumps(settings | {"broker_transport_options": options}))
    own = environment | {"CELERY_SETTINGS_FILE": str(file)}
    arguments = f"--pool={pool}", f"--concurrency={MANY}", *LIMITS
    first = Worker(tmp_path / "first", own, *arguments).ready()
    tasks = [send("hold", 5) for _ in range(MANY)]
    try:
        wait_for(lambda: all(ends(first, tasks, "begins")), 10, "all run")
    finally:
        first.process.kill()
        first.stop()
    done = ends(first, tasks).count(1)
    second = Worker(tmp_path / "second", own, *arguments).ready()
    try:
        wait_for(lambda: sum(ends(second, tasks)) >= MANY - done, 40, "the others are executed")
        wait_for(lambda: server.client.hlen("unacked") == server.client.llen(QUEUE) == 0, 10, "all are acknowledged")
        assert all(task.ended() == "SUCCESS" for task in tasks)
    finally:
        second.stop()
        print(second.log.read_text())


def test_lost_connection_interrupts_no_task_and_repeats_none(server, worker, send, pool):
    put_off = send("hold", 0, countdown=15)
    wait_for(lambda: server.client.hlen("unacked") == 1, 10, "the worker holds it until its time")
    lasts, finishes = running = [send("hold", 12), send("hold", 2, ignore_result=True)]
    wait_for(lambda: all(ends(worker, running, "begins")), 10, "both run")
    behind = send("hold", 0)
    server.stop()
    wait_for(lambda: worker.noted(finishes.id, "ends"), 8, "one ends while the broker is away")
    wait_for(lambda: "waiting for the broker" in worker.status(), 10, "systemd is told")
    server.start()
    tasks = [lasts, finishes, put_off, behind]
    wait_for(lambda: all(task.ended() == "SUCCESS" for task in (lasts, put_off, behind)), 30, "all are executed")
    wait_for(lambda: server.client.hlen("unacked") == server.client.llen(QUEUE) == 0, 10, "all are acknowledged")
    assert ends(worker, tasks) == ends(worker, tasks, "begins") == [1] * 4
    assert not worker.logged("The running tasks are not looked after")


@pytest.mark.parametrize("lost", [False, True], ids=["broker answers", "connection lost"])
def test_many_tasks_that_end_at_the_same_time_are_executed_once(server, start, send, pool, lost):
    """Each is about to be acknowledged, or is, at the moment at which the connection breaks."""
    worker = start(f"--pool={pool}", f"--concurrency={MANY}", *LIMITS)
    moment = time.time() + 8
    tasks = [send("hold_until", moment) for _ in range(MANY)]
    wait_for(lambda: all(ends(worker, tasks, "begins")), 7, "all run")
    behind = [send("hold", 0) for _ in range(MANY)]
    if lost:
        wait_for(lambda: any(ends(worker, tasks)), 10, "the first have ended")
        for connection in server.client.client_list():
            if connection["db"] == "0" and connection["cmd"] != "client|list":  # most are the broker's
                server.client.client_kill_filter(_id=connection["id"])
    wait_for(lambda: all(ends(worker, [*tasks, *behind])), 30, "all are executed")
    wait_for(lambda: server.client.hlen("unacked") == server.client.llen(QUEUE) == 0, 10, "all are acknowledged")
    assert ends(worker, tasks, "begins") == ends(worker, behind, "begins") == [1] * MANY
    assert lost or not worker.logged("Connection to broker lost")


def test_stop_gives_back_what_waits_for_its_time_or_for_room(server, worker, send, pool):
    later = send("hold", 0, countdown=60)
    due = send("hold", 0, countdown=4)
    wait_for(lambda: server.client.hlen("unacked") == 2, 10, "the worker holds both")
    running = [send("hold", 10) for _ in range(2)]
    wait_for(lambda: all(ends(worker, running, "begins")), 3, "there is no more room")
    time.sleep(4)  # until one of those that wait is due
    worker.process.terminate()
    wait_for(lambda: server.client.llen(QUEUE) == 2, 4, "both are in the queue")
    assert not any(ends(worker, running))
    assert worker.stop() < 15 and worker.process.returncode == 0
    assert ends(worker, running) == [1, 1] and not any(ends(worker, [later, due], "begins"))
    assert server.client.hlen("unacked") == 0
    queue = " ".join(server.client.lrange(QUEUE, 0, -1))
    assert later.id in queue and due.id in queue


def test_stopping_worker_acknowledges_each_task_when_it_ends(server, worker, send, pool):
    """One that is killed at TimeoutStopSec would have the others done twice."""
    lasts, finishes = tasks = [send("hold", 15), send("hold", 3)]
    wait_for(lambda: all(ends(worker, tasks, "begins")), 3, "both run")
    worker.process.terminate()
    wait_for(lambda: server.client.hlen("unacked") == 1, 8, "the first is acknowledged")
    assert ends(worker, [finishes, lasts]) == [1, 0]


def test_worker_consumes_while_a_task_that_is_due_waits_for_room(server, worker, send, pool):
    due = send("hold", 0, countdown=3)
    wait_for(lambda: server.client.hlen("unacked") == 1, 10, "the worker holds it")
    running = [send("hold", 7) for _ in range(2)]
    wait_for(lambda: all(ends(worker, running, "begins")), 3, "there is no more room")
    time.sleep(3)  # until it is due
    send("of_another_release")
    wait_for(lambda: due.ended() == "SUCCESS", 15, "it is executed once there is room")
    wait_for(lambda: server.client.llen(f"unknown:{QUEUE}:project.of_another_release"), 5, "and the next is taken")


def test_time_limits(server, start, send, pool):
    """Green threads keep them, also one that asks for more than its queue allows. Threads have none."""
    worker = start(f"--pool={pool}")
    hangs, soft = send("hang", time_limit=600, soft_time_limit=4), send("interrupted", LIMIT + 4, soft_time_limit=3)
    began = {task.id: wait_for(lambda t=task: worker.noted(t.id), 10, "it runs")[0][1] for task in (hangs, soft)}
    if pool == "threads":
        time.sleep(began[soft.id] + LIMIT + 2 - time.time())
        assert not hangs.ended() and not worker.noted(hangs.id, "is interrupted")
        wait_for(lambda: soft.ended() == "SUCCESS", 8, "it has its time")
        assert not worker.noted(soft.id, "is interrupted")
        worker.process.kill()
        return
    wait_for(lambda: hangs.ended() and soft.ended(), LIMIT + LATE, "both have ended")
    assert (hangs.ended(), soft.ended()) == ("TimeLimitExceeded", "SUCCESS")
    at = {task.id: worker.noted(task.id, "is interrupted")[0][1] - began[task.id] for task in (hangs, soft)}
    assert 3.9 < at[hangs.id] < 4 + LATE and 2.9 < at[soft.id] < 3 + LATE
    wait_for(lambda: server.client.hlen("unacked") == 0, 5, "both are acknowledged")
    assert ends(worker, [hangs, soft], "begins") == [1, 1]


def test_task_that_exits_ends_no_worker_and_has_failed(server, worker, send, pool):
    task, other = send("leave"), send("hold", 0)
    wait_for(lambda: task.ended() == "WorkerLostError" and other.ended() == "SUCCESS", 15, "both have ended")
    wait_for(lambda: server.client.hlen("unacked") == 0, 5, "both are acknowledged")
    assert len(worker.noted(task.id)) == 2 and worker.process.poll() is None, "it was retried once"


def test_worker_that_blocks_is_not_fed(worker, send, pool):
    """The watchdog of systemd ends it then. Threads block nobody."""
    if pool == "threads":
        pytest.skip("threads block nobody")
    task = send("block", 6)
    wait_for(lambda: worker.noted(task.id), 10, "it runs")
    time.sleep(2)
    before = len(worker.said)
    time.sleep(3)
    assert len(worker.said) == before
    wait_for(lambda: len(worker.said) > before, 10, "it is fed again")
