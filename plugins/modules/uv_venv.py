#!/usr/bin/python
"""Ansible module: a virtual environment that is exactly a hash-locked requirements file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: uv_venv
short_description: Builds a read-only virtual environment from a hash-locked requirements file
description:
  - Builds the environment once; a stamp inside tells that it is whole and from which lock.
  - A build that was cut off is begun again, and so is one for a Python that the host has no more. An environment
    in use is never changed.
  - The host asks a package index, or the controller collects what this host's Python needs and sends it.
options:
  path: {description: Where the environment goes., type: path, required: true}
  lock: {description: The text of the lock file., type: str, required: true}
  uv: {description: The uv program; pip builds the environment when empty., type: path, default: ""}
  python:
    description:
      - The interpreter, or a version of Python such as C(3.13). uv finds that one, or installs it beside O(path) where it may.
    type: str
    default: /usr/bin/python3
  cache: {description: "The folder of uv's downloads; uv's own when empty.", type: path, default: /var/cache/uv}
  shared: {description: "Whether other processes may build it at the same time: then one waits for the other.", type: bool, default: false}
  packages_from:
    description: Who asks a package index, the host or the controller. The controller asks the one that its pip is set to.
    type: str
    choices: [index, controller]
    default: index
  index_url: {description: "The index that the host asks; the program's own default when empty.", type: str, default: ""}
  wheel_cache: {description: Where the controller keeps what it collected., type: path, default: .cache/wheels}
  wheels: {description: The collected packages on the host; the action sets it., type: path, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- uv_venv:
    path: /srv/shop/venvs/3f2a9c1b7d04
    lock: "{{ lookup('ansible.builtin.file', 'requirements.txt', rstrip=false) }}"
    uv: /opt/uv/bin/uv
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_commands import plain

AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian's
# The environment markers of PEP 508, and the C library's version.
TARGET = """
import json, os, platform, sys
print(json.dumps({
    "implementation_name": sys.implementation.name,
    "implementation_version": platform.python_version(),
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_release": platform.release(),
    "platform_system": platform.system(),
    "platform_version": platform.version(),
    "python_full_version": platform.python_version(),
    "python_version": "%d.%d" % sys.version_info[:2],
    "sys_platform": sys.platform,
    "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[-1],
}))
"""


VERSION = re.compile(r"\d+\.\d+")


def interpreter(module: AnsibleModule, path: Path) -> str:
    """Return the interpreter that is asked for: that of the environment, one on this machine, or one that uv installs.

    Fails when there is none of the version that is asked for.
    """
    python: str = module.params["python"]
    if not VERSION.fullmatch(python):
        return python
    uv = module.params["uv"]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    known = [str(path / "bin/python"), shutil.which(f"python{python}"), *map(str, pyenv.glob(f"{python}.*/bin/python"))]
    check = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != '{python}')"
    for each in filter(None, known):
        if Path(each).exists() and module.run_command([each, "-c", check])[0] == 0:
            return each
    environment = {
        "UV_PYTHON_INSTALL_DIR": str(path.parent / "python"),
        "UV_HTTP_TIMEOUT": "10",
        "UV_HTTP_RETRIES": "0",
    }
    find = [uv, "python", "find", "--no-project", "--no-python-downloads", python]
    code, found, _ = module.run_command(find, environ_update=environment)
    if code:
        install = [uv, "python", "install", "--quiet", "--no-bin", python]
        module.run_command(install, environ_update=environment)
        code, found, _ = module.run_command(find, environ_update=environment)
    if code:
        module.fail_json(msg=f"There is no Python {python} on this machine, and uv can get none.")
    return str(found).strip()


def fits(module: AnsibleModule, path: Path) -> bool:
    """Whether an environment is for the Python that the interpreter is now: an upgrade of Debian brings another."""
    if not path.is_dir():
        return False
    if VERSION.fullmatch(module.params["python"]):
        return (path / f"lib/python{module.params['python']}").is_dir() and (path / "bin/python").exists()
    _, target, _ = module.run_command([module.params["python"], "-c", TARGET], check_rc=True)
    return (path / "lib/python{python_version}".format(**json.loads(target))).is_dir()


def without_wheels(
    module: AnsibleModule, install: list[str], requirements: Path, errors: str, environment: dict[str, str]
) -> list[str]:
    """List the packages that an installation failed for want of a wheel; uv names them one by one, so it is asked again."""
    missing: list[str] = []
    # In a lock file for several platforms a package may have a marker, which stands in braces before the version.
    told = re.compile(r"([A-Za-z0-9._-]+)(?:\{[^}]*\})?==([^\s,]+) has no\s+(?:usable\s+)?wheels")
    while (found := told.search(errors)) and len(missing) < 50:
        missing.append(f"{found[1]}=={found[2]}")
        name, version = map(re.escape, found.groups())
        rest = re.sub(rf"(?im)^{name}(\[[^]]*\])?=={version}\b(.*\\\n)*.*\n?", "", requirements.read_text())
        if rest == requirements.read_text():
            break
        requirements.write_text(rest)
        _, _, errors = module.run_command([*install, "--dry-run"], environ_update=environment)
    return missing


def build(module: AnsibleModule, path: Path, work: Path) -> None:
    """Build the environment at path, with a folder to work in."""
    requirements = work / "requirements.txt"
    requirements.write_text(module.params["lock"])
    cache = module.params["cache"]
    environment = {
        **({"UV_CACHE_DIR": cache} if cache else {}),
        "UV_SYSTEM_CERTS": "1",  # a company's own authority counts where the host trusts it
        "UV_NO_PROGRESS": "1",
        **({"UV_HTTP_RETRIES": "1"} if module.params["shared"] else {}),  # a person waits, and a host can do without it
        "UV_PYTHON_DOWNLOADS": "never",
        **({"PIP_CERT": str(AUTHORITIES)} if AUTHORITIES.exists() else {}),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    source = []
    if module.params["wheels"]:
        with zipfile.ZipFile(module.params["wheels"]) as together:
            together.extractall(work / "wheels")
        source = ["--no-index", f"--find-links={work / 'wheels'}"]
        environment["UV_CACHE_DIR"] = str(work / "cache")
    elif module.params["index_url"]:
        environment |= dict.fromkeys(["UV_DEFAULT_INDEX", "PIP_INDEX_URL"], module.params["index_url"])
    # No source builds: a build runs the package's code as root, and needs compilers.
    uv, python = module.params["uv"], interpreter(module, path)
    if uv:
        create = [uv, "venv", "--quiet", "--python", python, str(path)]
        install = [uv, "pip", "sync", "--quiet", "--require-hashes", "--no-build", "--compile-bytecode"]
        install += [*source, "--python", str(path), str(requirements)]
    else:
        create = [python, "-m", "venv", str(path)]
        install = [str(path / "bin/python"), "-m", "pip", "--quiet", "install", "--require-hashes", "--no-deps"]
        install += [*source, "--only-binary=:all:", "--requirement", str(requirements)]
    for arguments in (create, install):
        code, _, errors = module.run_command(arguments, environ_update=environment)
        if code and (missing := without_wheels(module, arguments, requirements, errors, environment)):
            module.fail_json(
                msg=f"{path} was not built from its lock file: there is no wheel for this host of {', '.join(missing)}, and "
                "hosts build nothing. Take packages that have wheels (psycopg[binary] for psycopg[c]), or build them and deploy "
                "with app_packages_from: controller (docs/new.md, 'Packages without wheels').",
                rc=code,
            )
        if code:
            hint = "If this host reaches no package index, set app_packages_from to 'controller'."
            msg = f"{path} was not built from its lock file: {plain(errors).strip()}"
            module.fail_json(msg=msg if module.params["wheels"] else f"{msg}\n{hint}", rc=code)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "lock": {"type": "str", "required": True},
            "uv": {"type": "path", "default": ""},
            "python": {"type": "str", "default": "/usr/bin/python3"},
            "cache": {"type": "path", "default": "/var/cache/uv"},
            "shared": {"type": "bool", "default": False},
            "packages_from": {"type": "str", "choices": ["index", "controller"], "default": "index"},
            "index_url": {"type": "str", "default": ""},
            "wheel_cache": {"type": "path", "default": ".cache/wheels"},
            "wheels": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    with ExitStack() as stack:
        path = Path(module.params["path"])
        if module.params["shared"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(path.with_name(f"{path.name}.lock").open("w")), fcntl.LOCK_EX)
        run(module, path)


def run(module: AnsibleModule, path: Path) -> None:
    """Build the environment, unless it is there."""
    stamp = path / ".lock-sha256"
    digest = hashlib.sha256(module.params["lock"].encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest and fits(module, path):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    if module.params["packages_from"] == "controller" and not module.params["wheels"]:
        _, target, _ = module.run_command([interpreter(module, path), "-c", TARGET], check_rc=True)
        module.exit_json(changed=False, packages_for=json.loads(target))

    shutil.rmtree(path, ignore_errors=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as work:
        build(module, path, Path(work))
    (path / ".lock").unlink(missing_ok=True)  # uv's, and writable by everyone
    stamp.write_text(digest)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
