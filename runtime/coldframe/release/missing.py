"""Finds all packages that an application imports and its environment does not have. Nothing is imported for that.

Python ends at the first one. Here the application's files are read, as far as its entry points import them, and only
what is imported in any case counts: neither in `try` nor in `if`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from coldframe import places

LISTS = ("INSTALLED_APPS", "MIDDLEWARE")  # settings whose texts name modules; also names that end with _APPS
OF_AN_APP = ("", ".apps", ".models", ".admin", ".tasks", ".urls", ".views", ".signals")


def entries(order: Mapping[str, Any]) -> list[str]:
    """Return the modules that a process of a release imports.

    :param order: of `controller.examine`.
    """
    named = (order[name].partition(":")[0] for name in ("wsgi", "celery"))
    return [name for name in (os.environ.get("APP_SETTINGS_MODULE", ""), *named) if name]


def reached(entries: Iterable[str], apps: bool = True) -> Iterator[tuple[Path, list[tuple[str, int]]]]:
    """Yield the files that are imported in any case, each with what it asks for and the lines of that.

    :param entries: modules that a process of a release imports.
    :param apps: whether with what settings name, such as the parts of apps. Of these Django may import some only.
    """
    seen: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop(0)
        if module in seen or not (file := places.source(module)):
            continue
        seen.add(module)
        with suppress(SyntaxError):
            found = list(asked(module, Path(file), apps))
            waiting += [name for name, _ in found if places.source(name)]
            yield Path(file), found


def modules(entries: Iterable[str]) -> dict[str, str]:
    """Return the missing modules by their first name, each with the place where it is asked for.

    :param entries: modules that a process of a release imports.
    """
    missing: dict[str, str] = {}
    for file, found in reached(entries):
        for name, line in found:
            if not places.source(name) and not exists(name.partition(".")[0]):
                missing.setdefault(name.partition(".")[0], places.shown(str(file), line))
    return missing


def exists(name: str) -> bool:
    """Whether there is a module of that name, which has no dot in it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True  # it is there, and not to be had


def asked(module: str, file: Path, apps: bool) -> Iterator[tuple[str, int]]:
    """Yield what a module imports in any case and, with apps, what its settings name, each with the line."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    if package:
        yield package, 1
    for statement in ast.parse(file.read_bytes()).body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, statement.lineno
        elif isinstance(statement, ast.ImportFrom):
            with suppress(ImportError):
                base = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
                yield base, statement.lineno
                for alias in statement.names:
                    if places.source(f"{base}.{alias.name}"):
                        yield f"{base}.{alias.name}", statement.lineno
        elif not apps:
            continue
        elif any(name in LISTS or name.endswith("_APPS") for name in places.targets(statement)):
            yield from named(statement)
        elif "ROOT_URLCONF" in places.targets(statement):
            yield from ((name, line) for name, line in named(statement) if places.source(name))


def named(statement: ast.stmt) -> Iterator[tuple[str, int]]:
    """Yield the modules that texts in a statement name, with what Django and Celery import of an app."""
    for node in ast.walk(statement):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.replace(".", "_").isidentifier()
        ):
            yield node.value, node.lineno
            for part in OF_AN_APP:
                if places.source(node.value + part):
                    yield node.value + part, node.lineno
