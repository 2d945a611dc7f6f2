"""Runs a release's code once, before any of its units starts: checks, static files, migrations.

    python -m coldframe.prepare <ORDER >RESULT

The order and the result are a JSON object each; what the application prints goes to stderr.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for a lock that did not come in time
LINES = 15  # of an error; the last ones tell the most


def prepare(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Do what is ordered, noting in the result what was done; an exception ends it.

    :param order: `check`, `static`, `migrate` (bool); `running`, the release that serves, empty when none does;
        `allow`, names of migrations; `linter`, the environment of the migration linter; `lock_timeout`, seconds.
    :param result: filled as things are done, so that it is right when an exception ends it.
    """
    import django
    from django.core.management import call_command

    result["step"] = "load"
    django.setup()
    if order["check"]:
        result["step"] = "check"
        call_command("check", deploy=True, fail_level="WARNING")
    if order["static"]:
        result["step"] = "static"
        call_command("collectstatic", interactive=False, verbosity=0)
        result["collected"] = True
    if order["migrate"]:
        result["step"] = "plan"
        migrate(order, result)


def migrate(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Apply what is unapplied, unless the running release could not survive it."""
    from django.core.management import call_command
    from django.db import connection
    from django.db.backends.signals import connection_created
    from django.db.migrations.executor import MigrationExecutor
    from django.db.migrations.recorder import MigrationRecorder

    def limit_waiting(connection: Any, **_: Any) -> None:
        # Whoever waits for a table's lock has everybody else wait behind them.
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{order['lock_timeout']}s"])

    connection.close()
    connection_created.connect(limit_waiting)
    executor = MigrationExecutor(connection)
    plan = [migration for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]
    result["plan"] = [
        {"migration": str(m), "atomic": m.atomic, "operations": [o.describe() for o in m.operations]} for m in plan
    ]
    if plan and order["running"]:
        packages = next(Path(order["linter"]).glob("lib/python*/site-packages"), None)
        if packages is None:
            result["linter_missing"] = True
            return
        sys.path.append(str(packages))  # behind the application's own
        from coldframe import judge

        result["step"] = "judge"
        for finding in judge.findings(executor, plan):
            refused = finding["fatal"] and finding["migration"] not in order["allow"]
            result["refused" if refused else "warnings"].append(finding)
        connection.close()
        if result["refused"]:
            return
    if plan:
        result["step"] = "migrate"
        output = io.StringIO()
        try:
            call_command("migrate", interactive=False, no_color=True, stdout=output)
        finally:
            connection.close()  # it may be broken; what was applied is read anew
            applied = MigrationRecorder(connection).applied_migrations()
            result["applied"] = [str(m) for m in plan if (m.app_label, m.name) in applied]
            result["output"] = output.getvalue()


def error_of(error: BaseException) -> dict[str, Any]:
    """Tell an error's last lines, and whether it was a lock that did not come in time."""
    codes = []
    cause: BaseException | None = error
    while cause is not None:
        codes.append(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None))
        cause = cause.__cause__
    if type(error).__name__ in ("SystemCheckError", "CommandError"):  # written for people, and complete
        text = str(error)
    else:
        text = "\n".join("".join(traceback.format_exception(error)).rstrip().splitlines()[-LINES:])
    return {"type": type(error).__name__, "text": text, "lock": LOCK_NOT_AVAILABLE in codes}


def main() -> None:
    """Read the order, write the result; the application's own output cannot mix with it."""
    channel = os.dup(1)
    os.dup2(2, 1)
    result: dict[str, Any] = {
        "step": "",
        "collected": False,
        "plan": [],
        "linter_missing": False,
        "refused": [],
        "warnings": [],
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
