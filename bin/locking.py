"""Makes a hash-locked requirements file from what a project says that it requires, with uv."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import own_code
from debian_packages import GLIBC, PYTHON
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
lock_filter = own_code.load("plugins/filter/lock.py")
versions = lock_filter.versions

# What projects call what is for servers.
PRODUCTION = ("production", "prod", "deploy", "live", "server")
FILES = [f"requirements/{name}.txt" for name in PRODUCTION]
FILES += [f"requirements{mark}{name}.txt" for name in PRODUCTION for mark in "-_"]
FILES += ["requirements.txt", "requirements/requirements.txt"]
FILES += [name.removesuffix(".txt") + ".in" for name in FILES] + ["requirements/base.txt", "requirements/base.in"]
LOCKS = ("uv.lock", "poetry.lock", "Pipfile.lock")
GROUPS = (*PRODUCTION, "main")
# What the units start and the project may leave out.
ADDED = ("celery", "django-celery-beat", "gunicorn", "packaging", "redis")
DRIVERS = ("psycopg", "psycopg2", "psycopg2-binary")
# The same module, with a wheel.
WITH_WHEELS = {"psycopg2": "psycopg2-binary", "psycopg-c": "psycopg-binary"}
NO_WHEEL = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\{[^}]*\})?((?:[=<>!~]=?[^\s,|]+,?)*)\s+ha(?:s|ve)\s+no\s[^,]*?\bwheels"
)
MOST = 60  # packages without wheels, and rounds of the versions


class Target(NamedTuple):
    """What a lock file is for: a release of Debian, `12` or `13`, and a machine, such as `x86_64`."""

    debian: str
    machine: str

    @property
    def python(self) -> str:
        """Return its Python, such as 3.13."""
        return PYTHON[self.debian].rpartition(".")[0]

    def __str__(self) -> str:
        """Return it for people."""
        return f"Debian {self.debian} (Python {self.python}, {self.machine})"


class Line(NamedTuple):
    """A requirement, as pip writes it, and the file and line that it is from."""

    text: str
    where: str

    @property
    def name(self) -> str:
        """Return the normalized name of its package."""
        return canonicalize_name(Requirement(self.text).name)


@dataclass
class Source:
    """What a project says that it requires."""

    path: Path  # the file that says it first
    base: Path  # the folder to which names of files are relative
    files: list[Path] = field(default_factory=list)  # all that were read
    lines: list[Line] = field(default_factory=list)
    pins: list[Line] = field(default_factory=list)  # versions, of a lock file of the project
    direct: dict[str, Line] = field(default_factory=dict)  # of the packages that the project names itself, how it does
    options: list[str] = field(default_factory=list)  # where packages are from: --index-url and the like
    elsewhere: list[Line] = field(default_factory=list)  # requirements that are in no index: git, addresses, folders

    def shown(self, path: Path) -> str:
        """Name a file as the operator knows it."""
        return os.path.relpath(path, self.base)

    def add(self, text: str, where: str) -> None:
        """Add a requirement."""
        requirement = Requirement(text)
        if requirement.url:
            self.elsewhere.append(Line(text, where))
        else:
            self.lines.append(Line(str(requirement), where))
            self.direct.setdefault(canonicalize_name(requirement.name), self.lines[-1])

    def names(self) -> set[str]:
        """Return the packages that it names."""
        return {line.name for line in (*self.lines, *self.pins)}

    def place(self, package: str) -> str:
        """Return where a package is named; empty where it is not."""
        lines = (*self.direct.values(), *self.lines, *self.pins)
        return next((line.where for line in lines if line.name == package), "")


@dataclass
class Locked:
    """A lock file, and what must be said about it."""

    text: str = ""
    packages: dict[str, str] = field(default_factory=dict)  # name to version
    said: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # requirements without a wheel
    problems: list[str] = field(default_factory=list)


# What a project requires


def candidates(folder: Path, top: Path) -> Iterator[Path]:
    """Yield the files in which a project may say what it requires, the surest first."""
    folders = [folder]
    while folders[-1] != top and top in folders[-1].parents:
        folders.append(folders[-1].parent)
    for names in (LOCKS, FILES, ["pyproject.toml", "Pipfile"]):
        for here in folders:
            for name in names:
                if (here / name).is_file():
                    yield here / name


def find(folder: Path, top: Path, said: str = "") -> Source:
    """Read what a project requires.

    :param folder: that of manage.py.
    :param top: `APP`, which it is in.
    :param said: `REQUIREMENTS`, a file relative to either.

    Raises ValueError, naming what to set, when there is no such file or it cannot be read.
    """
    if said:
        there = [path for path in (folder / said, top / said) if path.is_file()]
        if not there:
            raise ValueError(f"REQUIREMENTS is {said!r}, and the project has no such file: name one that it has.")
        return read(there[0], folder)
    sources = []
    for path in candidates(folder, top):
        source = read(path, folder)
        if "django" in source.names():
            return source
        sources.append(source)
    filled = [source for source in sources if source.lines]
    if not filled:
        raise ValueError(
            "No requirements were found (uv.lock, poetry.lock, Pipfile.lock, requirements/production.txt, requirements.txt, "
            "pyproject.toml): set REQUIREMENTS to the file that names the packages of the project."
        )
    return filled[0]


def read(path: Path, base: Path) -> Source:
    """Read one kind of file.

    Raises ValueError when it cannot be read.
    """
    source = Source(path, base)
    try:
        match path.name:
            case "uv.lock":
                _read_uv(source)
            case "poetry.lock":
                _read_pyproject(source, path.with_name("pyproject.toml"))
                source.files.append(path)
                for package in tomllib.loads(path.read_text())["package"]:
                    _pin(source, package["name"], package["version"], package.get("markers", ""))
                _drop_double(source)
            case "Pipfile.lock":
                source.files.append(path)
                for name, package in json.loads(path.read_text()).get("default", {}).items():
                    if "version" in package:
                        _pin(source, name, package["version"].removeprefix("=="), package.get("markers", ""))
                _read_pipfile(source, path.with_name("Pipfile"))
            case "Pipfile":
                _read_pipfile(source, path)
            case "pyproject.toml":
                _read_pyproject(source, path)
            case _:
                _read_requirements(source, path, source.lines)
    except (OSError, KeyError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{source.shown(path)} cannot be read: {error!r}.") from error
    return source


def _pin(source: Source, name: str, version: str, markers: Any) -> None:
    marker = f" ; {markers}" if isinstance(markers, str) and markers else ""
    source.pins.append(Line(f"{name}=={version}{marker}", source.shown(source.path)))


def _drop_double(source: Source) -> None:
    """Leave out the versions of packages that have several and do not say for which Python each is."""
    names = [line.name for line in source.pins]
    source.pins = [line for line in source.pins if names.count(line.name) == 1 or ";" in line.text]


def _read_requirements(source: Source, path: Path, into: list[Line], seen: tuple[Path, ...] = ()) -> None:
    """Read a requirements file of pip, and those that it includes."""
    if path in seen:
        return
    if not path.is_file():
        raise ValueError(f"{source.shown(seen[-1])} includes {source.shown(path)}, which is not there.")
    source.files.append(path)
    text = path.read_text(errors="replace")
    number = 0
    while number < len(lines := text.split("\n")):
        first, line = number + 1, lines[number]
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line = line[:-1] + " " + lines[number]
        number += 1
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        where = f"{source.shown(path)}:{first}"
        option = re.match(r"(-[a-z]|--[a-z-]+)[ =]*(.*)", line)
        if not line:
            continue
        if option and option[1] in ("-r", "--requirement"):
            _read_requirements(source, path.parent / option[2], into, (*seen, path))
        elif option and option[1] in ("-c", "--constraint"):
            _read_requirements(source, path.parent / option[2], source.pins, (*seen, path))
        elif option and option[1] in ("-i", "--index-url", "--extra-index-url", "-f", "--find-links"):
            source.options.append(line)
        elif option and option[1] not in ("-e", "--editable"):
            continue  # nothing that uv needs, such as --no-binary
        else:
            _read_requirement(source, path, option[2] if option else line, where, into)


def _read_requirement(source: Source, path: Path, line: str, where: str, into: list[Line]) -> None:
    """Read one line that names a package."""
    text = re.split(r"\s+--", line)[0].strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        local = (path.parent / re.sub(r"\[.*\]$", "", text)).resolve()
        egg = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", text)
        if (local / "pyproject.toml").is_file() and local in (source.base, *source.base.parents):
            _read_pyproject(source, local / "pyproject.toml")  # the project itself
        elif local in (source.base, *source.base.parents):
            return  # the same, whose packages are in setup.py: its requirements are those of this file
        else:
            source.elsewhere.append(Line(f"{egg[1]} @ {text}" if egg else text, where))
        return
    if into is source.pins:
        source.pins.append(Line(str(requirement), where))
    elif requirement.url:
        source.elsewhere.append(Line(text, where))
    else:
        source.add(text, where)


def _line_of(path: Path, name: str) -> int:
    """Return the line of a file that names a package; 1 if none is found."""
    wanted = re.compile(rf"""(^|["'\s]){re.sub("-", "[-_.]", re.escape(name)).replace(chr(92) + "[", "[")}\b""", re.I)
    return next((n for n, line in enumerate(path.read_text().splitlines(), 1) if wanted.search(line)), 1)


def _chosen(names: Iterable[str]) -> list[str]:
    """Return the groups or extras that are for servers."""
    return [name for name in names if name.lower() in GROUPS]


def _read_pyproject(source: Source, path: Path) -> None:
    """Read pyproject.toml: PEP 621 with dependency groups, or Poetry's tables."""
    source.files.append(path)
    told = tomllib.loads(path.read_text())
    texts: list[str] = []
    if "poetry" in told.get("tool", {}):
        texts = _poetry(path, told)
    else:
        project = told.get("project", {})
        texts = list(project.get("dependencies", []))
        extras, groups = project.get("optional-dependencies", {}), told.get("dependency-groups", {})
        for each in _chosen(extras):
            texts += extras[each]
        for each in _chosen(groups):
            texts += _group(groups, each)
    for text in texts:
        try:
            source.add(text, f"{source.shown(path)}:{_line_of(path, Requirement(text).name)}")
        except InvalidRequirement as error:
            raise ValueError(f"{source.shown(path)}: {text!r} is no requirement: {error}") from error


def _group(groups: dict[str, Any], name: str) -> list[str]:
    """Return what a dependency group has, with those that it includes."""
    texts: list[str] = []
    for each in groups.get(name, []):
        texts += [each] if isinstance(each, str) else _group(groups, each["include-group"])
    return texts


def _poetry(path: Path, told: dict[str, Any]) -> list[str]:
    """Return what Poetry's tables require, as pip writes it."""
    from poetry.core.factory import Factory  # a second to load

    with contextlib.redirect_stderr(io.StringIO()):  # it warns of folders that are no packages
        try:
            package = Factory().create_poetry(path.parent).package
        except Exception as error:  # whatever it makes of a file that is wrong
            raise ValueError(f"{path.name} is not as Poetry has it: {error}") from error
    wanted = set(_chosen(told["tool"]["poetry"].get("extras", {})))
    found = [each for each in package.requires if not each.is_optional() or wanted & set(each.in_extras)]
    for group in sorted({*_chosen(package.dependency_group_names(include_optional=True))} - {"main"}):
        found += package.dependency_group(group).dependencies
    return [re.sub(r'\s*(and\s+)?extra == "[^"]*"', "", each.to_pep_508()).strip(" ;") for each in found]


def _read_pipfile(source: Source, path: Path) -> None:
    """Read what a Pipfile requires."""
    source.files.append(path)
    for name, told in tomllib.loads(path.read_text()).get("packages", {}).items():
        where = f"{source.shown(path)}:{_line_of(path, name)}"
        spec = {"version": told} if isinstance(told, str) else told
        if address := next(
            (
                f"{kind}+{spec[kind]}" if kind == "git" else spec[kind]
                for kind in ("git", "path", "file")
                if kind in spec
            ),
            "",
        ):
            source.elsewhere.append(Line(f"{name} @ {address}" if "git+" in address else address, where))
            continue
        extras = f"[{','.join(spec['extras'])}]" if spec.get("extras") else ""
        version = spec.get("version", "*").replace("*", "") if spec.get("version", "*") == "*" else spec["version"]
        marker = f" ; {spec['markers']}" if spec.get("markers") else ""
        source.add(f"{name}{extras}{version}{marker}", where)


def _read_uv(source: Source) -> None:
    """Read uv.lock, by uv: the versions of all packages that a server needs."""
    folder = source.base
    while not (folder / "pyproject.toml").is_file() and folder != source.path.parent:
        folder = folder.parent
    project = folder / "pyproject.toml"
    told = tomllib.loads(project.read_text())
    extras, groups = told.get("project", {}).get("optional-dependencies", {}), told.get("dependency-groups", {})
    command = [
        "export",
        "--frozen",
        "--no-default-groups",
        "--no-emit-workspace",
        "--no-hashes",
        "--no-annotate",
        "--no-header",
    ]
    command += [f"--extra={name}" for name in _chosen(extras)] + [f"--group={name}" for name in _chosen(groups)]
    done = uv(folder, *command, "--quiet", "--format=requirements.txt")
    if done.returncode:
        raise ValueError(f"uv does not export {source.shown(source.path)}: {done.stderr.strip()}")
    with contextlib.suppress(ValueError):
        own = Source(project, source.base)
        _read_pyproject(own, project)
        source.direct = own.direct
    source.files += [project, source.path]
    for each in told.get("tool", {}).get("uv", {}).get("index", []):
        if not each.get("explicit"):
            source.options.append(f"--extra-index-url {each['url']}")
    locked = source.path.read_text().splitlines()
    numbers = {line[8:-1]: number for number, line in enumerate(locked, 1) if line.startswith('name = "')}
    for line in done.stdout.splitlines():
        where = source.shown(source.path)
        text = line.removeprefix("-e ").strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            source.elsewhere.append(Line(text, where))
            continue
        if requirement.url:
            source.elsewhere.append(Line(text, where))
        else:
            number = numbers.get(canonicalize_name(requirement.name), 1)
            source.lines.append(Line(text, f"{where}:{number}"))


def uv(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Coldframe's uv in a folder. It fetches no Python."""
    program = Path(sys.executable).with_name("uv")
    around = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON", "UV_FROZEN")
    }
    around |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    command = [str(program), *arguments, "--python", sys.executable]
    return subprocess.run(command, cwd=folder, env=around, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def unpacked(
    source: Source, target: Target, modules: Iterable[str], wheels: Path | None = None
) -> Iterator[Path | None]:
    """Give a folder with the files of the packages that a project names and that are called as these modules.

    They are there to be read: without what they need themselves. None where the project names no such package, or none of
    them has a wheel.

    :param wheels: a folder with wheels that were built for the target.
    """
    wanted = {canonicalize_name(module) for module in modules}
    lines = {line.name: line.text for line in (*source.lines, *source.pins) if line.name in wanted}
    with tempfile.TemporaryDirectory(prefix="coldframe-") as work:
        folder = Path(work)
        command = ["pip", "install", "--quiet", "--no-deps", "--no-build", "--target", str(folder)]
        command += [f"--python-version={PYTHON[target.debian]}"]
        command += [f"--python-platform={target.machine}-manylinux_{GLIBC[target.debian]}"]
        command += [option for line in source.options for option in line.split()]
        command += [f"--find-links={wheels}"] if wheels and wheels.is_dir() else []
        done = [uv(source.base, *command, text) for text in lines.values()]
        yield folder if any(not each.returncode for each in done) else None


# The lock file


class Maker:
    """Makes one lock file."""

    def __init__(self, source: Source, target: Target, wheels: Path | None = None, more: Iterable[str] = ()) -> None:
        """Remember what it is made from.

        :param wheels: a folder with wheels that were built for the target.
        :param more: what the units start besides.
        """
        self.source, self.target, self.wheels = source, target, wheels
        self.result = Locked()
        self.added = [*ADDED, *more]
        if not {*DRIVERS} & source.names() or (
            "psycopg" in source.names() and not {"psycopg-binary", "psycopg-c"} & source.names()
        ):
            self.added.append("psycopg[binary]")
        self.overrides: dict[str, str] = {}
        self.adjusted: dict[str, str] = {}  # package to the versions that it must have
        self.before: dict[str, str] = {}  # package to the version that it would have, and why that is refused
        self.blocked: list[str] = []  # what to say if it cannot have them

    def run(self, before: str = "", upgrade: bool = False) -> Locked:
        """Make it.

        :param before: the lock file that is there, whose versions stay where they can.
        :param upgrade: take the newest versions instead.
        """
        self.built()
        for _ in range(MOST):
            done = self.compile(before, upgrade)
            if done.returncode and self.without_wheel(done.stderr):
                continue
            if done.returncode:
                self.result.problems += self.blocked or [self.refused(done.stderr)]
                break
            self.result.packages = {
                canonicalize_name(name): version
                for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", done.stdout, re.M)
            }
            if not self.untried():
                if not self.result.missing and not self.result.problems:
                    self.told(done.stdout)
                break
        return self.result

    def built(self) -> None:
        """Take wheels for what is in no index, and say which of these have none."""
        for line in self.source.elsewhere:
            name = re.match(r"([A-Za-z0-9._-]+) @ ", line.text)
            found = self.wheel(name[1]) if name else ""
            if name and found:
                self.source.lines.append(Line(f"{name[1]}=={found}", line.where))
            elif name:
                self.result.missing.append(line.text)
                self.result.said.append(f"{line.where} requires {line.text}, which is in no package index.")
            else:
                self.result.problems.append(
                    f"{line.where}: {line.text!r} is in no package index, and names no package. Write 'NAME @ {line.text}' for an "
                    "address, or move the code of a folder into the project."
                )

    def wheel(self, name: str) -> str:
        """Return the version of a package that was built; empty when there is none."""
        wanted = canonicalize_name(name).replace("-", "_")
        for path in sorted(self.wheels.glob("*.whl")) if self.wheels else ():
            if path.name.lower().startswith(f"{wanted}-"):
                return path.name.split("-")[1]
        return ""

    def compile(self, before: str, upgrade: bool) -> subprocess.CompletedProcess[str]:
        """Run uv once. The names of its files are in its output, so they are the same each time."""
        pins = [line for line in self.source.pins if line.name not in self.adjusted]
        lines = [
            line if line.name not in self.adjusted else self.source.direct.get(line.name, Line(line.name, line.where))
            for line in self.source.lines
        ]
        with tempfile.TemporaryDirectory(prefix="coldframe-") as work:
            folder = Path(work)
            options = [line for line in self.source.options if not re.match(r"(-f|--find-links)", line)]
            (folder / "project.in").write_text(
                "\n".join([*options, *dict.fromkeys(line.text for line in lines)]) + "\n"
            )
            (folder / "coldframe.in").write_text("\n".join(self.added) + "\n")
            wanted = [f"{name}{value}" for name, value in self.adjusted.items()]
            (folder / "pins.txt").write_text("\n".join([*dict.fromkeys(line.text for line in pins), *wanted]) + "\n")
            (folder / "overrides.txt").write_text(
                "\n".join(f"{name} ; python_version < '3'" for name in self.overrides) + "\n"
            )
            (folder / "requirements.txt").write_text(re.sub(r"^#.*\n", "", before, flags=re.M))
            command = [
                "pip",
                "compile",
                "project.in",
                "coldframe.in",
                "--output-file=requirements.txt",
                "--no-header",
                "--quiet",
            ]
            command += ["--generate-hashes", "--no-build", "--constraints=pins.txt", "--overrides=overrides.txt"]
            command += [f"--python-version={PYTHON[self.target.debian]}"]
            command += [f"--python-platform={self.target.machine}-manylinux_{GLIBC[self.target.debian]}"]
            command += ["--upgrade"] if upgrade else []
            command += [f"--find-links={self.wheels}"] if self.wheels and self.wheels.is_dir() else []
            done = uv(folder, *command)
            done.stdout = (folder / "requirements.txt").read_text() if not done.returncode else ""
        return done

    def without_wheel(self, errors: str) -> bool:
        """Leave out a package that has no wheel for the target; say whether there was one."""
        found = NO_WHEEL.search(errors)
        if not found or canonicalize_name(found[1]) in self.overrides:
            return False
        name, version = canonicalize_name(found[1]), found[2] if found[2].startswith("==") else ""
        if name == "psycopg2-binary" and f"{name}{version}" in self.added:
            self.added[self.added.index(f"{name}{version}")] = name  # a newer one, which has wheels for this Python
            return True
        self.overrides[name] = version
        if other := WITH_WHEELS.get(name):
            self.added.append(f"{other}{version}")
            self.result.said.append(f"{other} takes the place of {name}, which has no wheels: it is the same module.")
        else:
            self.result.missing.append(f"{name}{version}")
        return True

    def untried(self) -> bool:
        """Have uv take versions that the runtime was tried with, where the project does not say which; whether it must."""
        again = False
        for problem in versions.problems({name: [version] for name, version in self.result.packages.items()}):
            package, place = problem.package, self.source.place(problem.package)
            told = (
                f"{place or self.source.shown(self.source.path)}: {package}=={problem.version}, {problem.reason}: the runtime "
                f"works inside of it. Write '{package}{problem.wanted}'."
            )
            if package in self.adjusted or self.written(package):
                self.result.problems.append(told)
                continue
            self.blocked.append(told)
            self.adjusted[package] = str(problem.wanted)
            self.before[package] = f"{problem.version}, {problem.reason}"
            again = True
        if not again or self.result.problems:
            self.result.problems += lock_filter.python_problems(
                self.result.packages, self.target.python, self.source.place
            )
        return again and not self.result.problems

    def written(self, package: str) -> bool:
        """Whether the project itself fixes the version of a package, and not only its lock file."""
        if self.source.path.name in LOCKS:
            line = self.source.direct.get(package)
            return bool(line and "==" in line.text)
        return any(line.name == package and "==" in line.text for line in (*self.source.lines, *self.source.pins))

    def refused(self, errors: str) -> str:
        """Say why uv finds no versions."""
        text = errors.replace(f"=={PYTHON[self.target.debian]}", "").strip()
        text = re.sub(r"\n\nhint: .*", "", text, flags=re.S).removeprefix("error: ")
        return f"{self.source.shown(self.source.path)} cannot be locked for {self.target}: {text}"

    def told(self, output: str) -> None:
        """Write the lock file, and say what the project does not name."""
        for package in self.adjusted if self.source.path.name in LOCKS else ():
            if self.source.place(package):
                self.result.said.append(
                    f"{package} is {self.result.packages[package]}: {self.source.shown(self.source.path)} has {self.before[package]}."
                )
        own = re.findall(r"^([A-Za-z0-9._-]+)==\S+ \\\n(?:    --hash.*\n)+    # via -r coldframe\.in$", output, re.M)
        if own:
            named = ", ".join(f"{name} {self.result.packages[canonicalize_name(name)]}" for name in own)
            self.result.said.append(
                f"Added, because the project does not name {'it' if len(own) == 1 else 'them'}: {named}."
            )
        others = sorted(
            {self.source.shown(path): path for path in self.source.files if path != self.source.path}.items()
        )
        files = [(self.source.shown(self.source.path), self.source.path), *others]
        head = [f"# Made by 'make lock' for {self.target} from the application's files below. Change those instead."]
        head += [f"# from {name} sha256:{lock_filter.digest(path)}" for name, path in files]
        self.result.text = "\n".join(head) + "\n" + output


def target_of(text: str) -> Target | None:
    """Return what a lock file was made for; None where it does not say."""
    found = lock_filter.MADE_FOR.search(text)
    return Target(found[1], found[3]) if found else None
