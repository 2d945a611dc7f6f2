"""What a worker counts of the tasks that it runs, in each pool."""

import math

import pytest
import redis
from conftest import QUEUE, Worker
from waits import wait_for

RELEASE = "3f2a9c1b7d04"  # pragma: allowlist secret


@pytest.fixture
def counted(server):
    """What is recorded of the release: field to number."""
    locks = redis.Redis(unix_socket_path=str(server.path), db=1, decode_responses=True)

    def read():
        found = {}
        for key in locks.keys(f"runs:{RELEASE}:*"):
            assert 24 * 3600 < locks.ttl(key) <= 25 * 3600
            for field, number in locks.hgetall(key).items():
                found[field] = found.get(field, 0) + float(number)
        return found

    return read


@pytest.fixture
def worker(server, environment, tmp_path):
    """Start a worker of the release."""
    started = []
    server.start()
    server.client.flushall()
    unit = environment | {"LOCKS_URL": f"unix://{server.path}?db=1", "RELEASE_ID": RELEASE}

    def start(*options):
        started.append(Worker(tmp_path / f"worker{len(started)}", unit, *options))
        return started[-1].ready()

    yield start
    for each in started:
        each.stop()
        print(each.log.read_text())


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_how_first_attempts_end_and_how_long_they_take_is_counted(worker, send, counted, pool):
    worker(f"--pool={pool}", "--time-limit=60", "--soft-time-limit=50")
    names = ["fail", "flaky", "look", "look_after_error"]
    sent = [*(send(name) for name in names), *(send("hold", seconds) for seconds in (0.1, 0.1, 1, 1))]
    wait_for(lambda: all(task.ended() for task in sent), 30, "all have ended")
    wanted = {
        "done project.hold": 4,
        "failed project.fail": 1,
        "failed project.flaky": 1,
        "failed project.look_after_error": 1,
    }
    kinds = "done", "failed"
    wait_for(
        lambda: {field: number for field, number in counted().items() if field.split()[0] in kinds} == wanted,
        12,
        "they are recorded",
    )
    numbers = counted()
    warm = 2 if pool == "prefork" else 3  # all but the first of each process
    assert numbers["timed project.hold"] == warm
    typical = math.exp(numbers["logs project.hold"] / warm)
    assert 0.1 <= typical < 5 and numbers["squares project.hold"] > 0


def test_task_that_is_lost_or_reaches_its_time_limit_is_counted_once(worker, send, counted):
    worker()
    killed, hangs = send("poison"), send("hang", time_limit=4, soft_time_limit=3)
    wait_for(lambda: killed.ended() and hangs.ended(), 20, "both have ended")
    wait_for(lambda: counted() == {"failed project.poison": 1, "failed project.hang": 1}, 8, "both are recorded")


def test_green_thread_that_reaches_its_time_limit_is_counted_once(worker, send, counted):
    worker("--pool=gevent", "--time-limit=60", "--soft-time-limit=50")
    hangs = send("hang", time_limit=4, soft_time_limit=3)
    wait_for(hangs.ended, 20, "it has ended")
    wait_for(lambda: counted() == {"failed project.hang": 1}, 8, "it is recorded")


def test_what_ends_last_is_recorded_when_the_worker_stops(worker, send, counted):
    running = worker()
    task = send("hold", 3)
    wait_for(lambda: running.noted(task.id), 10, "it runs")
    running.stop()
    assert counted()["done project.hold"] == 1


def test_what_could_not_be_recorded_is_recorded_later(worker, server, send, counted):
    running = worker()
    tasks = [send("hold", 6, ignore_result=True) for _ in range(2)]
    wait_for(lambda: all(running.noted(task.id) for task in tasks), 10, "both run")
    server.stop()
    wait_for(lambda: all(running.noted(task.id, "ends") for task in tasks), 20, "both end while the broker is away")
    server.start()
    wait_for(lambda: counted().get("done project.hold") == 2, 30, "both are recorded")
    wait_for(lambda: server.client.llen(QUEUE) == server.client.hlen("unacked") == 0, 20, "both are acknowledged")
