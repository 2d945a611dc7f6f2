"""What Redis knows of the queues' probes (coldframe.probe), in words."""

from __future__ import annotations

import json
from typing import Any

OVERDUE = 90  # seconds since the last one was done; one is sent every 30


def _span(seconds: float) -> str:
    """Tell a time in the unit that fits."""
    seconds = max(seconds, 0)  # two answers of one clock, which may be set
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.0f} h"
    )


def probe_commands(queues: list[str], login: str, index: int = 1) -> str:
    """Make redis-cli's input that asks for the time and for what is noted of each queue.

    :param login: the line that logs in (`redis_login`).
    :param index: of the database that has the records.
    """
    keys = " ".join(f"probe:sent:{queue} probe:done:{queue}" for queue in queues)
    return f"{login}SELECT {index}\nTIME\nMGET {keys}\n"


def probe_lines(answer: str, queues: list[str]) -> list[str]:
    """Say of each queue when its last probe was done and how long it waited, and what is overdue.

    :param answer: what redis-cli printed for `probe_commands`; empty when it was not asked.
    """
    said = answer.split("\n")
    if said[:2] != ["OK", "OK"]:
        return [f"the broker does not tell: {said[0] or 'no answer'}"]
    now, notes = int(said[2]) + int(said[3]) / 1e6, said[4:] + [""] * 2 * len(queues)  # the last empty ones are cut off
    return [f"{queue:<20} {_line(now, *notes[2 * n : 2 * n + 2])}" for n, queue in enumerate(queues)]


def _line(now: float, sent: str, noted: str) -> str:
    """Tell one queue's state from its two notes."""
    note = json.loads(noted) if noted else {}
    if not note:
        last = "never done, or more than a day ago"
    else:
        last = f"done {_span(now - note['done'])} ago by {note['worker']}, after {note['done'] - note['sent']:.1f} s"
    if note and now - note["done"] <= OVERDUE:
        return last
    since = f"the last was sent {_span(now - float(sent))} ago" if sent else "none was sent"
    if not sent or (note and note["sent"] >= float(sent)):
        since += ": does Beat tick?"
    return f"OVERDUE: {last}; {since}"


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"probe_commands": probe_commands, "probe_lines": probe_lines}
