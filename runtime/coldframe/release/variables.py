"""Finds all environment variables that an application reads and its environment does not have.

Python ends at the first one. So the application is loaded again, in a process of its own, with a placeholder for each of those
that were missing, until it loads or ends otherwise. Where an expression does not take a placeholder, such as `json.loads`, the
variables that it reads get other ones. Of these processes only the missing variables are believed: what else they find may be due
to the placeholders. If no placeholder will do, the files are read for what comes after that.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from coldframe import places
from coldframe.release import missing as missing_modules
from coldframe.release import reading

# What packages and projects say of a missing variable.
SAID = re.compile(
    r"[Ss]et the (\w+) environment variable|[Ee]nvironment variable \W?(\w+)\W? (?:is )?(?:not set|missing|required)"
    r"|^(\w+) not found\. Declare it as envvar"
)
# A number, a truth value, a name, JSON; an address; a mapping in JSON; a host with a port, a login; a list in JSON; others.
PLACEHOLDERS = ("1", "https://placeholder.invalid/1", "{}", "a:1", "[1]", "true", "1,1", "2000-01-01")
LOADS, SECONDS = 60, 60  # at most, for all of them together
# What Python may leave out of a module that it executes.
STATEMENTS = (
    ast.If,
    ast.Try,
    ast.TryStar,
    ast.For,
    ast.While,
    ast.With,
    ast.Match,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
)
PARTS = (ast.Lambda, ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it came from."""
    each: BaseException | None = error
    while each:
        yield each
        each = each.__cause__ or each.__context__


def missing(error: BaseException) -> str:
    """Return the variable whose absence is the error; empty when it is another error."""
    for each in chain(error):
        frames = traceback.extract_tb(each.__traceback__)
        if isinstance(each, KeyError) and any(frame.filename in (os.__file__, "<frozen os>") for frame in frames):
            name = str(each.args[0])
            if each is error or re.search(rf"\b{re.escape(name)}\b", str(error)):
                return name
    said = SAID.search(str(error))
    name = next(filter(None, said.groups()), "") if said else ""
    return "" if name in os.environ else name


def reads(error: BaseException, names: Collection[str]) -> list[str]:
    """Return which of these variables are read where the application failed, whether there or by a name that was given the value.

    That is the innermost expression that the error came through, or else the innermost statement.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.lineno and places.shown(frame.filename, frame.lineno):
            with suppress(OSError, SyntaxError):
                if found := read_at(ast.parse(Path(frame.filename).read_bytes()), names, frame):
                    return found
    return []


def read_at(tree: ast.Module, names: Collection[str], frame: traceback.FrameSummary) -> list[str]:
    """Return which of these variables are read where a frame is in a file."""
    values = {
        target: found
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and (found := texts(node.value) & {*names})
        for target in places.targets(node)
    }
    first, last = frame.lineno or 0, frame.end_lineno or frame.lineno or 0
    start, end = (first, frame.colno or 0), (last, frame.end_colno or 0)
    # From the outside in: what is around comes first.
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and is_around(node, (first,), (last,))]
    expressions = [node for node in ast.walk(tree) if isinstance(node, ast.expr) and is_around(node, start, end)]
    for node in (*expressions[-1:], *statements[-1:]):
        here = texts(node)
        if found := (here & {*names}).union(*(values[name] for name in here & {*values})):
            return sorted(found)
    return []


def is_around(node: ast.stmt | ast.expr, start: tuple[int, ...], end: tuple[int, ...]) -> bool:
    """Whether a part of a file is around two places, each a line and perhaps a byte in it."""
    begins, ends = (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)
    return begins[: len(start)] <= start and end <= ends[: len(end)]


def texts(node: ast.AST) -> set[str]:
    """Return the texts and names in a part of a file."""
    found = set()
    for each in ast.walk(node):
        match each:
            case ast.Constant(value=str(text)) | ast.Name(id=text) | ast.Attribute(attr=text):
                found.add(text)
    return found


def further(order: Mapping[str, Any], environment: dict[str, str], folder: Path, result: dict[str, Any]) -> None:
    """Add to a result the variables that are missing besides those that it has.

    :param order: of `controller.examine`.
    :param environment: of this process, before the application was loaded.
    :param folder: the working directory then.
    :param result: of `controller.examine`. Its `left` gets lines if there may be more.
    """
    known = {finding["variable"] for finding in result["findings"] if finding.get("variable")}
    if not known:
        return
    choice, newest = dict.fromkeys(known, 0), known  # the placeholder of each by its number
    why, end = f"they were looked for {SECONDS} s or {LOADS} times.", time.monotonic() + SECONDS
    for _ in range(LOADS):
        given = {name: PLACEHOLDERS[number] for name, number in choice.items()}
        try:
            found = load(order, environment | given, folder, end - time.monotonic(), given)
        except subprocess.TimeoutExpired:
            break
        new = {each["variable"]: each for each in found["findings"] if each.get("variable") not in (None, *given)}
        others = [": ".join(filter(None, (each["place"], each["text"]))) for each in found["findings"]]
        others += found["left"]
        if new:
            result["findings"] += new.values()
            newest = set(new)
            choice |= dict.fromkeys(new, 0)
        elif not others:
            return
        elif movable := [
            name for name in found["reads"] or newest if name in choice and choice[name] + 1 < len(PLACEHOLDERS)
        ]:
            choice |= {name: choice[name] + 1 for name in set(movable)}
        else:
            why = f"with placeholders for {', '.join(sorted(given))}, it ends with {others[0]}"
            break
    result["left"].append(f"further variables: {why}")
    read_later(order, environment, {*choice}, result)


def read_later(
    order: Mapping[str, Any], environment: Mapping[str, str], known: set[str], result: dict[str, Any]
) -> None:
    """Add what the application's files say of variables that are missing and were not met.

    What the files that are imported in any case read of `os.environ` in any case is missing. What they may read is a line of
    the result's `left`.

    :param environment: that of a process of the release.
    :param known: the variables that were found.
    """
    entries = missing_modules.entries(order)
    surely = {file for file, _ in missing_modules.reached(entries, apps=False)}
    files = {file: ast.parse(file.read_bytes()) for file, _ in missing_modules.reached(entries)}
    there: set[str | None] = {*known, *environment, *given_by_the_deployment()}
    for tree in files.values():
        there |= {name for node in ast.walk(tree) for name in given_by(node)}
    certain, perhaps = dict[str, str](), dict[str, str]()
    for file, tree in files.items():
        always = {*evaluated(tree)} if file in surely and None not in there else set()
        expressions = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Call)]
        for node in sorted(expressions, key=lambda node: node.lineno):
            read = reading.variable(node)
            if (
                read
                and read[1] is None
                and read[0] not in there
                and isinstance(getattr(node, "ctx", ast.Load()), ast.Load)
            ):
                sure = node in always and isinstance(node, ast.Subscript)
                (certain if sure else perhaps).setdefault(read[0], places.shown(str(file), node.lineno))
    result["findings"] += [
        {"place": place, "text": f"KeyError: {name!r}", "variable": name} for name, place in certain.items()
    ]
    if told := [f"{name} ({place})" for name, place in perhaps.items() if name not in certain]:
        result["left"].append(f"further variables: the application may need {', '.join(told)}.")


def given_by(node: ast.AST) -> Iterator[str | None]:
    """Yield the variables that a part of a file sets or may have a default for; None if it reads them from a file."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and (read := reading.variable(node)):
        yield read[0]
    if isinstance(node, ast.Call):
        match reading.name_of(node.func).rpartition(".")[2]:
            case "Env":  # django-environ's, with NAME=(int, 1)
                yield from (each.arg for each in node.keywords if each.arg)
            case "setdefault":
                yield from (str(each.value) for each in node.args[:1] if isinstance(each, ast.Constant))
            case "read_env" | "load_dotenv" | "read_envfile":
                yield None


def evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a file that Python evaluates whenever it executes it."""
    yield node
    if not isinstance(node, STATEMENTS + PARTS):
        for each in ast.iter_child_nodes(node):
            yield from evaluated(each)


def given_by_the_deployment() -> set[str]:
    """Return the variables that a process of the release has while its settings are imported, besides its environment."""
    from coldframe.overlay import environment
    from coldframe.overlay.deployment import Deployment

    deployment = Deployment.read()
    own = {*deployment.secrets_for_environment(), *environment.broker(deployment)}
    return own if "environment" in deployment.own else own | {name for name, _, _ in environment.values(deployment)}


def load(
    order: Mapping[str, Any], environment: Mapping[str, str], folder: Path, seconds: float, names: Collection[str]
) -> dict[str, Any]:
    """Load the application in another process, and return what `controller.examine` finds there.

    :param names: the variables that have placeholders.

    Raises TimeoutExpired after some seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", "coldframe.release.controller"],
        cwd=folder,
        env=dict(environment),
        input=json.dumps({**order, "variables": [*names]}),
        capture_output=True,
        text=True,
        check=False,
        timeout=max(seconds, 0),
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"findings": [], "reads": [], "left": [f"the exit status {done.returncode}"]}
    return found
