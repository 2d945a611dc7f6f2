"""Rejects a misspelt tag, for which Ansible would run nothing and report success."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

SPECIAL = {"all", "always", "never", "tagged", "untagged"}  # Ansible's own
MOLECULE = {"notest", "molecule-notest", "molecule-idempotence-notest"}  # what Molecule skips in every run


def _tags(node: Any) -> set[str]:
    """Collect the tags of plays, blocks and tasks."""
    if isinstance(node, list):
        return {tag for each in node for tag in _tags(each)}
    if not isinstance(node, dict):
        return set()
    own = node.get("tags", [])
    inside = {tag for key in ("tasks", "block", "rescue") for tag in _tags(node.get(key))}
    return inside | set([own] if isinstance(own, str) else own)


@cache
def deploy_tags(project: str) -> list[str]:
    """Read the tags of a deploy, sorted: one for each role, and one for each of its phases.

    :param project: the project's folder.
    """
    files = [Path(project, "playbooks/deploy.yml"), *Path(project, "roles").glob("*/tasks/main.yml")]
    return sorted({tag for file in files for tag in _tags(yaml_load(file.read_text()))} - SPECIAL)


def tag_problems(tags: list[str], project: str) -> list[str]:
    """Reject tags that a deploy does not have.

    :param tags: what --tags and --skip-tags name.
    :param project: the project's folder.
    :returns: one sentence per tag; empty when all of them are valid.
    """
    valid = deploy_tags(project)
    problems = []
    for tag in tags:
        if tag not in SPECIAL | MOLECULE | set(valid):
            near = difflib.get_close_matches(tag, valid, 1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            problems.append(f"There is no tag {tag!r}.{meant} The tags are: {', '.join(valid)}.")
    return problems


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"deploy_tags": deploy_tags, "tag_problems": tag_problems}
