"""Runs a release's code once, before any of its units starts: checks, static files, migrations.

    python -m coldframe.release.prepare <ORDER >RESULT

The order and the result are a JSON object each; what the application prints goes to stderr.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from coldframe.release import checks, hooks, migrations
from coldframe.release.errors import error_of


def prepare(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Execute the order, and record in the result what was done.

    :param order: `celery` and `wsgi` (WSGI or ASGI), the applications, or empty; `check`, `static`, `migrate`, `hooks`
        (bool); `check_level`, `check_ignore` (coldframe.release.checks); `commands`, of manage.py, run after `static`;
        `running`, the release that serves, empty when none does; `allow`, names of migrations; `linter`, the environment
        of the migration linter; `lock_timeout` and `load_timeout`, seconds.
    :param result: filled step by step, so that it is correct after an exception.
    """
    result["step"] = "load"
    with time_limit(order):
        set_up(order)
        load_wsgi(order)
    if order["celery"]:
        from coldframe import settings_check
        from coldframe.overlay import report

        result["step"] = "settings"
        result["settings"] = [line._asdict() for line in report.lines(order["celery"])]
        settings_check.refuse(order["celery"])
    if order["check"] and order["migrate"]:
        check_before_migrating(order, result)
    if order["static"]:
        collect(order, result)
    if order["migrate"]:
        result["step"] = "plan"
        migrations.migrate(order, result)
        if result["refused"] or result["linter_missing"]:
            return
        if order["hooks"]:
            result["step"] = "hook"
            hooks.run("after_migrate")
    if order["check"]:
        result["step"] = "check"
        checks.run(order, result, tables=True)


@contextmanager
def time_limit(order: dict[str, Any]) -> Iterator[None]:
    """End this process, and print where it hangs, if it loads the application for longer than `load_timeout`."""
    faulthandler.dump_traceback_later(order["load_timeout"], exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def set_up(order: dict[str, Any]) -> None:
    """Load the settings and the models."""
    import django

    from coldframe import tracing

    tracing.forbid()  # the deploy reads what goes wrong here
    if order["celery"]:
        from coldframe.sending import amqp

        amqp.install()  # before the application is imported
    django.setup()


def load_wsgi(order: dict[str, Any]) -> None:
    """Load the WSGI or ASGI application, if one is named."""
    if order["wsgi"]:
        from gunicorn.util import import_app

        import_app(order["wsgi"])


def check_before_migrating(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Fail before any change for findings that no migration can fix. The others are checked after the migrations."""
    result["step"] = "check"
    try:
        checks.run(order, result, tables=False)
    except checks.Failed as error:
        if not migrations.pending():
            raise
        if sure := error.without_tables:
            raise checks.Failed(sure, later=len(error.findings) - len(sure)) from None
    except Exception:
        if not migrations.pending():
            raise


def collect(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Collect the static files, and run the commands that process them."""
    from django.apps import apps
    from django.core.management import call_command

    result["step"] = "static"
    if apps.is_installed("django.contrib.staticfiles"):
        call_command("collectstatic", interactive=False, verbosity=0)
    for command in order["commands"]:
        result["step"], result["command"] = "command", command
        call_command(*shlex.split(command))
    result["collected"] = True


def main() -> None:
    """Read the order, and write the result. The application's own output goes to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)
    result: dict[str, Any] = {
        "step": "",
        "command": "",
        "settings": [],  # what is laid over the application's settings, and what stays (coldframe.overlay)
        "checked": [],  # findings; `ignored` has those that do not fail
        "ignored": [],
        "foreign": [],  # findings about installed packages
        "collected": False,
        "plan": [],
        "linter_missing": False,
        "refused": [],
        "warnings": [],
        "dropped": [],  # invalid indexes that blocked a migration
        "kept": [],  # indexes that an earlier attempt has created
        "invalid": [],  # indexes that are invalid now
        "done": {},  # operations of migrations that are not atomic
        "applied": [],
        "output": "",
        "error": None,
    }
    try:
        prepare(json.load(sys.stdin), result)
    except (Exception, SystemExit) as error:
        result["error"] = error_of(error)
    with os.fdopen(channel, "w") as stream:
        json.dump(result, stream, default=str)


if __name__ == "__main__":
    main()
