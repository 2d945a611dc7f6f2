#!/usr/bin/python
"""Ansible module: what the commands of app_build write, for the release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_build
short_description: Runs commands in a copy of the application's source and keeps what they write
description:
  - Copies the files of a release to a folder on the controller, runs the commands there, and keeps the files that are new or
    changed. M(release_artifact) packs them over the source.
  - The result is kept in O(cache) by a digest of source, commands and environment. With the same ones, nothing is run.
  - Nothing but the cache is touched, so it does the same in check mode.
options:
  src: {description: The application's folder., type: path, required: true}
  kind: {description: "Who says what of it is source, as M(release_source) returns it.", type: str, choices: [checkout, work_tree, folder], required: true}
  include: {description: As for M(release_artifact). It applies to what is written too., type: list, elements: str, default: []}
  exclude: {description: The same., type: list, elements: str, default: []}
  commands: {description: "The commands, in words as in a shell, without one.", type: list, elements: str, required: true}
  venv: {description: "The environment with the application's packages, whose programs are found first.", type: path, required: true}
  venv_error: {description: "Why there is none.", type: str, default: ""}
  timeout: {description: Seconds that a command may take., type: int, default: 1800}
  cache: {description: Folder for the results., type: path, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- release_build:
    src: ../shop
    kind: work_tree
    commands: [npm ci, npm run build]
    venv: .cache/environments/0a1b2c3d4e5f-3.13
    cache: .cache/builds
"""

RETURN = r"""
path: {description: The folder with what the commands wrote., type: str, returned: always}
ran: {description: "Whether the commands were run, and not found in the cache.", type: bool, returned: always}
left_out: {description: What the commands wrote and a person might miss in the release., type: str, returned: always}
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_commands import LONGEST, run
from ansible.module_utils.coldframe_files import Choice, refuse_others

# The variables of whoever deploys that the commands see. No others: some of them may be secrets of the deployment.
PASSED = ("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
PASSED_TOO = re.compile(r"(https?|no|all)_proxy|npm_config_.*", re.IGNORECASE)
WORK = ".work"  # the end of the name of a folder in which commands run
KEPT = 30 * 24 * 3600  # seconds for which a result stays that no deploy has used
NODE = "install Node.js with npm on this machine (on Debian: apt install nodejs npm)"
GETTEXT = "install gettext on this machine (on Debian: apt install gettext)"
REMEDIES = {
    **dict.fromkeys(("npm", "npx", "node"), NODE),
    **dict.fromkeys(("yarn", "pnpm"), "install it on this machine (npm install --global {0})"),
    **dict.fromkeys(("msgfmt", "xgettext"), GETTEXT),
    "manage.py": "write python manage.py",
}
OF_PACKAGES = ("python", "python3", "django-admin")  # never another one's than the application's
OTHER_REMEDY = "install it on this machine, or lock the package that brings it"


def entry(path: Path) -> list[Any]:
    """Say what a file is: whether it is executable, the digest of its content, where it leads if it is a link."""
    if path.is_symlink():
        return [False, "", os.readlink(path)]
    return [bool(path.stat().st_mode & 0o100), hashlib.sha256(path.read_bytes()).hexdigest(), ""]


def copy(files: Iterable[Path], source: Path, destination: Path) -> None:
    """Copy files and links, named relative to both folders."""
    for name in files:
        to = destination / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, to, follow_symlinks=False)
        if not to.is_symlink():
            to.chmod(0o755 if (source / name).stat().st_mode & 0o100 else 0o644)


def program_of(words: list[str]) -> str:
    """Return the program of a command, behind env with its options and variables."""
    while Path(words[0]).name == "env":
        behind = behind_env(words[1:])
        if not behind:  # it prints the variables
            break
        words = behind
    return words[0]


def behind_env(words: list[str]) -> list[str]:
    """Return the command that env runs, by env's own arguments."""
    while words:
        word, *rest = words
        letters = re.fullmatch(r"-([i0v]*)(?:([uCaS])(.*))?", word)
        if word == "--":
            return rest_of_variables(rest)
        if word.startswith("--"):
            option, equal, value = word.partition("=")
            separate = option in ("--unset", "--chdir", "--argv0", "--split-string") and not equal
        elif letters:
            option, value = f"-{letters[2] or ''}", letters[3] or ""
            separate = bool(letters[2] and not value)
        else:
            return rest_of_variables(words)
        if separate:
            value, rest = "".join(rest[:1]), rest[1:]
        words = [*shlex.split(value), *rest] if option in ("-S", "--split-string") else rest
    return []


def rest_of_variables(words: list[str]) -> list[str]:
    """Leave out what sets variables, up to the first word that does not."""
    return words[next((number for number, word in enumerate(words) if "=" not in word), len(words)) :]


def environment(venv: Path, cache: Path) -> dict[str, str]:
    """Return the variables that the commands see."""
    own = str(Path(sys.executable).parent)  # of Coldframe, which has other packages
    path = [folder for folder in os.environ.get("PATH", os.defpath).split(":") if folder != own]
    passed = {name: value for name, value in os.environ.items() if name in PASSED or PASSED_TOO.fullmatch(name)}
    return passed | {
        "PATH": ":".join([f"{venv}/bin", *path]),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_CEILING_DIRECTORIES": str(cache),  # the copy is in no repository, whatever it lies in
    }


def missing_programs(commands: list[str], path: str, venv_error: str) -> list[str]:
    """Say which programs are not there, and what to do. One with a folder in its name may be written by a command before."""
    problems = []
    for number, command in enumerate(commands):
        wanted = [program_of(shlex.split(command))]
        if {"compilemessages", "makemessages"} & set(shlex.split(command)):
            wanted.append("msgfmt")
        for program in wanted:
            of_packages = venv_error and program in OF_PACKAGES
            if of_packages or ("/" not in program and not shutil.which(program, path=path)):
                remedy = REMEDIES.get(program, OTHER_REMEDY).format(program)
                if venv_error and (of_packages or program not in REMEDIES):
                    remedy = f"the application's packages could not be installed on this machine: {venv_error}"
                problems.append(
                    f"app_build[{number}] is {command!r}, and there is no {program} here, on the controller: {remedy}."
                )
    return list(dict.fromkeys(problems))


def written(
    folder: Path, before: dict[str, list[Any]], include: list[str], exclude: list[str]
) -> tuple[list[Path], str]:
    """Choose what of the commands' files belongs to the release, and say what a person might miss.

    What git ignores is no question here: a build mostly writes what is not committed.

    Raises ValueError for what is neither a file nor a link.
    """
    choice = Choice(folder, "folder", include, exclude)
    refuse_others(folder, choice.files, "The commands of app_build have left")
    choice.left_out = {
        name
        for name in choice.left_out
        if "node_modules" not in Path(name).parts and not any(f"{path}/".startswith(name) for path in before)
    }
    return [path for path in choice.files if entry(folder / path) != before.get(str(path))], choice.report()


def build(parameters: dict[str, Any]) -> tuple[Path, bool, str]:
    """Return the folder with what the commands write, whether they were run, and what was left out.

    Raises ValueError, naming the command, when one fails or its program is not there.
    """
    source, cache, commands = Path(parameters["src"]), Path(parameters["cache"]).resolve(), parameters["commands"]
    include, exclude, venv = parameters["include"], parameters["exclude"], Path(parameters["venv"]).absolute()
    files = Choice(source, parameters["kind"], include, exclude).files
    refuse_others(source, files, "The application's folder has")
    before = {str(path): entry(source / path) for path in files}
    told = json.dumps([before, commands, include, exclude, venv.name], sort_keys=True, ensure_ascii=True)
    place = cache / hashlib.sha256(told.encode()).hexdigest()[:12]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "coldframe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another deploy from this folder may be building
        prune(cache)
        if ran := not place.is_dir():
            variables = environment(venv, cache)
            if problems := missing_programs(commands, variables["PATH"], parameters["venv_error"]):
                raise ValueError("\n".join(problems))
            work = place.with_suffix(WORK)
            try:
                # Tools that read .gitignore look for the top of a repository, and would find Coldframe's.
                (work / "source/.git").mkdir(parents=True)
                copy(files, source, work / "source")
                for number, command in enumerate(commands):
                    where = f"app_build[{number}], {command!r},"
                    run(
                        where,
                        shlex.split(command),
                        folder=work / "source",
                        environment=variables,
                        seconds=parameters["timeout"],
                        more="No host was changed.",
                    )
                    if not (work / "source").is_dir():
                        raise ValueError(f"{where} removed the folder that it ran in, a copy of the source.")
                chosen, left_out = written(work / "source", before, include, exclude)
                (work / "files").mkdir()
                copy(chosen, work / "source", work / "files")
                (work / "left_out").write_text(left_out)
                remove(work / "source")
                work.rename(place)
            finally:
                remove(work)
        os.utime(place / "left_out")
    return place / "files", ran, (place / "left_out").read_text()


def prune(cache: Path) -> None:
    """Remove results that no deploy has used for long, and what a build left that was killed. Nobody builds meanwhile."""
    for stamp in cache.glob("*/left_out"):
        if stamp.stat().st_mtime < time.time() - KEPT:
            remove(stamp.parent)
    for work in cache.glob(f"*{WORK}"):
        remove(work)


def remove(folder: Path) -> None:
    """Remove a folder, also where a command has closed a part of it."""
    for path, folders, _ in os.walk(folder):
        for each in (Path(path), *(Path(path, name) for name in folders)):
            with contextlib.suppress(OSError):
                if not each.is_symlink():
                    each.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "kind": {"type": "str", "choices": ["checkout", "work_tree", "folder"], "required": True},
            "include": {"type": "list", "elements": "str", "default": []},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "list", "elements": "str", "required": True},
            "venv": {"type": "path", "required": True},
            "venv_error": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": LONGEST},
            "cache": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        path, ran, left_out = build(module.params)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The commands of app_build cannot be run in a copy of the source: {error}")
    module.exit_json(changed=False, path=str(path), ran=ran, left_out=left_out)


if __name__ == "__main__":
    main()
