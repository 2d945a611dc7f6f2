"""What one host knows of one application: its releases, their units, its history and its lock."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import syslog
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

UNITS = Path("/etc/systemd/system")
STATE = Path("/var/lib/coldframe")
CREDENTIALS = Path("/etc/credstore")
MARKS = Path("/run")  # of planned stops, until the host restarts
HISTORY_LINES = 1000
# The options that say what runs on a host, for the modules that ask.
PARTS: dict[str, dict[str, Any]] = {
    "web": {"type": "bool", "default": False},
    "queues": {"type": "list", "elements": "str", "default": []},
    "beat": {"type": "bool", "default": False},
    "processes": {"type": "list", "elements": "str", "default": []},
    "as_before": {"type": "bool", "default": False},
}
# What systemd logs of a process that ends otherwise than it should (systemd.journal-fields(7), sd-messages.h).
PROCESS_ENDED = ("98e322203f7a4ed290d09fe03c09fe15", "d9b373ed55a64feb8242e02dbe79a49c")  # pragma: allowlist secret
RUNNING = ("active", "activating", "reloading", "restarting")
ENDED = ("inactive", "failed")
# Parts of which two releases must not run at the same time, by the beginning of their names. They change over in this order.
ALONE = ("service-", "timer-", "beat")


class Module(Protocol):
    """What an application needs of AnsibleModule, which has no types of its own."""

    def run_command(self, args: list[str]) -> tuple[int, str, str]:
        """Run a command; return its exit code, output and errors."""
        ...

    def fail_json(self, msg: str, **facts: Any) -> NoReturn:
        """End the module with a failure."""
        ...


class Commands:
    """The same for a program that is no module."""

    def __init__(self, seconds: float) -> None:
        """Set how long a command may take."""
        self.seconds = seconds

    def run_command(self, args: list[str]) -> tuple[int, str, str]:
        """Run a command. Raises OSError and subprocess.SubprocessError."""
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            args, env=environment, capture_output=True, text=True, errors="replace", timeout=self.seconds, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def fail_json(self, msg: str, **_: Any) -> NoReturn:
        """Raise OSError."""
        raise OSError(msg)


class Application:
    """One application on this host, as systemd and the file system tell it."""

    def __init__(self, module: Module, app: str, root: str) -> None:
        """Remember the module (it runs commands), the application's name and its folder."""
        self.module, self.app, self.root = module, app, Path(root)
        self.units, self.credentials, self.state = UNITS, CREDENTIALS / app, STATE / app
        self.lock_file, self.history_file = self.state / "lock.json", self.state / "history.jsonl"
        self.stamp_file = self.state / "converged"
        self.inputs_file = self.state / "inputs.json"
        self.record_file = self.state / "host.json"
        self.signers_file = self.state / "allowed_signers"
        self.shared_stamp = self.state / "shared-open"
        self.marks = MARKS / f"coldframe-alerts-{app}"

    # --- systemd ---------------------------------------------------------------------------

    def systemctl(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        """Run systemctl; return its exit code and output.

        Fails the module when the code is not 0, unless check is off.
        """
        code, output, errors = self.module.run_command(["systemctl", *arguments])
        if check and code:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {errors.strip()}", rc=code)
        return code, output if not code else output + errors

    def instances(self) -> dict[str, str]:
        """Map each loaded instance of the application to its active state.

        One that is deactivating and was not asked to stop is "restarting": systemd starts it again afterwards, as a
        job says or its Restart=.
        """
        pattern = f"{self.app}-*@*.*"
        _, output = self.systemctl("list-units", "--all", "--plain", "--no-legend", "--full", pattern)
        states = {line.split()[0]: line.split()[2] for line in output.splitlines() if line.strip()}
        if "deactivating" in states.values():
            _, output = self.systemctl("list-jobs", "--plain", "--no-legend", "--full", pattern)
            jobs = dict(line.split()[1:3] for line in output.splitlines() if "@" in line)
            ending = [unit for unit, state in states.items() if state == "deactivating"]
            states |= {unit: "restarting" for unit in ending if jobs.get(unit) != "stop"}
        return states

    def show(self, properties: str, units: list[str]) -> list[dict[str, str]]:
        """Map properties of each unit to their values."""
        _, output = self.systemctl("show", f"--property={properties}", *units)
        return [dict(line.split("=", 1) for line in block.splitlines()) for block in output.strip().split("\n\n")]

    def enabled(self) -> set[str]:
        """List the instances that start at boot."""
        return {path.name for path in (self.units / f"{self.app}.target.wants").glob(f"{self.app}-*@*.*")}

    def runs(self, states: dict[str, str]) -> set[str]:
        """List the instances that run, without the commands of timers: these come and go, and are left to end by themselves."""
        return {unit for unit, state in states.items() if state in RUNNING and not self.is_command(unit)}

    def is_command(self, unit: str) -> bool:
        """Whether a unit is the command that a timer starts."""
        return self.part(unit).startswith("timer-") and unit.endswith(".service")

    def unit(self, part: str, release: str, states: dict[str, str]) -> str:
        """Name the instance that runs, or is to run, a part (web, beat, worker-QUEUE, service-NAME, timer-NAME) of a release.

        A release that is gone back to while it still drains runs as RELEASE:2 beside itself, and does not wait for
        the end of its own last tasks. Beat and others of which two must never run have one name only.
        """
        if part.startswith("timer-"):
            return f"{self.app}-{part}@{release}.timer"
        names = [f"{self.app}-{part}@{release}.service"]
        names += [f"{self.app}-{part}@{release}:{turn}.service" for turn in range(2, 2 + len(states))]
        if part.startswith(ALONE):
            return names[0]
        free = [name for name in names if states.get(name) not in ("deactivating", "restarting")]
        return next((name for name in free if states.get(name) in RUNNING), free[0])

    def part(self, unit: str) -> str:
        """Name the part that a unit runs; the opposite of `unit`."""
        return unit.removeprefix(f"{self.app}-").partition("@")[0]

    def parts(
        self, release: str, web: bool, queues: list[str], beat: bool, as_before: bool, processes: list[str]
    ) -> list[str]:
        """List the parts of a release that run here: those it last ran with, if asked for and known; else as said."""
        before: list[str] = next((event["parts"] for event in self.activations() if event["release"] == release), [])
        if as_before and before:
            return before
        return ["web"] * web + [f"worker-{queue}" for queue in queues] + processes + ["beat"] * beat

    def as_wanted(self, release: str, parts: list[str]) -> bool:
        """Whether exactly the wanted units run and start at boot. What drains counts as gone."""
        states = self.instances()
        wanted = {self.unit(part, release, states) for part in parts}
        return (
            self.current == release
            and self.runs(states) == wanted
            and all(states[unit] == "active" for unit in wanted)
            and self.enabled() == wanted
        )

    def journal(self, unit: str, since: float = 0) -> str:
        """Return the last lines that a unit logged, and systemd of it.

        :param since: not those before this time, in seconds since the epoch.
        """
        window = ["--lines=400", f"--since=@{since:.0f}"] if since else ["--lines=30"]
        return self.module.run_command(["journalctl", "--no-pager", "--output=cat", *window, f"--unit={unit}"])[1]

    def status(self) -> list[dict[str, Any]]:
        """Say of each instance that is not stopped, or starts at boot, its release, its state and what it does now.

        `restarts` is how often systemd has started it again, `age` for how many seconds its last process has run, `ended` how
        the one before did, `state_age` for how many seconds it has been in its state.
        """
        states = dict.fromkeys(self.enabled(), "inactive") | self.instances()
        return self.described(
            {unit: state for unit, state in states.items() if state != "inactive" or unit in self.enabled()}
        )

    def described(self, states: dict[str, str]) -> list[dict[str, Any]]:
        """Say the same of units whose states are known, whether they are instances of the application or not.

        :param states: unit to its active state, or "restarting" (see `instances`).
        """
        if not states:
            return []
        shown = self.show(
            "Id,StatusText,StateChangeTimestamp,StateChangeTimestampMonotonic,NRestarts,ExecMainStartTimestampMonotonic",
            sorted(states),
        )
        now = time.monotonic()
        return [
            {
                "unit": each["Id"],
                "part": self.part(each["Id"]),
                "release": release_of(each["Id"]),
                "state": {"deactivating": "draining"}.get(states[each["Id"]], states[each["Id"]]),
                "doing": each.get("StatusText", ""),
                "since": each.get("StateChangeTimestamp", ""),
                "restarts": int(each.get("NRestarts") or 0),
                "age": max(0, round(now - int(each.get("ExecMainStartTimestampMonotonic") or 0) / 1e6)),
                "state_age": max(0, round(now - int(each.get("StateChangeTimestampMonotonic") or 0) / 1e6)),
                "ended": self.ended(each["Id"]) if int(each.get("NRestarts") or 0) else "",
            }
            for each in shown
        ]

    def ended(self, unit: str) -> str:
        """Say how a unit's last process ended, as systemd logged it; empty when it logged nothing."""
        about = [f"UNIT={unit}", *(f"MESSAGE_ID={message}" for message in PROCESS_ENDED)]
        lines = self.module.run_command(["journalctl", "--no-pager", "--output=cat", "--lines=2", *about])[
            1
        ].splitlines()
        return "; ".join(line.removeprefix(f"{unit}: ").rstrip(".") for line in lines)

    # --- releases --------------------------------------------------------------------------

    @property
    def current(self) -> str:
        """The id of the running release; empty before the first."""
        link = self.root / "current"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else ""

    def in_place(self, release: str, venv: str) -> bool:
        """Whether a release's folder has the virtual environment that it shall have: another Python needs another one."""
        link = self.root / "releases" / release / ".venv"
        return not venv or (link.is_symlink() and str(link.readlink()) == venv and (link / ".lock-sha256").exists())

    def queues(self, release: str = "") -> list[str]:
        """List the queues that a release, the running one if none is named, has workers for, on whichever host."""
        files = (self.root / (f"releases/{release}" if release else "current") / ".release").glob("worker-*.env")
        return sorted(path.stem.removeprefix("worker-") for path in files)

    def releases(self) -> list[str]:
        """List the ids of the releases that are whole and can run on this host, the newest first."""
        whole = [p for p in (self.root / "releases").glob("*") if (p / ".release/ready").exists() and fits(p / ".venv")]
        return [p.name for p in sorted(whole, key=lambda p: (p / ".release/ready").stat().st_mtime, reverse=True)]

    def activations(self) -> list[dict[str, Any]]:
        """List the history's activations, the newest first."""
        return [event for event in reversed(self.history()) if event["event"] == "activated"]

    def previous(self) -> str:
        """Name the release that ran before the current one and is still here; empty when there is none."""
        current, present = self.current, set(self.releases())
        for event in self.activations():
            release: str = event["release"]
            if release != current and release in present:
                return release
        return ""

    def prunable(self, keep: int, coming: str = "") -> list[Path]:
        """List what may go.

        :param coming: the release that a dry run would make the current one.

        That is: releases beyond the newest `keep` that neither run, drain, start at boot nor are the current or
        previous one, with their units and secrets, and environments that no release uses.
        """
        holding = {release_of(u) for u, state in self.instances().items() if state not in ENDED}
        holding |= {release_of(u) for u in self.enabled()} | {coming, self.current, self.previous()}
        holding |= set(self.releases()[:keep])
        folders = {p.name: p for p in (self.root / "releases").glob("*")}
        gone = set(folders) - holding
        paths = [folders[name] for name in gone]
        paths += [p for p in self.units.glob(f"{self.app}-*@*.*") if release_of(p.name) not in holding]
        paths += [p for p in self.credentials.glob("*") if p.name not in holding]
        used = {(folders[name] / ".venv").resolve().name for name in set(folders) - gone}
        paths += [p for p in (self.root / "venvs").glob("*") if p.name not in used]
        return sorted(paths)

    # --- files -----------------------------------------------------------------------------

    def keep_static(self) -> None:
        """Have the static files of all releases that are here in one folder too, as hard links.

        A page of one release finds there what another one, the current, does not have. What no release has any more
        goes: it has one link.
        """
        kept = self.root / "assets/static"
        for folder, _, files in os.walk(kept, topdown=False):
            for name in files:
                if os.lstat(path := os.path.join(folder, name)).st_nlink == 1:
                    os.unlink(path)
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)
        for static in sorted((self.root / "releases").glob("*/.release/static")):
            for folder, _, files in os.walk(static):
                there = kept / os.path.relpath(folder, static)
                for name in files:
                    if not os.path.lexists(there / name) and stat.S_ISREG(os.lstat(os.path.join(folder, name)).st_mode):
                        make_folder(there, self.root)
                        os.link(os.path.join(folder, name), there / name)

    def open_shared(self) -> None:
        """Let the application's group change what its units made under shared/, and others read it.

        They made it with a umask of 027. What its maker closed to the group stays closed. No link is followed, for the
        application may put one anywhere there at any moment.
        """
        top = str(self.root / "shared")
        if not os.path.isdir(top):
            return
        group = grp.getgrnam(self.app).gr_gid
        for place, _, files, here in os.fwalk(top):
            folder = os.fstat(here)
            if place != top and folder.st_mode & 0o050 == 0o050:
                os.fchown(here, -1, group)
                os.fchmod(here, stat.S_IMODE(folder.st_mode) | 0o2025)
            for name in files:
                try:
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
                except OSError:  # a link, a socket, or gone
                    continue
                try:
                    found = os.fstat(file)
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_mode & 0o040:
                        os.fchown(file, -1, group)
                        os.fchmod(file, stat.S_IMODE(found.st_mode) | 0o024)
                finally:
                    os.close(file)

    def see_to_shared(self) -> None:
        """Open shared/ once more when the first release has taken over whose units leave it open themselves."""
        unit = self.root / "current/.release/units/web.service"
        if unit.exists() and "UMask=0027" in unit.read_text():
            self.shared_stamp.unlink(missing_ok=True)
        elif not self.shared_stamp.exists():
            self.open_shared()
            self.shared_stamp.touch()

    # --- signers ---------------------------------------------------------------------------

    @property
    def signers(self) -> str:
        """Whose releases this host takes (ssh-keygen(1), ALLOWED SIGNERS); empty if it takes those without a signature."""
        return self.signers_file.read_text() if self.signers_file.exists() else ""

    # --- history and lock ------------------------------------------------------------------

    def history(self) -> list[dict[str, Any]]:
        """Read the events of all deploys, the oldest first. A line that a crash cut off is passed over."""
        if not self.history_file.exists():
            return []
        events = []
        for line in self.history_file.read_text().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def note(self, deploy: str, event: str, **facts: Any) -> None:
        """Add an event to the history, and to the host's journal."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        line = {"deploy": deploy, "event": event, "when": int(time.time()), **facts}
        lines = self.history_file.read_text().splitlines() if self.history_file.exists() else []
        if len(lines) > HISTORY_LINES:
            replace(self.history_file, "\n".join(lines[-HISTORY_LINES // 2 :]) + "\n")
        with self.history_file.open("a") as file:
            file.write("\n" + json.dumps(line))  # first the end of a line that a crash may have cut off
        syslog.openlog(f"coldframe-{self.app}")
        syslog.syslog(" ".join(f"{name}={value}" for name, value in line.items() if name != "units"))

    def planned_stops(self, within: float, now: float) -> list[str]:
        """Return which stops are planned: `maintenance` and `paused-QUEUE` of each queue.

        :param within: for how many seconds one counts: a pause that lasts longer was perhaps forgotten.
        :param now: seconds since 1970.
        """
        began = {}
        for mark in self.marks.glob("*"):
            with suppress(FileNotFoundError):  # it has just ended
                began[mark.name] = mark.stat().st_mtime
        return sorted(name for name, since in began.items() if now - since < within)

    def record(self) -> dict[str, Any]:
        """Read what the last deploy took of this host, as `__release_record` has it; empty before the first one that noted it."""
        return read_record(self.record_file)

    def write_record(self, record: dict[str, Any]) -> None:
        """Note what this application takes of the host, for the deploys of others."""
        if record != self.record():
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace(self.record_file, json.dumps(record, sort_keys=True))

    def inputs(self) -> str:
        """Return the digest of what the last deploy was made of, if it came to its end and the host is as it left it; else an empty one.

        A deploy by a Coldframe that does not know these digests leaves another one of the host's configuration. Whoever resumed a queue
        by hand leaves its mark.
        """
        last = read_record(self.inputs_file)
        here = (
            last
            and self.stamp() == last.get("converged")
            and self.in_place(last["release"], last["venv"])
            and self.as_wanted(last["release"], last["parts"])
            and not any(self.marks.glob("paused-*"))
        )
        return str(last["digest"]) if here else ""

    def stamp(self) -> str:
        """Return the digest of what the host's configuration follows from; empty if it is not known."""
        return self.stamp_file.read_text() if self.stamp_file.exists() else ""

    def lock(self) -> dict[str, Any]:
        """Read who holds the lock; empty when nobody does."""
        try:
            holder: dict[str, Any] = json.loads(self.lock_file.read_text())
            return holder
        except FileNotFoundError:
            return {}
        except ValueError:
            return {"deploy": "", "who": "an unknown user", "since": int(self.lock_file.stat().st_mtime)}

    def take_lock(self, holder: dict[str, Any]) -> bool:
        """Take the lock unless somebody has it; say whether it is ours now."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = self.state / f"lock.{holder['deploy']}"
        replace(own, json.dumps(holder))
        try:
            os.link(own, self.lock_file)  # whole or not at all
        except FileExistsError:
            return bool(self.lock().get("deploy") == holder["deploy"])
        finally:
            own.unlink()
        return True

    def finish(self, deploy: str, outcome: str, **facts: Any) -> None:
        """Note how a deploy ended, and give its lock back. One that is done has converged the host to the lock's digests."""
        self.note(deploy, "ended", outcome=outcome, **facts)
        lock = self.lock()
        if lock.get("deploy") == deploy:
            if outcome == "done" and lock.get("converged"):
                replace(self.stamp_file, lock["converged"])
            if outcome == "done" and lock.get("inputs"):
                replace(self.inputs_file, json.dumps(lock["inputs"]))
            for mark in self.marks.glob("paused-*") if outcome == "done" else ():  # its release has started them
                mark.unlink(missing_ok=True)
            self.lock_file.unlink(missing_ok=True)

    def unlock(self) -> bool:
        """Break the lock, whoever has it and even if it cannot be read; say whether there was one."""
        lock = self.lock()
        if lock.get("deploy"):
            self.finish(lock["deploy"], "lock broken")
        self.lock_file.unlink(missing_ok=True)
        return bool(lock)


def read_record(file: Path) -> dict[str, Any]:
    """Read what an application takes of this host; empty where that was not noted, or cannot be read."""
    try:
        record = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def fits(venv: Path) -> bool:
    """Whether a virtual environment has its Python: Debian's is another one after an upgrade of Debian, and others may be gone."""
    configuration = venv / "pyvenv.cfg"
    if configuration.exists() and not re.search(r"^home *= */usr/bin/?$", configuration.read_text(), re.M):
        return (venv / "bin/python").exists()
    libraries = [path.name for path in (venv / "lib").glob("python3*")]
    return not libraries or "python{}.{}".format(*sys.version_info) in libraries


def release_of(unit: str) -> str:
    """Read the release from a unit's name; empty in that of a unit without one."""
    return re.split(r"[@:]|\.(?:service|timer|socket)$", unit)[1]


def replace(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file in one step: readers see the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(mode)
    partial.replace(path)


def make_folder(path: Path, top: Path) -> None:
    """Make a folder and its parents below top that everybody may read, whatever the umask."""
    for folder in [*reversed(path.parents), path]:
        if folder.is_relative_to(top) and not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)


def point(link: Path, target: str) -> None:
    """Move a symbolic link in one step."""
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def remove(path: Path) -> None:
    """Remove a file or a folder, whatever was there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
