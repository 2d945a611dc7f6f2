"""When a worker is to be restarted, and when it is left alone."""

from types import SimpleNamespace as Thing

import pytest
from coldframe.worker import pool, status, watch


class Scene:
    """A worker whose state the test sets, seen once a second."""

    def __init__(self, monkeypatch):
        """Begin with an idle prefork worker, on a clock of the test's."""
        self.now = 1000.0
        monkeypatch.setattr(watch, "time", Thing(monotonic=lambda: self.now, time=lambda: self.now))
        monkeypatch.setattr(watch, "state", Thing(requests={}))
        self.turns = self.asks = self.room = self.answers = True
        self.running = self.taken = ()
        qos = Thing(can_consume=lambda: self.room)
        self.channel = Thing(active_queues=["q"], qos=qos, _brpop_sent_at=self.now, _connparams=dict)
        consumer = Thing(task_consumer=Thing(channel=self.channel), connection=object(), task_buckets={})
        self.pool = Thing(_pool=Thing(_cache={}), limit=2, num_processes=2)
        self.rest = Thing(turned=self.now)
        worker = Thing(consumer=consumer, pool=self.pool, time_limit=300)
        self.watch = watch.Watch(worker, self.rest)
        monkeypatch.setattr(pool, "running", lambda: self.running)
        monkeypatch.setattr(pool, "taken", lambda: self.taken)
        monkeypatch.setattr(self.watch, "broker_answers", lambda: self.answers)

    def after(self, seconds):
        """What the watch says when so many seconds have passed, or before that when it says something."""
        for _ in range(seconds):
            self.now += 1
            if self.turns:
                self.rest.turned = self.now
            if self.asks and self.turns:
                self.channel._brpop_sent_at = self.now
            if fault := self.watch.fault():
                return fault
        return ""

    def run(self, kind, limit=None):
        """Begin a task in another kind of pool."""
        self.pool.limit = self.pool.num_processes = {"solo": 1, "threads": 2, "prefork": 2}[kind]
        self.pool._pool = Thing(_cache={}) if kind == "prefork" else None
        task = Thing(name="t", id="1", time_start=self.now, time_limits=(limit, None))
        task.task = Thing(time_limit=None)
        self.running = (*self.running, task)


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_a_worker_that_consumes_is_well(scene):
    assert scene.after(600) == ""


def test_an_event_loop_that_does_not_turn(scene):
    scene.turns = False
    assert scene.after(31) == ""
    assert "has not turned" in scene.after(4)


def test_a_loop_that_turns_and_asks_for_nothing(scene):
    scene.asks = False
    assert scene.after(31) == ""
    assert "room for tasks" in scene.after(4)


def test_a_full_worker_asks_for_nothing_and_is_well(scene):
    scene.asks = scene.room = False
    watch.state.requests["1"] = object()
    assert scene.after(600) == ""
    scene.room = True  # from now on it could
    assert scene.after(31) == ""
    assert "room for tasks" in scene.after(4)


def test_a_worker_that_takes_itself_for_full_and_has_nothing(scene):
    scene.asks = scene.room = False
    assert "room for tasks" in scene.after(35)


def test_while_the_broker_does_not_answer_no_worker_is_restarted(scene):
    scene.turns = scene.asks = scene.answers = False
    assert scene.after(3600) == ""
    scene.answers = True  # time to find out that it is back
    assert scene.after(20) == ""
    assert "has not turned" in scene.after(2)


def test_a_queue_that_was_cancelled_is_not_consumed(scene):
    scene.asks, scene.channel.active_queues = False, []
    assert scene.after(600) == ""


def test_solo_may_take_its_time_for_a_task_up_to_the_limit(scene):
    scene.run("solo")
    scene.turns = scene.asks = False
    assert scene.after(300) == ""
    assert "beyond its time limit" in scene.after(40)


def test_a_tasks_own_limit_counts(scene):
    scene.run("prefork", limit=20)
    assert "beyond its time limit" in scene.after(60)


def test_threads_are_ended_only_when_each_is_late(scene):
    scene.run("threads")
    assert scene.after(400) == ""
    scene.run("threads")
    assert scene.after(300) == ""
    assert "beyond its time limit" in scene.after(40)


def test_a_task_that_asks_for_more_than_its_queue_allows_gets_no_more(scene):
    scene.run("prefork", limit=86400)
    assert scene.after(300) == ""
    assert "runs far beyond its time limit" in scene.after(40)


def test_a_process_that_does_not_begin_what_it_was_given(scene):
    """The worker counts the task as taken, so it has no room; no time limit runs before the task does."""
    scene.watch.worker.time_limit = 86400
    scene.run("prefork")  # another process is busy
    job = Thing(correlation_id="1", _write_to=None, _accepted=False)
    scene.pool._pool = Thing(_cache={1: job}, outbound_buffer=[job])
    scene.asks = scene.room = False
    scene.taken = (Thing(id="1"),)
    assert scene.after(600) == "", "no process has it yet"
    job._write_to = object()
    assert scene.after(600) == "", "the process that had it has died, and it waits for another"
    scene.pool._pool.outbound_buffer.clear()
    assert scene.after(31) == ""
    job._accepted = True
    assert scene.after(600) == "", "it runs"
    job._accepted = False
    assert "has begun 1" in scene.after(40)


def test_processes_that_are_idle_while_a_task_waits(scene):
    scene.asks = scene.room = False
    watch.state.requests["1"] = object()
    scene.taken = (Thing(id="1"),)
    assert scene.after(31) == ""
    assert "has begun 1" in scene.after(4)


@pytest.fixture
def worker():
    """What tells systemd of a worker."""
    return status.Status(lambda message: None)


def test_a_watch_that_fails_wakes_nobody_and_says_so_once(worker, caplog):
    broken = Thing(fault=lambda: Thing()._brpop_sent_at)
    assert {worker.watchdog(broken) for _ in range(100)} == {"WATCHDOG=1"}, "fed, and not ready: the start will fail"
    assert len(caplog.records) == 1 and "_brpop_sent_at" in caplog.text
    assert worker.line().startswith("consuming, not watched: AttributeError")


def test_a_worker_is_ready_once_it_is_watched(worker):
    well = Thing(fault=lambda: "")
    assert [worker.watchdog(well) for _ in range(3)] == ["READY=1\nWATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert "not watched" not in worker.line()
    assert worker.watchdog(Thing(fault=lambda: "it hangs")) == "WATCHDOG=trigger"
    worker.phase = "draining"
    assert worker.watchdog(Thing(fault=lambda: "it hangs")) == "WATCHDOG=1"
