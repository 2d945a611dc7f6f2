"""Looks at a host every minute, and sends what is wrong and what is in order again: alerts.py CONFIG VERB [UNIT].

The verbs are `look` (all of it), `unit NAME` (systemd says that it failed) and `test` (a message by each channel).
It needs nothing but Python's own modules. `make status` tells what is wrong by the same functions.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import smtplib
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils import coldframe
from ansible.module_utils.coldframe_machine import file_systems, meminfo
from ansible.module_utils.coldframe_servers import Failed, Redis, Refused, conversation
from probes import probe_commands, probe_lines
from redis_acl import redis_login
from units import unit_problems

TIMEOUT = 10.0  # seconds for a connection, and for each answer
LONGEST = 45.0  # seconds in which all channels have their turn, at the same time
CONFIRMED = 2  # turns in a row that see a problem, or do not see it any more, until that is sent
DEPLOY = 3600  # seconds after which a deploy's lock is a problem by itself
ATTEMPTS = 15  # after which a message is given up: at the waits below after about 9 hours
WAITS = (60, 3600)  # seconds until the second attempt, and at most between two; each wait is twice the last
WAITING = 100  # messages that wait for a channel; of more the oldest are given up
LINES, WIDTH = 15, 300  # of the journal in a message
HELD = ("unit:", "queue:", "broker", "dead:")  # what a deploy or maintenance may interrupt
RUNBOOKS = {
    r"unit:\S+-web@": "runbooks/web-killed.md",
    r"unit:\S+-worker-": "runbooks/worker-killed.md",
    r"unit:\S+-beat@": "runbooks/beat-killed.md",
    r"unit:redis-server@.*broker": "runbooks/broker-killed.md",
    r"unit:postgresql@": "runbooks/database-killed.md",
    r"broker": "runbooks/broker-stopped.md",
    r"queue:": "runbooks/README.md#a-queue-is-overdue",
    r"dead:": "alerts.md#dead-letters",
    r"disk:": "alerts.md#disk",
    r"memory": "alerts.md#memory",
    r"certificate:": "alerts.md#certificates",
    r"lock": "alerts.md#deploy-lock",
    r"look:": "alerts.md#what-is-looked-at",
    r"": "alerts.md#units",
}
Problems = dict[str, str]  # key to cause, a sentence


class Refusal(Exception):
    """A channel that did not take a message; what it answered."""


def log(priority: int, text: str) -> None:
    """Write an entry of the journal; of `priority` see sd-daemon(3)."""
    print(f"<{priority}>" + text.replace("\n", " "), file=sys.stderr, flush=True)


@dataclass
class Look:
    """One look at the host.

    :ivar config: what the role writes (`__alerts_config`).
    :ivar credentials: the folder of the unit's credentials.
    :ivar now: seconds since 1970.
    """

    config: Mapping[str, Any]
    credentials: Path
    now: float

    def __post_init__(self) -> None:
        """Prepare the application, whose lock is a credential: its folder is root's."""
        self.app = coldframe.Application(coldframe.Commands(30), self.config["app"], self.config["root"])
        self.app.lock_file = self.credentials / "lock"
        self.repeat = self.config["repeat_hours"] * 3600

    # --- what is planned -------------------------------------------------------------------

    def deploying(self) -> bool:
        """Whether a deploy is under way. One that has its lock for long is not."""
        lock = self.app.lock()
        return bool(lock) and self.now - lock.get("since", 0) < DEPLOY

    def marked(self, mark: str) -> bool:
        """Whether a stop is planned: `maintenance` or `paused-QUEUE`. After `repeat_hours` it counts no longer."""
        return mark in self.app.planned_stops(self.repeat, self.now)

    def holds(self) -> bool:
        """Whether units and queues may be interrupted now."""
        return self.deploying() or self.marked("maintenance")

    def paused(self, queue: str) -> bool:
        """Whether the workers of a queue are meant to stop."""
        return self.marked(f"paused-{queue}")

    # --- what is wrong ---------------------------------------------------------------------

    def problems(self) -> tuple[Problems, list[str]]:
        """Look at everything; return what is wrong, and the beginnings of keys that nothing was found out about."""
        found: Problems = {}
        unknown = list(HELD) if self.holds() else []
        looks: dict[str, Callable[[], Problems]] = {
            "disk:": self.disks,
            "memory": self.memory,
            "certificate:": self.certificates,
            "lock": self.lock,
        }
        if not unknown:
            looks |= {"unit:": self.units, "queue:": self.broker}
        for name, look in looks.items():
            try:
                found |= look()
            except Exception as error:  # whatever it is, the others are looked at
                found[f"look:{name}"] = (
                    f"{name.rstrip(':')}: it could not be looked at: {type(error).__name__}: {error}"
                )
                unknown += HELD[1:] if name == "queue:" else [name]
        if "broker" in found:
            unknown += ["queue:", "dead:"]
        return found, unknown

    def units(self) -> Problems:
        """Say which units do not do their work: of the application, and of the services that it uses on this host."""
        current = self.app.current
        state: dict[str, Any] = {"current": current, "lock": {}}
        names = self.config["services"]
        services = {each["Id"]: each["ActiveState"] for each in self.app.show("Id,ActiveState", names)} if names else {}
        units = self.app.status() + [each | {"release": current} for each in self.app.described(services)]
        found = {}
        for unit in units:
            said = unit_problems(state | {"units": [unit]})
            if said and not self.paused(unit["part"].removeprefix("worker-")):
                found[f"unit:{unit['unit']}"] = said[0]
        # A command of a timer comes and goes, and is a problem once it has failed.
        known = {unit["unit"] for unit in units if not self.app.is_command(unit["unit"])}
        for name in self.failed() - known:
            found[f"unit:{name}"] = f"{name} has failed"
        return found

    def failed(self) -> set[str]:
        """List the units of the host that have failed, without those of earlier releases and of other applications."""
        _, output = self.app.systemctl("list-units", "--failed", "--plain", "--no-legend", "--full")
        others = tuple(f"{path.name}-" for path in coldframe.STATE.glob("*") if path.name != self.app.app)
        failed = {line.split()[0] for line in output.splitlines() if line.strip()}
        return {
            unit
            for unit in failed
            if not unit.startswith((*others, "coldframe-alert"))
            and (not self.is_instance(unit) or self.is_current(unit))
        }

    def is_instance(self, unit: str) -> bool:
        """Whether a unit is a part of a release."""
        return unit.startswith(f"{self.app.app}-") and "@" in unit

    def is_current(self, unit: str) -> bool:
        """Whether a unit is a part of the current release."""
        return coldframe.release_of(unit) == self.app.current

    def broker(self) -> Problems:
        """Say which queues are overdue or have more dead letters, on the host that asks the broker."""
        asked = self.config["broker"]
        if not asked:
            return {}
        queues: list[str] = asked["queues"]
        password = (self.credentials / "redis_password").read_text()
        login = redis_login({"admin": password}, asked["user"])
        try:
            redis = Redis.of(asked["server"])
            try:
                probes = conversation(redis, probe_commands(queues, login, asked["locks_index"]))
                letters = conversation(redis, dead_commands(queues, asked["index"]))
            finally:
                redis.close()
        except (Refused, Failed, OSError) as error:
            return {"broker": f"The broker does not answer: {error}"}
        found = {}
        for line in probe_lines(probes, queues):
            name = line.split()[0]
            if name not in queues:
                return {"broker": f"The broker does not answer: {line}"}
            if "OVERDUE" in line and not self.paused(name):
                found[f"queue:{name}"] = "Queue " + " ".join(line.split())
        for queue, count in zip(queues, letters.splitlines()[1:], strict=True):
            found[f"dead:{queue}"] = count  # what is more than before, is known to the record
        return found

    def disks(self) -> Problems:
        """Say which file systems are nearly full."""
        least, found = self.config["disk_free_percent"], {}
        for folder, space in file_systems().items():
            free = 100 * space.f_bavail / (space.f_blocks or 1)
            files = 100 * space.f_favail / space.f_files if space.f_files else 100
            if free < least:
                mb = space.f_bavail * space.f_frsize // 2**20
                found[f"disk:{folder}"] = f"The file system of {folder} has {mb} MiB left ({free:.0f}%): df -h {folder}"
            elif files < least:
                found[f"disk:{folder}"] = (
                    f"The file system of {folder} has {files:.0f}% of its inodes left: df -i {folder}"
                )
        return found

    def memory(self) -> Problems:
        """Say whether memory is scarce."""
        available, total = meminfo("MemAvailable"), meminfo("MemTotal")
        share = 100 * available / (total or 1)
        if not available or share >= self.config["memory_available_percent"]:
            return {}
        return {
            "memory": f"{available // 2**20} MiB of {total // 2**20} MiB memory are available ({share:.0f}%): systemd-cgtop -m"
        }

    def certificates(self) -> Problems:
        """Say which certificates end soon."""
        found = {}
        for name, path in self.config["certificates"].items():
            file = self.credentials / f"certificate_{name}"
            if "BEGIN CERTIFICATE" not in file.read_text(errors="replace"):
                continue  # it is not there yet
            code, output, errors = self.app.module.run_command(
                ["openssl", "x509", "-noout", "-enddate", "-in", str(file)]
            )
            if code:
                raise RuntimeError(f"{path}: {errors.strip()}")
            ends = ssl.cert_time_to_seconds(output.strip().partition("=")[2])
            if ends - self.now < self.config["certificate_days"] * 86400:
                what = "has ended" if ends <= self.now else "ends"
                found[f"certificate:{name}"] = f"The certificate {path} of {name} {what} on {utc(ends)}"
        return found

    def lock(self) -> Problems:
        """Say whether a deploy holds its lock for long."""
        lock = self.app.lock()
        if not lock or self.deploying():
            return {}
        return {
            "lock": f"{lock.get('who') or 'Somebody'} has the deploy lock since {utc(lock.get('since', 0))}. If that deploy was "
            "interrupted: make unlock"
        }

    def failure(self, unit: str) -> str:
        """Say how a unit has failed; empty if that is no problem: it is planned, or is not of what runs here."""
        if self.holds():
            return ""
        beat = unit.startswith(f"{self.app.app}-beat@")
        if self.is_instance(unit):
            if not self.is_current(unit) or self.paused(self.app.part(unit).removeprefix("worker-")):
                return ""
            # Beat ends when it loses its lease, and is started again to stand by: once is in order.
            if beat and not any(each["unit"] == unit and each["restarts"] for each in self.app.status()):
                return ""
        elif unit not in self.config["services"]:
            return ""
        return f"{unit} has failed ({self.app.ended(unit) or 'systemd says no more'})"


def dead_commands(queues: list[str], index: int) -> str:
    """Make redis-cli's input that counts the dead letters of queues, after a login."""
    return "".join([f"SELECT {index}\n", *(f"LLEN dead:{queue}\n" for queue in queues)])


def utc(seconds: float) -> str:
    """Write a time, given in seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


# --- what was sent, and what is to be -------------------------------------------------------


class Record:
    """What is known and was sent, in a file of the unit's state folder."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder."""
        self.file, self.guard = folder / "state.json", folder / "guard"

    @contextmanager
    def open(self) -> Iterator[dict[str, Any]]:
        """Give the record to one process at a time, and write what it has changed.

        `problems` maps keys to `since`, `cause`, `seen` and `gone` (turns in a row), and `sent` (0 if it was not yet). `dead` maps
        queues to how many dead letters are no problem. `waiting` maps channels to messages, each with its `attempts` and the time of
        the `next` one. `ping` is how the last ping failed.
        """
        with self.guard.open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                state = json.loads(self.file.read_text())
            except (FileNotFoundError, ValueError):
                state = {}
            state = {"problems": {}, "dead": {}, "waiting": {}} | state
            before = json.dumps(state)
            yield state
            if json.dumps(state) != before:
                coldframe.replace(self.file, json.dumps(state))


def more_letters(state: dict[str, Any], found: Problems) -> None:
    """Leave of the numbers of dead letters those that are more than before; the first number of a queue is none of these."""
    for key in [key for key in found if key.startswith("dead:")]:
        queue, count = key.partition(":")[2], int(found.pop(key))
        before = state["dead"][queue] = min(state["dead"].get(queue, count), count)
        if count > before:
            found[key] = (
                f"Dead letters of queue {queue}: {count}, {count - before} more than before. Show them: make queues"
            )


def changes(
    state: dict[str, Any], found: Problems, unknown: list[str], now: float, repeat: float
) -> list[dict[str, Any]]:
    """Note what a look has found; return what has begun, goes on for long, or has ended.

    :param state: the record, which this changes.
    :param unknown: beginnings of keys that nothing was found out about: what was a problem stays one.
    :param repeat: seconds after which a problem is sent again.
    """
    known, events = state["problems"], []
    more_letters(state, found)
    for key, cause in found.items():
        problem = known.setdefault(key, {"since": now, "seen": 0, "sent": 0})
        problem |= {"cause": cause, "seen": problem["seen"] + 1, "gone": 0}
        if problem["sent"] and now - problem["sent"] < repeat:
            continue
        if problem["sent"] or problem["seen"] >= CONFIRMED:
            events.append({"event": "continues" if problem["sent"] else "began", "problem": key, **problem})
            problem["sent"] = now
    for key in [key for key in known if key not in found and not key.startswith(tuple(unknown))]:
        problem = known[key]
        problem["gone"] += 1
        if not problem["sent"] or problem["gone"] >= CONFIRMED:
            del known[key]
            if problem["sent"]:
                events.append({"event": "ended", "problem": key, **problem})
    return events


def message(config: Mapping[str, Any], events: list[dict[str, Any]], now: float, text: str = "") -> dict[str, Any]:
    """Write a message about events; `text` in place of them is a test's."""
    app, host, environment = config["app"], config["host"], config["environment"]
    told = []
    for event in events:
        key = event["problem"]
        unit = key.removeprefix("unit:") if key.startswith("unit:") else ""
        told.append(
            {
                "event": event["event"],
                "problem": key,
                "unit": unit,
                "cause": event["cause"],
                "since": utc(event["since"]),
                "next": f"make status ENV={environment}"
                + (f"; on {host} as root: journalctl -u {unit}" if unit else ""),
                "runbook": "docs/" + next(page for pattern, page in RUNBOOKS.items() if re.match(pattern, key)),
                "lines": event.get("lines", []),
            }
        )
    counts = {
        word: sum(each["event"] == event for each in told)
        for word, event in (("began", "began"), ("still there", "continues"), ("ended", "ended"))
    }
    counted = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    first = text or f"{told[0]['event']}: {re.split(': | [(]', told[0]['cause'])[0]}"
    subject = f"[{app}] {host}: {first}" + (f" ({counted})" if len(told) > 1 else "")
    body = [f"{app} on {host} ({environment}), {utc(now)}", ""]
    for each in told:
        body += [f"{each['event'].upper()}: {each['cause']}", f"  since:   {each['since']}"]
        body += [f"  next:    {each['next']}", f"  runbook: {each['runbook']}"] if each["event"] != "ended" else []
        body += ["  last entries of its journal:", *(f"    {line}" for line in each["lines"])] if each["lines"] else []
        body += [""]
    body += [text] if text else []
    return {
        "application": app,
        "host": host,
        "environment": environment,
        "time": utc(now),
        "subject": " ".join(subject.split())[:200],
        "text": "\n".join(body).rstrip() + "\n",
        "events": told,
    }


def lines_of(journal: str) -> list[str]:
    """Choose the last lines of a journal, without control characters."""
    lines = ["".join(c if c.isprintable() else " " for c in line)[:WIDTH] for line in journal.splitlines()]
    return [re.sub(r"(://)[^/@\s]*@", r"\1***@", line) for line in lines if line.strip()][-LINES:]


# --- channels -------------------------------------------------------------------------------


def send_mail(server: Mapping[str, Any], password: str, host: str, sent: Mapping[str, Any]) -> str:
    """Send a message by SMTP; return what the server answered.

    :param server: `host`, `port`, `encryption`, `user`, `sender` and `to`, a list of addresses.

    Raises Refusal, OSError and SMTPException.
    """
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = server["sender"], ", ".join(server["to"]), sent["subject"]
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain="coldframe.invalid")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(sent["text"])
    context = ssl.create_default_context()
    where = (server["host"], server["port"], host)
    tls = server["encryption"] == "tls"
    with smtplib.SMTP_SSL(*where, timeout=TIMEOUT, context=context) if tls else smtplib.SMTP(*where, TIMEOUT) as smtp:
        if server["encryption"] == "starttls":
            smtp.starttls(context=context)
        smtp.ehlo_or_helo_if_needed()
        if server["user"]:
            smtp.login(server["user"], password)
        accepted: list[str] = []
        refused: list[str] = []
        code, answer = smtp.mail(parseaddr(server["sender"])[1])
        if code != 250:
            raise Refusal(f"{code} {answer.decode(errors='replace')}")
        for address in server["to"]:
            code, answer = smtp.rcpt(address)
            (accepted if code in (250, 251) else refused).append(f"{address}: {code} {answer.decode(errors='replace')}")
        if not accepted:
            raise Refusal("; ".join(refused))
        code, answer = smtp.data(mail.as_bytes())
    if code != 250:
        raise Refusal(f"{code} {answer.decode(errors='replace')}")
    for each in refused:
        log(3, f"The SMTP server refuses a recipient: {each}")
    return "; ".join([f"{code} {answer.decode(errors='replace')}", *(f"refused: {each}" for each in refused)])


def request(method: str, url: str, body: bytes | None = None) -> str:
    """Send a request, follow no redirect, and return the status. Raises Refusal, OSError and HTTPException."""
    place = urlsplit(url)
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.hostname or "", place.port, timeout=TIMEOUT)
    try:
        headers = {"User-Agent": "Coldframe"} | ({"Content-Type": "application/json"} if body else {})
        target = (place.path or "/") + (f"?{place.query}" if place.query else "")
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        said = f"{answer.status} {answer.reason}"
        if not 200 <= answer.status < 300:
            text = " ".join(answer.read(2000).decode(errors="replace").split())[:200]
            raise Refusal(f"{said}: {text}" if text else said)
        return said
    finally:
        connection.close()


@dataclass
class Channels:
    """The channels that are set, by name: `email`, `webhook` and `ping`, which takes no messages.

    :ivar config: what the role writes.
    :ivar credentials: the folder with `smtp_password`, `webhook_url` and `ping_url`.
    """

    config: Mapping[str, Any]
    credentials: Path

    def secret(self, name: str) -> str:
        """Read a credential; empty when there is none."""
        file = self.credentials / name
        return file.read_text().strip("\n") if file.exists() else ""

    def senders(self) -> dict[str, Callable[[Mapping[str, Any]], str]]:
        """Map each channel for messages to what sends one and returns the answer."""
        found: dict[str, Callable[[Mapping[str, Any]], str]] = {}
        if server := self.config["email"]:
            password = self.secret("smtp_password")
            found["email"] = lambda sent: send_mail(server, password, self.config["host"], sent)
        if url := self.secret("webhook_url"):
            found["webhook"] = lambda sent: request("POST", url, json.dumps(sent).encode())
        return found

    def ping(self) -> str:
        """Ping; return the answer, empty where no address is set."""
        url = self.secret("ping_url")
        return request("GET", url) if url else ""


ERRORS = (Refusal, OSError, smtplib.SMTPException, http.client.HTTPException, ValueError)


def deliver(record: Record, channels: Channels, now: Callable[[], float] = time.time) -> bool:
    """Send what waits, all channels at the same time; return whether nothing is left that a channel has refused."""
    senders = channels.senders()
    turns = [threading.Thread(target=drain, args=(record, *each, now), daemon=True) for each in senders.items()]
    for turn in turns:
        turn.start()
    until = time.monotonic() + LONGEST
    for turn in turns:
        turn.join(max(0, until - time.monotonic()))
    with record.open() as state:
        state["waiting"] = {name: waiting for name, waiting in state["waiting"].items() if name in senders}
        return not any(each["attempts"] for waiting in state["waiting"].values() for each in waiting)


def drain(record: Record, channel: str, send: Callable[[Mapping[str, Any]], str], now: Callable[[], float]) -> None:
    """Send the messages of one channel, the oldest first, up to one that is refused."""
    while True:
        with record.open() as state:
            waiting = state["waiting"].get(channel, [])
            if not waiting or waiting[0]["next"] > now():
                return
            first = waiting[0]
            first["next"] = now() + LONGEST  # another process does not send it meanwhile
            identity = first["id"]
        try:
            send(first["message"])
            error = ""
        except ERRORS as failure:
            error = str(failure) or type(failure).__name__
        with record.open() as state:
            waiting = state["waiting"].get(channel, [])
            (mine,) = [each for each in waiting if each["id"] == identity] or [None]
            if mine and not error:
                waiting.remove(mine)
            elif mine:
                mine["attempts"] += 1
                if mine["attempts"] >= ATTEMPTS:
                    waiting.remove(mine)
                    log(3, f"{channel}: given up after {ATTEMPTS} attempts: {mine['message']['subject']}")
                wait = min(WAITS[0] * 2 ** (mine["attempts"] - 1), WAITS[1])
                mine["next"] = now() + wait
                log(3, f"{channel}: not sent ({error}), attempt {mine['attempts']}; the next is in {wait} s")
        if error:
            return


def post(state: dict[str, Any], names: list[str], sent: dict[str, Any], now: float) -> None:
    """Let a message wait for each channel."""
    for name in names:
        waiting = state["waiting"].setdefault(name, [])
        state["last"] = state.get("last", 0) + 1
        waiting.append({"id": state["last"], "message": sent, "attempts": 0, "next": now})
        while len(waiting) > WAITING:
            log(3, f"{name}: given up, because too many wait: {waiting.pop(0)['message']['subject']}")


# --- verbs ----------------------------------------------------------------------------------


def look(seen: Look, record: Record, channels: Channels) -> None:
    """Look at the host, send what has changed, and ping if that was a good turn: all was looked at and nothing is left to send."""
    found, unknown = seen.problems()
    complete = not any(key.startswith("look:") for key in found)
    with record.open() as state:
        events = changes(state, found, unknown, seen.now, seen.repeat)
        for event in events:
            if event["event"] == "began" and event["problem"].startswith("unit:"):
                event["lines"] = lines_of(seen.app.journal(event["problem"].removeprefix("unit:")))
        if events:
            post(state, list(channels.senders()), message(seen.config, events, seen.now), seen.now)
    for event in events:
        log(4, f"{event['event']}: {event['cause']}")
    if deliver(record, channels) and complete:
        try:
            channels.ping()
            failed = ""
        except ERRORS as error:
            failed = str(error) or type(error).__name__
        with record.open() as state:
            if failed and not state.get("ping"):  # not in every turn
                log(3, f"ping: {failed}; it is tried in every turn")
            state["ping"] = failed


def unit(seen: Look, record: Record, channels: Channels, name: str) -> None:
    """Send at once that a unit has failed, unless that is known, or no problem."""
    key = f"unit:{name}"
    with record.open() as state:
        if state["problems"].get(key, {}).get("sent"):
            return
    cause = seen.failure(name)
    if not cause:
        return
    lines = lines_of(seen.app.journal(name))
    with record.open() as state:
        if state["problems"].get(key, {}).get("sent"):
            return
        event = {"since": seen.now, "cause": cause, "seen": 0, "gone": 0, "sent": seen.now}
        state["problems"][key] = event
        told = message(seen.config, [{"event": "began", "problem": key, "lines": lines, **event}], seen.now)
        post(state, list(channels.senders()), told, seen.now)
    log(4, f"began: {cause}")
    deliver(record, channels)


def test(seen: Look, channels: Channels) -> int:
    """Send a test message by each channel, print what each answered, and return how many failed."""
    text = "This is a test (make test-alert). Nothing is wrong."
    sent = message(seen.config, [], seen.now, text)
    ways: dict[str, Callable[[], str]] = {
        name: lambda send=send: send(sent)  # type: ignore[misc]
        for name, send in channels.senders().items()
    }
    if channels.secret("ping_url"):
        ways["ping"] = channels.ping
    failed = 0
    for name, send in ways.items():
        try:
            log(5, f"{name}: {send()}")
        except ERRORS as error:
            failed += 1
            log(3, f"{name}: failed: {error}")
    return failed


def main() -> None:
    """Run the program."""
    config = json.loads(Path(sys.argv[1]).read_text())
    credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
    seen, channels = Look(config, credentials, time.time()), Channels(config, credentials)
    record = Record(Path(os.environ["STATE_DIRECTORY"]))
    verb, *names = sys.argv[2:]
    if verb == "unit" and names[0].startswith("test:"):
        verb = "test"
    if verb == "look":
        look(seen, record, channels)
    elif verb == "unit":
        unit(seen, record, channels, names[0])
    else:
        sys.exit(min(test(seen, channels), 1))


if __name__ == "__main__":
    main()
