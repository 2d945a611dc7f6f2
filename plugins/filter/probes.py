"""What Redis knows of the queues' probes (coldframe.probe), in words."""

from __future__ import annotations

import json
import re
from typing import Any

OVERDUE = 90  # seconds since the last one was done; one is sent every 30
# How long the probes of the last day waited in each queue. A percentile is the wait that this part of them did not exceed.
WAITS = """
local since = (redis.call('TIME')[1] - 86400) * 1000
local told = {}
for i, key in ipairs(KEYS) do
  local waits, above = {}, 0
  for _, entry in ipairs(redis.call('XRANGE', key, since, '+')) do
    local seconds = tonumber(entry[2][2])
    waits[#waits + 1] = seconds
    if seconds > tonumber(ARGV[i]) then above = above + 1 end
  end
  table.sort(waits)
  local function percentile(part) return waits[math.max(1, math.ceil(#waits * part))] or 0 end
  told[i] = {probes = #waits, p50 = percentile(0.5), p99 = percentile(0.99), above = above}
end
return cjson.encode(told)
"""
NEVER = 10**9  # seconds, in place of a `wait_slo` that there is not


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


def wait_commands(table: dict[str, dict[str, Any]], login: str, index: int = 1) -> str:
    """Make redis-cli's input that asks how long the probes of the last day waited.

    :param table: queue to options; of these `wait_slo` counts.
    :param login: the line that logs in (`redis_login`).
    :param index: of the database that has the records.
    """
    script, keys = re.sub(r"\s+", " ", WAITS), " ".join(f"probe:waits:{queue}" for queue in table)
    budgets = " ".join(str(options.get("wait_slo") or NEVER) for options in table.values())
    return f'{login}SELECT {index}\nEVAL "{script}" {len(table)} {keys} {budgets}\n'


def wait_lines(answer: str, table: dict[str, dict[str, Any]]) -> list[str]:
    """Say how long the probes of the last day waited in each queue; nothing of a queue without one, or if nothing is known.

    :param answer: what redis-cli printed for `wait_commands`; empty when it was not asked.
    :param table: the same as there.
    """
    said = answer.strip().split("\n")
    if said[:2] != ["OK", "OK"] or len(said) != 3 or not said[2].startswith("["):
        return []
    lines = []
    for (queue, options), waits in zip(table.items(), json.loads(said[2]), strict=True):
        if waits["probes"]:
            line = f"{queue:<20} {waits['probes']} probe{'s' if waits['probes'] > 1 else ''} in a day: p50 {waits['p50']:.1f} s, p99 {waits['p99']:.1f} s"
            if slo := options.get("wait_slo"):
                line += f", {waits['above']} above wait_slo, {slo} s"
            lines.append(line)
    return lines


def _line(now: float, sent: str, noted: str) -> str:
    """Tell one queue's state from its two notes."""
    note = json.loads(noted) if noted else {}
    if not note:
        last = "never done, or more than a day ago"
    else:
        last = f"done {_span(now - note['done'])} ago by {note['worker']}, after {note['done'] - note['sent']:.1f} s"
    if note and now - note["done"] <= OVERDUE:
        waits = now - float(sent) if sent and float(sent) > note["sent"] else 0
        return f"{last}; one that was sent {_span(waits)} ago still waits" if waits >= 1 else last
    since = f"the last was sent {_span(now - float(sent))} ago" if sent else "none was sent"
    if not sent or (note and note["sent"] >= float(sent)):
        since += ": does Beat tick?"
    return f"OVERDUE: {last}; {since}"


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {filter_.__name__: filter_ for filter_ in (probe_commands, probe_lines, wait_commands, wait_lines)}
