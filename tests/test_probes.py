"""What is printed of the queue probes."""

import json

from ansible.module_utils.coldframe_servers import Redis, conversation
from probes import probe_commands, probe_lines, wait_commands, wait_lines


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


def test_one_that_waits_since_less_than_that_is_told_with_its_age():
    done = "q done 60 s ago by q-r1@app1, after 0.5 s"
    assert told(970.0, 940.0) == f"{done}; one that was sent 30 s ago still waits"
    assert told(999.9, 940.0) == done


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


TABLE = {"a": {"wait_slo": 5}, "b": {}, "c": {}}


def test_how_long_the_probes_of_a_day_waited_is_told_with_the_budget(redis_socket):
    server = Redis.behind(redis_socket)
    server.ask("SELECT", "3")
    server.ask("FLUSHDB")
    now = int(server.ask("TIME")[0])
    for number in range(1, 201):
        server.ask("XADD", "probe:waits:a", f"{(now - 400 + number) * 1000}-0", "seconds", str(number / 20))
    server.ask("XADD", "probe:waits:b", f"{(now - 90000) * 1000}-0", "seconds", "77")  # a day and an hour ago
    server.ask("XADD", "probe:waits:b", f"{(now - 5) * 1000}-0", "seconds", "0.25")
    answer = conversation(server, wait_commands(TABLE, "PING\n", 3)).replace("PONG", "OK", 1)
    assert [" ".join(line.split()) for line in wait_lines(answer, TABLE)] == [
        "a 200 probes in a day: p50 5.0 s, p99 9.9 s, 100 above wait_slo, 5 s",
        "b 1 probe in a day: p50 0.2 s, p99 0.2 s",
    ]


def test_of_waits_that_are_not_known_nothing_is_told():
    assert wait_lines("", TABLE) == wait_lines("WRONGPASS no", TABLE) == wait_lines("OK\nOK\nERR", TABLE) == []
