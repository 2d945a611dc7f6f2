"""Measures what tasks that wait cost in each pool; see bench/pools."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from os import sysconf
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT / "runtime/tests")]
from conftest import QUEUE, Server, Worker, address, contract, credentials, sender, unit, wait_for  # noqa: E402
from readme import write  # noqa: E402

POOLS = {"prefork": (2, 8, 16, 32), "threads": (16, 100, 200), "gevent": (16, 100, 200)}
TURNS = 5  # tasks for each place in the pool
TICK = sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """Name a process and those below it."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from tree(int(child))


def memory(pid: int) -> float:
    """Return the proportional set size of a worker's processes in MiB: shared pages count once."""
    rollups = (Path(f"/proc/{each}/smaps_rollup").read_text() for each in tree(pid))
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rollups) / 1024


def processor(pid: int) -> float:
    """Return the processor time that a worker's processes have used, in seconds."""
    used = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in tree(pid))
    return sum(int(fields[11]) + int(fields[12]) for fields in used) / TICK


def measure(server: Server, folder: Path, pool: str, concurrency: int) -> list[str]:
    """Run tasks of one second in a worker; return a row of the table."""
    settings = contract(address(server))
    environment = unit(server, settings, folder) | credentials(folder)
    server.client.flushall()
    options = f"--pool={pool}", f"--concurrency={concurrency}", "--time-limit=60", "--soft-time-limit=50"
    worker = Worker(folder / f"{pool}{concurrency}", environment, *options).ready()
    pid, tasks = worker.process.pid, concurrency * TURNS

    def ended() -> int:
        return worker.notes.read_text().count(" ends ")

    try:
        send = sender(server, settings)
        for _ in range(concurrency):
            send("hold", 0)
        wait_for(lambda: ended() == concurrency, 60, "the pool has begun")
        idle, used, began = memory(pid), processor(pid), time.monotonic()
        for _ in range(tasks):
            send("hold", 1)
        wait_for(lambda: ended() > concurrency + tasks // 2, 120, "half of the tasks have ended")
        busy = memory(pid)
        wait_for(lambda: ended() >= concurrency + tasks, 120, "all tasks have ended")
        seconds = time.monotonic() - began
        cost = (processor(pid) - used) / tasks * 1000
    finally:
        worker.stop()
    assert server.client.llen(QUEUE) == server.client.hlen("unacked") == 0
    share = tasks / seconds / concurrency
    return [pool, concurrency, f"{idle:.0f}", f"{busy:.0f}", f"{tasks / seconds:.1f}", f"{share:.0%}", f"{cost:.1f}"]


def main() -> None:
    """Measure, print, write."""
    table = [
        "pool",
        "concurrency",
        "MiB idle",
        "MiB busy",
        "tasks per second",
        "of the possible",
        "ms of processor per task",
    ]
    rows = [table, ["---"] * len(table)]
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        server.start()
        try:
            for pool, sizes in POOLS.items():
                for concurrency in sizes:
                    rows.append(measure(server, Path(folder), pool, concurrency))
                    print(*rows[-1], flush=True)
        finally:
            server.stop()
    write("pools", "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows))


if __name__ == "__main__":
    main()
