"""Prometheus itself, as an ordinary process on a port of its own, with what it would have measured in the last day."""

from __future__ import annotations

import json
import math
import random
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from debian import program
from real_nginx import free_port

EVERY = 30  # seconds from one value to the next
DAY = 86400
# Task to its queue, executions per minute, the seconds that half of them take, and the share that fails.
TASKS = {
    "shop.tasks.charge": ("critical", 42, 0.12, 0.001),
    "shop.tasks.send_mail": ("default", 27, 0.6, 0.004),
    "shop.tasks.resize": ("bulk", 9, 4, 0.0),
    "shop.tasks.report": ("bulk", 0.5, 50, 0.03),
}
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 5, 10, 60, 300, math.inf)
HOSTS = {"data1": 0.61, "web1": 0.47, "web2": 0.44}  # host to its use of memory
RELEASES = (
    ("8c1fd20e9a44", DAY, 9 * 3600),  # pragma: allowlist secret
    ("4be07713c5d2", 9 * 3600, 2500),  # pragma: allowlist secret
    ("3050226828af", 2500, 0),  # pragma: allowlist secret
)
DRAIN = 270  # seconds
Samples = Iterator[tuple[float, float]]


def _series(name: str, labels: dict[str, str], samples: Samples) -> str:
    """Write a series as OpenMetrics has it."""
    text = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
    return "".join(f"{name}{{{text}}} {value:.6g} {moment:.0f}\n" for moment, value in samples)


def past(end: float, strange: bool = False) -> str:
    """Return the metrics of the day before `end`, a time: a busy morning, two deploys, dead letters, a queue that was late.

    :param strange: a queue whose name is HTML has dead letters, too.
    """
    chance = random.Random(7)  # noqa: S311
    times = [end - DAY + step * EVERY for step in range(DAY // EVERY + 1)]

    def each(value: Callable[[float], float], since: float = DAY, until: float = 0) -> Samples:
        """Give a value for each time between two ages, in seconds before the end."""
        return ((moment, value(end - moment)) for moment in times if until <= end - moment <= since)

    def busy(age: float) -> float:
        return 1 + 0.5 * math.sin(age / 7000) + 0.2 * math.sin(age / 640) + chance.uniform(-0.08, 0.08)

    def counted(per_minute: float, trouble: float = 1) -> Samples:
        total = 1000.0
        for moment in times:
            total += per_minute * EVERY / 60 * busy(end - moment) * (trouble if 1200 < end - moment < 1800 else 1)
            yield moment, total

    text = []
    for task, (queue, rate, half, failing) in TASKS.items():
        labels = {"worker": f"{queue}-{RELEASES[-1][0]}@web1", "task": task}
        for kind, share, trouble in (("succeeded", 1 - failing, 1), ("failed", failing, 12)):
            if share:
                name = {**labels, "type": f"task-{kind}"}
                text.append(_series("flower_events_total", name, counted(rate * share, trouble)))
        for bound in BUCKETS:
            share = 1 / (1 + (half / bound) ** 3)
            le = "+Inf" if bound == math.inf else str(bound)
            text.append(
                _series(
                    "flower_task_runtime_seconds_bucket", {**labels, "le": le}, counted(rate * (1 - failing) * share)
                )
            )
    for queue, depth, wait in (("critical", 2, 0.02), ("default", 9, 0.2), ("bulk", 140, 6)):
        labels = {"queue": queue, "instance": "data1"}
        late = 95.0 if queue == "bulk" else 1.0
        waits = each(lambda age, wait=wait, late=late: wait * chance.uniform(0.6, 2) + (late - 1) * (900 < age < 1500))
        depths = each(lambda age, depth=depth: round(depth * busy(age) + (3 * depth if 900 < age < 1800 else 0)))
        text += [
            _series("coldframe_queue_probe_wait_seconds", labels, waits),
            _series("coldframe_queue_waiting", labels, depths),
            _series("coldframe_queue_unacked", labels, each(lambda age: chance.randint(0, 4))),
            _series("coldframe_queue_oldest_seconds", labels, each(lambda age, wait=wait: wait * chance.uniform(0, 2))),
            _series("coldframe_queue_parked", labels, each(lambda age: 0)),
            _series("coldframe_queue_dead_letters", labels, each(lambda age, n=3 * (queue == "bulk"): n)),
        ]
    if strange:
        text.append(_series("coldframe_queue_dead_letters", {"queue": "<b>it's</b>"}, each(lambda age: 1)))
    for host, used in HOSTS.items():
        labels = {"instance": host}
        text += [
            _series("up", {**labels, "job": "coldframe"}, each(lambda age: 1)),
            _series("node_memory_MemTotal_bytes", labels, each(lambda age: 4e9)),
            _series(
                "node_memory_MemAvailable_bytes",
                labels,
                each(lambda age, used=used: 4e9 * (1 - used - 0.03 * busy(age) + 0.03)),
            ),
            _series("node_filesystem_size_bytes", {**labels, "mountpoint": "/"}, each(lambda age: 4e10)),
            _series("node_filesystem_avail_bytes", {**labels, "mountpoint": "/"}, each(lambda age: 2.6e10 + 2e4 * age)),
            _series(
                "node_cpu_seconds_total",
                {**labels, "cpu": "0", "mode": "idle"},
                each(lambda age, used=used: (DAY - age) * (1.2 - used) + 250 * math.sin(age / 2500)),
            ),
        ]
        for release, since, until in RELEASES:
            text.append(
                _series("coldframe_release_info", {**labels, "release": release}, each(lambda age: 1, since, until))
            )
    for release, _, until in RELEASES[:-1]:
        for queue in ("default", "bulk"):
            part = f"worker-{queue}"
            labels = {"instance": "web1", "unit": f"shop-{part}@{release}.service", "part": part, "release": release}
            drained = until - DRAIN * (2 if queue == "bulk" else 1)
            text.append(
                _series("coldframe_unit_draining_seconds", labels, each(lambda age, u=until: u - age, until, drained))
            )
    broker = {"instance": "data1", "redis": "broker"}
    text += [
        _series("up", {"instance": "data1", "job": "flower"}, each(lambda age: 1)),
        _series("redis_memory_used_bytes", broker, each(lambda age: 3e7 * busy(age))),
        _series("redis_memory_max_bytes", broker, each(lambda age: 2.68e8)),
    ]
    # What one metric has is in one place.
    text.sort(key=lambda series: series.partition("{")[0])
    return "".join(text) + "# EOF\n"


class Prometheus:
    """Serves at /prometheus/ while it is a context."""

    def __init__(self, folder: Path, metrics: str = "", rules: dict[str, Any] | None = None) -> None:
        """Write its data and its configuration.

        :param metrics: OpenMetrics, with times.
        :param rules: of alerts.
        """
        self.folder, self.port = folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "rules.yml").write_text(yaml.safe_dump(rules or {"groups": []}))
        configuration = {"global": {"evaluation_interval": "1s"}, "rule_files": ["rules.yml"]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        if metrics:
            (folder / "metrics").write_text(metrics)
            write = ["tsdb", "create-blocks-from", "openmetrics", "--quiet", folder / "metrics", folder / "data"]
            subprocess.run([program("promtool", "prometheus"), *write], check=True, capture_output=True)

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer. Raises OSError."""
        url = f"http://127.0.0.1:{self.port}/prometheus/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())["data"]

    def __enter__(self) -> Prometheus:
        """Start it, and wait until it answers."""
        options = {
            "config.file": self.folder / "prometheus.yml",
            "storage.tsdb.path": self.folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
            "query.lookback-delta": f"{2 * EVERY}s",  # these series do not say when they end
            "web.external-url": "https://www.example.com/prometheus/",
        }
        with (self.folder / "log").open("wb") as log:
            command = [
                program("prometheus", "prometheus"),
                *(f"--{name}={value}" for name, value in options.items()),
            ]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("query", query="vector(1)")
                return self
            except OSError:
                log_ = (self.folder / "log").read_text()
                assert time.monotonic() < deadline and self.process.poll() is None, log_
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        assert self.process
        self.process.terminate()
        self.process.wait(timeout=20)
