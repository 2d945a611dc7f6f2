"""Says which environment variable an expression of Python reads, without running it.

It imports nothing but Python's own modules: `make new` reads projects with it too.
"""

from __future__ import annotations

import ast

# What reads an environment variable: os.environ.get, os.getenv, django-environ's env and env.TYPE, decouple's config.
READERS = {"getenv", "env", "config"}


def name_of(node: ast.AST) -> str:
    """Return a dotted name such as `os.environ.get`; empty when it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return a keyword argument of a call."""
    return next((each.value for each in call.keywords if each.arg == name), None)


def variable(call: ast.AST) -> tuple[str, ast.expr | None] | None:
    """Return the environment variable that an expression reads and its default; None if it reads none.

    `os.environ.get("X")` reads one whose default is None.
    """
    if isinstance(call, ast.Subscript) and name_of(call.value).endswith("environ"):
        if isinstance(call.slice, ast.Constant) and isinstance(call.slice.value, str):
            return call.slice.value, None
        return None
    if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Constant):
        return None
    named, first = name_of(call.func), call.args[0].value
    parts = named.split(".")
    if not isinstance(first, str):
        return None
    if named.endswith("environ.get") or parts[-1] == "getenv":
        return first, call.args[1] if len(call.args) > 1 else ast.Constant(None)
    if parts[-1] in READERS or (len(parts) == 2 and parts[0] == "env"):
        default = keyword(call, "default")
        return first, call.args[1] if default is None and len(call.args) > 1 else default
    return None
