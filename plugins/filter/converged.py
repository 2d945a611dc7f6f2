"""What a host's configuration follows from, as one digest: when it is the same, there is nothing to converge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Variables with a path on the controller, of a file or a folder that roles copy.
PATHS = ("nginx_snippet", "nginx_error_pages", "app_database_ca_file", "app_redis_ca_file")
FOLDERS = ("roles", "systemd", "plugins", "requirements", "runtime/coldframe")
# What a run finds out or works out (its other names begin with __), and what makes a release rather than a host (with all
# that begins with release_).
NOT_INPUT = {"app_state", "app_checkout", "app_buildable", "app_python", "app_managed_found"}
NOT_INPUT |= {"app_project", "app_managed", "app_addresses", "app_queue_table"}  # roles/app/tasks/facts.yml
NOT_INPUT |= {"app_source", "app_repository", "app_version", "app_repository_folder", "app_lock_file", "app_include"}
NOT_INPUT |= {"app_exclude", "app_build", "app_hooks", "app_own_settings", "app_sandbox", "app_log_redact"}
NOT_INPUT |= {"app_environment", "app_settings_module", "app_wsgi", "app_celery", "app_start_timeout"}


def converged_inputs(names: Iterable[str], project: str) -> list[str]:
    """Choose the variables that the roles read.

    :param names: of all variables of a host; one host's entry of Ansible's hostvars will do.
    :param project: the project's folder.
    """
    prefixes = tuple({role.name.split("_")[0] + "_" for role in Path(project, "roles").iterdir()} - {"release_"})
    return sorted(name for name in names if name.startswith(prefixes) and name not in NOT_INPUT)


def converged_digest(variables: Mapping[str, Any], groups: Mapping[str, list[str]], facts: Any, project: str) -> str:
    """Digest all that the roles read: their own files, the inventory's variables for them, groups and facts.

    :param variables: what `converged_inputs` chose, name to value.
    :param groups: Ansible's groups.
    :param facts: the host's facts.
    :param project: the project's folder.
    :returns: 64 hexadecimal digits.
    """
    root = Path(project)
    total = hashlib.sha256()
    files = [path for folder in FOLDERS for path in (root / folder).rglob("*")]
    for named in (Path(variables[name]) for name in PATHS if variables.get(name, "").startswith("/")):
        files += [named, *named.rglob("*")]
    for path in sorted(files):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(root) if path.is_relative_to(root) else path
            total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    total.update(json.dumps([variables, dict(groups), facts], sort_keys=True, default=str).encode())
    return total.hexdigest()


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"converged_inputs": converged_inputs, "converged_digest": converged_digest}
