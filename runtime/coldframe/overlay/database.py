"""Lays the deployment's database over DATABASES."""

from __future__ import annotations

import re
from typing import Any

from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings

POSTGRESQL = re.compile(r"postg|psql|timescale", re.IGNORECASE)
SQLITE = re.compile(r"sqlite|spatialite", re.IGNORECASE)
OTHERS = re.compile(r"mysql|mariadb|oracle|mssql|sql_server", re.IGNORECASE)
# SQLite's engines, with PostgreSQL's of the same package.
INSTEAD = {"sqlite3": "postgresql", "spatialite": "postgis"}
PACKAGES = ("django.db.backends", "django.contrib.gis.db.backends", "django_prometheus.db.backends")
DEFAULT = "django.db.backends.postgresql"
PLACE = ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
# Options that say where the database is, who logs in, and whom to trust.
OPTION = re.compile(
    r"host|hostaddr|port|user|password|passfile|dbname|database|service|servicefile|ssl\w*|requiressl|gss\w*|krb\w*"
    r"|channel_binding|require_auth|target_session_attrs|load_balance_hosts"
)


def lay(settings: Settings, deployment: Deployment) -> None:
    """Lay the database over `default`, and over aliases of the same database. Others stay.

    Raises ImproperlyConfigured for a database of another kind that is the default one.
    """
    databases = settings.get("DATABASES") or {}
    default = databases.get("default") or {}
    engine = default.get("ENGINE", "")
    if OTHERS.search(engine):
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(
            f"DATABASES['default'] in {settings.module} is {described(default)}, and the deployment has PostgreSQL. Move the "
            "application to PostgreSQL, which its tests should run with too; or keep the database, at a server of yours, "
            "with app_own_settings: [database]."
        )
    laid = {"default": entry(default, deployment)}
    for alias, other in databases.items():
        if alias != "default" and is_same(other, default):
            laid[alias] = entry(other, deployment)
        elif alias != "default":
            settings.keep("database", f"DATABASES[{alias!r}]", described(other), "it is another database")
    settings.lay_entries("database", "DATABASES", laid, described)


def entry(own: dict[str, Any], deployment: Deployment) -> dict[str, Any]:
    """Return an entry of DATABASES that leads to the deployment's database, with what else the application has set.

    :param own: the application's entry.
    """
    now = own.get("ENGINE", "")
    options = {} if SQLITE.search(now) else own.get("OPTIONS") or {}
    kept = {key: value for key, value in options.items() if not OPTION.fullmatch(key)}
    place = deployment.database
    pooled = {"DISABLE_SERVER_SIDE_CURSORS": True} if deployment.database_pooled else {}
    rest = {key: value for key, value in own.items() if key not in PLACE}
    return {**rest, **pooled, **place, "ENGINE": engine(now), "OPTIONS": {**kept, **place["OPTIONS"]}}


def engine(now: str) -> str:
    """Return the engine of PostgreSQL for the application's engine."""
    package, _, name = now.rpartition(".")
    if not now or SQLITE.search(now):
        return f"{package}.{INSTEAD[name]}" if package in PACKAGES and name in INSTEAD else DEFAULT
    return now


def is_same(entry: dict[str, Any], default: dict[str, Any]) -> bool:
    """Whether an entry is the default database under another alias, such as that of a replica."""
    if (entry.get("TEST") or {}).get("MIRROR") == "default":
        return True
    kinds = [
        next((kind.pattern for kind in (POSTGRESQL, SQLITE) if kind.search(one.get("ENGINE", ""))), one.get("ENGINE"))
        for one in (entry, default)
    ]
    return bool(entry.get("NAME")) and kinds[0] == kinds[1] and str(entry["NAME"]) == str(default.get("NAME"))


def described(entry: dict[str, Any]) -> str:
    """Describe an entry in a few words, without its password."""
    host = entry.get("HOST") or (entry.get("OPTIONS") or {}).get("host")
    place = ":".join(str(each) for each in (host, entry.get("PORT")) if each)
    words = [entry.get("ENGINE") or "no engine", str(entry.get("NAME") or "")]
    words += [f"at {place}"] if place else []
    words += [f"as {entry['USER']}"] if entry.get("USER") else []
    words += ["without server-side cursors"] if entry.get("DISABLE_SERVER_SIDE_CURSORS") else []
    return " ".join(word for word in words if word)
