"""When a new release breaks a budget, by what its workers count in Redis."""

import json
import math
import threading

import pytest
import release_watch
from ansible.module_utils.coldframe_servers import Redis
from release_watch import SPAN, Counts, Watch, failure_problem, time_problem

NEW, OLD = "3f2a9c1b7d04", "0f1e2d3c4b5a"  # pragma: allowlist secret


def timed(runs, seconds, spread=0.3):
    """The counts of so many runs of that typical time."""
    log = math.log(seconds)
    return Counts(runs, 0, runs, runs * log, runs * (log**2 + spread**2))


@pytest.mark.parametrize(
    ("now", "before", "lately"),
    [
        (Counts(), Counts(1000), Counts()),
        (Counts(0, 2), Counts(1000), Counts()),  # too few
        (Counts(97, 3), Counts(1000), Counts()),  # not ten percentage points more
        (Counts(6, 4), Counts(700, 300), Counts()),  # by chance: 3 were to be expected
        (Counts(5, 5), Counts(), Counts()),  # a task that is new
        (Counts(0, 3), Counts(100_000, 600), Counts(40, 20)),  # what it calls is down, and was before
    ],
)
def test_release_whose_tasks_do_not_fail_more_often(now, before, lately):
    assert failure_problem("blog.send", now, before, lately, OLD) == ""


@pytest.mark.parametrize(
    ("now", "before", "lately", "said"),
    [
        (Counts(0, 3), Counts(1000), Counts(50), "3 of 3 first attempts, and with release {} 0 of 1000 in a day."),
        (Counts(0, 3), Counts(1000), Counts(0, 1), "3 of 3 first attempts, and with release {} 0 of 1000 in a day."),
        (Counts(20, 5), Counts(990, 10), Counts(), "5 of 25 first attempts, and with release {} 10 of 1000 in a day."),
        (Counts(2, 4), Counts(), Counts(), "4 of 6 first attempts, and with release {} 0 of 0 in a day."),
        (
            Counts(60, 60),
            Counts(700, 300),
            Counts(),
            "60 of 120 first attempts, and with release {} 300 of 1000 in a day.",
        ),
    ],
)
def test_release_whose_tasks_fail_more_often(now, before, lately, said):
    assert failure_problem("blog.send", now, before, lately, OLD) == f"blog.send fails: {said.format(OLD)}"


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (timed(19, 9), timed(1000, 0.1)),  # too few
        (timed(50, 9), timed(19, 0.1)),
        (timed(50, 0.29), timed(1000, 0.1)),  # not three times as long
        (timed(50, 0.19), timed(1000, 0.01)),  # less than 0.2 s more
        (timed(20, 4), timed(1000, 1, spread=3)),  # by chance
    ],
)
def test_release_whose_tasks_do_not_take_much_longer(now, before):
    assert time_problem("blog.send", now, before, OLD) == ""


def test_release_whose_tasks_take_much_longer():
    said = f"blog.send takes too long: typically 1.00 s in 25 runs, and with release {OLD} 0.10 s in 1000."
    assert time_problem("blog.send", timed(25, 1), timed(1000, 0.1), OLD) == said


def test_a_few_long_runs_among_many_short_ones_are_no_problem():
    seconds = [0.05] * 27 + [60, 45, 80]
    logs = [math.log(each) for each in seconds]
    now = Counts(30, 0, 30, sum(logs), sum(log**2 for log in logs))
    assert time_problem("blog.send", now, timed(1000, 0.05), OLD) == ""


@pytest.fixture
def server(redis_socket):
    """A Redis without counts."""
    server = Redis.behind(redis_socket)
    server.ask("SELECT", "4")
    server.ask("FLUSHDB")
    return server


def count(server, release, task, ago=0, **numbers):
    """Count as workers do, some seconds ago."""
    number = (int(server.ask("TIME")[0]) - ago) // SPAN
    for kind, more in numbers.items():
        server.ask("HINCRBYFLOAT", f"runs:{release}:{number}", f"{kind} {task}", str(more))


def probe(server, queue, sent, done=None):
    """Record a queue probe as Beat and a worker do, at seconds from now."""
    now = int(server.ask("TIME")[0])
    server.ask("SET", f"probe:sent:{queue}", str(now + sent))
    if done is not None:
        server.ask("SET", f"probe:done:{queue}", json.dumps({"sent": now + sent, "done": now + done, "worker": "w"}))
        server.ask("XADD", f"probe:waits:{queue}", f"{(now + done) * 1000}-*", "seconds", str(done - sent))


def test_what_the_release_counted_before_the_watch_does_not_count(server):
    for hours in range(4):
        count(server, OLD, "blog.send", ago=hours * 3600, done=250)
    count(server, OLD, "blog.send", ago=26 * 3600, failed=4000)
    count(server, NEW, "blog.send", failed=9)
    watch = Watch(server, NEW, OLD, {})
    assert watch.look(last=True) == ([], [])
    count(server, NEW, "blog.send", done=4, timed=2, logs=2 * math.log(0.1), squares=2 * math.log(0.1) ** 2)
    count(server, NEW, "blog.fold it", failed=1)
    problems, tasks = watch.look(last=True)
    assert problems == [] and [each["task"] for each in tasks] == ["blog.fold it", "blog.send"]
    assert tasks[1]["now"] == {"done": 4, "failed": 0, "seconds": 0.1}
    assert tasks[1]["before"] == {"done": 1000, "failed": 0, "seconds": 0}
    count(server, NEW, "blog.send", failed=4)
    said = f"blog.send fails: 4 of 8 first attempts, and with release {OLD} 0 of 1000 in a day."
    assert watch.look(last=False)[0] == [said]


def test_times_are_judged_at_the_end(server):
    for release, log in ((OLD, math.log(0.1)), (NEW, 0.0)):
        watch = Watch(server, NEW, OLD, {})
        count(server, release, "blog.send", done=40, timed=40, logs=40 * log, squares=40 * log**2)
    assert watch.look(last=False)[0] == [] and "blog.send takes too long: " in watch.look(last=True)[0][0]


def test_queue_of_which_two_probes_wait_for_longer_than_its_budget(server):
    for queue in ("mail", "bulk", "slow"):
        probe(server, queue, -20, -20)
    probe(server, "slow", -100, -20)  # it was too slow before
    watch = Watch(server, NEW, OLD, {"mail": 5, "bulk": 60, "slow": 5, "new": 5})
    watch.began -= 19  # as if that had passed
    for queue in ("mail", "bulk", "slow"):
        probe(server, queue, -18, -10)
    assert watch.look(last=True)[0] == [], "one"
    for queue in ("mail", "bulk", "slow"):
        probe(server, queue, -7)
    (problem,) = watch.look(last=True)[0]
    assert problem == "The queue mail waits 8.0 s, and its wait_slo is 5 s."


def test_queue_that_nobody_serves_waits_for_longer_than_its_budget(server):
    watch = Watch(server, NEW, OLD, {"mail": 5})
    watch.began -= 60
    probe(server, "mail", -34)
    assert watch.look(last=False)[0] == [], "the next one would have waited for 4 s"
    probe(server, "mail", -40)
    assert watch.look(last=False)[0][0].startswith("The queue mail waits 4")


def ran(monkeypatch, socket, **changed):
    """Run the module; return what it gives Ansible."""
    asked = {"server": {"socket": socket}, "login": "PING", "index": 4, "release": NEW, "before": OLD, "seconds": 3}
    given = {}

    class Module:
        params = asked | {"budgets": {}} | changed

        def __init__(self, **_):
            """Take what the arguments are."""

        def exit_json(self, **result):
            given.update(result)

        def fail_json(self, **result):
            given.update(result, failed=True)
            raise SystemExit

    monkeypatch.setattr(release_watch, "AnsibleModule", Module)
    with pytest.raises(SystemExit) if changed.get("server") else threading.Lock():
        release_watch.main()
    return given


def test_watch_ends_with_its_time_or_with_the_first_problem(monkeypatch, server, redis_socket):
    count(server, OLD, "blog.send", done=100)
    result = ran(monkeypatch, redis_socket)
    assert (result["problems"], result["tasks"], result["watched"], result["changed"]) == ([], [], 3, False)
    other = Redis.behind(redis_socket)
    other.ask("SELECT", "4")
    threading.Timer(1, count, (other, NEW, "blog.send"), {"failed": 3}).start()
    result = ran(monkeypatch, redis_socket, seconds=600)
    assert len(result["problems"]) == 1 and result["watched"] < 10


def test_redis_that_does_not_answer_is_said(monkeypatch, tmp_path):
    assert "Redis does not answer" in ran(monkeypatch, "", server={"socket": str(tmp_path / "none")})["msg"]
