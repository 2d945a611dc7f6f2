"""Lets a worker lose its connection to the broker without losing what it has taken from there.

When the connection breaks, Celery 5.7 closes its channels, and that gives whatever they hold back to
the broker: the running tasks too, so that they run twice; or, if the broker is gone, it ends the main
process. What could not be acknowledged in time stays unacknowledged until the visibility timeout.
But Redis takes an acknowledgement from any connection. So what runs is handed to the next connection
and acknowledged there; what has not begun goes back to its queue; and whatever the broker could not
be told is told again until it answers.

A broker that answers and refuses what would change it, with its disk or its memory full, is taken for
one that does not answer: nothing more is asked of it until it takes something.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.signals import worker_shutdown
from celery.worker.consumer import Consumer
from kombu.transport import virtual
from kombu.transport.redis import MultiChannelPoller, QoS
from redis.exceptions import ResponseError

from coldframe.worker import pool

LIMIT = 2.0  # seconds for the last answer of the old connection, and again for the children to say what they run
RETRY = 2  # seconds between two tries to connect; Celery would wait longer each time, up to 30, and give up
NOTHING = "nothing"  # the delivery tag of no message: to forget it changes nothing, but is refused where a change is
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


def install(tell: Callable[[str], None]) -> None:
    """Put this before the functions of Celery and kombu that lose, answer for and open a connection.

    :param tell: is told why the broker cannot be used, and with an empty text that it can.
    """
    held = Held()
    append, ack, restore = QoS.append, QoS.ack, MultiChannelPoller.maybe_restore_messages
    lose, create_task_handler = Consumer.on_connection_error_after_connected, Consumer.create_task_handler
    ensure_connected = Consumer.ensure_connected

    def kept_append(qos: Any, message: Any, tag: str) -> None:
        try:
            append(qos, message, tag)
        except (*qos.channel.connection_errors, qos.channel.ResponseError):
            held.owed[tag] = message, True  # it is in no queue any more, and perhaps not yet unacknowledged
            raise

    def kept_ack(qos: Any, tag: str) -> None:
        if not held.owed:  # else the broker does not answer: each try would wait for it
            with suppress(*qos.channel.connection_errors, qos.channel.ResponseError):
                ack(qos, tag)
                return
        held.basic_ack(tag)
        virtual.QoS.ack(qos, tag)

    def kept_restore(poller: Any) -> None:
        for channel in tuple(poller._channels):
            if channel.active_queues:
                held.settle(channel)
                break
        restore(poller)

    def kept_lose(consumer: Any, error: Exception) -> None:
        tell(str(error) or type(error).__name__)
        if isinstance(error, ResponseError):
            held.owed[NOTHING] = None, False
        for step in (lambda: held.take_over(consumer), lambda: lose(consumer, error)):
            try:
                step()
            except Exception:
                logger.exception("The broken connection was not closed as it should.")
        consumer.connection = None

    def kept_ensure_connected(consumer: Any, connection: Any) -> Any:
        ensure_connection = connection.ensure_connection

        def keep_trying(errback: Any, _: int, callback: Any) -> Any:
            def meanwhile() -> None:
                callback()
                try:  # the running tasks end, or come to their time limits
                    pool.hear(consumer.controller)
                    consumer.hub.fire_timers()
                except Exception:
                    logger.exception("The running tasks are not looked after.")

            def failed(error: Exception, interval: float) -> None:
                tell(str(error) or type(error).__name__)
                errback(error, interval)

            ensure_connection(failed, callback=meanwhile, interval_start=RETRY, interval_step=0, interval_max=RETRY)
            while refusal := held.settle_apart(consumer.app):
                failed(refusal, RETRY)
                for _ in range(RETRY):
                    meanwhile()
                    time.sleep(1)
            return connection

        connection.ensure_connection = keep_trying
        return ensure_connected(consumer, connection)

    def kept_create_task_handler(consumer: Any, *arguments: Any, **options: Any) -> Any:
        held.hand_over(consumer)
        tell("")
        return create_task_handler(consumer, *arguments, **options)

    @worker_shutdown.connect(weak=False)
    def on_worker_shutdown(sender: Any, **_: Any) -> None:
        held.settle_apart(sender.app)  # perhaps the broker is back

    QoS.append, QoS.ack = kept_append, kept_ack
    MultiChannelPoller.maybe_restore_messages = kept_restore
    Consumer.ensure_connected = kept_ensure_connected
    Consumer.on_connection_error_after_connected = kept_lose
    Consumer.create_task_handler = kept_create_task_handler
