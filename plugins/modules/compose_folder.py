#!/usr/bin/python
"""Ansible module: the folder of a stack in containers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_folder
short_description: Writes the folder of a stack in containers
description:
  - Only whoever writes it may enter the folder. In there, files are readable for all, as each container has users of its own.
  - It keeps in C(.written.json) what it wrote. Nothing is written if a file was changed by hand since, or if the folder is not its own.
  - Files that it wrote earlier and that are no more are removed. Others, such as C(compose.override.yml), are left alone.
options:
  path: {description: The folder., type: path, required: true}
  inventory: {description: The inventory that it is written from., type: str, required: true}
  files: {description: "Path in the folder to text.", type: dict, required: true}
  secrets: {description: "Name of a folder in C(secrets) to the secrets in it, name to value.", type: dict, required: true}
  copies: {description: "Path in the folder to the file that is copied there.", type: dict, default: {}}
  folders: {description: "Folder in the folder to a pattern of the files that are copied into it; none need be there.", type: dict, required: true}
  about: {description: "What bin/compose needs to know of the stack, kept in C(.written.json).", type: dict, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- compose_folder:
    path: .compose/shop
    inventory: sandbox
    files: {compose.yml: "name: shop\n"}
    secrets: {web: {secret_key: "{{ app_secret_key }}"}}
    folders: {image/certificates: /usr/local/share/ca-certificates/*.crt}
    about: {name: shop}
"""

RETURN = r"""
written: {description: The files that were written or removed., type: list, returned: always}
"""

import glob
import hashlib
import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

STAMP = ".written.json"
COMPOSE = "compose.yml"
PASSING = "smoke"  # of what is known of the stack: a new value each time is no change


def digest(data: bytes) -> str:
    """Return what tells whether a file has changed."""
    return hashlib.sha256(data).hexdigest()


def problems(folder: Path, before: dict[str, Any], inventory: str) -> list[str]:
    """Say why the folder may not be written.

    :param before: the stamp; empty when there is none.
    :param inventory: the one that it would be written from.
    """
    if not before:
        if (folder / COMPOSE).exists():
            return [
                f"{folder}/{COMPOSE} is there, and 'make compose' did not write it: move it away, or set COMPOSE_NAME to another name."
            ]
        return []
    if before["inventory"] != inventory:
        return [
            f"{folder} is the stack of the inventory {before['inventory']}, and ENV is {inventory}: set COMPOSE_NAME to another name, "
            "or remove that stack ('make compose-down' with its ENV) and the folder."
        ]
    changed = [
        name
        for name, known in before["files"].items()
        if (folder / name).exists() and digest((folder / name).read_bytes()) != known
    ]
    return [
        f"{folder}/{name} was changed by hand, and would be overwritten. "
        + (
            "Move your changes to compose.override.yml beside it, which Compose lays over it; then remove it and try again."
            if name == COMPOSE
            else "Set the variable of the inventory that it follows from; then remove it and try again."
        )
        for name in changed
    ]


def wanted(parameters: dict[str, Any]) -> dict[str, bytes]:
    """Return all files, path to content."""
    files = {name: str(text).encode() for name, text in parameters["files"].items()}
    for place, secrets in parameters["secrets"].items():
        files |= {f"secrets/{place}/{name}": str(value).encode() for name, value in secrets.items()}
    files |= {name: Path(source).read_bytes() for name, source in parameters["copies"].items()}
    for place, pattern in parameters["folders"].items():
        files |= {f"{place}/{Path(path).name}": Path(path).read_bytes() for path in sorted(glob.glob(pattern))}
    return files


def write(path: Path, content: bytes) -> None:
    """Write a file that all may read, in the same place if it is there: a container that mounts it sees the new content."""
    path.touch()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444 if "secrets" in path.parts else 0o644)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "inventory": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
            "copies": {"type": "dict", "default": {}},
            "folders": {"type": "dict", "required": True},
            "about": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["path"])
    stamp = folder / STAMP
    before = json.loads(stamp.read_text()) if stamp.exists() else {}
    if wrong := problems(folder, before, module.params["inventory"]):
        module.fail_json(msg="\n".join(wrong))
    files = wanted(module.params)
    known = before.get("files", {})
    gone = [name for name in known if name not in files and (folder / name).exists()]
    new = [
        name for name, content in files.items() if not (folder / name).exists() or known.get(name) != digest(content)
    ]
    about = module.params["about"] | {
        "inventory": module.params["inventory"],
        "files": {name: digest(content) for name, content in files.items()},
    }
    changed = bool(gone or new or {**before, PASSING: None} != {**about, PASSING: None})
    if (gone or new or before != about) and not module.check_mode:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in gone:
            (folder / name).unlink()
        for name in [*files, *(f"{place}/x" for place in module.params["folders"])]:
            for parent in [*reversed(Path(name).parents)][1:]:
                (folder / parent).mkdir(exist_ok=True)
                (folder / parent).chmod(0o755)
        for name in new:
            write(folder / name, files[name])
        stamp.write_text(json.dumps(about, indent=2, sort_keys=True))
    module.exit_json(changed=changed, written=sorted(gone + new))


if __name__ == "__main__":
    main()
