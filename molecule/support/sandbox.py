"""The sandbox of a unit: its exposure by systemd's count, and attempts to get out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

# The highest exposure allowed. It counts directives; the attempts show what they enforce.
SEALED, SOCKETS = 0.5, 1.3
# What a switch of app_sandbox adds to it at most, and the attempts that it lets succeed.
COSTS = {
    "writable_executable_memory": 0.1,
    "user_namespaces": 0.8,
    "machine_information": 0.1,
    "network_interfaces": 0.1,
    "process_priorities": 0.2,
}
OPENS = {
    "writable_executable_memory": "executable memory",
    "user_namespaces": "namespace",
    "machine_information": "what the machine is",
    "network_interfaces": "netlink socket",
    "process_priorities": "priority",
}
ROLE = Path(__file__).parents[2] / "roles/app/vars/main.yml"
SWITCHES: dict[str, list[str]] = yaml.safe_load(ROLE.read_text())["app_sandbox_switches"]
PROGRAM = (Path(__file__).parent / "attempts.py").read_text()


def copy(host: Any, unit: str, program: str, directives: tuple[str, ...] = ()) -> str:
    """Write a copy of a unit that runs another program, with further directives at its end; return the copy's name."""
    name = "coldframe-attempts@" + unit.partition("@")[2] if "@" in unit else "coldframe-attempts.service"
    text = host.check_output(f"systemctl cat {unit}")
    actions = "Exec|Type|Restart|PIDFile|Sockets|Requires|PartOf|Watchdog|NotifyAccess|KillMode|Standard"
    text = re.sub(rf"(?m)^(?:{actions})\w*=.*(?:\\\n.*)*$", "", text)
    text += (
        "\n[Service]\nType=oneshot\nRuntimeDirectoryPreserve=yes\nStandardOutput=truncate:/run/coldframe-attempts.out\n"
        f"ExecStart={program}\n"
    )
    if "\nNoExecPaths=" in text:
        text += "ExecPaths=/usr\n"
    text += "\n".join(directives)
    host.check_output(f"cat >/run/systemd/system/{name} <<'END'\n{text}\nEND\nsystemctl daemon-reload")
    return name


def exposure(host: Any, unit: str, *directives: str) -> tuple[float, str]:
    """Return a unit's exposure, from 0 to 10, and the whole output of systemd-analyze security.

    With directives it is that of a copy of the unit which has them too.
    """
    name = copy(host, unit, "/bin/true", directives) if directives else unit
    analysis = host.check_output(f"systemd-analyze security --no-pager {name}")
    if directives:
        host.check_output(f"rm /run/systemd/system/{name} && systemctl daemon-reload")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", analysis)
    assert match, analysis
    return float(match[1]), analysis


@contextmanager
def attempted(host: Any) -> Iterator[Callable[..., dict[str, str]]]:
    """Give a function that runs attempts.py in a copy of a unit, in place of its program; it takes further directives too."""
    path = "/run/coldframe-attempts.py"
    host.check_output(f"cat >{path} <<'END'\n{PROGRAM}\nEND\nchmod 0644 {path}")
    router = host.check_output("ip route show default").split()[2]

    def run(unit: str, *directives: str) -> dict[str, str]:
        name = copy(host, unit, f"/usr/bin/python3 {path} {router}", directives)
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
