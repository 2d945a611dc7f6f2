"""Keeps an application that is only looked at from what a server has, and from files that it could not write there.

Python's audit events (sys.addaudithook) are raised before a connection is made or a file is opened, whatever package does
so. Database drivers written in C are stopped at Django's connection, as its own SimpleTestCase does.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

ASKED: list[str] = []  # what was asked for that only a server has
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class UnreachableError(ConnectionRefusedError):
    """A service that only the servers reach was asked for."""


class UnknownHostError(socket.gaierror):
    """An address that only the servers know was asked for."""


class ReadOnlyError(OSError):
    """A file was to be written that no process of a release may write."""


def install(writable: list[str] | None) -> None:
    """Allow no connection from now on, and no file to be written elsewhere than a release's processes may.

    :param writable: folders that they may write to, besides the one for temporary files; None where files are not looked at.
    """
    temporary = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108  # a unit has its own
    allowed = [Path(folder).resolve() for folder in (*(writable or ()), *temporary, "/dev")]
    readable = Path.cwd().resolve()  # may be below the folder for temporary files

    def is_allowed(path: Any) -> bool:
        try:
            resolved = Path(os.path.realpath(os.fsdecode(path)))
        except (TypeError, ValueError):
            return True  # a file descriptor
        inside = [folder for folder in (*allowed, readable) if resolved.is_relative_to(folder)]
        return bool(inside) and max(inside, key=lambda folder: len(folder.parts)) != readable

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            ASKED.append(str(arguments[1]))
            raise UnreachableError(errno.ECONNREFUSED, "no service of the servers is reached from the controller")
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            ASKED.append(str(arguments[0]))
            raise UnknownHostError(socket.EAI_AGAIN, "no address of the servers is known on the controller")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if writable is not None and (writes or event == "os.mkdir") and not is_allowed(arguments[0]):
            raise ReadOnlyError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(arguments[0]))

    sys.addaudithook(hook)


def without_database() -> None:
    """Allow no connection to a database."""
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.utils import OperationalError

    from coldframe import seams  # imports Celery, which may not be there

    def connect(self: Any) -> None:
        ASKED.append(f"the database {self.alias!r}")
        raise OperationalError("no database of the servers is reached from the controller") from UnreachableError()

    seams.put(BaseDatabaseWrapper, "connect", connect)
