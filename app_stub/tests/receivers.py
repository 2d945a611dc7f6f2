"""Servers on loopback that receive what the application sends."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import TypeVar

Server = TypeVar("Server", bound=BaseServer)


class Receiver(ThreadingHTTPServer):
    """Notes each request, and answers with the next of `answers`; the last one stays."""

    daemon_threads = True

    def __init__(self, host: str, port: int = 0) -> None:
        super().__init__((host, port), Handler)
        self.answers: list[int] = [200]
        self.location = ""
        self.requests: list[tuple[str, dict, bytes]] = []  # path, headers, body

    @property
    def port(self) -> int:
        return self.server_address[1]

    def with_certificate(self, file: str, key: str) -> list[str | None]:
        """Speak TLS from now on; return a list to which the name of each client's SNI is added."""
        names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, key)
        context.sni_callback = lambda _, name, __: names.append(name)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        return names

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses the certificate is no error of this server."""


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MailServer(ThreadingTCPServer):
    """Notes each mail, and answers a command with what `answers` has for it, once each."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), MailHandler)
        self.answers: dict[str, list[str]] = {}
        self.mails: list[bytes] = []

    @property
    def port(self) -> int:
        return self.server_address[1]


class MailHandler(StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.say("220 here")
        while line := self.rfile.readline():
            verb = line.split()[0].decode().upper()
            if answers := self.server.answers.get(verb):
                self.say(answers.pop(0))
            elif verb == "DATA":
                self.say("354 go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                if answers := self.server.answers.get("."):  # of the mail itself
                    self.say(answers.pop(0))
                else:
                    self.server.mails.append(b"".join(lines))
                    self.say("250 taken")
            else:
                self.say("221 bye" if verb == "QUIT" else "250 yes")

    def say(self, answer: str) -> None:
        self.wfile.write(answer.encode() + b"\r\n")


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def receiver(host: str, port: int = 0) -> Iterator[Receiver]:
    with serving(Receiver(host, port)) as server:
        yield server
