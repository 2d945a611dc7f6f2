#!/usr/bin/python
"""Ansible module: what an unpacked release needs besides its files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_place
short_description: Gives an unpacked release its secrets, its folders and its virtual environment
description:
  - The secrets lie outside of the release, where its units alone get them from. Done again, it changes nothing.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  release: {description: The release id., type: str, required: true}
  venv: {description: The virtual environment that the release runs in., type: path, required: true}
  credentials: {description: "The release's secrets, name to value.", type: dict, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- release_place: {app: shop, root: /srv/shop, release: 3f2a9c1b7d04, venv: /srv/shop/venvs/1b7d, credentials: {}}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, point, remove, replace


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "venv": {"type": "path", "required": True},
            "credentials": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    p = module.params
    path = Path(p["root"]) / "releases" / p["release"]
    host = Application(module, p["app"], p["root"])
    secrets = host.credentials / p["release"]
    link = path / ".venv"
    wanted = {name: str(value) for name, value in p["credentials"].items()}
    there = {file.name: file.read_text() for file in secrets.glob("*")} if secrets.is_dir() else {}
    linked = link.is_symlink() and link.readlink() == Path(p["venv"])
    changed = there != wanted or not linked or not (path / ".release/static").is_dir()
    if changed and not module.check_mode:
        for folder, mode in ((secrets.parent, 0o700), (secrets, 0o700), (path / ".release/static", 0o755)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        for name in set(there) - set(wanted):
            remove(secrets / name)
        for name, value in wanted.items():
            replace(secrets / name, value)
        point(link, p["venv"])
    if not module.check_mode and not host.shared_stamp.exists():
        host.open_shared()
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
