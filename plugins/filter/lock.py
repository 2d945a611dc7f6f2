"""Refuses a lock file with versions that the runtime was not tried with: it works inside Celery and kombu.

A Celery that it does not know would be started, and then lose tasks or be killed by its own watchdog. What an older
version lacks is printed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# The processes of a release read the same tables. Ansible does not know the runtime as a package.
if TYPE_CHECKING:
    from coldframe import versions
else:
    _spec = importlib.util.spec_from_file_location(
        "coldframe_versions", Path(__file__).parents[2] / "runtime/coldframe/versions.py"
    )
    versions = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(versions)

WHY = {
    "packaging": "kombu needs it to speak to Redis, and celery[redis] brings it: write celery[redis] and",
    "redis": "celery[redis] brings it: write celery[redis] and",
    "uvicorn": "app_asgi is served by it: write uvicorn[standard] and",
    "uvicorn-worker": "app_asgi is served by it: write uvicorn-worker and",
    "websockets": "Uvicorn needs it for WebSockets, and uvicorn[standard] brings it: write uvicorn[standard] and",
}
# What the units start, and what they cannot do without. kombu imports packaging from 5.5 on.
NEEDED = ("celery", "kombu", "billiard", "django", "django-celery-beat", "gunicorn", "redis", "packaging")
# What serves an ASGI application besides, and WebSockets.
NEEDED_FOR_ASGI = ("uvicorn", "uvicorn-worker", "websockets")
# Where projects keep what they require besides.
KEPT = [f"requirements/{name}.{kind}" for kind in ("in", "txt") for name in ("production", "prod", "base")]
MADE_BY = re.compile(r"^#[ \t]+(?:uv pip compile|pip-compile)[ \t](.*)$", re.M)
INCLUDED = re.compile(r"^(?:-r|--requirement)[ \t=]+(\S+)", re.M)
# What `make lock` writes into the first lines of a lock file: for which servers it is, and from which files.
MADE_FOR = re.compile(r"^# Made by 'make lock' for Debian (\d+) \(Python ([\d.]+), (\w+)\)", re.M)
MADE_FROM = re.compile(r"^# from (\S.*) sha256:([0-9a-f]{64})$", re.M)
PROJECT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)[ \t]*(?:\[[^]]*\])?[ \t]*(==)?[ \t]*([^\s;\\,#]*)", re.M)


class Pythons(NamedTuple):
    """Versions of Django that start on some versions of Python only, and what to do with another."""

    django: versions.Range
    pythons: versions.Range
    what: str
    debian: str
    write: str


# Tried with Debian's Pythons. Django's own page lists fewer; what it lists besides works.
PYTHONS = (
    Pythons(
        versions.Range((0,), (4, 1)),
        versions.Range((3,), (3, 13)),
        "does not start with Python 3.13",
        "12",
        "django>=4.1",
    ),
    Pythons(versions.Range((6,), (7,)), versions.Range((3, 12), (4,)), "needs Python 3.12", "13", "django<6"),
)


def _for_another_python(django: str, python: str) -> Pythons | None:
    """Return why a version of Django does not run with a version of Python; None if it does."""
    for each in PYTHONS:
        if python and each.django.has(versions.parsed(django)) and not each.pythons.has(versions.parsed(python)[:2]):
            return each
    return None


def python_problems(packages: Mapping[str, str], python: str, place: Callable[[str], str]) -> list[str]:
    """Say which packages do not run with the servers' Python, for `make lock`.

    :param packages: name to version.
    :param python: such as 3.13.
    :param place: tells where the project names a package.
    """
    found = _for_another_python(packages["django"], python) if "django" in packages else None
    return (
        [
            f"{place('django') or 'django'}: django=={packages['django']} {found.what}, and Debian's is {python}. "
            f"Set DEBIAN={found.debian} if your servers are that, or write '{found.write}'."
        ]
        if found
        else []
    )


def digest(path: str | Path) -> str:
    """Digest what a file says of an application's packages: all of it, but of pyproject.toml only the tables that count.

    :returns: 64 hexadecimal digits.

    Raises OSError when the file cannot be read.
    """
    content = Path(path).read_bytes()
    if Path(path).name == "pyproject.toml":
        try:
            told = tomllib.loads(content.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            told = {}
        project, tool = told.get("project", {}), told.get("tool", {})
        poetry = tool.get("poetry", {})
        tables = [
            {name: project.get(name) for name in ("dependencies", "optional-dependencies", "requires-python")},
            told.get("dependency-groups"),
            {name: poetry.get(name) for name in ("dependencies", "group", "extras", "source")},
            {name: tool.get("uv", {}).get(name) for name in ("sources", "index")},
        ]
        content = json.dumps(tables, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()


def _environment(lock_file: str) -> str:
    """Return the ENV of the inventory that a lock file is beside."""
    folder = Path(lock_file).parent
    if folder.parent == PROJECT / "inventories":
        return folder.name
    return str(folder.relative_to(PROJECT) if folder.is_relative_to(PROJECT) else folder)


def _outdated(source: str, lock_file: str, text: str, python: str) -> list[str]:
    """Say why a lock file of `make lock` is not the application's, or not the host's."""
    problems = []
    command = f"make lock ENV={_environment(lock_file)}"
    for name, made in MADE_FROM.findall(text):
        path = Path(source, name)
        if not path.is_file() or digest(path) != made:
            what = "has changed since" if path.is_file() else "is gone, and"
            problems.append(
                f"{name} of the application {what} {lock_file} was made from it: '{command}' makes it again."
            )
    made_for = MADE_FOR.search(text)
    if made_for and python and versions.parsed(python)[:2] != versions.parsed(made_for[2]):
        debian = {"3.11": "12", "3.13": "13"}.get(versions.shown(versions.parsed(python)[:2]))
        remedy = (
            f"'{command} DEBIAN={debian}' makes it for this one"
            if debian
            else (
                "'make lock' is for Debian's. Lock for this one yourself and name the file in app_lock_file, or leave app_python_interpreter out"
            )
        )
        problems.append(f"{lock_file} is for Python {made_for[2]}, and this host has {python}: {remedy}.")
    return problems


def _name(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(text: str) -> tuple[dict[str, list[str]], set[str]]:
    """Read a requirements file: the versions that it locks each package to, and the packages that it names without one."""
    locked: dict[str, list[str]] = {}
    loose = set()
    for match in LINE.finditer(text):
        name, equal, version = match.groups()
        if equal and version and "*" not in version:
            locked.setdefault(_name(name), []).append(version)
        else:
            loose.add(_name(name))
    return locked, loose - set(locked)


def _names_celery(file: Path, depth: int = 3) -> bool:
    """Whether a file of requirements, or one that it includes, names Celery."""
    text = file.read_text(errors="replace") if file.is_file() else ""
    included = INCLUDED.findall(text) if depth else []
    return "celery" in text.lower() or any(_names_celery(file.parent / name, depth - 1) for name in included)


def _inside(source: str, lock_file: str, text: str) -> str:
    """Name the file that a lock file is to be made from, relative to the application's folder.

    What its first lines say it was made from; else what stands beside it under its name, or where projects keep that.
    """
    made = MADE_BY.search(text)
    for word in made[1].split() if made else ():
        parts = [part for part in Path(word).parts if part not in ("/", "..")]
        for start in range(len(parts)):  # where it was made, there may have been folders in front
            path = Path(*parts[start:]).as_posix()
            if path.endswith((".in", ".txt", ".toml")) and path != lock_file and Path(source, path).is_file():
                return path
    stem, project = (Path(lock_file).with_name(n).as_posix() for n in (f"{Path(lock_file).stem}.in", "pyproject.toml"))
    if not Path(source, stem).is_file():
        others: list[str] = [*INCLUDED.findall(text), project, *KEPT]
        for path in others:
            if path != lock_file and _names_celery(Path(source, path)):
                return path
    return next((path for path in (stem, project) if Path(source, path).is_file()), stem)


def _line(text: str, package: str, version: str) -> str:
    """Quote the line of a lock file that has a version of a package."""
    lines = (LINE.match(line) for line in text.splitlines())
    number = next(n for n, match in enumerate(lines, 1) if match and (_name(match[1]), match[3]) == (package, version))
    return f"line {number}: it locks {package}=={version}"


def version_problems(text: str, locked: dict[str, list[str]], python: str) -> list[str]:
    """Say which versions were not tried, alone and together.

    :param text: the lock file's.
    :param locked: package to versions; a lock file for several platforms may have more than one.
    :param python: the host's, such as 3.13.5; empty when nobody knows.
    :returns: sentences that begin with the line and end with what to write; in which file is for the caller to say.
    """
    problems = [
        f"{_line(text, problem.package, problem.version)}, {problem.reason}: the runtime works inside of it. "
        f"Write '{problem.package}{problem.wanted}'"
        for problem in versions.problems(locked)
    ]
    for django in locked.get("django", ()):
        if found := _for_another_python(django, python):
            problems.append(
                f"{_line(text, 'django', django)}, which {found.what}, and this host has {python}. "
                f"Take a host with Debian {found.debian}, set app_python_interpreter to another Python of this one, or write '{found.write}'"
            )
    return problems


def lock_warnings(source: str, lock_file: str) -> list[str]:
    """Say what the locked versions lack.

    :param source: the application's folder on the controller.
    :param lock_file: `app_lock_file`, relative to it or beside the inventory.
    """
    text = Path(source, lock_file).read_text(errors="replace") if Path(source, lock_file).is_file() else ""
    locked, _ = read(text)
    return [
        f"{lock_file}, {_line(text, lack.package, version)}, which lacks what {lack.package} "
        f"{versions.shown(lack.end)} has. {lack.text}"
        for lack in versions.lacks(locked)
        for version in locked[lack.package]
        if versions.parsed(version) < lack.end
    ]


def report_problems(
    text: str, locked: dict[str, list[str]], reports: Sequence[str], asgi: bool, place: str, command: str
) -> list[str]:
    """Refuse a lock file without what the application's processes report with, in versions that were tried.

    :param text: the lock file's.
    :param locked: package to versions.
    :param reports: what makes them report: keys of `versions.REPORTING`.
    :param asgi: whether Gunicorn serves an ASGI application (`app_asgi`).
    :param place: the lock file.
    :param command: what to do after the lines were added, as a part of a sentence.
    :returns: for each of `reports` a sentence at most, and below it the lines to add.
    """
    problems = []
    for name in reports:
        wanted = versions.REPORTING[name] | (versions.REPORTING_ASGI.get(name, {}) if asgi else {})
        wrong = {
            package: [version for version in locked.get(package, ()) if not range_.has(versions.parsed(version))]
            for package, range_ in wanted.items()
            if not locked.get(package) or any(not range_.has(versions.parsed(each)) for each in locked[package])
        }
        if not wrong:
            continue
        missing = [package for package, found in wrong.items() if not found]
        untried = [_line(text, package, found[0]) for package, found in wrong.items() if found]
        what = [f"does not lock {', '.join(missing)}"] if missing else []
        what += [f"{', '.join(untried)}, which was not tried"] if untried else []
        lines = "".join(f"\n    {package}{wanted[package]}" for package in wrong)
        problems.append(f"{name} is set, and {place} {'; '.join(what)}. {command}:{lines}")
    return problems


def driver_problems(locked: Mapping[str, Sequence[str]], reports: Sequence[str], place: str) -> list[str]:
    """Refuse the pool `gevent` with a driver of PostgreSQL whose queries hold up all green threads.

    :param locked: package to versions.
    :param reports: keys of `versions.REPORTING`, as in `report_problems`.
    :param place: the lock file.
    """
    wanted, found = versions.GREEN_DRIVER, locked.get("psycopg", ())
    if versions.GREEN not in reports or (found and all(wanted.has(versions.parsed(each)) for each in found)):
        return []
    there = [f"{name}=={each}" for name in ("psycopg", "psycopg2", "psycopg2-binary") for each in locked.get(name, ())]
    return [
        f"{versions.GREEN} is set, and {place} locks {', '.join(there) or 'no psycopg'}: a query would hold up all tasks of the "
        f"worker. Require 'psycopg[binary]{wanted}' in the application, which Django then uses everywhere, and lock again; or "
        "set pool to threads."
    ]


def lock_problems(
    source: str,
    lock_file: str,
    version: str = "",
    python: str = "",
    asgi: bool = False,
    reports: list[str] | None = None,
) -> list[str]:
    """Refuse an application without a hash-locked requirements file that has what the units start, in versions that were tried.

    :param source: the application's folder on the controller.
    :param lock_file: `app_lock_file`, relative to it or beside the inventory.
    :param version: `app_version`, when the folder was checked out from `app_repository`.
    :param python: the version of the host's Python.
    :param asgi: whether Gunicorn serves an ASGI application (`app_asgi`).
    :param reports: what makes the application's processes report to somebody, and a pool that needs a package: keys of
        `versions.REPORTING`.
    """
    if not os.path.isdir(source):
        return [f"app_source is {source!r}, which is not a folder on the controller."]
    place = f"app_version {version!r} of app_repository" if version else f"app_source ({source})"
    text = Path(source, lock_file).read_text(errors="replace") if Path(source, lock_file).is_file() else ""
    if os.path.isabs(lock_file):
        return _beside_problems(source, lock_file, text, python, asgi, reports or [])
    folder = "" if version else f"{source}/"
    inside = _inside(source, lock_file, text)
    there = Path(source, inside).is_file()
    command = _command(folder, inside, lock_file, python)
    if not os.path.isfile(Path(source, lock_file)):
        return [f"app_lock_file is {lock_file!r}, and there is no such file in {place}: make it with {command}."]
    locked, loose = read(text)
    included = INCLUDED.findall(text)
    if "celery" in loose or ((loose or included) and not locked):
        move = "" if there else f" from it: 'mv {folder}{lock_file} {folder}{inside}', then"
        what = (
            f"names {', '.join(sorted(loose)[:5])} without a version" if loose else f"names {', '.join(included)} alone"
        )
        return [f"{lock_file} {what}, so it is no lock file. Make one{move or ':'} {command}."]
    problems = [
        f"{lock_file} does not lock {package!r}: {WHY.get(package, f'add {package} to {inside} and')} lock again, {command}."
        for package in _missing(locked, asgi)
    ]
    problems += [
        f"{lock_file}, {problem} in {inside} and lock again, {command}."
        for problem in version_problems(text, locked, python)
    ]
    add = f"Add these lines to {inside} and lock again, {command}"
    problems += report_problems(text, locked, reports or [], asgi, lock_file, add)
    problems += driver_problems(locked, reports or [], lock_file)
    problems += _python_problems(python)
    if "--hash=" not in text:
        move = "" if there else f"'mv {folder}{lock_file} {folder}{inside}', then "
        problems.append(f"{lock_file} has no hashes: make it with {move}{command}.")
    return problems


def _command(folder: str, inside: str, lock_file: str, python: str) -> str:
    """Return the command that makes a lock file in the application.

    :param folder: the application's, with a slash at its end; empty when it is elsewhere.
    :param inside: the file that it is made from.
    :param python: the version of the host's Python.
    """
    return (
        f"'.venv/bin/uv pip compile --universal --python-version {versions.shown(versions.parsed(python)[:2]) or '3.11'} "
        f"--generate-hashes "
        f"{folder}{inside} -o {folder}{lock_file}' (uv is in Coldframe's own .venv/bin)"
    )


def lock_remedy(source: str, lock_file: str, version: str = "", python: str = "") -> str:
    """Say how a package is added to the lock file, as a part of a sentence. The parameters are those of `lock_problems`."""
    text = Path(source, lock_file).read_text(errors="replace") if Path(source, lock_file).is_file() else ""
    if os.path.isabs(lock_file):
        inside = next((name for name, _ in MADE_FROM.findall(text) if Path(source, name).is_file()), "the requirements")
        return f"add it to {inside} of the application, then 'make lock ENV={_environment(lock_file)}'"
    inside = _inside(source, lock_file, text)
    return f"add it to {inside} and lock again, {_command('' if version else f'{source}/', inside, lock_file, python)}"


def lock_python(source: str, lock_file: str) -> str:
    """Return the Python that `make lock` made a lock file for, such as 3.13; empty when the file does not say so.

    :param source: the application's folder on the controller.
    :param lock_file: `app_lock_file`, relative to it or beside the inventory.
    """
    file = Path(source, lock_file)
    made_for = MADE_FOR.search(file.read_text(errors="replace")) if file.is_file() else None
    return made_for[2] if made_for else ""


def _missing(locked: dict[str, list[str]], asgi: bool) -> list[str]:
    """List the packages that the units need and that are not locked."""
    kombu = [versions.parsed(text) for text in locked.get("kombu", ["5.5"])]
    return [
        package
        for package in (*NEEDED, *(NEEDED_FOR_ASGI if asgi else ()))
        if package not in locked and not (package == "packaging" and all(old < (5, 5) for old in kombu))
    ]


def _python_problems(python: str) -> list[str]:
    """Refuse a host's Python that the runtime was not tried with."""
    return [
        f"This host has Python {problem.version}, {problem.reason}: the runtime needs Python {problem.wanted}. "
        "Leave app_python_interpreter out, or set it to one of these; Debian 12 and 13 have one."
        for problem in versions.problems({"python": [python]} if python else {})
    ]


def _beside_problems(
    source: str, lock_file: str, text: str, python: str, asgi: bool, reports: Sequence[str]
) -> list[str]:
    """Refuse a lock file beside the inventory: one that `make lock` did not make, or made for something else."""
    command = f"'make lock ENV={_environment(lock_file)}'"
    if not os.path.isfile(lock_file):
        return [f"app_lock_file is {lock_file!r}, and there is no such file: {command} makes it."]
    locked, loose = read(text)
    if not locked or loose or "--hash=" not in text:
        return [f"{lock_file} is no list of packages with versions and hashes: {command} makes it."]
    inside = next((name for name, _ in MADE_FROM.findall(text) if Path(source, name).is_file()), "its requirements")
    problems = _outdated(source, lock_file, text, python)
    problems += [f"{lock_file} does not lock {package!r}: {command} adds it." for package in _missing(locked, asgi)]
    # What is made for another Python, or from other files, is made anew anyway.
    problems += (
        []
        if problems
        else [
            f"{lock_file}, {problem} in {inside} of the application, then {command}."
            for problem in version_problems(text, locked, python)
        ]
    )
    add = f"{command} adds these lines, unless {inside} of the application names other versions"
    problems += report_problems(text, locked, reports, asgi, lock_file, add)
    return problems + driver_problems(locked, reports, lock_file) + _python_problems(python)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {
            "lock_problems": lock_problems,
            "lock_python": lock_python,
            "lock_remedy": lock_remedy,
            "lock_warnings": lock_warnings,
        }
