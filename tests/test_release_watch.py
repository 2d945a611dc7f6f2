"""When a new release breaks a budget, by what its workers count in Redis."""

import json
import math
import threading
from random import Random

import pytest
import release_watch
from ansible.module_utils.coldframe_servers import Redis
from release_watch import SPAN, Counts, Watch, chance, failure_problem, time_problem

NEW, OLD = "3f2a9c1b7d04", "0f1e2d3c4b5a"  # pragma: allowlist secret


def timed(runs, seconds, spread=0.3):
    """The counts of so many runs of that typical time."""
    log = math.log(seconds)
    return Counts(runs, 0, runs, runs * log, runs * (log**2 + spread**2))


@pytest.mark.parametrize(
    ("now", "before", "lately"),
    [
        (Counts(), Counts(1000), Counts()),
        (Counts(0, 4), Counts(1000), Counts()),  # too few
        (Counts(91, 9), Counts(1000), Counts()),  # not ten percentage points more
        (Counts(12, 18), Counts(700, 300), Counts()),  # by chance: 9 were to be expected
        (Counts(15, 5), Counts(10), Counts()),  # by chance, after so few
        (Counts(0, 30), Counts(9), Counts()),  # a task that is new
        (Counts(0, 30), Counts(), Counts()),  # and a previous release that counted nothing
        (Counts(0, 9), Counts(100_000, 600), Counts(40, 20)),  # what it calls is down, and was before
    ],
)
def test_release_whose_tasks_do_not_fail_more_often(now, before, lately):
    assert failure_problem("blog.send", now, before, lately, OLD) == ""


@pytest.mark.parametrize(
    ("now", "before", "lately", "said"),
    [
        (Counts(0, 5), Counts(1000), Counts(50), "5 of 5 first attempts, and with release {} 0 of 1000 in a day."),
        (Counts(0, 5), Counts(1000), Counts(0, 1), "5 of 5 first attempts, and with release {} 0 of 1000 in a day."),
        (Counts(20, 8), Counts(990, 10), Counts(), "8 of 28 first attempts, and with release {} 10 of 1000 in a day."),
        (Counts(0, 10), Counts(10), Counts(), "10 of 10 first attempts, and with release {} 0 of 10 in a day."),
        (
            Counts(50, 70),
            Counts(700, 300),
            Counts(),
            "70 of 120 first attempts, and with release {} 300 of 1000 in a day.",
        ),
    ],
)
def test_release_whose_tasks_fail_more_often(now, before, lately, said):
    assert failure_problem("blog.send", now, before, lately, OLD) == f"blog.send fails: {said.format(OLD)}"


@pytest.mark.parametrize(
    ("failed", "attempts", "rate", "right"),
    [
        (0, 10, 0.5, 1.0),
        (10, 10, 0.5, 0.5**10),
        (3, 4, 0.1, 4 * 0.1**3 * 0.9 + 0.1**4),
        (1, 10**6, 1e-6, 1 - math.exp(-1)),
    ],
)
def test_chance_of_so_many_failures(failed, attempts, rate, right):
    assert math.isclose(chance(failed, attempts, rate), right, rel_tol=1e-5)


def test_release_that_is_as_good_as_the_one_before_is_hardly_ever_said_to_fail():
    """Each attempt fails with the same chance; it is judged after each, as a watch does that never ends."""
    random, wrong = Random(7), 0  # noqa: S311
    for rate, known in ((0.02, 2000), (0.05, 30), (0.1, 20), (0.2, 15)):
        for _ in range(500):
            failed = sum(random.random() < rate for _ in range(known))
            before, now = Counts(known - failed, failed), Counts()
            for _ in range(60):
                now = now - Counts(*((0, -1) if random.random() < rate else (-1, 0)))
                if failure_problem("a", now, before, Counts(), OLD):
                    wrong += 1
                    break
    assert wrong == 0


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
    count(server, OLD, "blog.send", failed=400)  # those that its workers still had
    count(server, NEW, "blog.send", failed=5)
    said = f"blog.send fails: 5 of 9 first attempts, and with release {OLD} 0 of 1000 in a day."
    assert watch.look(last=False)[0] == [said]


def test_times_are_judged_at_the_end(server):
    for release, log in ((OLD, math.log(0.1)), (NEW, 0.0)):
        watch = Watch(server, NEW, OLD, {})
        count(server, release, "blog.send", done=40, timed=40, logs=40 * log, squares=40 * log**2)
    assert watch.look(last=False)[0] == [] and "blog.send takes too long: " in watch.look(last=True)[0][0]


def test_tasks_of_which_messages_are_parked_meanwhile_are_named(server):
    def park(task, number):
        server.ask("SADD", "unknown:mail", task)
        server.ask("RPUSH", f"unknown:mail:{task}", *["1 {}"] * number)

    park("blog.old", 7)
    watch = Watch(server, NEW, OLD, {}, ["mail", "bulk"], (4, 4))
    assert watch.notes() == []
    park("blog.sign", 2)
    park("blog.fold", 1)
    assert watch.notes() == [
        f"1 message of blog.fold came that release {NEW} cannot execute: parked (make queues).",
        f"2 messages of blog.sign came that release {NEW} cannot execute: parked (make queues).",
    ]


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
    asked = {
        "server": {"socket": socket},
        "login": "CLIENT SETNAME watch",
        "index": 4,
        "release": NEW,
        "before": OLD,
        "seconds": 3,
    }
    asked |= {"broker_index": 4, "queues": ["mail"]}
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
    assert (result["problems"], result["tasks"], result["notes"], result["watched"]) == ([], [], [], 3)
    other = Redis.behind(redis_socket)
    other.ask("SELECT", "4")
    threading.Timer(1, count, (other, NEW, "blog.send"), {"failed": 5}).start()
    result = ran(monkeypatch, redis_socket, seconds=15)
    assert len(result["problems"]) == 1 and result["watched"] < 10


def test_watch_goes_on_after_a_lost_connection(monkeypatch, server, redis_socket):
    count(server, OLD, "blog.send", done=100)
    other = Redis.behind(redis_socket)
    other.ask("SELECT", "4")
    threading.Timer(1, other.ask, ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")).start()
    threading.Timer(3, count, (other, NEW, "blog.send"), {"failed": 5}).start()
    result = ran(monkeypatch, redis_socket, seconds=30)
    assert len(result["problems"]) == 1 and 2 < result["watched"] < 20


def test_redis_that_does_not_answer_is_said(monkeypatch, tmp_path):
    assert "Redis does not answer" in ran(monkeypatch, "", server={"socket": str(tmp_path / "none")})["msg"]
