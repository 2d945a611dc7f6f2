#!/usr/bin/python
"""Ansible module: the secrets of the releases that a host keeps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_secrets
short_description: Gives every release of a host the secrets that are valid now
description:
  - A release that is gone back to, or a unit that is restarted, then logs in with them. What a running process was given stays as it is.
  - A secret that a release does not have is not given to it.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  credentials: {description: "The secrets, name to value.", type: dict, required: true}
  only_with:
    description: Name of a secret to a text. A release whose environment has no line that ends with it keeps the secret that it has.
    type: dict
    default: {}
author: Coldframe
"""

EXAMPLES = r"""
- release_secrets: {app: shop, root: /srv/shop, credentials: {secret_key: "{{ app_secret_key }}"}}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, replace


def fits(release: Path, text: str) -> bool:
    """Whether the environment of a release has a text at the end of a line; an empty text is in each."""
    environment = release / ".release/environment"
    return not text or (environment.exists() and f"{text}\n" in environment.read_text())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "credentials": {"type": "dict", "required": True, "no_log": True},
            "only_with": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    host = Application(module, module.params["app"], module.params["root"])
    credentials = {name: str(value) for name, value in module.params["credentials"].items()}
    old = [
        file
        for file in host.credentials.glob("*/*")
        if file.name in credentials
        and file.read_text() != credentials[file.name]
        and fits(host.root / "releases" / file.parent.name, module.params["only_with"].get(file.name, ""))
    ]
    for file in old if not module.check_mode else []:
        replace(file, credentials[file.name])
    module.exit_json(changed=bool(old))


if __name__ == "__main__":
    main()
