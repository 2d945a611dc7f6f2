"""Constant load on an application, and the result of each request.

The load is an open loop: each client has a timetable, and a latency counts from the moment when the request was due, so
that requests during a hang of the server are counted too. Nothing is tried again: an exception, or an answer other than
the expected one, is a failed request.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import re
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Ask = Callable[..., Any]
OPEN_SECONDS = 180  # a page that has changed stays open for so long; its release may be pruned later
ANSWER_SECONDS = 15  # timeout of a request
WRITE_EVERY = 0.05  # seconds between the writes that tell whether the machine stands still
STALL_SECONDS = 0.2  # a write that is done so much later than it was due; one takes a millisecond


@dataclass(frozen=True)
class Request:
    """One request: when it was due (seconds since 1970), its kind, how long it took (seconds) and why it failed."""

    at: float
    kind: str
    seconds: float
    failure: str


def summary(requests: Iterable[Request]) -> dict[str, Any]:
    """Count requests and failures, with percentiles of the latency in milliseconds, by nearest rank."""
    requests = list(requests)
    latencies = sorted(r.seconds * 1000 for r in requests) or [math.nan]

    def percentile(p: int) -> float:
        return round(latencies[math.ceil(len(latencies) * p / 100) - 1], 1)

    return {
        "requests": len(requests),
        "failed": sum(bool(r.failure) for r in requests),
        "p50_ms": percentile(50),
        "p99_ms": percentile(99),
        "max_ms": percentile(100),
    }


class Machine:
    """Notes when the machine that host and tests share stands still: it writes to the disk many times a second.

    A machine that is rented by the hour may stop for a second, and then no request is answered whatever is deployed.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare the writes to a file in `folder`, which is on the disk that the host is on."""
        self.stalls: list[tuple[float, float]] = []  # when each began, in seconds since 1970, and its seconds
        self._file = folder / "stalls"
        self._started = 0.0
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._write, daemon=True, name="machine")

    def start(self) -> None:
        """Begin."""
        self._started = time.monotonic()
        self._watch.start()

    def stop(self) -> None:
        """Stop."""
        self._stopping.set()
        self._watch.join()

    def without_stalls(self, requests: Iterable[Request]) -> list[Request]:
        """Give the requests with the time taken off in which the machine stood still.

        As long again counts with it: what came meanwhile has queued up.
        """
        stalls = list(self.stalls)

        def own(request: Request) -> Request:
            counted, end = request.at, request.at + request.seconds
            seconds = request.seconds
            for at, stall in stalls:
                begin, until = max(counted, at), min(end, at + 2 * stall)
                if begin < until:
                    seconds -= until - begin
                    counted = until
            return replace(request, seconds=seconds)

        return [own(request) for request in requests]

    def _write(self) -> None:
        written = self._started
        with self._file.open("wb", buffering=0) as file:
            stopping = False
            while not stopping:
                stopping = self._stopping.wait(WRITE_EVERY)
                file.write(b"\n")
                os.fsync(file.fileno())
                before, written = written, time.monotonic()  # no time between two rounds is left out
                late = written - before - WRITE_EVERY
                if late > STALL_SECONDS:
                    self.stalls.append((time.time() - late, late))


class Load:
    """Clients of a shop: some place orders, some request the state of their tasks, some load pages."""

    def __init__(self, url: str, queues: Iterable[str], page: str = "") -> None:
        """Prepare the load on the application at `url`.

        `queues` get long tasks; the list may be changed at any time. `page` is the path of a page with static files.
        """
        self.url = url
        self.queues = list(queues)
        self.customer = f"{uuid.uuid4()}@example.com"  # the orders of this load
        self.requests: list[Request] = []
        self.orders: list[str] = []  # ids of those that were accepted
        self.holds: list[str] = []  # keys of the long tasks that were accepted
        self.entries: list[str] = []  # keys of the ledger's entries that were accepted
        self._page = page
        # The page as it last was and as it was before, each with the time when it became so.
        self._opened: deque[tuple[str, float]] = deque(maxlen=2)
        self._statuses: deque[str] = deque(maxlen=100)
        self._clients: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._no_entries = threading.Event()

    def start(self) -> None:
        """Start some 25 requests per second. Most clients keep their connection, some open a new one each time."""
        for keep_alive, slower in ((True, 1), (True, 1), (False, 2)):
            self._client("order", self.place_order, 0.5 * slower, keep_alive)
            self._client("status", self.see_status, 0.25 * slower, keep_alive)
            self._client("page", partial(self.see_page, "/healthz/"), 0.5 * slower, keep_alive)
            self._client("page", partial(self.see_page, "/admin/login/"), 1.0 * slower, keep_alive)
        self._client("order page", self.see_order, 0.25, True)
        if self._page:
            self._client("files", self.see_page_and_files, 1, True)
        self._client("hold", self.place_short_hold, 2, True)

    def start_entries(self) -> None:
        """Send entries of the ledger, some 4 a second, until `stop_entries`.

        An entry is three tasks, and each of these may be parked and taken back: more would fill two processors.
        """
        self._no_entries.clear()
        for _ in range(2):
            self._client("entry", self.place_entry, 0.5, True, self._no_entries)

    def stop_entries(self) -> None:
        """Send no more entries, and wait for the requests under way."""
        self._no_entries.set()
        for client in self._clients:
            if client.name == "entry":
                client.join()

    def stop(self) -> None:
        """Stop all clients, and wait for the requests under way."""
        self._stopping.set()
        self._no_entries.set()
        for client in self._clients:
            client.join()

    def since(self, at: float) -> list[Request]:
        """List the requests that were due at that time or later."""
        return [request for request in list(self.requests) if request.at >= at]

    def place_order(self, ask: Ask) -> None:
        """Place a new order."""
        body = {"sku": "apple", "quantity": 2, "email": self.customer, "idempotency_key": str(uuid.uuid4())}
        answer = ask("POST", "/orders/", body, expect=201)
        self.orders.append(answer["id"])
        self._statuses.append(answer["status_url"])

    def see_status(self, ask: Ask) -> None:
        """Request the state of a recent order's task, as a browser does."""
        path = random.choice([*self._statuses, "/tasks/00000000-0000-0000-0000-000000000000/"])  # noqa: S311
        state = ask("GET", path)["state"]
        if state not in ("PENDING", "SUCCESS"):
            raise ValueError(f"{path} is {state}")

    def see_order(self, ask: Ask) -> None:
        """Load a recent order."""
        if self.orders:
            ask("GET", f"/orders/{self.orders[-1]}/")

    def see_page(self, path: str, ask: Ask) -> None:
        """Load a page."""
        ask("GET", path)

    def see_page_and_files(self, ask: Ask) -> None:
        """Load the page and its static files, and those of the page before, which some have open for minutes."""
        page = ask("GET", self._page)
        if page not in [opened for opened, _ in self._opened]:
            self._opened.append((page, time.time()))
        for opened in [opened for opened, at in self._opened if opened == page or time.time() - at < OPEN_SECONDS]:
            files = re.findall(r'(?:href|src)="(/static/[^"]+)"', opened)
            for file in files:
                ask("GET", file)
            if not files:
                raise ValueError(f"{self._page} names no static file: {opened[:200]}")

    def place_short_hold(self, ask: Ask) -> None:
        """Send a task of some seconds to a queue chosen at random."""
        self.place_hold(ask, random.choice(self.queues), random.randint(1, 15))  # noqa: S311

    def place_hold(self, ask: Ask, queue: str, seconds: int) -> str:
        """Send a long task to a queue; return its key."""
        key = str(uuid.uuid4())
        ask("POST", "/holds/", {"key": key, "seconds": seconds, "queue": queue}, expect=201)
        self.holds.append(key)
        return key

    def place_entry(self, ask: Ask) -> None:
        """Send three tasks whose name only one release knows, in a way chosen at random."""
        key, way = str(uuid.uuid4()), random.choice(["plain", "chain", "chord", "later", "retried", "expires"])  # noqa: S311
        queue = random.choice(self.queues)  # noqa: S311
        ask("POST", "/holds/ledger/", {"key": key, "way": way, "queue": queue}, expect=201)
        self.entries.append(key)

    def once(self, kind: str, action: Callable[[Ask], Any]) -> Any:
        """Send one request outside the timetable, and record it; return its result, or None if it failed."""
        return self._do(kind, action, connect(self.url), time.time(), time.monotonic(), keep_alive=False)

    def _client(
        self,
        kind: str,
        action: Callable[[Ask], Any],
        period: float,
        keep_alive: bool,
        stopping: threading.Event | None = None,
    ) -> None:
        """Start a client that does one thing every `period` seconds."""
        stopping = stopping or self._stopping

        def run() -> None:
            connection = connect(self.url)
            phase = random.uniform(0, period)  # noqa: S311
            at, due = time.time() + phase, time.monotonic() + phase
            while not stopping.wait(due - time.monotonic()):
                self._do(kind, action, connection, at, due, keep_alive)
                at, due = at + period, due + period

        client = threading.Thread(target=run, daemon=True, name=kind)
        self._clients.append(client)
        client.start()

    def _do(
        self,
        kind: str,
        action: Callable[[Ask], Any],
        connection: http.client.HTTPSConnection,
        at: float,
        due: float,
        keep_alive: bool,
    ) -> Any:
        failure, result = "", None
        try:
            result = action(partial(ask, connection))
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        self.requests.append(Request(at, kind, time.monotonic() - due, failure))
        if failure or not keep_alive:
            connection.close()
        return result


def connect(url: str) -> http.client.HTTPSConnection:
    """Make a connection to an address, which opens when it is used and does not check the certificate."""
    address = urlsplit(url)
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection(address.hostname or "", address.port, timeout=ANSWER_SECONDS, context=context)


def ask(
    connection: http.client.HTTPSConnection,
    method: str,
    path: str,
    body: Any = None,
    expect: int | tuple[int, ...] = 200,
) -> Any:
    """Send a request; return the answer's text, or what its JSON holds.

    Raises ValueError for a status other than `expect`, and OSError or HTTPException if there is no answer.
    """
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    text = response.read().decode()
    if response.status not in (expect if isinstance(expect, tuple) else (expect,)):
        raise ValueError(f"{method} {path} was answered {response.status}: {text[:200]}")
    return json.loads(text) if response.headers.get_content_type() == "application/json" else text
