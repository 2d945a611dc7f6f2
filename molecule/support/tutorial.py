"""What docs/your-app.md has the reader type, and what it says that is printed then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# The kinds of blocks of the page: commands, what they print, and what is written into a file.
COMMANDS, OUTPUT, FILE = "sh", "text", "yaml"
FENCE = re.compile(r"^```(.*)$")
LEFT_OUT = "..."


@dataclass(frozen=True)
class Step:
    """A command of the page."""

    heading: str
    line: int  # of the page, from 1
    command: str
    shown: tuple[str, ...]  # lines of its output that the page has


def steps(page: str) -> list[Step]:
    """List the commands of a page in order. An output belongs to the last command before it.

    Raises ValueError, with the line, for a block that would be passed over: an indented one, one of another kind, one that
    does not end, and an output without a command.
    """
    found: list[Step] = []
    heading, kind, begun = "", "", 0
    for number, line in enumerate(page.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and kind:
            kind = ""
        elif fence:
            kind, begun = fence[1], number
            if kind not in (COMMANDS, OUTPUT, FILE):
                raise ValueError(f"line {number}: a block of the kind {kind!r}, not {COMMANDS}, {OUTPUT} or {FILE}")
            if kind == OUTPUT and not (found and found[-1].heading == heading):
                raise ValueError(f"line {number}: an output, and no command in this section before it")
        elif kind == COMMANDS and line.strip():
            found.append(Step(heading, number, line, ()))
        elif kind == OUTPUT and line.strip():
            last = found.pop()
            found.append(Step(last.heading, last.line, last.command, (*last.shown, line)))
        elif not kind and line.startswith("#"):
            heading = line.lstrip("# ")
        elif not kind and line.startswith("    "):
            raise ValueError(f"line {number}: an indented block")
    if kind:
        raise ValueError(f"line {begun}: a block that does not end")
    return found


def replaced(text: str, values: Mapping[str, str]) -> str:
    """Replace what is different where a page is tried."""
    for what, by in values.items():
        text = text.replace(what, by)
    return text


def plain(line: str) -> str:
    """Return a line of output without what differs from run to run: release ids, numbers except HTTP's, blanks."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "ID", line)
    return " ".join((line if line.startswith("HTTP/") else re.sub(r"\d+", "0", line)).split())


def missing(shown: tuple[str, ...], printed: str) -> str:
    """Return the first of the lines that an output does not have, after the ones before; empty if it has all of them."""
    lines = iter([plain(line) for line in printed.splitlines()])
    for each in shown:
        pattern = ".*".join(re.escape(part) for part in plain(each).split(LEFT_OUT))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return each
    return ""
