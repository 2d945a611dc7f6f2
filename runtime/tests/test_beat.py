"""One Beat ticks, another one stands by and takes over; both with the real Celery."""

import json

import pytest
from conftest import QUEUE, Process
from waits import wait_for


@pytest.fixture
def beat(server, environment, tmp_path):
    """Start a Beat in a unit of its own."""
    started = []
    server.start()
    server.client.flushall()
    shared = {"LOCKS_URL": f"unix://{server.path}?db=1"}

    def run(name):
        (tmp_path / f"{name}.run").mkdir()
        own = {"RUNTIME_DIRECTORY": str(tmp_path / f"{name}.run")}
        options = ("beat", "--pidfile=", f"--schedule={tmp_path / name}.schedule")
        started.append(Process(tmp_path / name, environment | shared | own, *options))
        return started[-1].ready()

    yield run
    for process in started:
        process.stop()
        print(process.log.read_text())


def test_one_ticks_and_another_takes_over(server, beat):
    first = beat("first")
    wait_for(lambda: first.status() == "ticking", 10, "it ticks")
    second = beat("second")
    assert second.status().startswith("standby, ")
    wait_for(lambda: server.client.llen(QUEUE) == 1, 10, "the queue has its probe")
    assert json.loads(server.client.lindex(QUEUE, 0))["headers"]["task"] == "coldframe.probe"
    assert first.stop() < 10 and first.process.returncode == 0
    wait_for(lambda: second.status() == "ticking", 10, "the other one takes over")
    second.process.kill()
    second.process.wait()
    third = beat("third")
    assert third.status().startswith("standby"), "the lease of one that was killed lasts"
