"""Makes the lock file beside an inventory again: `make lock`, and `make wheels` before it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import debian_packages
import locking
from connections import ROOT, ansible, environment_of, environments, inventory_of, make_sandbox_secrets, variables_of
from newinventory import SERVES_ASGI, WHEELS
from packaging.utils import canonicalize_name
from project import RefusedError

SOURCE = (
    "app_source",
    "app_repository",
    "app_version",
    "app_repository_folder",
    "app_lock_file",
    "app_asgi",
    "app_packages_from",
    "sandbox_suite",
    "app_otel_endpoint",
)
# Whether the secrets of the application have the address of a Sentry; "0" or "1".
SENTRY = "(app_secrets | default({}) | list | intersect(['sentry_dsn']) | length)"
# How many queues have the pool gevent.
GREEN = "((celery_queues | default({})).values() | selectattr('pool', 'defined') | selectattr('pool', 'equalto', 'gevent') | length)"

NOT_STARTED = (125, 126, 127)  # exit codes of podman's own


@dataclass
class Beside:
    """The lock file of an inventory, and what it is made from."""

    inventory: Path
    path: Path
    text: str  # as it is; empty when it is yet to be made
    source: locking.Source
    target: locking.Target
    more: list[str]
    reports: list[str]  # what makes the application's processes report to somebody, whose packages are added
    asgi: bool
    packages_from: str = ""  # app_packages_from

    @property
    def environment(self) -> str:
        """Return its ENV."""
        return environment_of(self.inventory)

    def make(self, upgrade: bool = False) -> locking.Locked:
        """Make the lock file's text."""
        known = locking.lock_filter.versions
        tables = [known.REPORTING, known.REPORTING_ASGI] if self.asgi else [known.REPORTING]
        added = [
            f"{name}{range_}" for table in tables for key in self.reports for name, range_ in table.get(key, {}).items()
        ]
        maker = locking.Maker(self.source, self.target, self.inventory / WHEELS, [*self.more, *added])
        return maker.run(self.text, upgrade)

    def current(self) -> bool:
        """Whether it is of the requirements as they are, and has what the application's processes report with."""
        files = {self.source.shown(path): locking.lock_filter.digest(path) for path in self.source.files}
        made = locking.target_of(self.text) == self.target
        locked, _ = locking.lock_filter.read(self.text)
        made = made and not locking.lock_filter.report_problems(self.text, locked, self.reports, self.asgi, "", "")
        return made and dict(locking.lock_filter.MADE_FROM.findall(self.text)) == files


def checkout(inventory: Path, host: str, said: dict[str, str]) -> Path:
    """Return the application's folder, checked out where it is a repository."""
    if not said["app_repository"]:
        return Path(os.path.normpath((inventory if inventory.is_dir() else inventory.parent) / said["app_source"]))
    arguments = {
        "repository": said["app_repository"],
        "version": said["app_version"],
        "repository_folder": said["app_repository_folder"],
        "cache": str(ROOT / ".cache/sources"),
    }
    command = [
        "ansible",
        host,
        "-i",
        str(inventory),
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    answer = ansible(*command, "-m", "release_source", "-a", json.dumps(arguments))
    return Path(json.loads(answer[answer.index("{") :])["path"])


def beside(given: dict[str, str]) -> Beside:
    """Find the lock file of an inventory, and what it is made from.

    Raises RefusedError.
    """
    if "ENV" not in given:
        raise RefusedError(f"ENV is missing: set it to one of {environments()}, or to the folder of an inventory.")
    inventory = inventory_of(given["ENV"])
    if not inventory.exists():
        raise RefusedError(
            f"ENV is {given['ENV']!r}, and there is no {inventory}. Set it to one of {environments()}, or to a folder."
        )
    names = {name: name for name in SOURCE} | {"sentry": SENTRY, "green": GREEN}
    make_sandbox_secrets(inventory)
    host, said = next(iter(variables_of(str(inventory), "all", names).items()), ("", {}))
    if not host:
        raise RefusedError(f"{inventory} has no host: put one into its hosts.yml.")
    path = Path(said["app_lock_file"])
    if not path.is_absolute():
        raise RefusedError(
            f"app_lock_file is {said['app_lock_file'] or 'requirements.txt'!r}, a file of the application itself: make it there "
            "(docs/new.md, 'The lock file'), or set app_lock_file: \"{{ inventory_dir }}/requirements.txt\" for one that make lock makes."
        )
    folder = checkout(inventory, host, said)
    if not folder.is_dir():
        raise RefusedError(f"app_source is {str(folder)!r}, which is no folder on this machine.")
    text = path.read_text() if path.is_file() else ""
    before = locking.target_of(text)
    sandbox = next((release for release, suite in debian_packages.SUITE.items() if suite == said["sandbox_suite"]), "")
    debian = given.get("DEBIAN") or (before.debian if before else sandbox or "13")
    if debian not in debian_packages.PYTHON:
        raise RefusedError(f"DEBIAN is {debian!r}; it must be {' or '.join(debian_packages.PYTHON)}.")
    made_from = [name for name, _ in locking.lock_filter.MADE_FROM.findall(text) if (folder / name).is_file()]
    top = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
    try:
        source = locking.find(folder, top, given.get("REQUIREMENTS", made_from[0] if made_from else ""))
    except ValueError as error:
        raise RefusedError(str(error)) from error
    target = locking.Target(debian, before.machine if before else platform.machine() if sandbox else "x86_64")
    named = {"app_secrets.sentry_dsn": said["sentry"] != "0", "app_otel_endpoint": bool(said["app_otel_endpoint"])}
    named[locking.lock_filter.versions.GREEN] = said["green"] != "0"
    reports = [name for name, is_named in named.items() if is_named]
    more, asgi = (SERVES_ASGI, True) if said["app_asgi"] else ([], False)
    return Beside(inventory, path, text, source, target, more, reports, asgi, said["app_packages_from"])


def changes(before: str, after: dict[str, str]) -> str:
    """Say which packages have other versions, are new or are gone."""
    old = {name: found[0] for name, found in locking.lock_filter.read(before)[0].items()}
    told = [
        f"{name} {old[name]} -> {version}" for name, version in after.items() if name in old and old[name] != version
    ]
    told += [f"{name} {version} is new" for name, version in after.items() if name not in old]
    told += [f"{name} is gone" for name in old if name not in after]
    return "\n".join(f"  {each}" for each in told) if old else ""


def lock(given: dict[str, str]) -> str:
    """Make the lock file again if its input has changed, or with UPGRADE=1; return what to tell.

    Raises RefusedError; then nothing is written.
    """
    found = beside(given)
    if found.current() and "UPGRADE" not in given:
        return (
            f"{found.path} matches the application's requirements: nothing to do. UPGRADE=1 takes the newest versions."
        )
    made = found.make("UPGRADE" in given)
    if made.missing:
        made.problems.append(
            f"There is no wheel for {found.target} of {', '.join(made.missing)}, and servers build nothing. Take versions that have "
            f"one, or 'make wheels ENV={found.environment}' builds them."
        )
    if made.problems:
        raise RefusedError(*made.problems)
    found.path.write_text(made.text)
    lines = [
        f"{found.path}: {len(made.packages)} packages, locked for {found.target}.",
        changes(found.text, made.packages),
        *made.said,
    ]
    return "\n".join([*filter(None, lines), f"Next: make deploy ENV={found.environment}"])


def build(given: dict[str, str]) -> None:
    """Build the packages without wheels in a container of the host image, which has the servers' Debian.

    Raises RefusedError.
    """
    found = beside(given)
    made = found.make()
    if made.problems:
        raise RefusedError(*made.problems)
    if not made.missing:
        print(f"Each package has a wheel for {found.target}: nothing to build.", flush=True)
        return
    wheels = found.inventory / WHEELS
    wheels.mkdir(exist_ok=True)
    names = [re.split(r"[=<>!~ @]", each)[0] for each in made.missing]
    system = ["build-essential", "python3-dev", "python3-pip", "pkg-config", "git"]
    system += debian_packages.to_build(map(canonicalize_name, names), found.target.debian)
    image = subprocess.run(
        [ROOT / "docker/host/build", debian_packages.SUITE[found.target.debian]],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()[-1]
    script = (
        "apt-get update -qq && apt-get install -qq --yes --no-install-recommends $SYSTEM >/dev/null && "
        'python3 -m pip wheel --no-deps --wheel-dir /wheels "$@"'
    )
    command = [
        str(ROOT / "docker/host/podman"),
        "run",
        "--rm",
        "--network=host",
        "--cgroups=disabled",  # nothing of it is needed, and a machine that may not raise limits has no filter for devices
        f"--volume={wheels}:/wheels",
        "--env=DEBIAN_FRONTEND=noninteractive",
        f"--env=SYSTEM={' '.join(system)}",
    ]
    print(f"Building {', '.join(made.missing)} for {found.target}", flush=True)
    code = subprocess.run([*command, image, "sh", "-euc", script, "build", *made.missing], check=False).returncode
    if code in NOT_STARTED:
        raise RefusedError("No container could be started: podman says why, above.")
    if code:
        raise RefusedError(
            f"Not all of {', '.join(made.missing)} could be built: what the compiler missed is a package of Debian. Or take versions with wheels."
        )
    wanted = f" Set app_packages_from: controller in {found.environment}'s group_vars/all/app.yml."
    print(f"Built in {wheels}.{'' if found.packages_from == 'controller' else wanted}", flush=True)
