"""When a queue is sent its probe, and what a worker records of it; with the real Celery and Redis."""

import json
from contextlib import nullcontext

import celery
import pytest
import redis
from coldframe import credentials, probe

QUEUES = {"task_queues": {"a": {}, "b": {}}, "task_default_queue": "a"}
BROKER, LOCKS = 8, 9  # databases of the server that only these tests use


class Scene:
    """An application with two queues, and the Beat that sends their probes; time passes when the test says so."""

    def __init__(self, server):
        """Begin with nothing recorded and empty queues."""
        self.broker, self.locks = (
            redis.Redis(unix_socket_path=str(server.path), db=db, decode_responses=True) for db in (BROKER, LOCKS)
        )
        self.broker.flushdb(), self.locks.flushdb()
        url = f"redis+socket://{server.path}?virtual_host={BROKER}"
        self.app = celery.Celery("probed", broker=url, set_as_current=False)
        self.app.conf.update(**QUEUES, task_create_missing_queues=False)
        self.begin()

    def begin(self):
        """Start another Beat."""
        self.probes = probe.Probes(self.app, self.locks)

    def waiting(self):
        """The tasks in each queue, by name."""
        return {
            queue: [json.loads(each)["headers"]["task"] for each in self.broker.lrange(queue, 0, -1)] for queue in "ab"
        }

    def after(self, seconds):
        """Return the queues that get a probe when so many seconds have passed."""
        before = self.waiting()
        self.probes.due = {queue: due - seconds for queue, due in self.probes.due.items()}
        while self.probes.send_next():
            pass
        return [queue for queue, tasks in self.waiting().items() for _ in tasks[len(before[queue]) :]]

    def work(self, queue):
        """Execute what is in the queue, as its worker does."""
        while message := self.broker.rpop(queue):
            headers = json.loads(message)["headers"]
            arguments = json.loads(headers["argsrepr"].replace("'", '"').replace("(", "[").replace(")", "]"))
            self.app.tasks[headers["task"]].apply(arguments)

    def recorded(self, queue):
        """What is recorded of the last probe that was done."""
        return json.loads(self.locks.get(f"probe:done:{queue}") or "{}")


@pytest.fixture
def scene(server, monkeypatch):
    scene = Scene(server)
    monkeypatch.setattr(credentials, "locks", lambda: nullcontext(scene.locks))
    yield scene
    scene.app.close()


def test_each_queue_gets_one_at_once_and_every_30_seconds(scene):
    assert scene.after(0) == ["a", "b"]
    assert scene.waiting() == {"a": ["coldframe.probe"], "b": ["coldframe.probe"]}
    scene.work("a"), scene.work("b")
    assert scene.after(20) == []
    assert scene.after(10) == ["a", "b"]


def test_one_turn_sends_one(scene):
    assert scene.probes.send_next() and scene.waiting() == {"a": ["coldframe.probe"], "b": []}


def test_when_it_was_sent_and_done_is_recorded_for_a_day(scene):
    scene.after(0)
    scene.work("a")
    done = scene.recorded("a")
    assert done["sent"] == float(scene.locks.get("probe:sent:a")) <= done["done"] <= probe.clock(scene.locks)
    assert not scene.recorded("b")
    ((_, waited),) = scene.locks.xrange("probe:waits:a")
    assert float(waited["seconds"]) == pytest.approx(done["done"] - done["sent"], abs=0.001)
    for key in ("probe:sent:a", "probe:done:a", "probe:waits:a"):
        assert 23 * 3600 < scene.locks.ttl(key) <= 24 * 3600


def test_waits_of_before_a_day_are_forgotten(scene):
    old = [f"{int((probe.clock(scene.locks) - 25 * 3600 + number) * 1000)}-0" for number in range(300)]
    for entry in old:
        scene.locks.xadd("probe:waits:a", {"seconds": 1}, id=entry)
    scene.after(0)
    scene.work("a")
    assert scene.locks.xlen("probe:waits:a") <= 101, "Redis removes a hundred at a time"


def test_while_one_waits_no_other_is_sent(scene):
    scene.after(0)
    for _ in range(10):
        scene.work("b")
        assert scene.after(31) == ["b"]


def test_other_tasks_that_wait_do_not_hold_the_next_one_back(scene):
    scene.after(0)
    scene.work("a")
    scene.app.send_task("other", queue="a")
    assert scene.after(31) == ["a"]


def test_one_that_is_not_done_and_in_no_queue_is_followed_by_another(scene):
    scene.after(0)
    scene.broker.delete("a", "b")
    assert scene.after(31) == ["a", "b"]


def test_a_beat_that_begins_knows_of_the_one_that_waits(scene):
    scene.after(0)
    scene.begin()
    assert scene.after(0) == []


def test_what_cannot_be_sent_stops_nothing_and_is_tried_again_later(scene, server, caplog):
    broken = celery.Celery("broken", broker=f"redis+socket://{server.folder}/none", set_as_current=False)
    broken.conf.update(**QUEUES, broker_transport_options={"max_retries": 1, "interval_max": 0})
    scene.probes.app, whole = broken, scene.probes.app
    assert scene.after(0) == scene.after(15) == []
    said = [record.getMessage().partition(": ")[0] for record in caplog.records]
    assert said == ["No queue probe was sent to the queue a", "No queue probe was sent to the queue b"]
    scene.probes.app = whole
    assert scene.after(16) == ["a", "b"]
    broken.close()
