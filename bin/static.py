"""Reads Python files without running them: what is assigned to which name, as far as the text says it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import own_code

if TYPE_CHECKING:
    from coldframe.release import reading
else:
    reading = own_code.load("runtime/coldframe/release/reading.py")

# Folders that are nobody's source, or that hold no code that is deployed.
PASSED = {"node_modules", "site-packages", "__pycache__", "migrations", "tests", "test", "testing", "docs", "doc"}
LARGEST = 2_000_000  # bytes of a file that is read
LIBRARY = Path("site-packages")  # where files of packages are, beside those of the project
name_of, keyword, variable = reading.name_of, reading.keyword, reading.variable


class Unknown:
    """A value that only running the code would tell."""

    def __repr__(self) -> str:
        """Show it as a word."""
        return "UNKNOWN"


UNKNOWN = Unknown()


class Place(NamedTuple):
    """A line of a file."""

    path: Path
    line: int


class Value(NamedTuple):
    """What a name is given, and where."""

    value: Any
    place: Place


def evaluate(node: ast.AST | None, names: Mapping[str, Any]) -> Any:
    """Work out an expression as far as its text allows.

    :param names: what names of the module are known to be.
    :returns: the value, or UNKNOWN; inside of lists and mappings too. Of an environment variable its default. A call of
        kombu's `Queue` is a mapping with its name.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return names.get(node.id, UNKNOWN)
        case ast.Attribute() if name_of(node).startswith("settings."):
            return names.get(node.attr, UNKNOWN)
        case ast.List() | ast.Tuple() | ast.Set():
            found: list[Any] = []
            for each in node.elts:
                value = evaluate(each.value if isinstance(each, ast.Starred) else each, names)
                found += value if isinstance(each, ast.Starred) and isinstance(value, list) else [value]
            return found
        case ast.Dict():
            mapping: dict[Any, Any] = {}
            for key, inner in zip(node.keys, node.values, strict=True):
                known = evaluate(key, names) if key is not None else UNKNOWN
                if key is None and isinstance(merged := evaluate(inner, names), dict):
                    mapping |= merged
                elif isinstance(known, (str, int)):
                    mapping[known] = evaluate(inner, names)
            return mapping
        case ast.UnaryOp(op=ast.USub()):
            value = evaluate(node.operand, names)
            return -value if isinstance(value, (int, float)) else UNKNOWN
        case ast.BinOp():
            return _operation(node, names)
        case ast.JoinedStr():
            parts = [
                evaluate(each.value if isinstance(each, ast.FormattedValue) else each, names) for each in node.values
            ]
            return UNKNOWN if any(part is UNKNOWN for part in parts) else "".join(map(str, parts))
        case ast.Call():
            return _call(node, names)
    return UNKNOWN


def _operation(node: ast.BinOp, names: Mapping[str, Any]) -> Any:
    left, right = evaluate(node.left, names), evaluate(node.right, names)
    try:
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.BitOr() if isinstance(left, dict) and isinstance(right, dict):
                return left | right
    except TypeError:
        pass
    return UNKNOWN


def _call(node: ast.Call, names: Mapping[str, Any]) -> Any:
    if read := variable(node):
        return evaluate(read[1], names) if read[1] is not None else UNKNOWN
    last = name_of(node.func).rpartition(".")[2]
    if last == "Queue":
        return {"queue": evaluate(node.args[0] if node.args else keyword(node, "name"), names)}
    if last == "timedelta" and not node.args:
        seconds = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
        parts = {each.arg: evaluate(each.value, names) for each in node.keywords}
        if all(name in seconds and isinstance(value, (int, float)) for name, value in parts.items()):
            return sum(seconds[str(name)] * value for name, value in parts.items())
    if last in ("int", "str", "tuple", "list", "dict") and len(node.args) == 1:
        return evaluate(node.args[0], names)
    if last == "dict" and not node.args:
        return {each.arg: evaluate(each.value, names) for each in node.keywords if each.arg}
    return UNKNOWN


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, those inside of `if`, `try`, `with` and classes too, but none of functions."""
    for each in body:
        yield each
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(each, name, []))
        for handler in getattr(each, "handlers", []):
            yield from statements(handler.body)


class Files:
    """The Python files below a folder."""

    def __init__(self, root: Path) -> None:
        """Remember the folder; nothing is read yet."""
        self.root = root
        self.library: Path | None = None
        self.paths = self.below(root)  # relative to it, what is most at the top first
        self._trees: dict[Path, ast.Module | None] = {}

    def below(self, root: Path) -> list[Path]:
        """List the Python files below a folder, relative to it."""
        paths: list[Path] = []
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not self.passed(here / name))
            paths += [Path(folder, name).relative_to(root) for name in sorted(names) if name.endswith(".py")]
        return sorted(paths, key=lambda path: (len(path.parts), path))

    def add(self, library: Path) -> None:
        """Add the files of packages, behind those of the project. Their paths begin with LIBRARY.

        :param library: the folder from which they are imported.
        """
        self.library = library
        self.paths = [*self.paths, *(LIBRARY / path for path in self.below(library))]

    def real(self, path: Path) -> Path:
        """Return where a file of the project or of a package is."""
        if self.library and path.is_relative_to(LIBRARY):
            return self.library / path.relative_to(LIBRARY)
        return self.root / path

    @staticmethod
    def passed(folder: Path) -> bool:
        """Whether a folder holds no code that is deployed."""
        name = folder.name
        return name in PASSED or name.startswith((".", "{{")) or (folder / "pyvenv.cfg").exists()

    def text(self, path: Path) -> str:
        """Return a file's text; empty when it cannot be read."""
        file = self.real(path)
        try:
            return file.read_text(errors="replace") if file.is_file() and file.stat().st_size <= LARGEST else ""
        except OSError:
            return ""

    def tree(self, path: Path) -> ast.Module | None:
        """Parse a file; None when this Python cannot."""
        if path not in self._trees:
            try:
                self._trees[path] = ast.parse(self.text(path))
            except (SyntaxError, ValueError):
                self._trees[path] = None
        return self._trees[path]

    def module(self, name: str, places: list[Path]) -> Path | None:
        """Find the file of a module, such as `shop.settings`, in one of these folders."""
        for place in places:
            path = place.joinpath(*name.split("."))
            for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                if self.real(file).is_file():
                    return file
        return None

    def name(self, path: Path, places: list[Path]) -> str:
        """Return the name under which a file is imported, from the innermost of these folders that it is in."""
        for place in sorted(places, key=lambda each: -len(each.parts)):
            if path.is_relative_to(place):
                parts = path.relative_to(place).with_suffix("").parts
                return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return ""

    def imported(self, path: Path, node: ast.ImportFrom, places: list[Path]) -> Path | None:
        """Find the file below the folder from which a module imports."""
        if not node.level:
            return self.module(node.module or "", places)
        package = path.parent
        for _ in range(node.level - 1):
            package = package.parent
        return self.module(node.module or "__init__", [package])

    def constants(self, path: Path, places: list[Path], depth: int = 2) -> dict[str, Any]:
        """Return what the names of a module are, where its text says it, also those that it imports."""
        tree = self.tree(path)
        names: dict[str, Any] = {}
        for each in statements(tree.body) if tree else ():
            match each:
                case ast.ImportFrom() if depth and (file := self.imported(path, each, places)):
                    theirs = self.constants(file, places, depth - 1)
                    names |= {a.asname or a.name: theirs[a.name] for a in each.names if a.name in theirs}
                case ast.Assign(targets=[ast.Name(id=name)]):
                    names[name] = evaluate(each.value, names)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                    names[name] = evaluate(each.value, names)
        return names
