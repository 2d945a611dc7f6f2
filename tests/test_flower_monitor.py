"""Which workers Flower forgets, and what a worker answers that is asked for a heartbeat."""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace as Thing
from unittest.mock import MagicMock, patch

import pytest

# The controller has neither Celery, Flower nor Redis; nothing of them is asked here.
ABSENT = """celery celery.__main__ celery.events celery.utils.sysinfo celery.worker celery.worker.control flower
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
    from coldframe.worker import heartbeat

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


@pytest.mark.parametrize("events", [True, False])
def test_a_worker_answers_whether_or_not_it_sends_events_of_tasks(events):
    own, lent = MagicMock(), MagicMock()
    dispatchers = Thing(default_dispatcher=lambda hostname: nullcontext(lent if hostname == "w" else None))
    consumer = Thing(event_dispatcher=own if events else None, hostname="w", app=Thing(events=dispatchers))
    state = Thing(active_requests={"a", "b"}, all_total_count=[7], SOFTWARE_INFO={"sw_ident": "py-celery"})
    with patch.multiple(heartbeat, state=state, load_average=lambda: (1, 2, 3)):
        heartbeat.heartbeat(Thing(consumer=consumer))
    used, unused = (own, lent) if events else (lent, own)
    used.send.assert_called_once_with(
        "worker-heartbeat", freq=10.0, active=2, processed=7, loadavg=(1, 2, 3), sw_ident="py-celery"
    )
    unused.send.assert_not_called()
