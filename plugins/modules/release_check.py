#!/usr/bin/python
"""Ansible module: what the controller can tell of a release before any host has it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_check
short_description: Loads a release on the controller and lists what a host would refuse
description:
  - Unpacks the file of M(release_artifact) into a folder that is removed again, and loads the application there with the
    packages of its lock file and the variables of a release. Secrets are placeholders.
  - No host is asked, and no connection is made. Nothing is written but temporary files.
  - What only a host can tell is in RV(left), and no problem.
  - Does the same in check mode.
options:
  artifact: {description: "The file of the release.", type: path, required: true}
  release: {description: The release id., type: str, required: true}
  venv: {description: "The virtual environment, whose name is of M(uv_venv) on the controller.", type: path, required: true}
  venv_error: {description: "Why there is none; then nothing is loaded.", type: str, default: ""}
  root: {description: The application's folder on the hosts., type: path, required: true}
  source: {description: The application's folder on the controller., type: path, required: true}
  python: {description: "The version of the hosts' Python, such as C(3.13).", type: str, required: true}
  python_path: {description: "A folder of the application that modules are imported from, relative to it.", type: str, default: ""}
  celery: {description: "The Celery application, as C(module:name).", type: str, required: true}
  wsgi: {description: "The WSGI or ASGI application, as C(module:name).", type: str, default: ""}
  check_level: {description: As for M(release_prepare)., type: str, default: WARNING}
  check_ignore: {description: As for M(release_prepare)., type: list, elements: str, default: []}
  load_timeout: {description: Seconds in which the application must be loaded., type: int, default: 180}
  placeholders: {description: "What stands for the secrets, name to text.", type: dict, default: {}}
  own_secrets: {description: Names of the application's own secrets among them., type: list, elements: str, default: []}
  lock_file: {description: "The lock file, for messages.", type: str, required: true}
  lock_remedy: {description: "What to do to add a package to the lock file, as a part of a sentence.", type: str, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- release_check:
    artifact: .cache/releases/3f2a9c1b7d04.tar.gz
    release: 3f2a9c1b7d04
    venv: .cache/environments/0a1b2c3d4e5f-3.13
    root: /srv/shop
    source: ../shop
    python: "3.13"
    celery: shop.celery:app
    lock_file: requirements.txt
    lock_remedy: "add it to requirements.in, and lock again"
"""

RETURN = r"""
problems: {description: "What a host would refuse, each with its place in the application, and what to do.", type: list, returned: always}
may_fail: {description: "What may fail on a host, and need not, a line each.", type: list, returned: always}
left: {description: "What is left to the hosts, a line each.", type: list, returned: always}
settings: {description: "What is laid over the application's settings, and what stays, as text.", type: str, returned: always}
tasks: {description: "The tasks, queues and C(schedule) of the Celery application; empty if it was not loaded.", type: dict, returned: always}
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_commands import plain
from ansible.module_utils.coldframe_failures import check_remedies, remedies

SHOWN = 300  # characters of what uv says
KEPT = 30 * 24 * 3600  # seconds for which an environment stays that no check has used
ORDER = ("celery", "wsgi", "check_level", "check_ignore", "load_timeout")
# What uv says of a package that does not run with a version of Python.
OTHER_PYTHON = re.compile(r"does\s+not\s+satisfy\s+Python(\S+)\s+and\s+(\S+==\S+)\s+depends\s+on\s+Python")
NEWER = re.compile(
    r"SyntaxError|cannot import name|No module named"
)  # what an older Python says of code for a newer one


class Folder:
    """A release as it would lie on a host, in a temporary folder."""

    def __init__(self, parameters: dict[str, Any], top: str) -> None:
        """Unpack it below `top`."""
        self.parameters, self.root = parameters, Path(os.path.realpath(top))
        self.release = self.root / "releases" / parameters["release"]
        self.hosts = f"{parameters['root']}/releases/{parameters['release']}"
        self.release.parent.mkdir()
        for folder in ("shared/media", "credentials"):
            (self.root / folder).mkdir(parents=True)
        for name, value in parameters["placeholders"].items():
            (self.root / "credentials" / name).write_text(str(value))
        options: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
        with tarfile.open(parameters["artifact"]) as archive:
            archive.extractall(self.release.parent, **options)  # noqa: S202  # it is our own
        (self.release / ".release/static").mkdir(exist_ok=True)
        for name in ("environment", "overlay.json"):
            file = self.release / ".release" / name
            file.write_text(file.read_text().replace(f"{parameters['root']}/", f"{self.root}/"))
        # Code may name a folder of the hosts, such as one of app_writable.
        shared = f"{parameters['root']}/shared".encode()
        for file in self.release.rglob("*.py"):
            if file.is_file() and shared in (text := file.read_bytes()):
                file.write_bytes(text.replace(shared, str(self.root / "shared").encode()))

    def environment(self) -> dict[str, str]:
        """Return the variables of a unit, and those that Python needs here."""
        own = self.release / ".release"
        path = [str(own / "runtime")]
        if self.parameters["python_path"]:
            path.append(str(self.release / self.parameters["python_path"]))
        words = shlex.split((own / "environment").read_text())
        return {
            "PATH": f"{self.parameters['venv']}/bin:{os.environ.get('PATH', os.defpath)}",
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": ":".join(path),
            "CELERY_SETTINGS_FILE": str(own / "celery-web.json"),
            "OVERLAY_FILE": str(own / "overlay.json"),
            "STATIC_ROOT": str(own / "static"),
            "CREDENTIALS_DIRECTORY": str(self.root / "credentials"),
            "REDIS_USERNAME": "web",
            "RELEASE_ID": self.parameters["release"],
            **dict(word.split("=", 1) for word in words),
        }

    def told(self, text: str) -> str:
        """Return a text with the hosts' paths for those here; in tracebacks, paths of the application are relative to it."""
        text = text.replace(str(self.release), self.hosts).replace(str(self.root), self.parameters["root"])
        return re.sub(rf'(File \\?"){re.escape(self.hosts)}/', r"\1", text)  # in JSON there is a \ before it


def load(folder: Folder) -> tuple[dict[str, Any], str]:
    """Load the application; return what was found, and why that was not possible."""
    parameters = folder.parameters
    order = {name: parameters[name] for name in ORDER} | {
        "check": parameters["check_level"] != "NONE",
        "writable": [str(folder.root / "shared"), str(folder.release / ".release/static")],
        "secrets": bool(parameters["own_secrets"]),
    }
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [f"{parameters['venv']}/bin/python", "-m", "coldframe.release.controller"],
            cwd=folder.release,
            env=folder.environment(),
            input=json.dumps(order),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=parameters["load_timeout"] + 120,  # missing variables are looked for, for up to 60 s
        )
        with contextlib.suppress(ValueError):
            return without_controls(json.loads(folder.told(done.stdout))), ""
        if "\nTimeout (" not in f"\n{done.stderr}":  # faulthandler's word
            return {}, f"its process ended with {done.returncode}: {folder.told(plain(done.stderr)).strip()[-300:]}"
    return {}, f"it was not loaded within {parameters['load_timeout']} s"


def without_controls(value: Any) -> Any:
    """Return a value of JSON whose texts have no control characters: some of them are the application's."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [without_controls(each) for each in value]
    return {name: without_controls(each) for name, each in value.items()} if isinstance(value, dict) else value


def advice(finding: dict[str, Any], parameters: dict[str, Any], wanted: str) -> list[str]:
    """Say what to do about a finding.

    :param wanted: the versions of Python that the project asks for, where the hosts' is none of them.
    """
    text, module = finding["text"], finding.get("module", "")
    if wanted and NEWER.search(text):
        return [
            f"The project asks for Python {wanted}, and the hosts have {parameters['python']}: "
            "take hosts with another Debian, or write what this Python has too."
        ]
    if module:
        return [about_module(module, Path(parameters["source"]), parameters["python_path"], parameters["lock_remedy"])]
    if variable := finding.get("variable"):
        return remedies(f"Set the {variable} environment variable")
    if "check" in finding:
        known = [f"In the settings: {line.partition(': ')[2]}." for line in check_remedies([text])]
        return known + ([f"Or, if it is meant to be so: release_check_ignore: [{finding['check']}]."] if known else [])
    return remedies(text)


def about_module(module: str, source: Path, python_path: str, lock_remedy: str) -> str:
    """Say what to do about a module that is not there: it is left out, in another folder, or of no package."""
    for folder in (source, source / python_path):
        if (folder / module).is_dir() or (folder / f"{module}.py").is_file():
            return (
                f"{folder / module} is not in the release: git ignores it, or a release leaves its name out. "
                f"Write app_include: [{(folder / module).relative_to(source)}]."
            )
    found = {path.parents[1] for path in source.glob(f"*/{module}/*.py")} | {
        path.parent for path in source.glob(f"*/{module}.py")
    }
    if folders := sorted(folder for folder in found if not folder.name.startswith(".")):
        return f"It is in {folders[0]}: set app_python_path to {folders[0].name!r}."
    return f"If a package brings it, {lock_remedy}."


def about_packages(error: str, parameters: dict[str, Any]) -> tuple[list[str], str]:
    """Tell a package that cannot be installed on a host either from what only the controller lacks.

    :param error: why the environment was not built.
    :returns: problems, and a line about what is left to the hosts; one of them is empty.
    """
    if found := OTHER_PYTHON.search(error):
        wanted, package = found.groups()
        return [
            f"{parameters['lock_file']} locks {package}, which needs Python {wanted}, and the hosts have {parameters['python']}. "
            "Take hosts with another Debian, or allow an older version of it in the requirements and lock again."
        ], ""
    line = re.split(r", and\s+hosts build nothing", error.strip())[0].replace("this host", "this machine")
    line = " ".join(line.partition(" was not built from its lock file: ")[2].split()) or line
    return [], line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def python_wanted(source: Path, python: str) -> str:
    """Return the versions of Python that a project asks for, if the hosts' is none of them; else empty."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        told = tomllib.loads((source / "pyproject.toml").read_text())
        asked = str(told.get("project", {}).get("requires-python", ""))
        return "" if SpecifierSet(asked).contains(f"{python}.99") or SpecifierSet(asked).contains(python) else asked
    except (ImportError, OSError, ValueError, InvalidSpecifier):
        return ""


def written(finding: dict[str, Any], parameters: dict[str, Any], wanted: str) -> str:
    """Write a finding with its place and what to do."""
    first, *rest = finding["text"].splitlines()
    lines = [": ".join(filter(None, (finding["place"], first)))]
    return "\n".join(lines + [f"    {line}" for line in [*rest, *advice(finding, parameters, wanted)]])


def prune(venv: Path) -> None:
    """Remove environments that no check has used for long."""
    os.utime(venv / ".lock-sha256")
    for stamp in venv.parent.glob("*/.lock-sha256"):
        if stamp.stat().st_mtime < time.time() - KEPT:
            shutil.rmtree(stamp.parent, ignore_errors=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "artifact": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "venv": {"type": "path", "required": True},
            "venv_error": {"type": "str", "default": ""},
            "root": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "python_path": {"type": "str", "default": ""},
            "celery": {"type": "str", "required": True},
            "wsgi": {"type": "str", "default": ""},
            "check_level": {"type": "str", "default": "WARNING"},
            "check_ignore": {"type": "list", "elements": "str", "default": []},
            "load_timeout": {"type": "int", "default": 180},
            "placeholders": {"type": "dict", "default": {}},
            "own_secrets": {"type": "list", "elements": "str", "default": []},
            "lock_file": {"type": "str", "required": True},
            "lock_remedy": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    result: dict[str, Any] = {}
    problems, reason = about_packages(parameters["venv_error"], parameters)
    if not parameters["venv_error"]:
        prune(Path(parameters["venv"]))
        with tempfile.TemporaryDirectory(dir=module.tmpdir) as top:
            result, reason = load(Folder(parameters, top))
    wanted = python_wanted(Path(parameters["source"]), parameters["python"])
    left = [*result.get("left", []), *([reason] if reason else [])]
    module.exit_json(
        changed=False,
        problems=problems + [written(finding, parameters, wanted) for finding in result.get("findings", [])],
        may_fail=[f"Warning: {line}" for line in result.get("warnings", [])],
        left=[f"Not checked on the controller, and left to the hosts: {line}" for line in left],
        settings=result.get("settings", ""),
        tasks=result.get("tasks", {}),
    )


if __name__ == "__main__":
    main()
