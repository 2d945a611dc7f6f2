"""The sandbox of a unit: its exposure by systemd's count, and attempts to get out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The highest exposure allowed. It counts directives; the attempts show what they enforce.
SEALED, SOCKETS = 0.5, 1.3
PROGRAM = (Path(__file__).parent / "attempts.py").read_text()


def exposure(host: Any, unit: str) -> tuple[float, str]:
    """Return a unit's exposure, from 0 to 10, and the whole output of systemd-analyze security."""
    analysis = host.check_output(f"systemd-analyze security --no-pager {unit}")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", analysis)
    assert match, analysis
    return float(match[1]), analysis


@contextmanager
def attempted(host: Any) -> Iterator[Callable[[str], dict[str, str]]]:
    """Give a function that runs attempts.py in a copy of a unit, in place of the unit's program."""
    path = "/run/coldframe-attempts.py"
    host.check_output(f"cat >{path} <<'END'\n{PROGRAM}\nEND\nchmod 0644 {path}")
    router = host.check_output("ip route show default").split()[2]

    def run(unit: str) -> dict[str, str]:
        name = "coldframe-attempts@" + unit.partition("@")[2] if "@" in unit else "coldframe-attempts.service"
        text = host.check_output(f"systemctl cat {unit}")
        actions = "Exec|Type|Restart|PIDFile|Sockets|Requires|PartOf|Watchdog|NotifyAccess|KillMode|Standard"
        text = re.sub(rf"(?m)^(?:{actions})\w*=.*(?:\\\n.*)*$", "", text)
        text += (
            "\n[Service]\nType=oneshot\nRuntimeDirectoryPreserve=yes\nStandardOutput=truncate:/run/coldframe-attempts.out\n"
            f"ExecStart=/usr/bin/python3 {path} {router}\n"
        )
        if "\nNoExecPaths=" in text:
            text += "ExecPaths=/usr\n"
        host.check_output(f"cat >/run/systemd/system/{name} <<'END'\n{text}\nEND\nsystemctl daemon-reload")
        result = host.run(f"systemctl start {name}")
        assert result.rc == 0, result.stderr + host.run(f"journalctl --no-pager -n 20 -u {name}").stdout
        results: dict[str, str] = json.loads(host.file("/run/coldframe-attempts.out").content_string)
        return results

    try:
        yield run
    finally:
        host.run(
            f"rm -f {path} /run/coldframe-attempts.out /run/systemd/system/coldframe-attempts*; systemctl daemon-reload"
        )
