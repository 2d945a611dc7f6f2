"""Finds unapplied migrations that would break the running release.

Each operation's SQL is collected from Django without running it, and judged by the rules of
django-migration-linter, with some more. Nothing here writes to the database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlparse
from django.db import connection, models
from django.db.migrations import AlterField, RunSQL
from django_migration_linter.sql_analyser.base import Check, CheckMode, CheckType
from django_migration_linter.sql_analyser.postgresql import PostgresqlAnalyser

# The reason, by the linter's code of a finding.
REASONS = {
    "RENAME_TABLE": "renames a table that the running release uses under its old name",
    "NOT_NULL": "makes a column NOT NULL that has no default in the database: the running release's INSERT "
    "leaves it out and fails (with db_default= it would not)",
    "SET_NOT_NULL": "makes a column NOT NULL, and the running release may still write NULL into it",
    "DROP_COLUMN": "drops a column that the running release reads and writes",
    "DROP_TABLE": "drops a table that the running release reads and writes",
    "DROP_OTHER": "drops or empties what the running release may use",
    "RENAME_COLUMN": "renames a column that the running release uses under its old name",
    "ALTER_COLUMN": "changes a column's type under the running release, and locks the table while it is rewritten",
    "ADD_UNIQUE": "adds a unique constraint that the running release's writes may break",
    "ADD_CONSTRAINT": "adds a constraint that the running release's writes may break",
    "RUNS_BLOCK": "runs code in the database that cannot be judged beforehand",
}
TABLE = re.compile(r'\b(?:TABLE|ON|INTO|UPDATE|FROM)(?: IF (?:NOT )?EXISTS)?(?: ONLY)? ("[^"]+"|[\w.]+)')


def rule(code: str, pattern: str, kind: CheckType = CheckType.ERROR) -> Check:
    """Make a rule of the linter from a pattern."""
    return Check(code, lambda sql, **_: re.search(pattern, sql), REASONS.get(code, ""), CheckMode.ONE_LINER, kind)


RULES = [
    *PostgresqlAnalyser.migration_checks,
    rule("SET_NOT_NULL", r"ALTER COLUMN .* SET NOT NULL"),
    rule("ADD_CONSTRAINT", r"ADD CONSTRAINT .* (CHECK|EXCLUDE)\b"),
    rule("DROP_OTHER", r"^(TRUNCATE|DROP (?!(INDEX|TABLE|TRIGGER|RULE|POLICY)\b))|ALTER TABLE .* SET SCHEMA"),
    # RunSQL may leave out the word COLUMN.
    rule("DROP_COLUMN_SHORT", r"ALTER TABLE .* DROP (?!(COLUMN|CONSTRAINT|DEFAULT|NOT NULL|EXPRESSION|IDENTITY)\b)"),
    rule("RENAME_COLUMN_SHORT", r"ALTER TABLE \S+ RENAME (?!(TO|COLUMN|CONSTRAINT)\b)"),
    rule("ALTER_COLUMN_SHORT", r"ALTER TABLE .* ALTER (?!COLUMN\b)\S+ (SET DATA )?TYPE"),
    rule("SET_NOT_NULL_SHORT", r"ALTER TABLE .* ALTER (?!COLUMN\b)\S+ SET NOT NULL"),
    rule("RUNS_BLOCK", r"^(DO|CALL)\b"),
]


class Analyser(PostgresqlAnalyser):
    """The linter's rules for PostgreSQL, and ours. A rule of ours with a code of the linter would replace that."""

    migration_checks = RULES


def statements(sql: str) -> Iterator[str]:
    """Split SQL into statements as the rules expect them: one line, upper case except for quoted names, no strings."""
    for statement in sqlparse.split(sqlparse.format(sql, strip_comments=True)):
        line = re.sub(r"'(?:[^']|'')*'", "''", " ".join(statement.split()))
        yield re.sub(r'"[^"]*"|[^"]+', lambda m: m[0] if m[0].startswith('"') else m[0].upper(), line)


def judged(sql: list[str], made: set[str], ignore: list[str] | None = None) -> tuple[dict[str, str], list[str]]:
    """Judge the SQL of one operation.

    :param sql: what Django would execute.
    :param made: tables that the plan has created so far, which the running release does not use; extended here.
    :param ignore: codes of the linter to ignore.
    :returns: what breaks the running release, code to reason, and what may disturb it.
    """
    known = []
    for statement in (s for text in sql for s in statements(text)):
        table = match[1] if (match := TABLE.search(statement)) else ""
        if statement.startswith("CREATE TABLE"):
            made.add(table)
        elif table in made:
            if renamed := re.search(r'RENAME TO ("[^"]+"|\w+)', statement):
                made.add(renamed[1])
        elif "GENERATED ALWAYS AS" not in statement:  # the database fills such a column
            known.append(statement)
    analyser = Analyser(ignore)
    analyser.analyse(known)
    fatal: dict[str, str] = {}
    for issue in analyser.errors:
        code = issue.code.removesuffix("_SHORT")
        where = f" ({issue.table}.{issue.column})" if issue.table and issue.column else ""
        fatal.setdefault(code, REASONS.get(code, issue.message) + where)
    if "SET_NOT_NULL" in fatal:
        fatal.pop("NOT_NULL", None)  # the same finding, more precise
    return fatal, sorted({issue.message for issue in analyser.warnings})


def is_widening(operation: Any, app_label: str, old: Any) -> bool:
    """Whether a text column only becomes longer, which is harmless and rewrites nothing."""
    if not isinstance(operation, AlterField):
        return False
    before = old.models[app_label, operation.model_name_lower].get_field(operation.name)
    after = operation.field
    if not (isinstance(before, models.CharField) and isinstance(after, (models.CharField, models.TextField))):
        return False
    return after.max_length is None or (before.max_length is not None and before.max_length <= after.max_length)


def runs_code(operation: Any) -> bool:
    """Whether an operation, or one inside it, is more than SQL."""
    return not operation.reduces_to_sql or any(map(runs_code, getattr(operation, "database_operations", [])))


@contextmanager
def read_only() -> Iterator[None]:
    """Reject writes while an operation computes its SQL."""
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            cursor.execute("RESET default_transaction_read_only")


def findings(executor: Any, plan: list[Any]) -> Iterator[dict[str, Any]]:
    """Judge the unapplied migrations, in order.

    :param executor: Django's MigrationExecutor.
    :param plan: the unapplied migrations.
    :returns: `migration`, `operation`, `reason`, and `fatal`: whether the running release could not survive it.
    """
    state = executor._create_project_state(with_applied_migrations=True)
    inhabited = {label for label, _ in state.models}
    made: set[str] = set()
    for migration in plan:
        for operation in migration.operations:
            old = state.clone()
            operation.state_forwards(migration.app_label, state)
            about = {"migration": str(migration), "operation": operation.describe()}
            if runs_code(operation):
                alone = not getattr(operation, "database_operations", [])
                reason = "runs Python code, which is not judged: the running release must live with its result"
                yield about | {"reason": reason, "fatal": not alone}
                continue
            ignore = ["ALTER_COLUMN"] if is_widening(operation, migration.app_label, old) else []
            try:
                with read_only(), connection.schema_editor(collect_sql=True, atomic=False) as editor:
                    operation.database_forwards(migration.app_label, editor, old, state)
                fatal, disturbing = judged(editor.collected_sql, made, ignore)
            except Exception as error:
                # Some SQL depends on existing tables, which a new application does not have yet.
                if migration.app_label not in inhabited:
                    continue
                reason = f"cannot be judged beforehand ({type(error).__name__}: {error})"
                yield about | {"reason": reason, "fatal": True}
                continue
            if isinstance(operation, RunSQL) and re.search(r"(?i)\b(update|insert|delete)\b", str(operation.sql)):
                disturbing.append("changes rows: the running release must live with its result")
            for reason in fatal.values():
                yield about | {"reason": reason, "fatal": True}
            for reason in disturbing:
                yield about | {"reason": reason, "fatal": False}
