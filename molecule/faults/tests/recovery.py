"""When everything works again after a fault: tasks are done, a new order is charged, each worker works, Beat ticks."""

from __future__ import annotations

import http.client
import math
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster import Cluster
from customers import Customers
from support.load import ask, connect
from waits import wait_for

LIMIT = 300  # seconds after which nothing more is awaited
AGAIN = 2  # seconds after which a task that has not been executed is sent again
FAILURES = (OSError, ValueError, http.client.HTTPException, AssertionError, RuntimeError)


def at_last(works: Callable[[], bool], what: str) -> None:
    """Await something that may also fail on the way; a failure is no end."""

    def seen() -> bool:
        try:
            return works()
        except FAILURES:
            return False

    wait_for(seen, LIMIT, what)


def hold(connection: http.client.HTTPSConnection, queue: str, key: str, seconds: int) -> str:
    """Send a queue a task of some seconds; return its id.

    Raises one of FAILURES when it is not accepted.
    """
    try:
        body = {"key": key, "seconds": seconds, "queue": queue}
        return ask(connection, "POST", "/holds/", body, expect=201)["task_id"]
    except FAILURES:
        connection.close()
        raise


def happened(cluster: Cluster, what: str, table: str, column: str, since: float) -> float:
    """Await the first row with a time after another (seconds since 1970); return its time.

    The row tells the time, for a host that has just been rebooted may let nobody in for half a minute.
    """
    query = f"SELECT extract(epoch FROM min({column})) AS at FROM {table} WHERE {column} > to_timestamp({since})"  # noqa: S608
    seen: list[float] = []

    def looked() -> bool:
        seen[:] = [row["at"] for row in cluster.sql(query) if row["at"]]
        return bool(seen)

    at_last(looked, what)
    return seen[0]


def tasks(cluster: Cluster, since: float) -> float:
    """Await that tasks of customers are done: a charge, a confirmation; return when both were."""
    charged = happened(cluster, "a charge", "orders_charge", "created_at", since)
    return max(charged, happened(cluster, "a confirmation", "orders_order", "confirmed_at", since))


def order(cluster: Cluster, customers: Customers) -> None:
    """Await that an order, placed from now on, is charged."""
    connection = connect(cluster.url)
    placed = customers.place(connection)
    at_last(
        lambda: ask(connection, "GET", f"/orders/{placed}/")["state"] in ("charged", "confirmed"),
        f"the order {placed} is charged",
    )


def queue(cluster: Cluster, name: str, host: str) -> None:
    """Await that the worker of a queue on a host executes a task that is sent from now on."""
    connection, sent, last = connect(cluster.url), [], 0.0

    def executed() -> bool:
        nonlocal last
        if time.monotonic() > last + AGAIN:
            last = time.monotonic()
            sent.append(hold(connection, name, str(uuid.uuid4()), 0))
        workers = [str(ask(connection, "GET", f"/tasks/{task}/")["result"]) for task in sent]
        return any(worker.startswith(f"{name}-") and worker.endswith(f"@{host}") for worker in workers)

    at_last(executed, f"the worker of {name} on {host} executes a task")


def beat(cluster: Cluster, since: float) -> float:
    """Await that a task is done which Beat has sent; return when."""
    return happened(cluster, "Beat ticks", "orders_heartbeat", "at", since)


def measured(cluster: Cluster, customers: Customers, since: float) -> dict[str, float]:
    """Seconds from a time until each part works again: `tasks`, `order`, `queues`, `beat`; infinite where it does not.

    An order and a queue's task wait for their turn too, behind what has gathered meanwhile.
    """

    def seconds(awaited: Callable[..., float | None], *arguments: Any) -> float:
        try:
            return round((awaited(cluster, *arguments) or time.time()) - since, 1)
        except (AssertionError, TimeoutError):
            return math.inf

    workers = [(name, host) for host in cluster.groups["workers"] for name in cluster.queues]
    with ThreadPoolExecutor() as pool:
        parts = {
            "tasks": [pool.submit(seconds, tasks, since)],
            "order": [pool.submit(seconds, order, customers)],
            "queues": [pool.submit(seconds, queue, *worker) for worker in workers],
            "beat": [pool.submit(seconds, beat, since)],
        }
        return {part: max(wait.result() for wait in waits) for part, waits in parts.items()}
