"""What a worker counts of the tasks that it runs, in each pool."""

import pytest
import redis
from conftest import QUEUE, Worker, wait_for

RELEASE = "3f2a9c1b7d04"  # pragma: allowlist secret


@pytest.fixture
def counted(server):
    """What is recorded of the release: field to number."""
    locks = redis.Redis(unix_socket_path=str(server.path), db=1, decode_responses=True)
    return lambda: {field: float(number) for field, number in locks.hgetall(f"runs:{RELEASE}").items()}


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
def test_how_attempts_end_and_how_long_they_take_is_counted(worker, server, send, counted, pool):
    worker(f"--pool={pool}", "--time-limit=60", "--soft-time-limit=50")
    sent = [send("hold", 1), send("hold", 2), send("fail"), send("flaky"), send("look")]
    wait_for(lambda: all(task.ended() for task in sent), 30, "all have ended")
    wanted = {"done project.hold": 2, "failed project.fail": 1, "failed project.flaky": 3, "done project.look": 1}
    numbers = wait_for(lambda: (found := counted()).keys() >= wanted.keys() and found, 8, "they are recorded")
    assert {field: number for field, number in numbers.items() if field.split()[0] in ("done", "failed")} == wanted
    assert 3 <= numbers["seconds project.hold"] < 12 and 5 <= numbers["squares project.hold"] < 80
    assert numbers["seconds project.look"] < numbers["seconds project.hold"]


def test_task_that_is_lost_or_reaches_its_time_limit_is_counted_once(worker, send, counted):
    worker()
    killed, hangs = send("poison"), send("hang", time_limit=4, soft_time_limit=3)
    wait_for(lambda: killed.ended() and hangs.ended(), 20, "both have ended")
    wait_for(lambda: counted() == {"failed project.poison": 2, "failed project.hang": 1}, 8, "both are recorded")


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
