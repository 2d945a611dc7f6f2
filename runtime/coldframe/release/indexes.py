"""Indexes of PostgreSQL that were made while the table was in use (CREATE INDEX CONCURRENTLY).

One whose making was cut off stays, invalid: it is not used, each write keeps it up, and it is in the way of the next
attempt. Nothing but dropping it helps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

CREATES = re.compile(
    r'\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?((?:[\w$]+|"[^"]+")(?:\.(?:[\w$]+|"[^"]+"))?)\s+ON\b',
    re.IGNORECASE,
)


def made_by_sql(sql: Any) -> list[str]:
    """Return the names of the indexes that a RunSQL creates."""
    parts = [sql] if isinstance(sql, str) else [part if isinstance(part, str) else part[0] for part in sql or ()]
    names = [name.rpartition(".")[2] for part in parts for name in CREATES.findall(part)]
    return [name.strip('"') if name.startswith('"') else name.lower() for name in names]


def made(operations: list[Any]) -> Iterator[str]:
    """Yield the names of the indexes that operations of a migration create."""
    from django.db.migrations import AddIndex, RunSQL

    for operation in operations:
        if isinstance(operation, AddIndex):
            yield operation.index.name
        elif isinstance(operation, RunSQL):
            yield from made_by_sql(operation.sql)
        yield from made(getattr(operation, "database_operations", []))


def invalid(connection: Any) -> list[tuple[str, str, str]]:
    """List invalid indexes: index and table, quoted for SQL, and the unquoted name of the index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', n.nspname, c.relname), i.indrelid::regclass::text, c.relname FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname NOT IN ('pg_catalog', 'pg_toast')"
            " AND n.nspname NOT LIKE 'pg\\_temp\\_%' ORDER BY 1"
        )
        return list(cursor.fetchall())


def is_there(connection: Any, name: str, table: str) -> bool:
    """Whether the table has a valid index of that name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
            " WHERE i.indisvalid AND c.relname = %s AND t.relname = %s AND pg_table_is_visible(t.oid)",
            [name, table],
        )
        return cursor.fetchone() is not None


def clear(connection: Any, plan: list[Any]) -> list[str]:
    """Drop the invalid indexes that a plan creates, without locking their tables; return their names.

    Raises a database error, such as a lock timeout.
    """
    makers = {name: str(migration) for migration in plan for name in made(migration.operations)}
    dropped = []
    for index, table, name in invalid(connection):
        if name in makers:
            with connection.cursor() as cursor:
                cursor.execute(f"DROP INDEX CONCURRENTLY {index}")
            dropped.append(f"{index} on {table}, which {makers[name]} makes")
    return dropped
