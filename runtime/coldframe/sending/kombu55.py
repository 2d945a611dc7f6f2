"""Adds what kombu 5.6 and Celery 5.6 have, and their 5.4 and 5.5 lack: a credential provider in an address of Redis.

The broker's address ends with `credential_provider=coldframe.credentials.Redis`. kombu 5.5 rejects that in an address of
TCP, and passes the name to redis-py where it needs an object. So a connection moves it from the address to its transport
options, and a channel creates the object.

The other modules extend the classes at the end of this file. From 5.6 on these are kombu's own.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import celery
import kombu
from celery.backends.redis import RedisBackend
from kombu.transport import redis
from kombu.utils.imports import symbol_by_name

from coldframe import seams
from coldframe.seams import extends

NAME = "credential_provider"
IN_ADDRESS = re.compile(rf"(?<=[?&]){NAME}=([^&]+)&?")


@extends()
class Connection55(kombu.Connection):
    """A connection whose address may name a credential provider."""

    def __init__(self, hostname: Any = "localhost", *arguments: Any, **options: Any) -> None:
        """Move the name to the transport options, which copies of the connection have too."""
        if isinstance(hostname, str) and (found := IN_ADDRESS.search(hostname)):
            hostname = IN_ADDRESS.sub("", hostname).rstrip("?&")
            options["transport_options"] = {**(options.get("transport_options") or {}), NAME: found[1]}
        super().__init__(hostname, *arguments, **options)


@extends()
class Channel55(redis.Channel):
    """A channel that logs in by the credential provider of its connection."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Return the options of the connections to Redis."""
        options: dict[str, Any] = super()._connparams(asynchronous)
        return with_provider(options, self.connection.client.transport_options.get(NAME))


@extends()
class Transport55(redis.Transport):
    """A connection to the broker, of a process that does not extend it further."""

    Channel = Channel55


@extends()
class RedisBackend55(RedisBackend):
    """Results in Redis, whose address may name a credential provider."""

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """Return the options of the connections to Redis."""
        options: dict[str, Any] = super()._params_from_url(url, defaults)
        return with_provider(options, options.get(NAME))


def with_provider(options: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return options of a connection to Redis in which the credential provider, if there is one, replaces the login.

    :param name: of its class, as `module.name`.
    """
    if not name:
        return options
    return {**options, NAME: symbol_by_name(name)(), "username": None, "password": None}


_kombu56 = kombu.VERSION >= (5, 6)
Connection: Any = kombu.Connection if _kombu56 else Connection55
Channel: Any = redis.Channel if _kombu56 else Channel55


@functools.cache
def install() -> None:
    """Have the connections of this process log in. A second call changes nothing: a worker extends these classes further."""
    if not _kombu56:
        seams.use_transport(f"{__name__}:Transport55")
    if celery.VERSION < (5, 6):
        seams.use_backend(f"{__name__}:RedisBackend55")
