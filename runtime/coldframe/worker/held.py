"""What a worker has taken from the broker and not acknowledged, kept over a lost connection.

When the connection breaks, Celery 5.7 closes its channels, and that requeues all that they hold: the running tasks
too, so that they run twice. If the broker is gone, it ends the main process. What could not be acknowledged in time
stays unacknowledged until the visibility timeout. But Redis takes an acknowledgement from any connection. So the
running tasks are handed to the next connection and acknowledged there; what has not begun goes back to its queue; and
what the broker could not be told is sent again until it answers.

A broker that answers and refuses writes, with its disk or its memory full, is treated as one that does not answer:
nothing more is asked of it until it accepts a write.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from coldframe.worker import pool

LIMIT = 2.0  # seconds for the last answer of the old connection, and again for the children to say what they run
RETRY = 2  # seconds between two tries to connect; Celery would wait longer each time, up to 30, and give up
NOTHING = "nothing"  # the delivery tag of no message: to forget it changes nothing, but is refused where a write is
logger = logging.getLogger(__name__)


class Held:
    """What this process has taken from the broker and not answered for. Stands in for a channel that is gone."""

    no_ack_consumers = None

    def __init__(self) -> None:
        """Begin with nothing, by delivery tag: `running` tasks; `owed`, messages and whether they go back."""
        self.running: dict[str, Any] = {}
        self.owed: dict[str, tuple[Any, bool]] = {}

    def basic_ack(self, tag: str, **_: Any) -> None:
        """Note that a task is done."""
        self.owed[tag] = self.running.pop(tag, None), False

    def basic_reject(self, tag: str, requeue: bool = False) -> None:
        """Note that a message is refused, or goes back to its queue."""
        self.owed[tag] = self.running.pop(tag, None), requeue

    def take_over(self, consumer: Any) -> None:
        """Keep what the channels of a broken connection hold: the running tasks; the rest is to go back."""
        # The running tasks will count as taken by the next connection; Celery would count them once more.
        consumer.app.conf.worker_enable_prefetch_count_reduction = False
        for channel in consumer.connection.transport.channels:
            for client in filter(None, (vars(channel).get(name) for name in ("client", "subclient"))):
                if sock := getattr(client.connection, "_sock", None):
                    sock.settimeout(LIMIT)
        with suppress(*consumer.connection_errors):
            pool.stop_consuming(consumer)
        for channel in consumer.connection.transport.channels:
            channel.do_restore = False
            if channel._qos:
                for tag in channel._qos._delivered.keys() - channel._qos._dirty:
                    self.running[tag] = channel._qos._delivered[tag]
                    self.running[tag].channel = self
        begun = pool.begun(consumer.controller, LIMIT)
        for tag, message in list(self.running.items()):
            if message.headers.get("id") not in begun:
                self.basic_reject(tag, requeue=True)

    def hand_over(self, consumer: Any) -> None:
        """Give the running tasks to the new connection, where they count as taken, and tell it what is owed."""
        channel = consumer.task_consumer.channel
        if self.running or self.owed:
            logger.info("%d tasks run on; the broker is told about %d others.", len(self.running), len(self.owed))
        for tag, message in self.running.items():
            message.channel = channel
            channel.qos._delivered[tag] = message
        self.running.clear()
        self.settle(channel)

    def settle(self, channel: Any) -> Exception | None:
        """Tell the broker what is owed, until it does not answer or refuses: then return why; the next call goes on."""
        broken: tuple[type[Exception], ...] = (*channel.connection_errors, channel.ResponseError)
        try:
            for tag, (message, requeue) in list(self.owed.items()):
                with channel.conn_or_acquire() as client, client.pipeline() as pipe:
                    channel.qos._remove_from_indices(tag, pipe)
                    if requeue and message:
                        where = message.delivery_info
                        channel._do_restore_message(message._raw, where["exchange"], where["routing_key"], pipe)
                    pipe.execute()
                del self.owed[tag]
        except broken as error:
            return error
        return None

    def settle_apart(self, app: Any) -> Exception | None:
        """Tell the broker what is owed over a connection that is nobody else's; return why it was not told all."""
        if self.owed:
            options = app.conf.broker_transport_options | {"socket_timeout": RETRY, "socket_connect_timeout": RETRY}
            try:
                with app.connection_for_write(transport_options=options) as connection:
                    connection.connect()
                    return self.settle(connection.default_channel)
            except Exception as error:
                return error
        return None


held = Held()  # the process has one
