"""What is printed of the queue probes."""

import json

from probes import probe_commands, probe_lines


def told(sent=None, done=None, waited=0.5):
    """The line about one queue at 1000 s, whose last one was sent and done at such times."""
    noted = json.dumps({"sent": done - waited, "done": done, "worker": "q-r1@app1"}) if done else ""
    answer = "\n".join(["OK", "OK", "1000", "500000", str(sent or ""), noted]).rstrip("\n")  # as Ansible cuts it
    (line,) = probe_lines(answer, ["q"])
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
    assert probe_lines("", ["q"]) == ["the broker does not tell: no answer"]
    assert "WRONGPASS" in probe_lines("WRONGPASS invalid username-password pair", ["q"])[0]


def test_redis_is_asked_for_two_notes_a_queue():
    assert probe_commands(["a", "b"], "AUTH admin x\n", 4).splitlines() == [
        "AUTH admin x",
        "SELECT 4",
        "TIME",
        "MGET probe:sent:a probe:done:a probe:sent:b probe:done:b",
    ]
