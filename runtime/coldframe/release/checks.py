"""Runs Django's system checks on a release, and finds changes of models that have no migration."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from coldframe import delayed, places
from coldframe.release.errors import Complete, is_own

# The checks of Django itself, by the beginning of their ids: they do not read the application's tables.
DJANGO = {"admin", "async", "auth", "caches", "commands", "compatibility", "contenttypes", "fields", "files", "models"}
DJANGO |= {"postgres", "security", "signals", "sites", "staticfiles", "templates", "translation", "urls"}
FORGOTTEN = "coldframe.E001"
NO_TABLE = "coldframe.E002"


class Failed(Complete):
    """A release does not pass its checks."""

    def __init__(self, findings: list[dict[str, Any]], later: int = 0) -> None:
        """Format the findings, one or two lines each.

        :param later: the number of further findings, which are checked again after the migrations.
        """
        text = [written(finding) for finding in findings]
        if later:
            text.append(f"Not shown: {later} more, looked for again when the database is migrated.")
        super().__init__("\n".join(text))
        self.findings = findings
        self.without_tables = [f for f in findings if f["id"].partition(".")[0] in DJANGO | {"coldframe"}]


def written(finding: dict[str, Any]) -> str:
    """Format a finding."""
    return f"{finding['id']}: {finding['text']}" + (f"\n    {finding['hint']}" if finding["hint"] else "")


def run(order: dict[str, Any], result: dict[str, Any], tables: bool) -> None:
    """Run all checks, including those for deployment, and record the findings.

    :param order: `check_level`, the name of the least level that fails; `check_ignore`, ids that do not.
    :param tables: whether the database is migrated: then the checks of databases run too, else the question whether
        a migration is missing, which needs none.

    Raises Failed, and what a check raises.
    """
    messages, broken = ask(["default"] if tables else None)
    findings = [
        {
            "id": m.id or type(m).__name__,
            "level": m.level,
            "text": about(m),
            "hint": m.hint or "",
            "place": place(m.obj),
        }
        for m in messages
        if not m.is_silenced()
    ]
    findings += missing() if tables else forgotten(result)
    result["checked"] = [written(f) for f in findings if f["id"] not in order["check_ignore"]]
    result["ignored"] = sorted({f["id"] for f in findings if f["id"] in order["check_ignore"]} | set(result["ignored"]))
    level = getattr(logging, order["check_level"])  # the same numbers as Django's
    if failed := [f for f in findings if f["level"] >= level and f["id"] not in order["check_ignore"]]:
        raise Failed(failed) from broken
    if broken:
        raise broken


def ask(databases: list[str] | None) -> tuple[list[Any], Exception | None]:
    """Run the checks; return their findings, and the first exception that one raised."""
    from django.core.checks import run_checks
    from django.core.checks.registry import registry

    try:
        return run_checks(include_deployment_checks=True, databases=databases), None
    except Exception as error:
        messages: list[Any] = []
        for check in registry.get_checks(True):  # the others too, which one that reads a missing table hides
            with suppress(Exception):
                messages.extend(check(app_configs=None, databases=databases))
        return messages, error


def place(subject: Any) -> str:
    """Return where the class of a finding's subject is in the application, as `file:line`; empty when it is not there."""
    model = getattr(subject, "model", subject)  # of a field
    return places.of_code(model if inspect.isclass(model) else type(model)) if model is not None else ""


def changed(label: str, migrations: list[Any]) -> Any:
    """Return the first model of an app that a migration would be made for; None if there is none."""
    from django.apps import apps

    for operation in (operation for migration in migrations for operation in migration.operations):
        with suppress(LookupError):
            return apps.get_model(label, getattr(operation, "model_name", None) or operation.name)
    return None


def about(message: Any) -> str:
    """Format the text of a finding, with its subject."""
    about = getattr(getattr(message.obj, "_meta", None), "label", None) or message.obj
    return f"{about}: {message.msg}" if about else str(message.msg)


def missing() -> list[dict[str, Any]]:
    """Find that the table of stored tasks is missing after the migrations: a router has kept it out of the database."""
    from django.apps import apps
    from django.db import connection

    if not delayed.installed():
        return []
    if apps.get_model("coldframe", "DelayedTask")._meta.db_table in connection.introspection.table_names():
        return []
    return [
        {
            "id": NO_TABLE,
            "level": logging.ERROR,
            "text": "The default database has no table for tasks with a long delay, although the migrations have run: a router "
            "in DATABASE_ROUTERS does not allow it.",
            "hint": "Let its allow_migrate() return None for the application coldframe, and run 'manage.py migrate --fake "
            "coldframe zero'. Or leave the section to the application, with app_own_settings: [apps].",
        }
    ]


def forgotten(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Find models that were changed without a migration. Those of installed packages are not faults of the release.

    Migrations are written without translations, whatever LANGUAGE_CODE says, so models are compared without them too.
    """
    from django.apps import apps
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.state import ProjectState
    from django.utils import translation

    with translation.override(None):
        loader = MigrationLoader(None, ignore_no_migrations=True)
        models = ProjectState.from_apps(apps)
        changes = MigrationAutodetector(loader.project_state(), models).changes(graph=loader.graph)
    findings = []
    for label, migrations in changes.items():
        operations = "; ".join(operation.describe() for migration in migrations for operation in migration.operations)
        if is_own(apps.get_app_config(label).path, Path.cwd()):
            hint = f"Run 'manage.py makemigrations {label}', and deploy with the file that it writes."
            findings.append(
                {
                    "id": FORGOTTEN,
                    "level": logging.ERROR,
                    "text": f"The models of {label} were changed and no migration does that: {operations}.",
                    "hint": hint,
                    "place": place(changed(label, migrations)),
                }
            )
        else:
            result["foreign"].append(
                f"The installed package of {label} has models that no migration of its makes: {operations}."
            )
    return findings
