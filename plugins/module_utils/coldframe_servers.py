"""Speaks to a PostgreSQL and a Redis with Python's own library: before the first deploy a host has no client of either."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import shlex
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT = 10.0  # seconds for a connection, and for each answer
STORE = Path("/etc/ssl/certs/ca-certificates.crt")  # of Debian's package ca-certificates
TLS_REQUEST, PROTOCOL = 80877103, 3 << 16  # of PostgreSQL


class Refused(Exception):
    """A server that cannot be used.

    :ivar stage: `resolve`, `connect`, `tls`, `login` or `ask`.
    """

    def __init__(self, stage: str, text: str) -> None:
        """Remember the stage, and the reason in words."""
        super().__init__(text)
        self.stage = stage


class Failed(Exception):
    """A command that a server refused; its answer in words."""


def dial(host: str, port: int) -> socket.socket:
    """Connect to a server. Raises Refused."""
    try:
        return socket.create_connection((host, port), TIMEOUT)
    except socket.gaierror as error:
        raise Refused("resolve", error.strerror or str(error)) from error
    except OSError as error:
        raise Refused("connect", error.strerror or str(error)) from error


def secured(connection: socket.socket, host: str, ca: str, strict: bool) -> ssl.SSLSocket:
    """Begin TLS on a connection, and verify the server's certificate and name. Raises Refused.

    :param ca: certificates of authorities, in PEM; if empty, those of the host.
    :param strict: as Python verifies since 3.13, so redis-py does. libpq does not: then certificates may lack extensions of RFC 5280.
    """
    if not ca and not STORE.exists():
        raise Refused("tls", f"this host has no {STORE}, with the CA certificates that it trusts")
    try:
        context = ssl.create_default_context(cadata=ca or None)
        if not strict:
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise Refused("tls", error.verify_message or str(error)) from error
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise Refused("tls", str(error)) from error


class Redis:
    """A connection to Redis: `ask` sends a command and returns its answer."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connection."""
        self.connection, self.rest = connection, b""

    @classmethod
    def of(cls, server: Mapping[str, Any]) -> Redis:
        """Connect to a server: `socket`, a path; or `host`, `port` and `ca`. Raises Refused."""
        if "socket" in server:
            return cls.behind(server["socket"])
        return cls.at(server["host"], int(server["port"]), server["ca"])

    @classmethod
    def at(cls, host: str, port: int, ca: str) -> Redis:
        """Connect by TLS. Raises Refused."""
        return cls(secured(dial(host, port), host, ca, strict=True))

    @classmethod
    def behind(cls, path: str) -> Redis:
        """Connect to a socket in the file system. Raises Refused."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
        except OSError as error:
            raise Refused("connect", error.strerror or str(error)) from error
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def ask(self, *words: str) -> Any:
        """Send a command; return a text, a number, a list or None. Raises Failed when it is refused, and OSError."""
        parts = [word.encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.connection.sendall(request)
        answer = self.answer()
        if isinstance(answer, Failed):
            raise answer
        return answer

    def answer(self) -> Any:
        """Read an answer; one that is an error is returned as Failed."""
        line = self.line()
        kind, text = line[:1], line[1:].decode(errors="replace")
        if kind == b"-":
            return Failed(text)
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == "-1" else self.read(int(text) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return None if text == "-1" else [self.answer() for _ in range(int(text))]
        return text

    def line(self) -> bytes:
        """Read up to the end of a line."""
        while b"\r\n" not in self.rest:
            self.more()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def read(self, size: int) -> bytes:
        """Read some bytes."""
        while len(self.rest) < size:
            self.more()
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def more(self) -> None:
        """Receive what comes next. Raises OSError."""
        received = self.connection.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        self.rest += received


def shown(answer: Any) -> list[str]:
    """Write an answer of Redis as `redis-cli` prints it, when it prints to no terminal."""
    if isinstance(answer, list):
        return [line for each in answer for line in shown(each)]
    return ["" if answer is None else str(answer)]


def conversation(redis: Redis, commands: str) -> str:
    """Send commands as `redis-cli` reads them, a line each; return what it would print. Raises OSError."""
    said = []
    for line in commands.splitlines():
        if line.strip():
            try:
                said += shown(redis.ask(*shlex.split(line)))
            except Failed as error:
                said.append(str(error))
    return "\n".join(said)


def logged_in(server: Mapping[str, Any], login: str, index: int) -> Redis:
    """Connect to a Redis, log in and choose the database. Raises Refused, Failed and OSError."""
    redis = Redis.of(server)
    said = conversation(redis, f"{login.strip()}\nSELECT {index}\n")
    if said != "OK\nOK":
        raise Failed(next(line for line in said.split("\n") if line != "OK"))
    return redis


class PostgreSQL:
    """A session of PostgreSQL: `ask` sends a query and returns its rows."""

    def __init__(self, host: str, port: int, user: str, database: str, password: str, ca: str) -> None:
        """Connect by TLS and log in. Raises Refused."""
        self.pid, self.parameters = 0, dict[str, str]()
        connection = dial(host, port)
        try:
            connection.sendall(struct.pack("!II", 8, TLS_REQUEST))
            offered = connection.recv(1)
        except OSError as error:
            raise Refused("connect", error.strerror or str(error)) from error
        if offered != b"S":
            raise Refused("tls", "the server offers no TLS")
        self.connection: socket.socket = secured(connection, host, ca, strict=False)
        try:
            self.log_in(user, database, password)
        except Failed as error:
            raise Refused("login", str(error)) from error
        except OSError as error:
            raise Refused("login", str(error) or "no answer") from error

    def close(self) -> None:
        """End the session."""
        self.send(b"X", b"")
        self.connection.close()

    def log_in(self, user: str, database: str, password: str) -> None:
        """Log in, in the way that the server asks for. Raises Failed and OSError."""
        names = {"user": user, "database": database, "application_name": "coldframe"}
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in names.items()) + b"\0"
        self.connection.sendall(struct.pack("!II", len(body) + 8, PROTOCOL) + body)
        while True:
            kind, content = self.message()
            if kind == b"Z":
                return
            if kind == b"K":
                (self.pid,) = struct.unpack("!I", content[:4])
            elif kind == b"S":
                name, value = content.decode().split("\0")[:2]
                self.parameters[name] = value
            elif kind == b"R":
                self.authenticate(struct.unpack("!I", content[:4])[0], content[4:], user, password)

    def authenticate(self, way: int, content: bytes, user: str, password: str) -> None:
        """Answer a request of the server to log in. Raises Failed for a way that is not known."""
        if way == 3:  # the password itself, by TLS
            self.send(b"p", password.encode() + b"\0")
        elif way == 5:
            inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
            digest = hashlib.md5(inner.encode() + content[:4], usedforsecurity=False).hexdigest()
            self.send(b"p", f"md5{digest}\0".encode())
        elif way == 10 and b"SCRAM-SHA-256" in content.split(b"\0"):
            self.scram(password)
        elif way:
            raise Failed(f"the server asks for a login of a kind that is not supported ({way})")

    def scram(self, password: str) -> None:
        """Log in by SCRAM-SHA-256 (RFC 7677). Raises Failed."""
        nonce = secrets.token_urlsafe(18)
        first = f"n=,r={nonce}"
        opening = f"n,,{first}".encode()
        self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(opening)) + opening)
        challenge = self.message()[1][4:].decode()
        values = dict(part.split("=", 1) for part in challenge.split(",") if "=" in part)
        if not values.get("r", "").startswith(nonce):
            raise Failed("the server answers another login")
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(values["s"]), int(values["i"]))
        without_proof = f"c=biws,r={values['r']}"
        whole = ",".join((first, challenge, without_proof)).encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), whole, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.send(b"p", f"{without_proof},p={proof}".encode())
        final = self.message()[1][4:].decode()
        own = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), whole, "sha256")
        if final.partition("v=")[2] != base64.b64encode(own).decode():
            raise Failed("the server does not know the password that it accepts")

    def ask(self, query: str) -> list[list[str | None]]:
        """Send a query; return its rows. Raises Failed when it is refused, and OSError."""
        self.send(b"Q", query.encode() + b"\0")
        rows: list[list[str | None]] = []
        failure = None
        while True:
            try:
                kind, content = self.message()
            except Failed as error:
                failure = error
                continue
            if kind == b"D":
                rows.append(self.row(content))
            elif kind == b"Z":
                if failure:
                    raise failure
                return rows

    @staticmethod
    def row(content: bytes) -> list[str | None]:
        """Read a row's values."""
        (count,), at, values = struct.unpack("!H", content[:2]), 2, list[str | None]()
        for _ in range(count):
            (size,) = struct.unpack("!i", content[at : at + 4])
            values.append(None if size < 0 else content[at + 4 : at + 4 + size].decode(errors="replace"))
            at += 4 + max(size, 0)
        return values

    def send(self, kind: bytes, content: bytes) -> None:
        """Send a message."""
        self.connection.sendall(kind + struct.pack("!I", len(content) + 4) + content)

    def message(self) -> tuple[bytes, bytes]:
        """Read a message: its kind and its content. Raises Failed for an error, and OSError."""
        kind = self.read(1)
        content = self.read(struct.unpack("!I", self.read(4))[0] - 4)
        if kind == b"E":
            fields = dict(re.findall(r"([A-Z])([^\0]*)\0", content.decode(errors="replace")))
            raise Failed(fields.get("M", "no reason given"))
        return kind, content

    def read(self, size: int) -> bytes:
        """Read some bytes. Raises OSError."""
        found = b""
        while len(found) < size:
            received = self.connection.recv(size - len(found))
            if not received:
                raise ConnectionError("the server closed the connection")
            found += received
        return found
