"""Digests of what a host's configuration, and a whole deploy, follow from: when one is the same, there is nothing to do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import ansible.module_utils

# Ansible brings module_utils to the hosts, and not to its own plugins.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
from ansible.module_utils.coldframe_files import Choice, refuse_others  # noqa: E402

# Variables with a path on the controller, of a file or a folder that roles copy.
PATHS = ("nginx_snippet", "nginx_error_pages", "app_database_ca_file", "app_redis_ca_file")
FOLDERS = ("roles", "systemd", "plugins", "requirements", "runtime/coldframe")
# What a run finds out or works out (its other names begin with __).
FOUND = {"app_state", "app_checkout", "app_buildable", "app_python", "app_managed_found"}
# roles/app/tasks/facts.yml
FOUND |= {"app_project", "app_managed", "app_addresses", "app_queue_table"}
# And what makes a release rather than a host, with all that begins with release_.
NOT_INPUT = FOUND | {
    "app_source",
    "app_repository",
    "app_version",
    "app_repository_folder",
    "app_lock_file",
    "app_include",
}
NOT_INPUT |= {
    "app_exclude",
    "app_build",
    "app_hooks",
    "app_own_settings",
    "app_sandbox",
    "app_log_redact",
    "app_stored_tasks",
}
NOT_INPUT |= {"app_environment", "app_settings_module", "app_wsgi", "app_celery", "app_start_timeout"}


def prefixes(project: str) -> tuple[str, ...]:
    """Return what the names of the roles' variables begin with."""
    return tuple(sorted({role.name.split("_")[0] + "_" for role in Path(project, "roles").iterdir()}))


def converged_inputs(names: Iterable[str], project: str) -> list[str]:
    """Choose the variables that the roles read.

    :param names: of all variables of a host; one host's entry of Ansible's hostvars will do.
    :param project: the project's folder.
    """
    own = tuple(prefix for prefix in prefixes(project) if prefix != "release_")
    return sorted(name for name in names if name.startswith(own) and name not in NOT_INPUT)


def deploy_inputs(names: Iterable[str], project: str) -> list[str]:
    """Choose the variables that a deploy reads: those of the roles and of sandbox hosts. The smoke test, which has its own, is always run.

    :param names: of all variables of a host; one host's entry of Ansible's hostvars will do.
    :param project: the project's folder.
    """
    own = (*prefixes(project), "sandbox_")
    return sorted(name for name in names if name.startswith(own) and name not in FOUND)


def _lines(root: Path, folders: Iterable[str], variables: Mapping[str, Any]) -> Iterator[str]:
    """Name the project's files, and those that variables name, each with the digest of its content."""
    files = [path for folder in folders for path in [root / folder, *(root / folder).rglob("*")]]
    for named in (Path(variables[name]) for name in PATHS if variables.get(name, "").startswith("/")):
        files += [named, *named.rglob("*")]
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(root) if path.is_relative_to(root) else path
            yield f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def converged_digest(variables: Mapping[str, Any], groups: Mapping[str, list[str]], facts: Any, project: str) -> str:
    """Digest all that the roles read: their own files, the inventory's variables for them, groups and facts.

    :param variables: what `converged_inputs` chose, name to value.
    :param groups: Ansible's groups.
    :param facts: the host's facts.
    :param project: the project's folder.
    :returns: 64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for line in _lines(Path(project), FOLDERS, variables):
        total.update(line.encode())
    total.update(json.dumps([variables, dict(groups), facts], sort_keys=True, default=str).encode())
    return total.hexdigest()


def deploy_digest(
    variables: Mapping[str, Any], groups: Mapping[str, list[str]], facts: Any, project: str, source: str
) -> str:
    """Digest all that a deploy is made of: what `converged_digest` does, the playbooks, and the application.

    :param variables: what `deploy_inputs` chose, name to value.
    :param groups: Ansible's groups.
    :param facts: what else is known of the host.
    :param project: the project's folder.
    :param source: the `source_digest` of the application.
    :returns: 64 hexadecimal digits; an empty text without the application's, or if a file cannot be read, which the deploy explains.
    """
    total = hashlib.sha256()
    try:
        for line in _lines(Path(project), (*FOLDERS, "playbooks", "VERSION"), variables):
            total.update(line.encode())
    except OSError:
        return ""
    total.update(json.dumps([variables, dict(groups), facts, source], sort_keys=True, default=str).encode())
    return total.hexdigest() if source else ""


def source_digest(source: Mapping[str, Any]) -> str:
    """Digest the files of the application that make a release.

    :param source: C(folder), C(kind), C(include) and C(exclude), as of M(release_artifact), and C(lock), the path of the lock file,
        absolute or relative to the folder.
    :returns: 64 hexadecimal digits; an empty text if the files cannot be told, which the deploy explains.
    """
    total, root = hashlib.sha256(), Path(source["folder"])
    try:
        choice = Choice(root, source["kind"], list(source["include"]), list(source["exclude"]))
        files = [*choice.files, *map(Path, choice.committed_secrets)]
        refuse_others(root, files, "")
        for path in files:
            here = root / path
            told = os.readlink(here) if here.is_symlink() else hashlib.sha256(here.read_bytes()).hexdigest()
            total.update(f"{path} {here.lstat().st_mode & 0o100:o} {told}\n".encode())
        total.update((root / source["lock"]).read_bytes())  # what a link leads to, for a deploy reads that
    except (OSError, ValueError, CalledProcessError):
        return ""
    total.update(json.dumps(choice.report(), sort_keys=True).encode())
    return total.hexdigest()


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {
            "converged_inputs": converged_inputs,
            "converged_digest": converged_digest,
            "deploy_inputs": deploy_inputs,
            "deploy_digest": deploy_digest,
            "source_digest": source_digest,
        }
