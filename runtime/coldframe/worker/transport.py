"""Extends kombu's Redis transport for workers: malformed messages, acknowledgements, closed connections."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from typing import Any

from kombu.transport import virtual

from coldframe import seams
from coldframe.seams import extends
from coldframe.worker import celery56
from coldframe.worker.held import held
from coldframe.worker.message import is_message

FULL = 0.05  # seconds until a worker without an event loop looks whether it has room again
CLOSED = ValueError  # of a socket that another green thread closes meanwhile
SHOWN = 500  # characters of a discarded message in the log
logger = logging.getLogger(__name__)


@extends()
class QoS(celery56.QoS):
    """The unacknowledged messages of a channel. What cannot be sent to Redis is kept (coldframe.worker.held)."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Store a message as unacknowledged."""
        try:
            super().append(message, delivery_tag)
        except (*self.channel.connection_errors, self.channel.ResponseError):
            held.owed[delivery_tag] = message, True  # it has left its queue, and may not be stored as unacknowledged
            raise

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, later if the broker does not answer."""
        if not held.owed:  # otherwise the broker does not answer, and each attempt would wait for it
            with suppress(*self.channel.connection_errors, self.channel.ResponseError, CLOSED):
                super().ack(delivery_tag)
                held.ended.discard(delivery_tag)
                return
        held.basic_ack(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)


@extends("looked")
class Poller(celery56.MultiChannelPoller):
    """Reads from the channels of a connection."""

    looked = 0.0  # when it was last seen what is owed and what other workers have lost

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Read without an event loop, as with gevent.

        kombu 5.7 would hardly ever look for what other workers have lost, and a worker that is full would sleep for a second
        and more when it has room again.
        """
        if (now := time.monotonic()) > self.looked + celery56.LOOK:
            self.looked = now
            self.maybe_restore_messages()
        full = any(channel.active_queues and not channel.qos.can_consume() for channel in self._channels)
        return super().get(callback, FULL if full else timeout)

    def maybe_restore_messages(self) -> None:
        """Send the broker what is owed, and requeue what other workers have lost. The event loop calls this periodically."""
        for channel in tuple(self._channels):
            if channel.active_queues:
                held.settle(channel)
                break
        super().maybe_restore_messages()


@extends()
class Channel(celery56.Channel):
    """A channel, with two connections to Redis: for queues (BRPOP) and for remote control (SUBSCRIBE)."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        """Read the reply to a BRPOP, and discard a message that is not JSON."""
        try:
            return super()._brpop_read(**options)
        except (json.JSONDecodeError, RecursionError) as error:
            logger.error("A message that is no JSON was thrown away: %s", error)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return the options of the connections. Those that the event loop reads leave it before they are closed."""
        options: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            options["connection_class"] = leaving(options["connection_class"])
        return options


@extends("hub", "process")
class Transport(celery56.Transport):
    """A connection to the broker, with its channels."""

    Channel = Channel
    hub: Any = None  # the event loop of the main process; kombu's get_event_loop() is None after a reconnection
    process = 0  # the id of that process

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Use our poller."""
        super().__init__(*arguments, **options)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have the event loop read from the channels."""
        Transport.hub, Transport.process = loop, os.getpid()
        super().register_with_event_loop(connection, loop)

    def _deliver(self, message: Any, queue: str) -> None:
        """Pass a message to the consumer of its queue, and discard an item that is no message."""
        if is_message(message):
            super()._deliver(message, queue)
        else:
            logger.error("What is no message was thrown away from %s: %.*r", queue, SHOWN, message)


def leaving(connection_class: Any) -> Any:
    """Return a subclass whose connections are removed from the event loop before they are closed.

    When kombu 5.7 drops a half-open connection, epoll continues to report its socket while a child process that was
    forked meanwhile has it open. The next connection gets the same file descriptor. Each report made the event loop read
    from that one, and wait there for seconds.
    """

    @extends()
    class Leaving(connection_class):
        def disconnect(self, *arguments: Any, **options: Any) -> None:
            sock = getattr(self, "_sock", None)
            if Transport.hub and sock and os.getpid() == Transport.process:  # child processes share the epoll
                Transport.hub.poller.unregister(sock.fileno())
            super().disconnect(*arguments, **options)

    return Leaving


def install() -> None:
    """Have connections use this transport."""
    seams.use_transport("coldframe.worker.transport:Transport")
