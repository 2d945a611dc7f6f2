"""A circuit breaker: what cannot be reached is left alone for a while, by all processes.

Each try to reach a server that does not answer holds a worker until its timeout. After some in a
row further ones fail at once, and once in a while one is let through to look. The counts are in
Django's cache, so all processes share them where that is in Redis. A cache that is away or has
dropped a count closes the breaker: it spares work, and nothing depends on it.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.core.cache import cache
from pybreaker import (
    STATE_CLOSED,
    STATE_HALF_OPEN,
    CircuitBreaker,
    CircuitBreakerError,
    CircuitBreakerStorage,
)
from redis.exceptions import RedisError

__all__ = ["CircuitBreakerError", "breaker"]

FAILURES = 5  # in a row
OPEN = 30  # seconds until one is let through; half of RETRY's longest wait
KEPT = 600  # seconds


class InCache(CircuitBreakerStorage):
    """Where pybreaker keeps its state: names in Django's cache, each with an end.

    The call that is let through is known to its own process alone: for the others the breaker
    opens once more, so that they do not all follow it.
    """

    trial = False

    def get(self, what: str, default: Any) -> Any:
        with suppress(RedisError):
            return cache.get(f"breaker:{self.name}:{what}", default)
        return default

    def set(self, what: str, value: Any) -> None:
        with suppress(RedisError):
            cache.set(f"breaker:{self.name}:{what}", value, KEPT)

    def increment(self, what: str) -> None:
        with suppress(RedisError, ValueError):  # dropped between the two
            cache.add(f"breaker:{self.name}:{what}", 0, KEPT)
            cache.incr(f"breaker:{self.name}:{what}")

    @property
    def state(self) -> str:
        return STATE_HALF_OPEN if self.trial else self.get("state", STATE_CLOSED)

    @state.setter
    def state(self, state: str) -> None:
        self.trial = state == STATE_HALF_OPEN
        if self.trial:
            self.opened_at = datetime.now(UTC)
        else:
            self.set("state", state)

    @property
    def opened_at(self) -> datetime | None:
        at = self.get("opened_at", None)
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @opened_at.setter
    def opened_at(self, at: datetime) -> None:
        self.set("opened_at", at.timestamp())

    @property
    def counter(self) -> int:
        return self.get("failures", 0)

    def increment_counter(self) -> None:
        self.increment("failures")

    def reset_counter(self) -> None:
        if self.counter:  # nearly never: a success costs no write
            self.set("failures", 0)

    @property
    def success_counter(self) -> int:
        return self.get("successes", 0)

    def increment_success_counter(self) -> None:
        self.increment("successes")

    def reset_success_counter(self) -> None:
        self.set("successes", 0)


def breaker(name: str, *harmless: type[Exception]) -> CircuitBreaker:
    """The breaker of one server. Its `call` raises CircuitBreakerError while it is open.

    :param harmless: exceptions that say nothing against the server.
    """
    # One for each call: pybreaker holds a lock while it calls, which threads would wait for.
    return CircuitBreaker(
        fail_max=FAILURES,
        reset_timeout=OPEN,
        exclude=harmless,
        state_storage=InCache(name),
        throw_new_error_on_trip=False,
    )
