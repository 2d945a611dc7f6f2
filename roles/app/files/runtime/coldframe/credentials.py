"""Redis credentials from systemd, so that no address carries a password.

Celery shows the broker's address in `inspect conf`, reports and Flower.
"""

from __future__ import annotations

import os
from pathlib import Path

from redis.credentials import CredentialProvider


class Redis(CredentialProvider):
    """The unit's Redis user (`REDIS_USERNAME`) with its password (the credential `redis_password`).

    Raises KeyError or FileNotFoundError, naming what is missing: there is no default.
    """

    def get_credentials(self) -> tuple[str, str]:
        """Return the user name and the password."""
        folder = Path(os.environ["CREDENTIALS_DIRECTORY"])
        return os.environ["REDIS_USERNAME"], (folder / "redis_password").read_text().strip()
