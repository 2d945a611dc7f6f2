"""Finds what has to be built before a project is deployed: a front end, and translations."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

# The lock file of each package manager, with its commands; {0} names another folder than the project's.
MANAGERS = {
    "package-lock.json": ("npm{0} ci", "npm{0} run build", " --prefix"),
    "npm-shrinkwrap.json": ("npm{0} ci", "npm{0} run build", " --prefix"),
    "pnpm-lock.yaml": ("pnpm{0} install --frozen-lockfile", "pnpm{0} run build", " --dir"),
    "yarn.lock": ("yarn{0} install --frozen-lockfile", "yarn{0} run build", " --cwd"),
}


def steps(project: Path) -> list[tuple[str, str]]:
    """List the commands for `app_build`, each with the file that asks for it.

    :param project: the folder of manage.py.
    """
    return translations(project) + front_end(project)


def translations(project: Path) -> list[tuple[str, str]]:
    """Return the command for translations that are there as *.po alone. In git, a *.mo that is not committed does not count."""
    try:
        told = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", project, "ls-files", "-z", "*.mo", "*.po"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        files = {project / name for name in told.split("\0") if name}
    except (OSError, subprocess.CalledProcessError):
        files = set()
    if not files:
        files = {file for file in project.rglob("locale/*/LC_MESSAGES/*.[mp]o") if "node_modules" not in file.parts}
    texts = sorted(file for file in files if file.suffix == ".po" and file.parent.parent.parent.name == "locale")
    for file in texts:
        if file.with_suffix(".mo") not in files:
            return [("django-admin compilemessages", str(file.relative_to(project)))]
    return []


def front_end(project: Path) -> list[tuple[str, str]]:
    """Return the commands for package.json, here or one folder below, that has a script named build and a lock file."""
    for file in (project / "package.json", *sorted(project.glob("*/package.json"))):
        try:
            scripts = json.loads(file.read_text()).get("scripts")
        except (OSError, ValueError, AttributeError):
            continue
        name = file.parent.relative_to(project)
        for lock, (install, run, option) in MANAGERS.items():
            if isinstance(scripts, dict) and scripts.get("build") and (file.parent / lock).is_file():
                where = f"{option} {shlex.quote(str(name))}" if name.name else ""
                said = str(file.relative_to(project))
                return [(install.format(where), said), (run.format(where), said)]
    return []
