"""Sends log records to systemd's journal by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one entry for each.

A traceback is a part of its entry. The level becomes the priority, so that `journalctl --priority=err` finds errors. The
fields beside the message, of which a record has those that apply:

REQUEST_ID, TASK_ID, TASK_NAME   what the code works for (coldframe.logs.ids)
LOGGER                           the logger's name
EXCEPTION                        the class of the exception
SYSLOG_IDENTIFIER                the unit without its release, such as shop-web

The unit adds RELEASE and QUEUE to all that its processes write (LogExtraFields=, systemd.exec(5)). Where stderr is not the
journal, as in a terminal, the records are lines on stderr.

The protocol is a datagram on a socket. For systemd-python or cysystemd, each application would have to lock one more package;
the first has no wheels.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from coldframe.logs import ids

SOCKET = "/run/systemd/journal/socket"
HIDDEN = "***"
# The least level for each of syslog(3)'s priorities.
PRIORITIES = (
    (logging.CRITICAL, "2"),
    (logging.ERROR, "3"),
    (logging.WARNING, "4"),
    (logging.INFO, "6"),
)
DEBUG = "7"
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_sockets: list[socket.socket] = []


class Handler(logging.StreamHandler[Any]):
    """A handler of the journal. It takes the place of a StreamHandler on stderr or stdout, with the same options."""

    def __init__(self, stream: Any = None) -> None:
        """Find out where records go.

        :param stream: where they go if stderr is not the journal, or the journal takes none.
        """
        super().__init__(stream)
        self.direct, self.patterns = connected(), patterns()

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record, its traceback included, without what the deployment hides (`app_log_redact`)."""
        text = super().format(record)
        for pattern in self.patterns:
            text = pattern.sub(HIDDEN, text)
        return text

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        if self.direct:
            try:
                send(fields(record, self.format(record)))
                return
            except OSError:
                pass
            except Exception:
                self.handleError(record)
                return
        super().emit(record)


def fields(record: logging.LogRecord, text: str) -> dict[str, str]:
    """Return the fields of a record's entry.

    :param text: of the record.
    """
    work = ids.current()
    found = {
        "MESSAGE": text,
        "PRIORITY": next((priority for level, priority in PRIORITIES if record.levelno >= level), DEBUG),
        "SYSLOG_IDENTIFIER": os.environ.get("SYSLOG_IDENTIFIER", ""),
        "LOGGER": record.name,
        "REQUEST_ID": work.request_id,
        "TASK_ID": work.task_id,
        "TASK_NAME": work.task_name,
    }
    if record.exc_info and (kind := record.exc_info[0]):
        found["EXCEPTION"] = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
    return {name: value for name, value in found.items() if value or name == "MESSAGE"}


def send(entry: dict[str, str]) -> None:
    """Send an entry to the journal. Raises OSError when there is none.

    :param entry: field to value. Names have capital letters, digits and underscores.
    """
    data = b"".join(packed(name.encode(), value.encode(errors="replace")) for name, value in entry.items())
    if not _sockets:
        _sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    address = os.environ.get("JOURNAL_SOCKET", SOCKET)
    try:
        _sockets[0].sendto(data, address)
    except OSError as error:
        if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
            raise
        file = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(file, "wb") as memory:
            memory.write(data)
            memory.flush()
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)  # the journal reads no file that may still change
            # By sendmsg, because Python 3.11's send_fds() forgets the address.
            passed = socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file)
            _sockets[0].sendmsg([b""], [passed], 0, address)


def packed(name: bytes, value: bytes) -> bytes:
    """Return a field as the journal reads it: with the length of a value that has several lines."""
    if b"\n" in value:
        return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


def connected() -> bool:
    """Whether stderr is the journal. A program that this one starts, and whose output it reads, has the variable too."""
    with suppress(OSError):
        there = os.fstat(2)
        return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"
    return False


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    """Return what the deployment hides in messages and tracebacks; nothing in a process that is no release's."""
    from coldframe.overlay.deployment import Deployment

    texts = Deployment.read().log_redact if "OVERLAY_FILE" in os.environ else ()
    return tuple(re.compile(text) for text in texts)


def adopt(loggers: Iterable[logging.Logger], formatter: logging.Formatter | None = None) -> None:
    """Have handlers that write to stderr or stdout send to the journal, if that is where these lead.

    :param formatter: of the new handlers; without one each keeps its own.
    """
    if not connected():
        return
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    for logger in loggers:
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler and any(handler.stream is stream for stream in streams):
                own = Handler(handler.stream)
                own.setLevel(handler.level)
                own.setFormatter(formatter or handler.formatter)
                own.filters = handler.filters
                logger.removeHandler(handler)
                logger.addHandler(own)


def all_loggers() -> list[logging.Logger]:
    """Return the loggers that there are."""
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


def announce(text: str) -> None:
    """Send an entry of the least priority, so that the journal looks at this process while it lives.

    The journal reads the unit of a process from /proc, when it hears of it first. A process that is killed right after its
    first entry would be of no unit.
    """
    if connected():
        with suppress(OSError):
            send(fields(logging.LogRecord(__name__, logging.DEBUG, "", 0, text, None, None), text))
