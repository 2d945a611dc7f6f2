"""The faults: what causes each, how long it lasts, and how it ends.

A cause is a context: it begins on entry and has ended on exit, whatever happened between. Each fault has the
runbook `docs/runbooks/<name>.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import cycle
from threading import Event

from cluster import BROKER, Cluster
from waits import wait_for

Action = Callable[[Cluster], object]
Cause = Callable[[Cluster], AbstractContextManager[None]]
BROKER_FOLDER = "/var/lib/redis/broker"
DISK_MB = 64


def at_once(action: Action) -> Cause:
    """Make a cause that has ended when it has begun."""

    @contextmanager
    def cause(cluster: Cluster) -> Iterator[None]:
        action(cluster)
        yield

    return cause


def again(every: int, *actions: Action) -> Cause:
    """Make a cause that does its actions in turn, the first at once and one more every so many seconds."""

    @contextmanager
    def cause(cluster: Cluster) -> Iterator[None]:
        turns, over = cycle(actions), Event()
        next(turns)(cluster)

        def go_on() -> None:
            while not over.wait(every):
                next(turns)(cluster)

        with ThreadPoolExecutor() as pool:
            going_on = pool.submit(go_on)
            try:
                yield
            finally:
                over.set()
        going_on.result()

    return cause


def killed(group: str, units: str) -> Action:
    """Make an action that kills every process of some units, without a chance to do anything about it."""
    return lambda cluster: cluster.run(group, f"systemctl kill --signal=KILL '{units.format(cluster.app)}'")


def restarted(group: str, unit: str) -> Action:
    """Make an action that restarts a unit."""
    return lambda cluster: cluster.run(group, f"systemctl restart {unit}")


def broker_and_workers_killed(cluster: Cluster) -> None:
    """Kill the broker and, when it is back, the workers: only its log knows what they were at."""
    cluster.run("redis", f"systemctl kill --signal=KILL {BROKER}")
    wait_for(lambda: cluster.redis("PING") == "PONG", 30, "the broker is back")
    cluster.run("workers", f"systemctl kill --signal=KILL '{cluster.app}-worker-*@*'")


def child_killed(cluster: Cluster) -> None:
    """Kill the process that is at a long task of the first queue."""
    queue = cluster.queues[0]
    notes = [notes[-1] for notes in cluster.holds().values()]
    begun = [note for note in notes if note["event"] == "begin" and note["worker"].startswith(f"{queue}-")]
    cluster.run("workers", f"kill -KILL {max(begun, key=lambda note: note['at'])['process']}")


def beat_killed(cluster: Cluster) -> None:
    """Kill the Beat that ticks; another may stand by."""
    units = f"'{cluster.app}-beat@*'"
    for name in cluster.groups["beat"]:
        host = cluster.hosts[name]
        if "StatusText=ticking" in host.check_output(f"systemctl show --property=StatusText {units}"):
            host.check_output(f"systemctl kill --signal=KILL {units}")


def rebooted(group: str) -> Cause:
    """Reboot the first host of a group."""
    return at_once(lambda cluster: cluster.reboot(group))


def stopped(group: str, unit: str) -> Cause:
    """Stop a unit, and start it again."""

    @contextmanager
    def cause(cluster: Cluster) -> Iterator[None]:
        cluster.run(group, f"systemctl stop {unit}")
        try:
            yield
        finally:
            cluster.run(group, f"systemctl start {unit}")

    return cause


def network_cut(group: str, port: str = "") -> Cause:
    """Drop every packet between a group's host and a port of the broker's, or all ports: nobody is told."""

    @contextmanager
    def cause(cluster: Cluster) -> Iterator[None]:
        address = cluster.deployments[cluster.name("redis")].app_private_address
        ends = {"input": ("saddr", "sport"), "output": ("daddr", "dport")}
        chains = [
            f"chain {hook} {{ type filter hook {hook} priority -200; ip {host} {address} {port and f'tcp {end} {port}'} drop; }}"
            for hook, (host, end) in ends.items()
        ]
        cluster.run(group, "nft %s", "table inet fault {\n" + "\n".join(chains) + "\n}")
        try:
            yield
        finally:
            cluster.run(group, "nft delete table inet fault")

    return cause


@contextmanager
def small_disk(cluster: Cluster) -> Iterator[None]:
    """Put the broker's files on a small disk of their own."""

    def while_stopped(*commands: str) -> None:
        cluster.run("redis", f"systemctl stop {BROKER} && {' && '.join(commands)}; systemctl start {BROKER}")

    folder, disk = BROKER_FOLDER, "/mnt"
    mount = f"mount -t tmpfs -o size={DISK_MB}m tmpfs {disk}"
    while_stopped(mount, f"cp -a {folder}/. {disk}", f"mount --bind {disk} {folder}")
    try:
        yield
    finally:
        while_stopped(f"umount {folder}", f"rm -rf {folder}/*", f"cp -a {disk}/. {folder}", f"umount {disk}")


@contextmanager
def disk_full(cluster: Cluster) -> Iterator[None]:
    """Leave no byte on the broker's disk."""
    cluster.run("redis", f"cat /dev/zero >{BROKER_FOLDER}/ballast 2>/dev/null; df --output=avail {BROKER_FOLDER}")
    try:
        yield
    finally:
        cluster.run("redis", f"rm -f {BROKER_FOLDER}/ballast")


@contextmanager
def memory_full(cluster: Cluster) -> Iterator[None]:
    """Let the broker have no more memory than it uses."""
    before = cluster.redis("CONFIG GET maxmemory").split()[-1]
    used = cluster.redis("INFO memory").split("used_memory:")[1].split()[0]
    assert cluster.redis(f"CONFIG SET maxmemory {used}") == "OK"
    try:
        yield
    finally:
        assert cluster.redis(f"CONFIG SET maxmemory {before}") == "OK"


def delivered_twice(cluster: Cluster) -> None:
    """Send the newest tasks that an order needs again, done or not."""
    code = (
        "from orders.models import Intent; from orders.outbox import send; "
        "[send(intent) for intent in Intent.objects.order_by('-created_at')[:50]]"
    )
    cluster.run("web", f"{cluster.app}-manage shell --no-imports --command %s", code)


@dataclass(frozen=True)
class Fault:
    """A cause, for how many seconds it lasts when it is short and when it is long, and what it needs around it.

    :ivar alert: the labels of the alert that it must fire, as Prometheus selects them; empty where nothing that an operator could
        mend is left when the alert would come: the fault ends by itself.
    :ivar alert_after: for how many seconds it must last for that.
    """

    name: str
    cause: Cause
    short: int = 0
    long: int = 0
    on: str = ""
    around: Cause = lambda cluster: nullcontext()
    alert: str = ""
    alert_after: int = 0

    def __str__(self) -> str:
        """The name, and the host's group where the same happens to several."""
        return f"{self.name} {self.on}".strip()


def again_started(unit: str) -> str:
    """Select the alert of a unit that ended by itself, by a part of the unit's name."""
    return f'alertname="UnitRestarted",name=~".*{unit}.*"'


# Those that may lose a message come first: a task that is not done is sent again after two minutes.
FAULTS = [
    Fault(
        "worker-killed", at_once(killed("workers", "{}-worker-critical@*")), alert=again_started("-worker-critical@")
    ),
    Fault(
        "workers-killed", again(10, killed("workers", "{}-worker-*@*")), long=195, alert=again_started("-worker-bulk@")
    ),
    Fault(
        "broker-killed",
        again(7, killed("redis", BROKER), restarted("redis", BROKER)),
        long=60,
        alert=again_started(BROKER),
    ),
    Fault("broker-and-workers-killed", at_once(broker_and_workers_killed)),
    Fault("host-rebooted", rebooted("workers"), on="workers"),
    Fault("host-rebooted", rebooted("redis"), on="redis"),
    Fault("broker-stopped", stopped("redis", BROKER), short=5, long=60, alert='alertname="BrokerDown"', alert_after=60),
    Fault(
        "network-cut",
        network_cut("workers"),
        short=10,
        long=100,
        on="workers",
        alert='alertname="HostDown"',
        alert_after=100,
    ),
    Fault("network-cut", network_cut("web", "6379"), short=10, long=60, on="web"),
    Fault(
        "broker-disk-full",
        disk_full,
        short=5,
        long=60,
        around=small_disk,
        alert='alertname="BrokerLogFails"',
        alert_after=60,
    ),
    Fault("broker-memory-full", memory_full, short=5, long=60, alert='alertname="BrokerMemoryFull"', alert_after=60),
    Fault("worker-child-killed", at_once(child_killed)),
    Fault("database-killed", at_once(killed("postgresql", "postgresql@*")), alert=again_started("postgresql@")),
    Fault(
        "database-stopped",
        stopped("postgresql", "postgresql"),
        short=5,
        long=330,
        alert='alertname="DatabaseDown"',
        alert_after=330,
    ),
    Fault("web-killed", at_once(killed("web", "{}-web@*")), alert=again_started("-web@")),
    Fault("host-rebooted", rebooted("web"), on="web"),
    Fault("beat-killed", at_once(beat_killed), alert=again_started("-beat@")),
    Fault("task-delivered-twice", at_once(delivered_twice)),
]
