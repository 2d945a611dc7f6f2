"""Finds the file and the line of the application where a setting is set, or what a class or a function is."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class Finding(str):
    """A sentence about the application: what is wrong, and what to write."""

    setting: str
    """The name in Django's settings that it is about."""
    code: Any
    """The class, function or task that it is about, where it is no setting."""

    def __new__(cls, text: str, *, setting: str = "", code: Any = None) -> Finding:
        """Make one."""
        finding = super().__new__(cls, text)
        finding.setting, finding.code = setting, code
        return finding

    @property
    def place(self) -> str:
        """Return the place as `file:line`, relative to the application's folder; empty when it is not in there."""
        return of_setting(self.setting) if self.setting else of_code(self.code) if self.code is not None else ""

    @property
    def text(self) -> str:
        """Return the place and the sentence."""
        return ": ".join(filter(None, (self.place, str(self))))


def shown(file: str, line: int) -> str:
    """Return a place as text; empty when the file, an absolute path, is not the application's."""
    path = Path(file)
    if not path.is_relative_to(Path.cwd()) or path.relative_to(Path.cwd()).parts[0] in (".venv", ".release"):
        return ""
    return f"{path.relative_to(Path.cwd())}:{line}"


def of_code(code: Any) -> str:
    """Return where a class, a function or a task of Celery is defined; empty when nobody knows."""
    code = getattr(code, "run", code) if not inspect.isclass(code) else code
    with suppress(OSError, TypeError):
        return shown(inspect.getsourcefile(inspect.unwrap(code)) or "", inspect.getsourcelines(inspect.unwrap(code))[1])
    return ""


def of_setting(name: str) -> str:
    """Return where the application's settings set a name; empty when no statement at the top of a module does so."""
    return next(_assignments(os.environ.get("APP_SETTINGS_MODULE", ""), name, set()), "")


def _assignments(module: str, name: str, seen: set[str]) -> Iterator[str]:
    """Yield the places where a module, or one whose names it imports, sets a name: the last one first."""
    file = source(module) if module and module not in seen else ""
    seen.add(module)
    if not file:
        return
    for statement in reversed(statements(ast.parse(Path(file).read_bytes()).body)):
        if isinstance(statement, ast.ImportFrom) and any(alias.name in ("*", name) for alias in statement.names):
            package = module if Path(file).name == "__init__.py" else module.rpartition(".")[0]
            with suppress(ImportError):
                base = importlib.util.resolve_name("." * statement.level + (statement.module or ""), package)
                yield from _assignments(base, name, seen)
        elif name in targets(statement):
            yield shown(file, statement.lineno)


def source(module: str) -> str:
    """Return the file of a module of the application; empty when it is none."""
    with suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(module)
        if spec and spec.has_location and spec.origin and shown(spec.origin, 1):
            return spec.origin
    return ""


def statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that run when a module is imported, also those inside of `if`, `try` and `with`."""
    found = []
    for statement in body:
        found.append(statement)
        for part in ("body", "orelse", "finalbody") if isinstance(statement, ast.If | ast.Try | ast.With) else ():
            found += statements(getattr(statement, part, []))
    return found


def targets(statement: ast.stmt) -> set[str]:
    """Return the names that a statement sets, such as `A` of `A["default"] = ...` too."""
    if isinstance(statement, ast.Assign):
        wanted = statement.targets
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        wanted = [statement.target]
    else:
        return set()
    return {node.id for target in wanted for node in ast.walk(target) if isinstance(node, ast.Name)}
