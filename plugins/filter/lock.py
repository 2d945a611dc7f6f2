"""Refuses a lock file with versions that the runtime was not tried with: it works inside Celery and kombu.

A Celery that it does not know would be started, and then lose tasks or be killed by its own watchdog.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

Version = tuple[int, ...]
# Versions from the first up to and without the second. Each was tried with real workers on a host, its first and its last
# version, by molecule/tests/test_versions.py with molecule/versions/*.txt and the example's own lock file.
TRIED: dict[str, tuple[Version, Version]] = {
    "celery": ((5, 6, 3), (5, 8)),
    "kombu": ((5, 6, 2), (5, 8)),
    "redis": ((6, 4), (9,)),
    "billiard": ((4, 2, 2), (4, 4)),
    "django-celery-beat": ((2, 8), (2, 10)),
}
WHY = {
    "packaging": "kombu needs it to speak to Redis, and celery[redis] brings it: write celery[redis] and",
    "redis": "celery[redis] brings it: write celery[redis] and",
}
# What the units start, and what they cannot do without.
NEEDED = ("celery", "kombu", "billiard", "django", "django-celery-beat", "gunicorn", "redis", "packaging")
PYTHON = {6: (3, 12)}  # Django's major version, and the least Python that it runs on
# Where projects keep what they require besides.
KEPT = [f"requirements/{name}.{kind}" for kind in ("in", "txt") for name in ("production", "prod", "base")]
MADE_BY = re.compile(r"^#[ \t]+(?:uv pip compile|pip-compile)[ \t](.*)$", re.M)
INCLUDED = re.compile(r"^(?:-r|--requirement)[ \t=]+(\S+)", re.M)
LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)[ \t]*(?:\[[^]]*\])?[ \t]*(==)?[ \t]*([^\s;\\,#]*)", re.M)


def _name(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(text: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text, maxsplit=1)[0]))


def _shown(version: Version) -> str:
    return ".".join(map(str, version))


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


def version_problems(locked: dict[str, list[str]], python: str) -> list[str]:
    """Say which versions were not tried, alone and together.

    :param locked: package to versions; a lock file for several platforms may have more than one.
    :param python: the host's, such as 3.13.5; empty when nobody knows.
    :returns: sentences that end with what to write; where is for the caller to say.
    """
    problems = []
    for package, (first, end) in TRIED.items():
        for version in locked.get(package, ()):
            if not first <= _version(version) < end:
                problems.append(
                    f"it locks {package}=={version}, which was not tried: the runtime works inside of it. "
                    f"Write '{package}>={_shown(first)},<{_shown(end)}'"
                )
    for celery in locked.get("celery", ()):
        for kombu in locked.get("kombu", ()):
            if _version(celery) >= (5, 7) and _version(kombu) < (5, 7):
                problems.append(
                    f"it locks kombu=={kombu}, and celery=={celery} needs a newer one. Write 'kombu>=5.7,<5.8'"
                )
    for django in locked.get("django", ()):
        least = PYTHON.get(_version(django)[0])
        if least and python and _version(python)[:2] < least:
            problems.append(
                f"it locks django=={django}, which needs Python {_shown(least)}, and this host has {python}. "
                f"Take a host with Debian 13, or write 'django<{_version(django)[0]}'"
            )
    return problems


def lock_problems(source: str, lock_file: str, version: str = "", python: str = "") -> list[str]:
    """Refuse an application without a hash-locked requirements file that has what the units start, in versions that were tried.

    :param source: the application's folder on the controller.
    :param lock_file: `app_lock_file`, relative to it.
    :param version: `app_version`, when the folder was checked out from `app_repository`.
    :param python: the version of the host's Python.
    """
    if not os.path.isdir(source):
        return [f"app_source is {source!r}, which is not a folder on the controller."]
    place = f"app_version {version!r} of app_repository" if version else f"app_source ({source})"
    text = Path(source, lock_file).read_text(errors="replace") if Path(source, lock_file).is_file() else ""
    folder = "" if version else f"{source}/"
    inside = _inside(source, lock_file, text)
    there = Path(source, inside).is_file()
    command = (
        f"'.venv/bin/uv pip compile --universal --python-version {_shown(_version(python)[:2]) or '3.11'} --generate-hashes "
        f"{folder}{inside} -o {folder}{lock_file}' (uv is in Coldframe's own .venv/bin)"
    )
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
        for package in NEEDED
        if package not in locked
    ]
    problems += [
        f"{lock_file}: {problem} in {inside} and lock again, {command}." for problem in version_problems(locked, python)
    ]
    if "--hash=" not in text:
        move = "" if there else f"'mv {folder}{lock_file} {folder}{inside}', then "
        problems.append(f"{lock_file} has no hashes: make it with {move}{command}.")
    return problems


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Name the filter for Ansible."""
        return {"lock_problems": lock_problems}
