"""Shows Prometheus what no other exporter knows of an application, and passes on what the other exporters of this host show.

At /metrics: the queues in the broker, the queue probes, Beat's lease, the units and releases of this host, and when its
certificates expire. At /NAME: the metrics of another exporter, which listens on loopback, or of Flower. So a host has one port
for its monitoring, with one certificate.

It is started with the path of its configuration, a JSON object: `app`, `root`, `address`, `port`, `tls` (the path of the
certificate; empty for plain HTTP), `certificates` (names of credentials), `planned_hours` (for how long a planned stop counts),
`exporters` (name to `port` and `path`, or to `socket` and `path`), and on the host that asks the broker `broker` (see Broker).
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# On a host these two are files beside this one, in a folder of this name.
from ansible.module_utils.coldframe import Application, Commands
from ansible.module_utils.coldframe_servers import Failed, Redis, Refused
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

TIMEOUT = 5.0  # seconds for a client, for another exporter, and for systemd: Prometheus waits for 14
LEASE = 20.0  # seconds from a renewal until another Beat may take over, as coldframe.beat.lease has it
logger = logging.getLogger("metrics")
Metrics = Iterator[GaugeMetricFamily]


def credential(name: str) -> str:
    """Read a credential of the unit."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], name).read_text().strip()


def gauge(name: str, documentation: str, samples: Iterable[tuple[tuple[str, ...], float]], *labels: str) -> Any:
    """Make a metric of some samples: the values of its labels, and the value."""
    metric = GaugeMetricFamily(f"coldframe_{name}", documentation, labels=labels)
    for values, value in samples:
        metric.add_metric(values, value)
    return metric


class Broker:
    """What the broker holds."""

    def __init__(
        self, server: dict[str, Any], user: str, indexes: list[int], queues: list[str], default_queue: str
    ) -> None:
        """Remember how to ask.

        :param server: `socket`; or `host`, `port` and `ca`, as the module redis_commands has them.
        :param user: Redis user; its password is the credential `redis_password`.
        :param indexes: of the databases with the queues, and with the locks and the records of queue probes.
        :param queues: the names in `celery_queues`.
        :param default_queue: `celery_default_queue`, whose exchange all queues are bound to.
        """
        self.server, self.user, self.indexes, self.queues = server, user, indexes, queues
        self.binding = f"_kombu.binding.{default_queue}"
        self.seen: dict[str, tuple[str, float]] = {}  # queue to its oldest message, and since when that is the oldest

    def connect(self) -> Redis:
        """Connect and log in. Raises Refused, Failed and OSError."""
        redis = Redis.of(self.server)
        redis.ask("AUTH", self.user, credential("redis_password"))
        return redis

    def collect(self) -> Metrics:
        """Ask the broker; of one that does not answer only that is told."""
        try:
            redis = self.connect()
            try:
                metrics = [*self.held(redis), *self.noted(redis)]
            finally:
                redis.close()
        except (Refused, Failed, OSError) as error:
            logger.warning("The broker does not answer: %s", error)
            metrics = []
        yield gauge("broker_up", "Whether the broker answers.", [((), float(bool(metrics)))])
        yield from metrics

    def held(self, redis: Redis) -> Metrics:
        """Tell what the queues hold: those of the table, and all that were ever declared.

        As `make queues` counts it (plugins/filter/broker.py), but by single commands: this Redis user may run no script.
        """
        redis.ask("SELECT", str(self.indexes[0]))
        bound = [member.rpartition("\x16")[2] for member in redis.ask("SMEMBERS", self.binding)]
        waiting = {}
        for queue in sorted({*self.queues, *bound}):
            with suppress(Failed):  # one that is not the application's: this user may not read it
                waiting[queue] = int(redis.ask("LLEN", queue))
        taken = Counter(json.loads(entry)[2] for entry in redis.ask("HVALS", "unacked"))
        counts: dict[str, tuple[str, Callable[[str], int]]] = {
            "waiting": ("Messages that no worker has taken.", lambda queue: waiting[queue]),
            "unacked": ("Messages that a worker has taken and not acknowledged.", lambda queue: taken[queue]),
            "parked": (
                "Messages that wait for a release that knows their tasks.",
                lambda queue: sum(
                    redis.ask("LLEN", f"unknown:{queue}:{task}") for task in redis.ask("SMEMBERS", f"unknown:{queue}")
                ),
            ),
            "dead_letters": (
                "Messages of tasks that no release has.",
                lambda queue: redis.ask("LLEN", f"dead:{queue}"),
            ),
        }
        for name, (documentation, count) in counts.items():
            yield gauge(f"queue_{name}", documentation, [((queue,), count(queue)) for queue in waiting], "queue")
        ages = {queue: self.age(queue, redis.ask("LINDEX", queue, "-1")) for queue in self.queues}
        yield gauge(
            "queue_oldest_seconds",
            "For how long the next message has been seen to be the next one; at least so long it waits.",
            [((queue,), age) for queue, age in ages.items()],
            "queue",
        )
        oldest = redis.ask("ZRANGE", "unacked_index", "0", "0", "WITHSCORES")
        age = max(0.0, time.time() - float(oldest[1])) if oldest else 0.0
        yield gauge("unacked_oldest_seconds", "For how long a worker has held a message, at most.", [((), age)])

    def age(self, queue: str, message: str | None) -> float:
        """Return for how many seconds a message has been the next one of its queue; 0 if there is none."""
        if message is None:
            self.seen.pop(queue, None)
            return 0.0
        try:
            name = str(json.loads(message)["properties"]["delivery_tag"])
        except (ValueError, KeyError, TypeError):
            name = message
        before, since = self.seen.get(queue, ("", 0.0))
        if before != name:
            since = time.monotonic()
            self.seen[queue] = name, since
        return time.monotonic() - since

    def noted(self, redis: Redis) -> Metrics:
        """Tell what is recorded of queue probes and of Beat."""
        redis.ask("SELECT", str(self.indexes[1]))
        seconds, microseconds = redis.ask("TIME")
        now = int(seconds) + int(microseconds) / 1e6
        waits, done = [], []
        for queue in self.queues:
            sent, noted = redis.ask("MGET", f"probe:sent:{queue}", f"probe:done:{queue}")
            note = json.loads(noted) if noted else None
            if note:
                done.append(((queue,), note["done"]))
            wait = max(0.0, note["done"] - note["sent"]) if note else 0.0
            if sent and (not note or note["sent"] < float(sent)):
                wait = max(wait, now - float(sent))
            if sent or note:
                waits.append(((queue,), wait))
        yield gauge(
            "queue_probe_wait_seconds",
            "How long the last queue probe waited for a worker, or the present one has until now, whichever is longer.",
            waits,
            "queue",
        )
        yield gauge("queue_probe_done_timestamp_seconds", "When the last queue probe was executed.", done, "queue")
        holder, left = redis.ask("GET", "lock:beat"), redis.ask("PTTL", "lock:beat")
        yield gauge("beat_lease", "Whether a Beat has the lease.", [((), float(bool(holder)))])
        if holder:
            name = str(holder).partition(" ")[0]
            yield gauge("beat_holder", "The host name of the Beat that has the lease.", [((name,), 1.0)], "beat")
            yield gauge(
                "beat_tick_age_seconds",
                "How long ago that Beat ticked.",
                [((), max(0.0, LEASE - left / 1000))],
            )


class Units(Application):
    """The units and the release of this host, and what is stopped on purpose."""

    planned = 0.0  # for how many seconds a planned stop counts

    def ended(self, unit: str) -> str:
        """Leave out how a process ended: that is in the journal, which this process may not read."""
        return ""

    def collect(self) -> Metrics:
        """Ask systemd; tell nothing when it does not answer."""
        try:
            units = self.status()
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning("systemd does not answer: %s", error)
            return
        names = ("unit", "part", "release")
        labels = {unit["unit"]: tuple(unit[name] for name in names) for unit in units}
        yield gauge(
            "unit_state",
            "The state of a unit of the application: 1 for the one that it is in.",
            [((*labels[unit["unit"]], unit["state"]), 1.0) for unit in units],
            *names,
            "state",
        )
        yield gauge(
            "unit_draining_seconds",
            "For how long a unit has been finishing its tasks.",
            [(labels[unit["unit"]], unit["state_age"]) for unit in units if unit["state"] == "draining"],
            *names,
        )
        release = [((self.current,), 1.0)] if self.current else []
        yield gauge("release_info", "The current release of this host.", release, "release")
        stops = self.planned_stops(self.planned, time.time())
        paused = [stop.removeprefix("paused-") for stop in stops if stop.startswith("paused-")]
        yield gauge(
            "queue_paused",
            "1 for a queue whose workers are stopped on purpose.",
            [((queue, f"worker-{queue}"), 1.0) for queue in paused],
            "queue",
            "part",
        )
        yield gauge(
            "maintenance", "Whether visitors get a page in place of the site.", [((), float("maintenance" in stops))]
        )


class Certificates:
    """When the certificates of this host expire. A deploy that renews one starts this process again."""

    def __init__(self, names: list[str]) -> None:
        """Read them.

        :param names: of credentials, each a certificate in PEM.
        """
        self.expire = {name: self.read(name) for name in names}

    @staticmethod
    def read(name: str) -> float:
        """Return when a certificate expires, in seconds since 1970."""
        command = ["openssl", "x509", "-noout", "-enddate"]
        said = subprocess.run(command, input=credential(name), capture_output=True, text=True, check=True).stdout
        return float(ssl.cert_time_to_seconds(said.strip().partition("=")[2]))

    def collect(self) -> Metrics:
        """Tell it."""
        yield gauge(
            "certificate_expiry_timestamp_seconds",
            "When a certificate expires.",
            [((name.removeprefix("certificate_"),), when) for name, when in self.expire.items()],
            "certificate",
        )


class All(Collector):
    """Everything that this process shows of its own, one scrape at a time."""

    def __init__(self, parts: list[Any]) -> None:
        """Remember the parts, each with a method `collect`."""
        self.parts, self.lock = parts, threading.Lock()

    def describe(self) -> list[Any]:
        """Have nothing asked before the first scrape."""
        return []

    def collect(self) -> Metrics:
        """Ask all of them."""
        with self.lock:
            for part in self.parts:
                yield from part.collect()


class BehindSocket(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str) -> None:
        """Remember the path."""
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


def passed_on(exporter: dict[str, Any]) -> tuple[int, str, bytes]:
    """Ask another exporter; return its status, the type of its answer, and the answer."""
    if "socket" in exporter:
        connection: http.client.HTTPConnection = BehindSocket(exporter["socket"])
    else:
        connection = http.client.HTTPConnection(exporter.get("host", "127.0.0.1"), exporter["port"], timeout=TIMEOUT)
    try:
        connection.request("GET", exporter["path"])
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", "text/plain"), answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 502, "text/plain", f"{exporter} does not answer: {error}\n".encode()
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    """Answers a request of Prometheus."""

    server: Server
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Send metrics."""
        name = self.path.strip("/")
        if name == "metrics":
            status, kind, body = 200, CONTENT_TYPE_LATEST, generate_latest(self.server.registry)
        elif name in self.server.exporters:
            status, kind, body = passed_on(self.server.exporters[name])
        else:
            status, kind, body = 404, "text/plain", b"There is no such exporter.\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log no request: there are some every 15 s."""


class Server(ThreadingHTTPServer):
    """Listens for Prometheus."""

    daemon_threads = True

    def __init__(self, address: str, port: int, registry: CollectorRegistry, exporters: dict[str, Any]) -> None:
        """Listen, by plain HTTP until `secure` is called.

        :param exporters: name, which is the path, to where it is.
        """
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.registry, self.exporters = registry, exporters
        self.tls: ssl.SSLContext | None = None
        super().__init__((address, port), Handler)

    def secure(self, certificate: str, key: str) -> None:
        """Speak TLS with whoever connects from now on.

        :param certificate: a file's path, and that of its key.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.tls = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin TLS in the thread of the connection: a client that says nothing keeps nobody waiting."""
        request.settimeout(TIMEOUT)
        if not self.tls:
            super().finish_request(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log one line: a client that ends early is no error of this process."""
        logger.warning("%s: %s", client_address[0], sys.exception())


def serve(configuration: dict[str, Any]) -> Server:
    """Listen as it is configured, and return the server."""
    units = Units(Commands(TIMEOUT), configuration["app"], configuration["root"])
    units.planned = configuration["planned_hours"] * 3600
    parts: list[Any] = [units, Certificates(configuration["certificates"])]
    if configuration.get("broker"):
        parts.append(Broker(**configuration["broker"]))
    registry = CollectorRegistry()
    registry.register(All(parts))
    server = Server(configuration["address"], configuration["port"], registry, configuration["exporters"])
    if configuration["tls"]:
        server.secure(configuration["tls"], str(Path(os.environ["CREDENTIALS_DIRECTORY"], "tls_key")))
    return server


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(json.loads(Path(sys.argv[1]).read_text())).serve_forever()
