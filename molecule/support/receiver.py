"""Receives messages as a webhook, a ping service and a mail server do: receiver.py FILE HTTP_PORT SMTP_PORT.

It notes each as a line of JSON in the file. Unit tests use the class; the host tests run it as a program on a host.
"""

from __future__ import annotations

import email.policy
import json
import socketserver
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Two servers on loopback, and what they have received.

    :ivar received: mappings with `kind` (`http` or `mail`) and what belongs to it.
    :ivar status: with which requests are answered.
    :ivar refuse: commands of SMTP and addresses that are refused, each to the whole answer.
    """

    def __init__(self, http_port: int = 0, smtp_port: int = 0, note: Callable[[dict[str, Any]], None] | None = None):
        """Listen; by default on any free ports."""
        self.received: list[dict[str, Any]] = []
        self.status, self.refuse = 200, dict[str, str]()
        self.note = note or self.received.append
        owner = self

        class Http(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                kind = {"kind": "http", "method": self.command, "path": self.path, "status": owner.status}
                owner.note(kind | {"type": self.headers.get("Content-Type", ""), "body": body})
                self.send_response(owner.status)
                if owner.status in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                # So do chat programs, and Alertmanager 0.27 and later fail otherwise.
                self.wfile.write(b"ok" if '"attachments":' in body else b"answer of\nthe receiver")

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        class Mail(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self) -> None:
                seen: dict[str, Any] = {"kind": "mail", "from": "", "to": [], "login": ""}
                self.say("220 receiver")
                while line := self.rfile.readline().decode().strip():
                    verb = line.split()[0].upper()
                    address = line.partition("<")[2].partition(">")[0]
                    if refusal := owner.refuse.get(address) or owner.refuse.get(verb):
                        self.say(refusal)
                    elif verb == "EHLO":
                        self.say("250-receiver\r\n250 AUTH PLAIN")
                    elif verb == "AUTH":
                        seen["login"] = line.split()[-1]
                        self.say("235 in")
                    elif verb == "MAIL":
                        seen["from"] = address
                        self.say("250 ok")
                    elif verb == "RCPT":
                        seen["to"].append(address)
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        data = b""
                        while not data.endswith(b"\r\n.\r\n"):
                            data += self.rfile.readline()
                        mail = email.message_from_bytes(data[:-3], policy=email.policy.default)
                        body = mail.get_body(("plain", "html"))
                        text = body.get_content() if body else ""
                        owner.note(seen | {"subject": mail["Subject"], "text": text})
                        self.say("250 queued as 7")
                    else:
                        self.say("221 bye" if verb == "QUIT" else "250 ok")

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self.http = ThreadingHTTPServer(("127.0.0.1", http_port), Http)
        self.smtp = socketserver.ThreadingTCPServer(("127.0.0.1", smtp_port), Mail)
        self.smtp.daemon_threads = True

    @property
    def url(self) -> str:
        """Return the address of the web server."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def port(self) -> int:
        """Return the port of the mail server."""
        return int(self.smtp.server_address[1])

    def __enter__(self) -> Receiver:
        """Serve."""
        for server in (self.http, self.smtp):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        for server in (self.http, self.smtp):
            server.shutdown()
            server.server_close()


def main() -> None:
    """Run until the process is ended."""
    with open(sys.argv[1], "a", buffering=1) as file:

        def note(received: dict[str, Any]) -> None:
            file.write(json.dumps(received) + "\n")

        with Receiver(int(sys.argv[2]), int(sys.argv[3]), note):
            threading.Event().wait()


if __name__ == "__main__":
    main()
