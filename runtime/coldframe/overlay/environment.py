"""Adds variables in the usual forms to the environment, while the application's settings are imported.

What `app_environment` or `app_secrets` sets is left alone. Afterwards no variable has a secret of the deployment in it:
a process that the application starts later would inherit it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coldframe import settings_check
from coldframe.overlay.deployment import Deployment

# The parts of an address by the names that projects and images of PostgreSQL use.
DATABASE = {
    "NAME": ("POSTGRES_DB", "POSTGRES_NAME", "DB_NAME", "DATABASE_NAME", "SQL_DATABASE", "PGDATABASE"),
    "USER": ("POSTGRES_USER", "DB_USER", "DB_USERNAME", "DATABASE_USER", "SQL_USER", "PGUSER"),
    "PASSWORD": ("POSTGRES_PASSWORD", "DB_PASSWORD", "DB_PASS", "DATABASE_PASSWORD", "SQL_PASSWORD", "PGPASSWORD"),
    "HOST": ("POSTGRES_HOST", "DB_HOST", "DATABASE_HOST", "SQL_HOST", "PGHOST"),
    "PORT": ("POSTGRES_PORT", "DB_PORT", "DATABASE_PORT", "SQL_PORT", "PGPORT"),
}
# libpq reads variables of this prefix at each connection, also to other databases: they are removed.
LIBPQ = "PG"


def values(deployment: Deployment) -> Iterator[tuple[str, str, str | None]]:
    """List variables: name, value while the settings are imported, and value afterwards (None removes it)."""
    given, database = deployment.environment, deployment.database
    yield "DATABASE_URL", deployment.database_url, given["DATABASE_URL"]
    for key, names in DATABASE.items():
        value = database[key] or ("5432" if key == "PORT" else "")
        for name in names:
            yield name, value, None if key == "PASSWORD" or name.startswith(LIBPQ) else value
    for name in ("SECRET_KEY", "DJANGO_SECRET_KEY"):
        yield name, deployment.secret("secret_key"), None
    yield "REDIS_URL", deployment.redis_url, given["CACHE_URL"]
    for prefix in ("", "DJANGO_"):
        for name, value in (
            ("ALLOWED_HOSTS", given["ALLOWED_HOSTS"]),
            ("CSRF_TRUSTED_ORIGINS", given["CSRF_TRUSTED_ORIGINS"]),
            # "0" is read as off by int(), by bool() of a parser and by comparisons with "True" and "1".
            ("DEBUG", "1" if deployment.development else "0"),
        ):
            yield prefix + name, value, value


def broker(deployment: Deployment) -> dict[str, str | None]:
    """Return Celery's own variables of the broker, which it prefers to its settings; None removes one."""
    if "celery" in deployment.own:
        return {}
    none = dict.fromkeys(("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"))
    return {"CELERY_BROKER_URL": settings_check.given()["broker_url"], **none}


@contextmanager
def variables(deployment: Deployment) -> Iterator[None]:
    """Have the variables in the environment. The application's own secrets, and the broker's address, remain there."""
    secrets = deployment.secrets_for_environment()
    put(secrets)
    put(broker(deployment))
    afterwards: dict[str, str | None] = {}
    if "environment" not in deployment.own:
        for name, value, after in values(deployment):
            if name not in deployment.given and name not in secrets:
                put({name: value})
                afterwards[name] = after
        know_sockets()
    try:
        yield
    finally:
        put(afterwards)


def put(wanted: Any) -> None:
    """Set variables, and remove those whose value is None."""
    for name, value in wanted.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def know_sockets() -> None:
    """Have `env.cache()` of django-environ accept the address of a socket, which it knows for databases only."""
    if importlib.util.find_spec("environ"):
        schemes = getattr(getattr(importlib.import_module("environ"), "Env", None), "CACHE_SCHEMES", None)
        if schemes is not None and "rediscache" in schemes:
            schemes.setdefault("unix", schemes["rediscache"])
