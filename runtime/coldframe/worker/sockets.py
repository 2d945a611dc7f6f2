"""Takes a connection to the broker from epoll before it is closed.

When kombu 5.7 drops a connection that is half open, epoll goes on to report its socket for as long as a
child has it that was forked meanwhile. The next connection gets the same number; each report made the
event loop read from that one, and wait there for seconds.
"""

from __future__ import annotations

import os
from typing import Any

from kombu.transport.redis import Transport
from redis.connection import AbstractConnection


def install() -> None:
    """Put this before the function of redis-py that closes a connection."""
    register, disconnect = Transport.register_with_event_loop, AbstractConnection.disconnect
    hub, main = None, os.getpid()

    def noted_register(transport: Any, connection: Any, loop: Any) -> None:
        nonlocal hub  # kombu's get_event_loop() is None after a reconnection
        hub = loop
        register(transport, connection, loop)

    def unregistered_disconnect(connection: Any, *arguments: Any, **options: Any) -> None:
        sock = getattr(connection, "_sock", None)
        if hub and sock and os.getpid() == main:  # a child has the same epoll
            hub.poller.unregister(sock.fileno())
        disconnect(connection, *arguments, **options)

    Transport.register_with_event_loop, AbstractConnection.disconnect = noted_register, unregistered_disconnect
