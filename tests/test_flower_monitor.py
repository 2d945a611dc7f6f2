"""Which workers Flower forgets."""

import sys
from pathlib import Path
from types import SimpleNamespace as Thing
from unittest.mock import MagicMock, patch

import pytest

# The controller has neither Celery, Flower nor Redis; nothing of them is asked here.
ABSENT = """celery celery.__main__ celery.events flower
flower.app flower.command flower.events flower.utils.broker flower.views redis redis.asyncio.retry redis.backoff
redis.credentials redis.retry tornado.ioloop tornado.web"""
modules = {
    name: MagicMock(
        Flower=object, EventReceiver=object, RedisBase=object, CredentialProvider=object, HTTPError=Exception
    )
    for name in ABSENT.split()
}
FILES = str(Path(__file__).parents[1] / "roles/flower/files")
with patch.dict(sys.modules, modules), patch.object(sys, "path", [FILES, *sys.path]):
    import flowermonitor

NOW = 1_000_000.0
KNOWN = {"stats": {}, "timestamp": NOW - 1000}


@pytest.mark.parametrize(
    ("heartbeats", "info", "stays"),
    [
        ([NOW - 5], {}, True),
        ([NOW - 299], KNOWN, True),
        ([NOW - 500, NOW - 301], KNOWN, False),
        ([NOW - 59], {}, True),
        ([NOW - 61], {}, False),
        ([], KNOWN, False),
        ([NOW + 3600], KNOWN, False),
        (None, {"stats": {}, "timestamp": NOW - 299}, True),
        (None, KNOWN, False),
    ],
)
def test_workers_of_which_nothing_is_heard_are_forgotten(heartbeats, info, stays):
    monitor = Thing(
        options=Thing(purge_offline_workers=300),
        workers={"w": info} if info else {},
        events=Thing(state=Thing(workers={}, counter={"w": 1, "other": 2})),
    )
    if heartbeats is not None:
        monitor.events.state.workers["w"] = Thing(heartbeats=heartbeats)
    flowermonitor.Monitor.forget(monitor, NOW)
    places = [monitor.workers] * bool(info) + [monitor.events.state.workers] * (heartbeats is not None)
    assert ["w" in place for place in [*places, monitor.events.state.counter]] == [stays] * (len(places) + 1)
    assert "other" in monitor.events.state.counter
