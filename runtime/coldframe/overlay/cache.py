"""Lays the deployment's Redis over the caches in Redis, and over a default cache that is in the memory of each process."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings, shown

DJANGO = "django.core.cache.backends.redis.RedisCache"
# Backends with the options of django-redis, which are in upper case.
DJANGO_REDIS = ("django_redis.", "django_prometheus.cache.backends.redis.RedisCache")
MEMORY = "LocMemCache"
# Options of a connection that say where the server is, and who logs in.
OPTION = re.compile(
    r"username|password|host|port|db|path|url|unix_socket_path|connection_class|credential_provider|ssl\w*",
    re.IGNORECASE,
)
SENTINEL = re.compile(r"sentinel", re.IGNORECASE)
NOT_KEPT = {"PASSWORD", "USERNAME", "DB", "CONNECTION_FACTORY", "CONNECTION_POOL_KWARGS"}


def lay(settings: Settings, deployment: Deployment) -> None:
    """Lay the deployment's Redis over each cache in Redis. Other backends stay, such as the database's."""
    caches = {"default": {}, **(settings.get("CACHES") or {})}
    taken: dict[tuple[int, str], Any] = {}
    for alias, own in caches.items():
        backend = own.get("BACKEND") or f"django.core.cache.backends.locmem.{MEMORY}"
        if "redis" in backend.lower() or (alias == "default" and backend.endswith(MEMORY)):
            laid = {alias: entry(alias, own, backend, deployment, taken)}
            settings.lay_entries("cache", "CACHES", laid, described, origin(own, deployment))
        else:
            settings.keep("cache", f"CACHES[{alias!r}]", described(own))


def entry(
    alias: str, own: dict[str, Any], backend: str, deployment: Deployment, taken: dict[tuple[int, str], Any]
) -> dict[str, Any]:
    """Return an entry of CACHES in the deployment's Redis, with what else the application has set.

    :param own: the application's entry.
    :param taken: the places of the other caches, database and prefix to the application's location. Is added to.
    """
    memory = backend.endswith(MEMORY)
    index, place = (0, None) if memory else (database(own, deployment.cache_databases), own.get("LOCATION"))
    prefix = own.get("KEY_PREFIX") or ("" if alias == "default" else alias)
    if taken.setdefault((index, prefix), place) != place:  # two servers of the application's are one here
        prefix = f"{prefix}-{alias}" if prefix else alias
    options = {} if memory else own.get("OPTIONS") or {}
    if backend.startswith(DJANGO_REDIS):
        options = django_redis_options(options, deployment.cache_login)
    else:
        options = kept(options) | deployment.cache_login
    rest = {key: value for key, value in own.items() if key not in ("LOCATION", "OPTIONS", "KEY_PREFIX")}
    return {
        **rest,
        "BACKEND": DJANGO if memory else backend,
        "LOCATION": deployment.cache_url(index),
        "OPTIONS": options,
        **({"KEY_PREFIX": prefix} if prefix else {}),
    }


def kept(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a connection that do not say where the server is."""
    return {
        key: value for key, value in options.items() if not OPTION.fullmatch(key) and not SENTINEL.search(str(value))
    }


def django_redis_options(own: dict[str, Any], login: dict[str, str]) -> dict[str, Any]:
    """Return options of django-redis 5 to 7. The first of them knows a user name in CONNECTION_POOL_KWARGS only."""
    options = {
        key: value
        for key, value in own.items()
        if key not in NOT_KEPT and not SENTINEL.search(key) and not SENTINEL.search(str(value))
    }
    options["CONNECTION_POOL_KWARGS"] = kept(own.get("CONNECTION_POOL_KWARGS") or {}) | login
    # Whatever DJANGO_REDIS_CONNECTION_FACTORY says, such as the one of Sentinel.
    return {**options, "CONNECTION_FACTORY": "django_redis.pool.ConnectionFactory"}


def database(own: dict[str, Any], count: int) -> int:
    """Return the number of the Redis database that a cache has: what one alias clears, another one keeps.

    :param own: the application's entry.
    :param count: of the databases that there are.
    """
    options = own.get("OPTIONS") or {}
    location = own.get("LOCATION") or ""
    url = urlsplit(str(location[0] if isinstance(location, (list, tuple)) and location else location))
    found = options.get("db", options.get("DB")) or parse_qs(url.query).get("db", [url.path.strip("/")])[0]
    with suppress(ValueError):
        return int(found) if 0 <= int(found) < count else 0
    return 0


def described(entry: dict[str, Any]) -> str:
    """Describe an entry in a few words, without its password."""
    words = [entry.get("BACKEND", "no backend")]
    if entry.get("LOCATION"):
        words.append(shown(entry["LOCATION"]))
    elif "redis" in words[0].lower():
        words.append("without an address")
    if entry.get("KEY_PREFIX"):
        words.append(f"with the prefix {entry['KEY_PREFIX']!r}")
    return " ".join(words)


def origin(own: dict[str, Any], deployment: Deployment) -> str:
    """Say that a cache is in Redis only because the settings read the deployment's variables; else empty.

    :param own: the application's entry. `env.cache()` of django-environ leaves out the address of a socket.
    """
    place = own.get("LOCATION")
    here = urlsplit(deployment.environment["CACHE_URL"])
    url = urlsplit(str(place or ""))
    same = (url.hostname, url.port, url.path) == (here.hostname, here.port, here.path)
    given = "redis" in own.get("BACKEND", "").lower() and (not place or same)
    return "the settings read it from CACHE_URL or REDIS_URL, which the deployment sets" if given else ""
