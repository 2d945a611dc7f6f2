"""Serves the ASGI application behind the edge: the client's address, the request's id, an end of WebSockets that clients know.

Uvicorn would close all WebSockets at once when it is asked to stop. Here they go on for some seconds, so that not all
clients come back at the same moment as the release changes. Then each is closed with 1001 (going away), and the application
gets `websocket.disconnect`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from typing import Any

import uvicorn
from gunicorn.arbiter import Arbiter
from gunicorn.util import import_app
from uvicorn_worker import UvicornWorker

from coldframe import overlay, seams
from coldframe.logs import ids

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

GOING_AWAY = 1001  # RFC 6455, 7.4.1
CLOSING = 5.0  # seconds that clients may take to confirm the end of their WebSockets
BEGIN = 2.0  # seconds that a request may take to begin on a connection that was accepted
PAUSE = 0.1  # seconds between two looks at what is still open


class WebSocket:
    """An open WebSocket of the application, which may be closed from outside of it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        """Remember its two directions."""
        self.receive_next, self.send_next = receive, send
        self.leaving = asyncio.Event()

    async def receive(self) -> Message:
        """Return the next message for the application: the client's, or the disconnection if it is closed from outside."""
        message, leaving = asyncio.ensure_future(self.receive_next()), asyncio.ensure_future(self.leaving.wait())
        try:
            await asyncio.wait({message, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not self.leaving.is_set():
                return message.result()
            return {"type": "websocket.disconnect", "code": GOING_AWAY, "reason": ""}
        finally:
            message.cancel()
            leaving.cancel()

    async def send(self, message: Message) -> None:
        """Send the application's message, if the WebSocket was not closed meanwhile."""
        if not self.leaving.is_set():
            await self.send_next(message)

    async def leave(self) -> None:
        """Close it. A client that is gone already does not matter."""
        if not self.leaving.is_set():
            self.leaving.set()
            with suppress(Exception):
                await self.send_next({"type": "websocket.close", "code": GOING_AWAY, "reason": ""})


class Served:
    """The ASGI application, with the client's address and the id of the request in each scope, and its open WebSockets."""

    def __init__(self, app: Application, edges: set[str], seconds: int) -> None:
        """Remember the application.

        :param edges: addresses of trusted peers; the empty one is a peer without an address, which came through the Unix socket.
        :param seconds: that a WebSocket may go on when the process is asked to stop.
        """
        self.app, self.edges, self.seconds = app, edges, seconds
        self.open: set[WebSocket] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, a WebSocket or the lifespan of the process."""
        if scope["type"] in ("http", "websocket"):
            self.put_behind_the_edge(scope)
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        socket = WebSocket(receive, send)
        self.open.add(socket)
        try:
            await self.app(scope, socket.receive, socket.send)
        finally:
            self.open.discard(socket)

    def put_behind_the_edge(self, scope: Message) -> None:
        """Set client, scheme and id of a scope to what the edge says of them. Uvicorn's log shows the client too."""
        peer = (scope.get("client") or ("",))[0] or ""
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1") if peer in self.edges else ""
        known = ids.of_request(given).encode()
        others = [(name, value) for name, value in scope["headers"] if name != b"x-request-id"]
        scope["headers"] = [*others, (b"x-request-id", known)]
        if peer not in self.edges:
            return
        client = headers.get(b"x-forwarded-for", b"").decode("latin-1").rpartition(",")[2].strip()
        scope["client"] = (client or peer or "127.0.0.1", 0)
        if headers.get(b"x-forwarded-proto") == b"https":
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"

    async def drain(self, seconds: float) -> None:
        """Wait until no WebSocket is open any more, for so many seconds at most. Then close the others."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            await asyncio.sleep(PAUSE)
        left = [asyncio.ensure_future(socket.leave()) for socket in self.open]
        if left:
            await asyncio.wait(left, timeout=CLOSING)


async def requests_begin(connections: Collection[Any]) -> None:
    """Wait until each connection that was accepted has begun its request. Uvicorn would close it unanswered.

    The edge opens a connection for each request, and sends it at once.
    """
    until = time.monotonic() + BEGIN
    await asyncio.sleep(PAUSE)  # what was accepted last becomes a connection
    while time.monotonic() < until and any(getattr(each, "cycle", each) is None for each in connections):
        await asyncio.sleep(PAUSE)


@seams.extends()
class Server(uvicorn.Server):
    """Uvicorn's server, which lets WebSockets go on for some seconds when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, served: Served, seconds: int) -> None:
        """Remember the limits.

        :param seconds: that a request may go on when the server stops.
        """
        super().__init__(config)
        self.served, self.seconds = served, seconds

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept nothing more, let WebSockets end, and then requests."""
        began = time.monotonic()
        for server in self.servers:
            server.close()
        # After max_requests nobody asked, and the next process starts only when this one has ended: no time for WebSockets.
        await self.served.drain(self.served.seconds if self.should_exit else 0)
        await requests_begin(self.server_state.connections)
        self.config.timeout_graceful_shutdown = max(1, round(began + self.seconds - time.monotonic()))
        await super().shutdown(sockets)


@seams.extends()
class Worker(UvicornWorker):
    """A worker of Gunicorn with that server. Its application is a `Served`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Leave the client's address to `Served`: Uvicorn believes no peer that came through a Unix socket."""
        super().__init__(*args, **kwargs)
        self.config.proxy_headers = False

    async def _serve(self) -> None:
        """Serve until the end, as the base class does, but with that server."""
        self.config.app = self.wsgi
        server = Server(self.config, self.wsgi, self.cfg.timeout)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR)


def application(path: str, edges: str, drain: int) -> Served:
    """Import the ASGI application for Gunicorn's workers.

    :param path: its module and name, such as `mysite.asgi:application`.
    :param edges: addresses of trusted peers, separated by commas. A peer without an address came through the Unix socket:
        nginx, or root on this host, who sends no header.
    :param drain: seconds that a WebSocket may go on when the process is asked to stop.
    """
    overlay.load()
    return Served(import_app(path), {"", *edges.split(",")}, drain)
