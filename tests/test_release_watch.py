"""When a new release breaks a budget, by what its workers count in Redis."""

import json
import threading

import pytest
import release_watch
from ansible.module_utils.coldframe_servers import Redis
from release_watch import Counts, Watch, task_problems

NEW, OLD = "3f2a9c1b7d04", "0f1e2d3c4b5a"  # pragma: allowlist secret


def counts(done=0, failed=0, seconds=0.1, spread=0.0):
    """The counts of attempts that take so long on average."""
    return Counts(done, failed, done * seconds, done * (seconds**2 + spread**2))


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (counts(), counts(1000)),
        (counts(0, 2), counts(1000)),  # too few
        (counts(97, 3), counts(1000)),  # 3 of 100 are not 10 more
        (counts(6, 4), counts(700, 300)),  # by chance: 3 were to be expected
        (counts(5, 5), counts()),  # a task that is new
        (counts(4, seconds=9), counts(1000)),
        (counts(50, seconds=0.29), counts(1000, seconds=0.1)),  # not three times as long
        (counts(50, seconds=0.19), counts(1000, seconds=0.01)),  # less than 0.2 s more
        (counts(6, seconds=4), counts(1000, seconds=1, spread=3)),  # by chance
        (counts(50, seconds=9), counts(4)),  # too few before
    ],
)
def test_release_that_keeps_its_budgets(now, before):
    assert task_problems("blog.send", now, before, OLD) == []


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (counts(0, 3), counts(1000), f"blog.send fails: 3 of 3 attempts, and with release {OLD} 0 of 1000 did."),
        (counts(20, 5), counts(990, 10), f"blog.send fails: 5 of 25 attempts, and with release {OLD} 10 of 1000 did."),
        (counts(2, 4), counts(), f"blog.send fails: 4 of 6 attempts, and with release {OLD} 0 of 0 did."),
        (
            counts(60, 60),
            counts(700, 300),
            f"blog.send fails: 60 of 120 attempts, and with release {OLD} 300 of 1000 did.",
        ),
        (
            counts(6, seconds=1),
            counts(1000, seconds=0.1, spread=0.05),
            f"blog.send takes 1.00 s, the average of 6 runs, and with release {OLD} 0.10 s, that of 1000.",
        ),
    ],
)
def test_release_that_breaks_one(now, before, said):
    assert task_problems("blog.send", now, before, OLD) == [said]


@pytest.fixture
def server(redis_socket):
    """A Redis without counts."""
    server = Redis.behind(redis_socket)
    server.ask("SELECT", "4")
    server.ask("FLUSHDB")
    return server


def count(server, release, task, **numbers):
    """Count as workers do."""
    for kind, number in numbers.items():
        server.ask("HINCRBYFLOAT", f"runs:{release}", f"{kind} {task}", str(number))


def probe(server, queue, sent, done=None):
    """Record a queue probe as Beat and a worker do, at seconds from now."""
    now = int(server.ask("TIME")[0])
    server.ask("SET", f"probe:sent:{queue}", str(now + sent))
    if done is not None:
        server.ask("SET", f"probe:done:{queue}", json.dumps({"sent": now + sent, "done": now + done, "worker": "w"}))


def test_what_the_release_counted_before_the_watch_does_not_count(server):
    count(server, OLD, "blog.send", done=1000, seconds=100, squares=10)
    count(server, NEW, "blog.send", failed=9)
    watch = Watch(server, NEW, OLD, {})
    assert watch.look() == ([], [])
    count(server, NEW, "blog.send", done=4, seconds=0.4, squares=0.04)
    count(server, NEW, "blog.fold it", failed=1)
    problems, tasks = watch.look()
    assert problems == [] and [each["task"] for each in tasks] == ["blog.fold it", "blog.send"]
    assert tasks[1]["now"] == {"done": 4, "failed": 0, "seconds": 0.1}
    assert tasks[1]["before"] == {"done": 1000, "failed": 0, "seconds": 0.1}
    count(server, NEW, "blog.send", failed=4)
    assert watch.look()[0] == [f"blog.send fails: 4 of 8 attempts, and with release {OLD} 0 of 1000 did."]


def test_queue_that_waits_for_longer_than_its_budget(server):
    for queue in ("mail", "bulk", "slow"):
        probe(server, queue, -20, -20)
    probe(server, "slow", -100, -20)  # it was too slow before
    watch = Watch(server, NEW, OLD, {"mail": 5, "bulk": 60, "slow": 5, "new": 5})
    assert watch.look()[0] == []
    watch.began -= 9  # as if 9 s had passed
    for queue in ("mail", "bulk", "slow"):
        probe(server, queue, -8)
    (problem,) = watch.look()[0]
    assert problem.startswith("The queue mail waits 8.") and problem.endswith(" s, and its wait_slo is 5 s.")
    probe(server, "mail", -8, -1)
    assert watch.look()[0] == ["The queue mail waits 7.0 s, and its wait_slo is 5 s."]


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
    count(server, OLD, "blog.send", done=100, seconds=10, squares=1)
    result = ran(monkeypatch, redis_socket)
    assert (result["problems"], result["tasks"], result["watched"], result["changed"]) == ([], [], 3, False)
    fails = threading.Timer(1, count, (Redis.behind(redis_socket), NEW, "blog.send"), {"failed": 3})
    other = fails.args[0]
    other.ask("SELECT", "4")
    fails.start()
    result = ran(monkeypatch, redis_socket, seconds=600)
    assert len(result["problems"]) == 1 and result["watched"] < 10


def test_redis_that_does_not_answer_is_said(monkeypatch, tmp_path):
    assert "Redis does not answer" in ran(monkeypatch, "", server={"socket": str(tmp_path / "none")})["msg"]
