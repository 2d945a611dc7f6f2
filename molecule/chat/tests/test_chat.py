"""A project with Channels works on a server as its developers wrote it: WebSockets, events, a service and a timer."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import quote, urlsplit

import pytest
import yaml
from support.deployment import Deployment
from support.playbooks import ROOT, Finished, ansible
from waits import wait_for

ENVIRONMENT = ".sandbox/chat"
GOING_AWAY = 1001
MORE = {
    "app_single_user": True,
    "app_services": {"heartbeat": {"command": "manage.py heartbeat"}},
    "app_timers": {"sweep": {"command": "manage.py sweep", "calendar": "*:*:0/5"}},
}


def make(target: str, **variables: str) -> Finished:
    """Run a target of the Makefile for the host; it must pass."""
    words = [f"{name}={value}" for name, value in {"ENV": ENVIRONMENT, **variables}.items()]
    done = ansible("make", "--no-print-directory", target, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """Give the project a service, a timer, and one user for all of its processes, and deploy it."""
    more = ROOT / ENVIRONMENT / "group_vars/all/more.yml"
    more.write_text(yaml.safe_dump(MORE))
    make("deploy")
    yield Deployment(f"{ENVIRONMENT}/hosts.yml", "sandbox")
    more.unlink()


class WebSocket:
    """A client of RFC 6455, as small as it can be."""

    def __init__(self, url: str, path: str, origin: str = "") -> None:
        """Connect, and read the answer to the handshake."""
        site = urlsplit(url)
        assert site.hostname
        plain = socket.create_connection((site.hostname, site.port or 443), timeout=20)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.stream = context.wrap_socket(plain, server_hostname=site.hostname)
        lines = [f"GET {path} HTTP/1.1", f"Host: {site.netloc}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        self.stream.sendall("\r\n".join([*lines, f"Origin: {origin or url}", "", ""]).encode())
        self.file = self.stream.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def send(self, **content: object) -> None:
        """Send a message."""
        data = json.dumps(content).encode()
        assert len(data) < 126
        self.stream.sendall(bytes([0x81, 0x80 | len(data)]) + bytes(4) + data)

    def receive(self) -> dict[str, str] | int:
        """Return the next message, or the code with which the server closes."""
        while True:
            first, length = self.file.read(2)
            data = self.file.read(length if length < 126 else struct.unpack(">H", self.file.read(2))[0])
            if first & 15 == 8:
                return int(struct.unpack(">H", data[:2])[0])
            if first & 15 == 9:
                self.stream.sendall(bytes([0x8A, 0x80 | len(data)]) + bytes(4) + data)
            else:
                said: dict[str, str] = json.loads(data)
                return said


def test_asgi_was_found(deployment):
    assert deployment.app_asgi == "chat.asgi:application"
    assert deployment.request("/").status == 200


def test_message_reaches_the_room_from_a_client_and_from_a_task(deployment):
    first, second = WebSocket(deployment.app_url, "/ws/tea/"), WebSocket(deployment.app_url, "/ws/tea/")
    assert first.status == second.status == 101
    first.send(text="hello")
    assert [client.receive()["text"] for client in (first, second)] == ["hello", "hello"]
    second.send(text="hello", shout=True)
    assert [client.receive()["text"] for client in (first, second)] == ["HELLO", "HELLO"]


def test_page_of_another_site_opens_no_websocket(deployment):
    assert WebSocket(deployment.app_url, "/ws/tea/", origin="https://elsewhere.example").status == 403


def test_events_arrive_while_they_are_sent(deployment):
    client = WebSocket.__new__(WebSocket)
    site = urlsplit(deployment.app_url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client.stream = context.wrap_socket(
        socket.create_connection((site.hostname, site.port or 443), timeout=20), server_hostname=site.hostname
    )
    client.stream.sendall(f"GET /events/ HTTP/1.1\r\nHost: {site.netloc}\r\n\r\n".encode())
    began, got = time.monotonic(), b""
    while b"data: 2\n" not in got:
        got += client.stream.recv(1000)
    assert time.monotonic() - began < 10


def test_service_and_timer_run(deployment):
    before = deployment.request("/counts/").json
    wait_for(lambda: deployment.request("/counts/").json["beats"] > before["beats"], 20, "the service counts")
    wait_for(lambda: deployment.request("/counts/").json["swept"] > before["swept"], 30, "the timer's command ran")
    printed = make("status").stdout
    assert "chat-service-heartbeat@" in printed and "chat-timer-sweep@" in printed


def test_scheduler_of_the_project_sends_and_holds_the_lease(deployment):
    before = deployment.request("/counts/").json
    wait_for(lambda: deployment.request("/counts/").json["rung"] > before["rung"], 20, "a task of the schedule is done")
    assert deployment.request("/counts/").json["scheduled"] > before["scheduled"], "the project's class sent it"
    shown = make("ssh", CMD="systemctl show --property=StatusText --value 'chat-beat@*'").stdout
    assert "ticking" in shown.splitlines(), shown


def test_all_processes_are_one_user_who_may_change_the_mode_of_its_files(deployment):
    parts = ("web@*", "worker-*@*", "beat@*", "service-*@*", "timer-*@*.service")
    units = " ".join(f"'chat-{part}'" for part in parts)
    shown = make("ssh", CMD=f"systemctl show --property=Id,User {units}").stdout
    users = dict(re.findall(r"Id=chat-(\w+).*?\nUser=(\S+)", shown))
    assert users == dict.fromkeys(("web", "worker", "beat", "service", "timer"), "chat-web")
    text = f"kept at {time.time()}"
    assert deployment.request(f"/keep/?text={quote(text)}").status == 202
    wait_for(lambda: deployment.request("/sealed/").json["text"] == text, 20, "the worker has changed the file of web")


def test_websockets_are_closed_as_going_away_and_no_request_is_lost_at_a_deploy(deployment):
    path = ROOT / ".cache/adopt/chat/chat/urls.py"
    path.write_text(path.read_text() + "\n# Changed.\n")
    client = WebSocket(deployment.app_url, "/ws/late/")
    client.stream.settimeout(120)
    with ThreadPoolExecutor() as pool:
        closed, deployed = pool.submit(client.receive), pool.submit(make, "deploy")
        answers = set()
        while wait([deployed], timeout=0.1).not_done:
            answers.add(deployment.request("/").status)
        deployed.result()
        assert answers == {200} and closed.result() == GOING_AWAY
    assert WebSocket(deployment.app_url, "/ws/late/").status == 101
