"""Finds a page in a URL configuration that shows whether an application works, without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from static import Files, Place, evaluate, name_of

# Pages that tell whether an application works, the most telling first. Those of the second line only at the top.
HEALTH = ("readyz", "healthz", "readiness", "health", "healthcheck", "health_check", "ht", "livez", "liveness")
TOP = ("ready", "status", "live", "heartbeat", "alive", "ping", "up")


def telling_page(files: Files, places: list[Path], module: str) -> tuple[str, Place] | None:
    """Return the page that tells most: one for health, the front page, or the admin's login.

    :param places: the folders from which modules are imported.
    :param module: `ROOT_URLCONF`.
    """
    file = files.module(module, places)
    found = list(pages(files, places, file, "", 0)) if file else []
    rated = []
    for page, place in found:
        *folders, last = page.strip("/").split("/")
        word = re.sub(r"[^a-z_]", "", last.replace("-", "_")).strip("_")
        known = (*HEALTH, *TOP) if folders in ([], ["api"]) else HEALTH
        if word in known:
            rated.append(((*HEALTH, *TOP).index(word), len(page), page, place))
    if rated:
        return min(rated)[2:]
    if front := next((place for page, place in found if page == "/"), None):
        return "/", front
    return next(((f"{page}login/", place) for page, place in found if page.endswith("admin/")), None)


def pages(files: Files, places: list[Path], file: Path, prefix: str, depth: int) -> Iterator[tuple[str, Place]]:
    """Yield the pages of a URL configuration that have a fixed address."""
    tree = files.tree(file)
    if tree and depth < 6:
        yield from pages_in(files, places, tree, file, prefix, depth)


def pages_in(
    files: Files, places: list[Path], node: ast.AST, file: Path, prefix: str, depth: int
) -> Iterator[tuple[str, Place]]:
    """Yield those of a part of a URL configuration."""
    function = name_of(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    if not isinstance(node, ast.Call) or function not in ("path", "re_path", "url") or len(node.args) < 2:
        for child in ast.iter_child_nodes(node):
            yield from pages_in(files, places, child, file, prefix, depth)
        return
    route = evaluate(node.args[0], {})
    if not isinstance(route, str):
        return
    if function != "path":
        route = re.sub(r"/\?\$?$", "/", route.removeprefix("^")).removesuffix("$")
    if re.search(r"[<(\\\[*+|?^]", route):
        return
    page, view = f"{prefix}/{route}".replace("//", "/"), node.args[1]
    if not isinstance(view, ast.Call) or name_of(view.func).rpartition(".")[2] != "include" or not view.args:
        yield page, Place(file, node.lineno)
        return
    inner = evaluate(view.args[0], {})
    inner = inner[0] if isinstance(inner, list) and inner else inner
    known = files.module(inner, places) if isinstance(inner, str) else None
    if known:
        yield from pages(files, places, known, page.rstrip("/") + "/", depth + 1)
    elif isinstance(inner, str):
        yield page, Place(file, node.lineno)  # a package's own, such as health_check.urls
    else:
        yield from pages_in(files, places, view.args[0], file, page.rstrip("/") + "/", depth + 1)
