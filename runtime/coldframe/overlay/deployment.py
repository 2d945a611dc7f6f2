"""Reads what the deployment decides: the file that OVERLAY_FILE names, and the unit's credentials."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")  # a secret of such a name is a variable of the application too


@dataclass(frozen=True)
class Deployment:
    """What the deployment decides. There is no secret among the attributes."""

    own: frozenset[str]
    """Sections that are left to the application (`app_own_settings`)."""
    given: frozenset[str]
    """Names of the variables in `app_environment`."""
    environment: dict[str, str]
    """The deployment's own variables, as the units have them: DATABASE_URL, CACHE_URL and so on."""
    celery: str
    """The Celery application (`app_celery`), such as `mysite.celery:app`."""
    stored_tasks: str
    """The function that lists tasks which the application keeps to send them later (`app_stored_tasks`), such as
    `shop.outbox:stored`; empty when there is none."""
    media_url: str
    """Where the edge serves uploads (`nginx_media_url`); empty when it serves none."""
    private_url: str
    """The path by which the application has the edge send uploads (`nginx_private_media`); empty when there is none."""
    email: dict[str, Any]
    """The server for e-mail (`app_email`); empty when none is given."""
    email_logged: bool
    """Whether mail goes to the journal where no server is given: on a sandbox host."""
    cache_user: str
    """As whom processes log in to the cache's Redis."""
    cache_databases: int
    """How many databases of that Redis are the application's, from the index in CACHE_URL."""
    database_pooled: bool
    """Whether each transaction may have another connection to PostgreSQL (`app_database_pooled`)."""
    log_redact: tuple[str, ...]
    """Regular expressions of what is hidden in log records (`app_log_redact`)."""
    tracing: dict[str, Any]
    """Where reports go: `sentry`, true if `app_secrets` has `sentry_dsn`; `otel_endpoint` (`app_otel_endpoint`), which may be
    empty. And what they name: `name` (`app_name`) and `environment`, the inventory's name."""
    development: dict[str, Any]
    """Empty in a release. On a developer's machine (`make dev`): `eager`, whether tasks run where they are sent; None leaves that
    to the application."""

    @classmethod
    def read(cls) -> Deployment:
        """Read it. Raises KeyError or OSError when the process is no release's."""
        values = json.loads(Path(os.environ["OVERLAY_FILE"]).read_text())
        return cls(
            own=frozenset(values["own"]),
            given=frozenset(values["given"]),
            environment=values["environment"],
            celery=values["celery"],
            stored_tasks=values["stored_tasks"],
            media_url=values["media_url"],
            private_url=values["private_url"],
            email=values["email"],
            email_logged=values["email_logged"],
            cache_user=values["cache_user"],
            cache_databases=values["cache_databases"],
            database_pooled=values["database_pooled"],
            log_redact=tuple(values["log_redact"]),
            tracing=values["tracing"],
            development=values["development"],
        )

    def secret(self, name: str) -> str:
        """Return a credential of the unit. Raises OSError when there is none."""
        return Path(os.environ["CREDENTIALS_DIRECTORY"], name).read_text().rstrip("\n")

    def secrets_for_environment(self) -> dict[str, str]:
        """Return the application's own secrets whose names are those of variables, unless `app_environment` has them."""
        names = (path.name for path in Path(os.environ["CREDENTIALS_DIRECTORY"]).iterdir())
        return {name: self.secret(name) for name in names if VARIABLE.fullmatch(name) and name not in self.given}

    @property
    def hosts(self) -> list[str]:
        """Return the names for which requests come."""
        return self.environment["ALLOWED_HOSTS"].split(",")

    @property
    def origins(self) -> list[str]:
        """Return the origins of the site, such as `https://shop.example.org`."""
        return self.environment["CSRF_TRUSTED_ORIGINS"].split(",")

    @property
    def database(self) -> dict[str, Any]:
        """Return the database as an entry of DATABASES, without an engine, and with the password."""
        url = urlsplit(self.environment["DATABASE_URL"])
        options = dict(parse_qsl(url.query))
        return {
            "NAME": unquote(url.path.removeprefix("/")),
            "USER": unquote(url.username or ""),
            "PASSWORD": self.secret("database_password"),
            "HOST": options.pop("host", "") or url.hostname or "",
            "PORT": str(url.port or ""),
            "OPTIONS": options,
        }

    @property
    def database_url(self) -> str:
        """Return the database's address with its password."""
        start, _, rest = self.environment["DATABASE_URL"].partition("@")
        return f"{start}:{quote(self.secret('database_password'), safe='')}@{rest}"

    @property
    def cache_login(self) -> dict[str, str]:
        """Return user and password of the cache, as redis-py names them."""
        return {"username": self.cache_user, "password": self.secret("cache_password")}

    @property
    def redis_url(self) -> str:
        """Return the cache's address with user and password."""
        login = f"{quote(self.cache_user, safe='')}:{quote(self.secret('cache_password'), safe='')}"
        return self.environment["CACHE_URL"].replace("://", f"://{login}@", 1)

    def cache_url(self, index: int) -> str:
        """Return the cache's address without a login.

        :param index: of the cache's database, the first of which is the one in CACHE_URL.
        """
        address = self.environment["CACHE_URL"]
        if address.startswith("unix:"):
            return re.sub(r"(?<=[?&]db=)\d+", lambda place: str(int(place[0]) + index), address)
        return re.sub(r"(://[^/]*)/(\d+)", lambda place: f"{place[1]}/{int(place[2]) + index}", address, count=1)
