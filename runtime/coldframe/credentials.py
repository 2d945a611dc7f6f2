"""Reads Redis credentials from systemd, so that no address contains a password.

Celery shows the broker's address in `inspect conf`, reports and Flower.
"""

from __future__ import annotations

import os
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

TIMEOUT = 2.0  # seconds for a reply from the database of locks


class Redis(CredentialProvider):
    """The unit's Redis user (`REDIS_USERNAME`) with its password (the credential `redis_password`).

    Raises KeyError or FileNotFoundError, naming what is missing: there is no default.
    """

    def get_credentials(self) -> tuple[str, str]:
        """Return the user name and the password."""
        folder = Path(os.environ["CREDENTIALS_DIRECTORY"])
        return os.environ["REDIS_USERNAME"], (folder / "redis_password").read_text().strip()

    async def get_credentials_async(self) -> tuple[str, str]:
        """Return the same to clients of asyncio."""
        return self.get_credentials()


def locks() -> redis.Redis:
    """Return a client of the Redis database of locks, with short timeouts."""
    return redis.Redis.from_url(
        os.environ["LOCKS_URL"],
        credential_provider=Redis(),
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 1),
    )
