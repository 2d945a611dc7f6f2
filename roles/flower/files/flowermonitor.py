"""Runs Flower, and mends where it does not fit: the login to Redis, workers without heartbeats, other time zones."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import flower.command
import flower.events
import flower.views
from celery.__main__ import main
from celery.events import EventReceiver
from coldframe import credentials
from flower.app import Flower
from flower.utils.broker import RedisBase
from redis import RedisError
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError

INTERVAL = 5  # seconds between two questions to the workers whether they live; see coldframe.worker.heartbeat
NEVER_ASKED = 60  # seconds without a sign of life until a worker is dropped that has no page
TIMEOUT = 2.0  # seconds for a connection to Redis and for each answer
logger = logging.getLogger(__name__)


class Receiver(EventReceiver):
    """Leaves the time of an event as it is sent: seconds since 1970, whatever the sender's time zone is."""

    def event_from_message(self, body: dict[str, Any], **options: Any) -> tuple[str, dict[str, Any]]:
        """Return the type of an event and the event."""
        return super().event_from_message(body, **options | {"localize": False})


class Login(credentials.Redis):
    """The same for a client that awaits; to wait for a small file is no wait."""

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the user name and the password."""
        return self.get_credentials()


class Broker(RedisBase):
    """Counts the messages in the queues; logs in to Redis as the unit's user, by its credential."""

    def __init__(self, url: str, broker_options: dict[str, Any], broker_use_ssl: Any = None, **_: Any) -> None:
        """Take the broker's address and options as Celery has them; do not connect yet."""
        super().__init__(url, broker_options={"priority_steps": broker_options["priority_steps"]})
        place = urlsplit(url)
        if place.scheme == "redis+socket":
            address: dict[str, Any] = {"unix_socket_path": place.path}
        else:
            address = {"host": place.hostname, "port": place.port} | (
                {"ssl": True, **broker_use_ssl} if broker_use_ssl else {}
            )
        self.redis = aioredis.Redis(
            **address,
            credential_provider=Login(),
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )

    async def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """Return each queue's name and its `messages`, all of them ready: those that a worker has are not in the queue.

        Raises HTTPError, with the reason, where Redis does not answer or refuses.
        """
        try:
            queues = await super().queues(names)
        except (RedisError, OSError) as error:
            raise HTTPError(503, "The broker did not answer: %s", error, reason="Broker unavailable") from error
        return [queue | {"messages_ready": queue["messages"]} for queue in queues]


class Monitor(Flower):
    """Knows the workers that run now, idle ones too, and forgets those that are gone."""

    def start(self) -> None:
        """Run until the process ends."""
        PeriodicCallback(self.look, INTERVAL * 1000).start()
        super().start()

    async def look(self) -> None:
        """Ask all workers for a heartbeat, and new ones what they are."""
        try:
            await self.io_loop.run_in_executor(None, partial(self.capp.control.broadcast, "heartbeat"))
        except Exception as error:
            logger.warning("The workers were not asked for a heartbeat: %s", error)
        self.forget(time.time())
        known = {name for name, info in self.workers.items() if "stats" in info}
        if any(worker.alive and name not in known for name, worker in self.events.state.workers.items()):
            self.update_workers()

    def forget(self, now: float) -> None:
        """Drop the workers that were not heard of for `purge_offline_workers` seconds, such as those of earlier releases.

        Those that Flower knows nothing of, as it began after they ended, it drops sooner: they have no page. So it does
        with those of an earlier Flower whose times lie ahead, for the zone of the application was added to them.

        :param now: in seconds since 1970.
        """
        state = self.events.state
        seen = {name: info.get("timestamp", 0) for name, info in self.workers.items()}
        seen |= {name: max(worker.heartbeats, default=0) for name, worker in state.workers.items()}
        for name, last in seen.items():
            if abs(now - last) > (
                self.options.purge_offline_workers if "stats" in self.workers.get(name, {}) else NEVER_ASKED
            ):
                for place in (state.workers, state.counter, self.workers):
                    place.pop(name, None)


def install() -> None:
    """Put these in the places of Flower's own."""
    flower.command.Flower = Monitor
    flower.events.EventReceiver = Receiver
    flower.views.Broker = Broker
    # All queues of the table, also one that no worker serves; and no other, for Redis would refuse to count it.
    flower.views.BaseHandler.get_active_queue_names = lambda handler: sorted(handler.capp.amqp.queues)


if __name__ == "__main__":
    install()
    main()
