"""Ansible action of the module uv_venv: sends the host its packages where it is to ask no index itself."""

from __future__ import annotations

import fcntl
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from packaging.requirements import Requirement


def wanted(lock: str, environment: dict[str, str]) -> str:
    """Return the lines of a lock file that count in an environment, without their markers and options.

    pip evaluates markers for the Python that runs it, which is the controller's and not the host's.

    :param environment: the host's values of the environment markers.
    """
    lines = []
    for line in lock.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line or line.startswith("-"):
            continue
        named, *hashes = re.split(r"\s+(?=--hash)", line)
        requirement = Requirement(named)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            lines.append(" ".join([str(requirement), *hashes]))
    return "\n".join(lines) + "\n"


def platforms(machine: str, glibc: str) -> list[str]:
    """Return the platforms whose wheels a host takes (PEP 600, PEP 513, PEP 571, PEP 599), the best first.

    :param glibc: the host's version of it, such as `2.36`.
    """
    newest = int(glibc.split(".")[1])
    older = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    names = [f"linux_{machine}"]
    for minor in range(newest, 4, -1):
        names.append(f"manylinux_2_{minor}_{machine}")
        if minor in older:
            names.append(f"{older[minor]}_{machine}")
    return names


def told(errors: str) -> str:
    """Return what pip says of a failure, without warnings and the versions that are for other Pythons."""
    noise = ("WARNING: ", "ERROR: Ignored the following ")
    return "\n".join(line for line in errors.splitlines() if not line.startswith(noise)).strip()


def collect(lock: str, target: dict[str, str], cache: Path) -> Path:
    """Return a file with every wheel that a host needs for a lock file, made on this machine unless it is there.

    :param target: the host's environment markers, and `glibc`.

    Raises ValueError with what pip said when a package cannot be had.
    """
    packages = wanted(lock, target)
    python, machine = target["python_version"], target["platform_machine"]
    asked = [f"--platform={platform}" for platform in platforms(machine, target["glibc"])]
    asked += ["--implementation=cp", f"--python-version={python}", f"--abi=cp{python.replace('.', '')}"]
    key = hashlib.sha256("\n".join([packages, *asked]).encode()).hexdigest()[:12]
    archive = cache / f"{key}.zip"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as alone, tempfile.TemporaryDirectory(dir=cache, prefix=".") as folder:
        fcntl.flock(alone, fcntl.LOCK_EX)  # other hosts may need the same
        if archive.exists():
            return archive
        listed = Path(folder, "packages.txt")
        listed.write_text(packages)
        # No dependencies: the lock file has them all. Wheels only: a build would be for this machine.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        pip += ["--require-hashes", "--no-deps", "--only-binary=:all:", *asked, f"--dest={folder}/wheels"]
        done = subprocess.run([*pip, "--requirement", listed], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(
                f"app_packages_from is 'controller', and the controller did not get the packages for Python {python} on "
                f"{machine} with glibc {target['glibc']}: {told(done.stderr)}\n"
                f"Each needs a wheel for that in the controller's own index ('{sys.executable} -m pip config list' "
                "tells which it is), with a hash that is in the lock file. Where there is none, take a version that has "
                "one, or build it (docs/new.md, 'Packages without wheels')."
            )
        partial = Path(folder, "all.zip")
        with zipfile.ZipFile(partial, "w") as together:  # stored: wheels are compressed
            for wheel in sorted(Path(folder, "wheels").glob("*.whl")):
                together.write(wheel, wheel.name)
        partial.replace(archive)
    return archive


class ActionModule(ActionBase):
    """Runs the module, and once more with the packages if it says that it needs them."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if "packages_for" not in result:
            return result
        try:
            cache = Path(arguments.get("wheel_cache", ".cache/wheels")).resolve()
            archive = collect(arguments["lock"], result["packages_for"], cache)
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        folder = self._connection._shell.tmpdir or self._make_tmp_path()  # removed by cleanup(), like any action's
        sent = self._connection._shell.join_path(folder, "wheels.zip")
        self._transfer_file(str(archive), sent)
        self._fixup_perms2((folder, sent))
        result = self._execute_module(module_args=arguments | {"wheels": sent}, task_vars=task_vars)
        return result
