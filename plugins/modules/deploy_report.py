#!/usr/bin/python
"""Ansible module: the reports of deploys that a host keeps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_report
short_description: Keeps the report of a deploy on a host, or reads one
description:
  - Reports are beside the record of deploys, in C(/var/lib/coldframe/<app>/reports). The newest 50 stay.
  - Without O(files), reads the newest one. Nothing is changed then.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  files: {description: "The files of a report, name to text.", type: dict, default: {}}
  release: {description: "The release whose newest report is read. Empty: of all.", type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_report: {app: shop, root: /srv/shop, release: 3f2a9c1b7d04}
"""

RETURN = r"""
name: {description: "The name of the report's files; empty if there is none.", type: str, returned: always}
files: {description: "Its files, name to text.", type: dict, returned: without O(files)}
releases: {description: The releases that there are reports of., type: list, returned: always}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, replace

KEEP = 50


def reports(folder: Path) -> list[str]:
    """List the names of the reports, the oldest first."""
    return sorted(path.stem for path in folder.glob("*.json") if not path.name.endswith(".cdx.json"))


def release_of(name: str) -> str:
    """Return the release that a report is of."""
    return name.rpartition("-")[2]


def keep(folder: Path, files: dict[str, str]) -> None:
    """Write the files of a report, and remove what is older than the newest ones."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in files.items():
        replace(folder / Path(name).name, text)
    for name in reports(folder)[:-KEEP]:
        for path in folder.glob(f"{name}.*"):
            path.unlink()


def read(folder: Path, release: str) -> tuple[str, dict[str, str]]:
    """Return the newest report's name and files."""
    names = [name for name in reports(folder) if release in ("", release_of(name))]
    if not names:
        return "", {}
    return names[-1], {path.name: path.read_text(errors="replace") for path in sorted(folder.glob(f"{names[-1]}.*"))}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "files": {"type": "dict", "default": {}},
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    p = module.params
    folder = Application(module, p["app"], p["root"]).state / "reports"
    if p["files"] and not module.check_mode:
        keep(folder, p["files"])
    name, files = read(folder, p["release"])
    more = {} if p["files"] else {"files": files}
    module.exit_json(changed=False, name=name, releases=sorted({release_of(each) for each in reports(folder)}), **more)


if __name__ == "__main__":
    main()
