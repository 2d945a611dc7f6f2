"""Lists, judges and applies a release's migrations."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldframe.release import hooks, indexes


def pending() -> list[Any]:
    """Return the unapplied migrations, in order."""
    return planned()[1]


def planned() -> tuple[Any, list[Any]]:
    """Return Django's executor, and the unapplied migrations, in order."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    return executor, [m for m, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]


def migrate(order: dict[str, Any], result: dict[str, Any]) -> None:
    """Apply the unapplied migrations, unless they would break the running release.

    Django's command runs in any case: what follows it (`post_migrate`) may have failed at the last attempt.
    """
    from django.core.management import call_command
    from django.db import connection
    from django.db.backends.signals import connection_created
    from django.db.migrations.recorder import MigrationRecorder

    def limit_waiting(connection: Any, **_: Any) -> None:
        # A statement that waits for the lock of a table blocks all later ones.
        if connection.vendor == "postgresql" and is_pooled(connection):
            connection.execute_wrappers.append(limited(f"{order['lock_timeout']}s"))
        elif connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{order['lock_timeout']}s"])

    connection.close()
    connection_created.connect(limit_waiting)
    executor, plan = planned()
    result["plan"] = [
        {"migration": str(m), "atomic": m.atomic, "operations": [o.describe() for o in m.operations]} for m in plan
    ]
    if plan and order["running"]:
        packages = next(Path(order["linter"]).glob("lib/python*/site-packages"), None)
        if packages is None:
            result["linter_missing"] = True
            return
        sys.path.append(str(packages))  # after the application's own
        from coldframe.release import judge

        result["step"] = "judge"
        for finding in judge.findings(executor, plan):
            refused = finding["fatal"] and finding["migration"] not in order["allow"]
            result["refused" if refused else "warnings"].append(finding)
        connection.close()
        if result["refused"]:
            return
    if order["hooks"]:
        result["step"] = "hook"
        hooks.run("before_migrate")
    concurrently = connection.vendor == "postgresql"
    if concurrently and plan:
        result["step"] = "index"
        result["dropped"] = indexes.clear(connection, plan)
    watch(plan, result)
    result["step"] = "migrate"
    output = io.StringIO()
    try:
        call_command("migrate", interactive=False, no_color=True, stdout=output)
    finally:
        connection.close()  # it may be broken; what was applied is read again
        applied = MigrationRecorder(connection).applied_migrations()
        result["applied"] = [str(m) for m in plan if (m.app_label, m.name) in applied]
        result["output"] = output.getvalue()
        if concurrently:
            result["invalid"] = [f"{index} on {table}" for index, table, _ in indexes.invalid(connection)]


def is_pooled(connection: Any) -> bool:
    """Whether each transaction may have another connection: a setting of one would be that of others, and not of this."""
    return bool(connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"))


def limited(timeout: str) -> Callable[..., Any]:
    """Make a wrapper of statements (django.db's `execute_wrappers`) that sets the limit in each transaction.

    :param timeout: as PostgreSQL's lock_timeout, such as `5s`.
    """

    def run(execute: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: dict[str, Any]) -> Any:
        if context["connection"].in_atomic_block:
            context["cursor"].cursor.execute(f"SET LOCAL lock_timeout = '{timeout}'")
        return execute(sql, parameters, many, context)

    return run


def watch(plan: list[Any], result: dict[str, Any]) -> None:
    """Record which operations of a non-atomic migration are done, and skip an index that exists.

    Each attempt begins with the migration's first operation. Django reads operations from the migration's class, so
    these are the ones that its command runs.
    """
    for migration in plan:
        if not migration.atomic:
            for operation in migration.operations:
                watch_one(migration, operation, result)


def watch_one(migration: Any, operation: Any, result: dict[str, Any]) -> None:
    """Make an operation record that it is done."""
    forwards, done = operation.database_forwards, result["done"].setdefault(str(migration), [])

    def run(app_label: str, editor: Any, old: Any, new: Any) -> None:
        if not is_made(operation, app_label, new):
            forwards(app_label, editor, old, new)
        done.append({"operation": operation.describe(), "repeatable": is_concurrent(operation)})

    def is_made(operation: Any, app_label: str, state: Any) -> bool:
        from django.db import connection

        if not is_concurrent(operation):
            return False
        table = state.apps.get_model(app_label, operation.model_name)._meta.db_table
        if there := indexes.is_there(connection, operation.index.name, table):
            result["kept"].append(f"{operation.index.name} on {table}, which {migration} makes")
        return there

    operation.database_forwards = run


def is_concurrent(operation: Any) -> bool:
    """Whether an operation creates an index concurrently."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return False
    from django.contrib.postgres.operations import AddIndexConcurrently

    return isinstance(operation, AddIndexConcurrently)
