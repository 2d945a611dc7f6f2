"""Servers as a provider may have them, by TLS on a port of this machine: a Redis and a PostgreSQL that answer what a test says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def certificate(folder: Path, *names: str) -> str:
    """Write server.pem, a certificate for these host names with its key, and return it: it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, SHA256())
    )
    public = made.public_bytes(Encoding.PEM).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (folder / "server.pem").write_text(private + public)
    return public


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Have each connection served in a thread; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def served(connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError, struct.error):
            talk(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=served, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def secured(connection: socket.socket, folder: Path) -> ssl.SSLSocket:
    """Begin TLS with the certificate of a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context.wrap_socket(connection, server_side=True)


def redis(folder: Path, answers: Callable[[list[str]], Any]) -> Any:
    """Serve Redis by TLS.

    :param answers: returns the answer to a command: a text, a list, a number, None, or an Exception with the error's words.
    """

    def talk(connection: socket.socket) -> None:
        secure = secured(connection, folder)
        stream = secure.makefile("rb")
        while line := stream.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(stream.readline()[1:])
                words.append(stream.read(size + 2)[:-2].decode())
            secure.sendall(written(answers(words)))

    return serving(talk)


def written(answer: Any) -> bytes:
    """Write an answer in Redis' protocol."""
    if isinstance(answer, Exception):
        return f"-{answer}\r\n".encode()
    if isinstance(answer, list):
        return f"*{len(answer)}\r\n".encode() + b"".join(written(each) for each in answer)
    if isinstance(answer, int):
        return f":{answer}\r\n".encode()
    if answer is None:
        return b"$-1\r\n"
    return f"${len(answer.encode())}\r\n{answer}\r\n".encode()


def postgresql(
    folder: Path,
    password: str,
    rows: Callable[[int, str], list[Any] | Exception],
    pids: Iterator[int],
    tls: bool = True,
) -> Any:
    """Serve PostgreSQL by TLS, with a login by SCRAM-SHA-256.

    :param rows: returns the row that answers a query of a session, or an Exception; the sessions are numbered from 0.
    :param pids: the process that each session is said to have.
    :param tls: whether it offers TLS.
    """
    sessions: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(b"S" if tls else b"N")
        if not tls:
            return
        secure = secured(connection, folder)
        sessions.append(secure)
        number = len(sessions) - 1
        stream = secure.makefile("rb")
        stream.read(struct.unpack("!I", stream.read(4))[0] - 4)
        if not scram(secure, stream, password):
            send(secure, b"E", b"SFATAL\0C28P01\0Mpassword authentication failed\0\0")
            return
        send(secure, b"R", struct.pack("!I", 0))
        send(secure, b"S", b"server_encoding\0UTF8\0")
        send(secure, b"K", struct.pack("!II", next(pids), 1))
        send(secure, b"Z", b"I")
        while True:
            kind, content = receive(stream)
            if kind != b"Q":
                return
            answer = rows(number, content.rstrip(b"\0").decode())
            if isinstance(answer, Exception):
                send(secure, b"E", f"SERROR\0C42501\0M{answer}\0\0".encode())
            elif answer:
                values = [None if value is None else str(value).encode() for value in answer]
                parts = [
                    struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
                    for value in values
                ]
                send(secure, b"D", struct.pack("!H", len(parts)) + b"".join(parts))
            send(secure, b"Z", b"I")

    return serving(talk)


def send(connection: socket.socket, kind: bytes, content: bytes) -> None:
    """Send a message of PostgreSQL's protocol."""
    connection.sendall(kind + struct.pack("!I", len(content) + 4) + content)


def receive(stream: Any) -> tuple[bytes, bytes]:
    """Read a message of PostgreSQL's protocol."""
    kind = stream.read(1)
    return kind, stream.read(struct.unpack("!I", stream.read(4))[0] - 4)


def scram(connection: socket.socket, stream: Any, password: str) -> bool:
    """Ask for a login by SCRAM-SHA-256; return whether the client has the password."""
    send(connection, b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
    first = receive(stream)[1].partition(b"n,,")[2].decode()
    salt, nonce = os.urandom(16), first.partition("r=")[2] + "server"
    challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
    send(connection, b"R", struct.pack("!I", 11) + challenge.encode())
    last = receive(stream)[1].decode()
    without_proof, _, proof = last.partition(",p=")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    whole = f"{first},{challenge},{without_proof}".encode()
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), whole, "sha256")
    if bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True)) != key:
        return False
    own = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), whole, "sha256")
    send(connection, b"R", struct.pack("!I", 12) + b"v=" + base64.b64encode(own))
    return True
