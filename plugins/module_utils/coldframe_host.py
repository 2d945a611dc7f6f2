"""What a host is used for besides, how it is reached by SSH, and what a container of a host allows."""

from __future__ import annotations

import ctypes
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils import coldframe

ETC = Path("/etc")
TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronized
# Of what the units are given, what a container's own machine must allow: in LXC that is `nesting`.
SANDBOX = {
    "User": "nobody",
    "PrivateUsers": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "PrivateNetwork": "yes",
    "ProtectSystem": "strict",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "LoadCredential": "probe:/etc/passwd",
}
Run = Callable[..., tuple[int, str, str]]


def other_applications(app: str) -> dict[str, dict[str, Any]]:
    """Map each other application that was deployed to this host to when and by whom it was last, and what it takes of the host.

    One whose first deploy came to nothing is none: only its state is here, and no unit.

    :returns: name to `deployed`, a text, and `record`, which is empty if an earlier Coldframe deployed it.
    """
    found: dict[str, str] = {}
    for state in coldframe.STATE.glob("*"):
        if state.name != app and (done := _last_done(state / "history.jsonl")):
            found[state.name] = done
    for unit in coldframe.UNITS.glob("*@*.service"):
        part = re.fullmatch(r"([a-z][a-z0-9]*)-(web|beat|worker-.+)@[0-9a-f]{12}(:\d+)?\.service", unit.name)
        if part and part[1] != app:
            found.setdefault(part[1], "at an unknown time")
    return {
        name: {"deployed": deployed, "record": coldframe.read_record(coldframe.STATE / name / "host.json")}
        for name, deployed in sorted(found.items())
    }


def _last_done(history: Path) -> str:
    """When, and by whom, a deploy was last done; empty when none was."""
    who, last = {}, ""
    for line in history.read_text().splitlines() if history.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "begun":
            who[event["deploy"]] = event.get("who", "")
        if event["event"] == "activated" or event.get("outcome") == "done":
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(event["when"]))
            last = f"{when} by {who.get(event['deploy']) or 'somebody'}"
    return last


def foreign_services(run: Run) -> dict[str, str]:
    """Say what nginx, Redis and PostgreSQL hold that a deploy would take out of service, where Coldframe has not set them up.

    :param run: runs a command; returns its exit code, output and errors (AnsibleModule.run_command).
    :returns: inventory group to what it holds; what Debian installs by itself is nothing.
    """
    found = {"edge": _sites(), "redis": _keys(run), "postgresql": _databases(run)}
    return {group: what for group, what in found.items() if what}


def ssh_ports(run: Run) -> list[int]:
    """List the TCP ports on which the SSH server listens, or systemd for it.

    systemd listens for more than SSH: of its sockets only ssh.socket counts.
    """
    ports = [
        line.split()[3].rpartition(":")[2]
        for line in run(["sh", "-c", "ss -Hltnp"])[1].splitlines()
        if '"sshd"' in line
    ]
    if not run(["systemctl", "is-active", "--quiet", "ssh.socket"])[0]:
        listen = run(["systemctl", "show", "--property=Listen", "--value", "ssh.socket"])[1]
        ports += re.findall(r":(\d+) \(Stream\)", listen)
    return sorted({int(port) for port in ports})


def listeners(run: Run) -> dict[str, str]:
    """Map each TCP port that others may reach to the name of the process that listens on it; "systemd" for a socket unit, "" if unknown."""
    found = {}
    for line in run(["sh", "-c", "ss -Hltnp"])[1].splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if not address.startswith(("127.", "[::1]")):
            name = re.search(r'users:\(\("([^"]*)"', line)
            found[port] = name[1] if name else ""
    return found


def synchronized(adjtimex: Callable[[Any], int] | None = None) -> bool:
    """Whether the kernel's clock is synchronized, or nobody can tell, as in some containers.

    timedatectl would start a service for this, and a preflight starts nothing.

    :param adjtimex: in a test, in place of adjtimex(2).
    """
    nothing_set = ctypes.create_string_buffer(1024)  # more than a struct timex
    return (adjtimex or ctypes.CDLL(None).adjtimex)(nothing_set) != TIME_ERROR


def key_login(run: Run) -> bool:
    """Whether the journal has a login with a key of the account that deploys."""
    account = os.environ.get("SUDO_USER") or "root"
    accepted = f"^Accepted publickey for {re.escape(account)} from "
    return bool(run(["journalctl", "--quiet", "--lines=1", f"--grep={accepted}"])[1].strip())


def sandbox_error(run: Run) -> str:
    """Say why a service with a sandbox of its own does not start in this container; empty if it does, or on no container."""
    if run(["systemd-detect-virt", "--container", "--quiet"])[0]:
        return ""
    command = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--collect",
        *(f"--property={name}={value}" for name, value in SANDBOX.items()),
    ]
    code, _, errors = run([*command, "sh", "-c", 'test -s "$CREDENTIALS_DIRECTORY/probe" && ! test -w /usr'])
    return f"rc {code}: {errors.strip()}" if code else ""


def _sites() -> str:
    """List the sites of an nginx: Coldframe's nginx.conf would read none of them."""
    if (ETC / "systemd/system/nginx.service.d/coldframe.conf").exists():
        return ""
    sites = [*(ETC / "nginx/sites-enabled").glob("*"), *(ETC / "nginx/conf.d").glob("*.conf")]
    return ", ".join(sorted(str(site) for site in sites if site.name != "default"))


def _keys(run: Run) -> str:
    """Count the keys of Debian's own instance of Redis, which Coldframe stops."""
    if (ETC / "redis/redis-broker.conf").exists() or not (ETC / "redis/redis.conf").exists():
        return ""
    if run(["systemctl", "is-active", "--quiet", "redis-server.service"])[0]:
        return ""
    code, output, _ = run(["redis-cli", "dbsize"])
    keys = output.strip().rpartition(" ")[2]
    if code or not keys.isdigit():
        return "redis-server.service, which runs and does not tell what is in it"
    return f"redis-server.service with {keys} keys" if int(keys) else ""


def _databases(run: Run) -> str:
    """List the databases of a PostgreSQL, whose pg_hba.conf Coldframe replaces."""
    clusters = [path.parent for path in (ETC / "postgresql").glob("*/*/pg_hba.conf")]
    if not clusters or any((cluster / "conf.d/coldframe.conf").exists() for cluster in clusters):
        return ""
    select = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY 1"
    code, output, _ = run(["runuser", "-u", "postgres", "--", "psql", "-XAtc", select])
    return "" if code else ", ".join(f"the database {name}" for name in output.split())
