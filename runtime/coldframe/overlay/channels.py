"""Lays the deployment's Redis over the channel layers of Django Channels.

A layer belongs to the broker's Redis, beside the locks: the cache would drop groups that were not used for some time.
"""

from __future__ import annotations

from typing import Any

from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings, shown

# Of the keys and channels that the unit's Redis user may use; with a colon it would be no valid name of a channel.
PREFIX = "channels."
REDIS = "channels_redis."
# Seconds until a read fails. channels_redis waits 5 s for a message, and redis-py 8 would give up after as many.
TIMEOUT = 15
MEMORY = "channels.layers.InMemoryChannelLayer"
ELSEWHERE = "each process would have a layer of its own"


def lay(settings: Settings, deployment: Deployment) -> None:
    """Lay the deployment's Redis over each layer in Redis, and over layers in memory if channels_redis is installed."""
    layers = settings.get("CHANNEL_LAYERS") or {}
    laid: dict[str, dict[str, Any]] = {}
    for alias, own in layers.items():
        backend = own.get("BACKEND") or ""
        if backend.startswith(REDIS) or (backend == MEMORY and installed()):
            laid[alias] = entry(alias, own, backend, deployment)
        else:
            settings.keep("channels", f"CHANNEL_LAYERS[{alias!r}]", described(own), ELSEWHERE * (backend == MEMORY))
    if laid:
        settings.lay_entries("channels", "CHANNEL_LAYERS", laid, described)


def installed() -> bool:
    """Whether channels_redis is."""
    from importlib.util import find_spec

    return find_spec("channels_redis") is not None


def entry(alias: str, own: dict[str, Any], backend: str, deployment: Deployment) -> dict[str, Any]:
    """Return an entry of CHANNEL_LAYERS in the deployment's Redis, with what else the application has set.

    :param own: the application's entry.
    """
    from coldframe import credentials

    config = own.get("CONFIG") or {} if backend.startswith(REDIS) else {}
    address = deployment.environment["LOCKS_URL"]
    host = {"address": address, "credential_provider": credentials.Redis(), "socket_timeout": TIMEOUT}
    prefix = str(config.get("prefix") or ("asgi" if alias == "default" else alias))
    return {
        **own,
        "BACKEND": f"{REDIS}core.RedisChannelLayer" if backend == MEMORY else backend,
        "CONFIG": {
            **config,
            "hosts": [host],
            "prefix": prefix if prefix.startswith(PREFIX) else PREFIX + prefix,
        },
    }


def described(entry: dict[str, Any]) -> str:
    """Describe an entry in a few words, without its password."""
    config = entry.get("CONFIG") or {}
    hosts = [host.get("address", host) if isinstance(host, dict) else host for host in config.get("hosts") or ()]
    words = [entry.get("BACKEND") or "no backend", *map(shown, hosts)]
    if config.get("prefix"):
        words.append(f"with the prefix {config['prefix']!r}")
    return " ".join(words)
