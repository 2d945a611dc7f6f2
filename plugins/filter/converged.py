"""What a host's configuration follows from, as one digest: when it is the same, there is nothing to converge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDERS = ("roles", "systemd", "plugins", "requirements")
# What a run finds out, and what makes a release rather than a host (with all that begins with release_).
NOT_INPUT = {"app_packages", "app_preflight_passed", "app_state", "app_checkout", "app_folder", "app_origin"}
NOT_INPUT |= {"app_source", "app_repository", "app_version", "app_repository_folder", "app_lock_file", "app_exclude"}
NOT_INPUT |= {"app_environment", "app_settings_module", "app_wsgi", "app_celery"}


def converged_digest(hostvars: Mapping[str, Any], groups: Mapping[str, list[str]], facts: Any, project: str) -> str:
    """Digest all that the roles read: their own files, the inventory's variables for them, groups and facts.

    :param hostvars: one host's entry of Ansible's hostvars.
    :param groups: Ansible's groups.
    :param facts: the host's facts.
    :param project: the project's folder.
    :returns: 64 hexadecimal digits.
    """
    root = Path(project)
    total = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    prefixes = tuple({role.name.split("_")[0] + "_" for role in (root / "roles").iterdir()} - {"release_"})
    names = sorted(name for name in hostvars if name.startswith(prefixes) and name not in NOT_INPUT)
    variables = {name: hostvars[name] for name in names}
    total.update(json.dumps([variables, dict(groups), facts], sort_keys=True, default=str).encode())
    return total.hexdigest()


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Name the filter for Ansible."""
        return {"converged_digest": converged_digest}
