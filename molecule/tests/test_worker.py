"""Workers outlive their broker, their own faults and a stop under load. These tests break them for a while."""

import re
import threading
import time
from collections import Counter

import pytest
from support.units import instances
from waits import wait_for

pytestmark = pytest.mark.group("workers")
LOAD = """
import time
from orders.tasks import echo
sent, end = 0, time.monotonic() + 8
while time.monotonic() < end:
    try:
        echo.apply_async(args=[sent], queue="default", ignore_result=True)
        sent += 1
    except Exception:
        time.sleep(0.1)
    time.sleep(0.005)
print(sent)
"""


@pytest.fixture
def shown(host):
    """Ask systemd for properties of units; those of one unit a mapping."""

    def show(unit, *names):
        lines = host.check_output(f"systemctl show --property={','.join(names)} {unit}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    return show


@pytest.fixture
def default_worker(host, deployment):
    """The unit that serves the queue `default`."""
    units = instances(host, deployment.app_name, "worker-default")
    if not units:
        pytest.skip("the queue's worker runs elsewhere")
    return units.pop()


class Load:
    """Short tasks for the queue `default`, some seconds long, and what became of them."""

    def __init__(self, host, unit, manage):
        """Begin, and return when the worker is busy with them."""
        self.host, self.unit, self.printed = host, unit, []
        self.since = host.check_output("date +%s.%N")
        self.thread = threading.Thread(target=lambda: self.printed.append(manage(LOAD)))
        self.thread.start()
        wait_for(self.runs, 30, "the worker is busy")

    def runs(self):
        """How often each task was executed."""
        journal = self.host.check_output(f"journalctl --output=cat --since=@{self.since} --unit={self.unit}")
        return Counter(re.findall(r"echo\[(\S+)\] succeeded", journal))

    def sent(self):
        """How many were sent; returns when all are."""
        self.thread.join()
        return int(self.printed[0])


@pytest.fixture
def processes(host, deployment, shown):
    """The main process of each worker, and how often it was restarted."""
    return lambda: [
        shown(unit, "MainPID", "NRestarts") for unit in sorted(instances(host, deployment.app_name, "worker-*"))
    ]


def test_watchdog_is_fed_by_every_worker(host, deployment, shown):
    for unit in instances(host, deployment.app_name, "worker-*", "active"):
        values = shown(unit, "WatchdogUSec", "WatchdogSignal", "WatchdogTimestampMonotonic")
        assert values["WatchdogUSec"] == "30s" and values["WatchdogSignal"] == "9", unit
        uptime = float(host.file("/proc/uptime").content_string.split()[0])
        assert uptime - int(values["WatchdogTimestampMonotonic"]) / 1e6 < 15, unit


def test_a_unit_has_its_queues_share_of_the_processors(host, deployment, shown):
    """Under CPUWeight= the kernel shares out busy processors where it has the controller; not every container has."""
    weights = {"bulk": "20", "default": "100", "critical": "100"}
    for queue, options in deployment.celery_queues.items():
        for unit in instances(host, deployment.app_name, f"worker-{queue}", "active"):
            weight = str(options.get("cpu_weight", weights.get(queue, "100")))
            assert shown(unit, "CPUWeight", "Nice") == {"CPUWeight": weight, "Nice": "0"}, unit


@pytest.mark.changes
@pytest.mark.group("redis")
def test_broker_outage_under_load_ends_no_worker(host, redis, manage, processes, default_worker):
    before = processes()
    load = Load(host, default_worker, manage)
    for _ in range(2):
        since = host.check_output("date +%s.%N")
        journal = f"journalctl --output=cat --since=@{since} --unit={default_worker}"
        host.check_output("systemctl stop redis-server@broker")
        wait_for(lambda: "Cannot connect" in host.check_output(journal), 15, "the worker misses the broker")  # noqa: B023
        seen = load.runs().total()
        host.check_output("systemctl start redis-server@broker")
        wait_for(lambda: load.runs().total() > seen, 15, "the worker consumes again")  # noqa: B023
    sent = load.sent()
    wait_for(lambda: redis("LLEN default") == redis("HLEN unacked") == "0", 20, "nothing waits to be delivered again")
    assert processes() == before, "no worker was restarted"
    runs = load.runs()
    assert len(runs) >= sent - 2, "the broker may lose one as it goes: the one that it is handing out"
    assert runs.total() == len(runs), "each was executed once"


@pytest.mark.changes
@pytest.mark.group("redis")
def test_a_full_broker_ends_no_worker(host, redis, manage, processes, default_worker):
    before, limit = processes(), redis("CONFIG GET maxmemory").split()[-1]
    used = redis("INFO memory").split("used_memory:")[1].split()[0]
    load = Load(host, default_worker, manage)
    journal = f"journalctl --output=cat --since=@{load.since} --unit={default_worker}"
    signal = f"systemctl kill --kill-whom=main --signal={{}} {default_worker}"
    host.check_output(signal.format("STOP"))
    try:
        wait_for(lambda: int(redis("LLEN default")) > 20, 10, "there is something to take")
        redis(f"CONFIG SET maxmemory {used}")
        host.check_output(signal.format("CONT"))
        wait_for(lambda: "Cannot connect" in host.check_output(journal), 15, "the worker waits for the broker")
    finally:
        redis(f"CONFIG SET maxmemory {limit}")
        host.check_output(signal.format("CONT"))
    seen = load.runs().total()
    wait_for(lambda: load.runs().total() > seen, 15, "the worker consumes again")
    sent = load.sent()
    wait_for(lambda: len(load.runs()) >= sent, 20, "each was executed")
    assert processes() == before, "no worker was restarted"


@pytest.mark.changes
@pytest.mark.group("redis")
def test_stop_under_load_is_quick_and_repeats_nothing(host, redis, manage, default_worker):
    load = Load(host, default_worker, manage)
    start = time.monotonic()
    host.check_output(f"systemctl stop {default_worker}")
    took = time.monotonic() - start
    host.check_output(f"systemctl start {default_worker}")
    assert took < 10
    sent = load.sent()
    wait_for(lambda: len(load.runs()) >= sent, 20, "each was executed")
    wait_for(lambda: redis("HLEN unacked") == "0", 10, "each was acknowledged")
    assert load.runs().total() == sent, "each was executed once"


@pytest.mark.changes
@pytest.mark.cluster
def test_a_worker_that_stands_still_is_restarted(manage, host, shown, default_worker):
    process = shown(default_worker, "MainPID")["MainPID"]
    host.check_output(f"kill -STOP {process}")
    wait_for(
        lambda: (
            (now := shown(default_worker, "MainPID", "ActiveState"))["ActiveState"] == "active"
            and now["MainPID"] not in (process, "0")
        ),
        60,
        "the watchdog restarted the worker",
    )
    code = "from orders.tasks import echo; print(echo.apply_async(args=[1], queue='default').get(timeout=20))"
    assert manage(code) == "1"
