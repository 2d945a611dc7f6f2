"""When a queue is sent its canary task, and what is told of it."""

import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace as Thing
from unittest.mock import MagicMock, patch

import pytest
from canaries import canary_commands, canary_lines

# The controller has neither Celery nor Redis; nothing of them is asked here.
ABSENT = ("celery", "redis", "redis.backoff", "redis.credentials", "redis.retry")
with patch.dict(sys.modules, {name: MagicMock() for name in ABSENT}):
    from coldframe import canary


class Scene:
    """Two queues, a Redis with what is noted, and a Beat that has turns; time passes when the test says so."""

    def __init__(self, monkeypatch):
        """Begin with nothing noted and empty queues."""
        self.now, self.notes, self.sent, self.queued = 1000.0, {}, [], dict.fromkeys("ab", 0)
        monkeypatch.setattr(canary, "time", Thing(monotonic=lambda: self.now))
        channel = Thing(queue_declare=lambda name: Thing(message_count=self.queued[name]))
        app = Thing(
            amqp=Thing(queues=self.queued),
            producer_or_acquire=lambda: nullcontext(Thing(channel=channel)),
            tasks={canary.NAME: Thing(apply_async=self.send)},
        )
        redis = Thing(
            time=lambda: (int(self.now), 0),
            get=self.notes.get,
            set=lambda key, value, ex: self.notes.update({key: value}),
        )
        self.canaries = canary.Canaries(app, redis)

    def send(self, arguments, queue, event_dispatcher):
        """Take a message."""
        assert arguments == (queue, self.now)
        self.sent.append(queue)

    def done(self, queue):
        """Have a worker execute the last one."""
        self.notes[f"canary:done:{queue}"] = json.dumps({"sent": float(self.notes[f"canary:sent:{queue}"])})

    def after(self, seconds):
        """What is sent when so many seconds have passed."""
        self.now += seconds
        self.sent.clear()
        while self.canaries.send_next():
            pass
        return "".join(self.sent)


@pytest.fixture
def scene(monkeypatch):
    return Scene(monkeypatch)


def test_each_queue_gets_one_at_once_and_every_30_seconds(scene):
    assert scene.after(0) == "ab"
    assert scene.after(29) == ""
    scene.done("a"), scene.done("b")
    assert scene.after(1) == "ab"


def test_one_turn_sends_one(scene):
    assert scene.canaries.send_next() and scene.sent == ["a"]


def test_while_one_waits_no_other_is_sent(scene):
    scene.after(0)
    scene.queued.update(a=1, b=7)
    for _ in range(100):
        scene.done("b")  # what is left in b are other tasks
        assert scene.after(30) == "b"


def test_one_that_is_not_done_and_in_no_queue_is_followed_by_another(scene):
    scene.after(0)
    assert scene.after(30) == "ab"


def test_a_beat_that_begins_knows_of_the_one_that_waits(scene):
    scene.after(0)
    scene.queued.update(a=1, b=1)
    scene.canaries.due = dict.fromkeys("ab", 0.0)
    assert scene.after(0) == ""


def test_what_cannot_be_sent_stops_nothing_and_is_tried_again_later(scene):
    with patch.object(scene.canaries, "send", side_effect=OSError("no broker")) as send:
        assert scene.after(0) == scene.after(29) == ""
        assert send.call_count == 2
    assert scene.after(1) == "ab"


def told(sent=None, done=None, waited=0.5):
    """The line about one queue at 1000 s, whose last one was sent and done at such times."""
    noted = json.dumps({"sent": done - waited, "done": done, "worker": "q-r1@app1"}) if done else ""
    answer = "\n".join(["OK", "OK", "1000", "500000", str(sent or ""), noted]).rstrip("\n")  # as Ansible cuts it
    (line,) = canary_lines(answer, ["q"])
    return " ".join(line.split())


def test_one_that_was_done_is_told_with_its_wait_and_worker():
    assert told(990.0, 990.5) == "q done 10 s ago by q-r1@app1, after 0.5 s"


def test_one_that_waits_is_overdue():
    assert told(600.0, 570.0) == "q OVERDUE: done 430 s ago by q-r1@app1, after 0.5 s; the last was sent 400 s ago"
    assert told(600.0) == "q OVERDUE: never done, or more than a day ago; the last was sent 400 s ago"


def test_when_none_is_sent_beat_is_asked_about():
    assert told() == "q OVERDUE: never done, or more than a day ago; none was sent: does Beat tick?"
    assert told(569.5, 570.0).endswith("the last was sent 431 s ago: does Beat tick?")


def test_broker_that_does_not_answer_is_said_to():
    assert canary_lines("", ["q"]) == ["the broker does not tell: no answer"]
    assert "WRONGPASS" in canary_lines("WRONGPASS invalid username-password pair", ["q"])[0]


def test_redis_is_asked_for_two_notes_a_queue():
    assert canary_commands(["a", "b"], "x").splitlines()[-1] == (
        "MGET canary:sent:a canary:done:a canary:sent:b canary:done:b"
    )
