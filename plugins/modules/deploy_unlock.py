#!/usr/bin/python
"""Ansible module: removes a host's deploy lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_unlock
short_description: Removes a stale deploy lock
description:
  - Removes the lock that M(deploy_begin) took, whoever holds it, and records this in the history. A deploy that is still
    running does not notice. Make sure first that it has exited.
  - M(deploy_begin) itself takes over the lock of a deploy that ran on this controller and has exited.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_unlock: {app: shop, root: /srv/shop}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    host = Application(module, module.params["app"], module.params["root"])
    module.exit_json(changed=bool(host.lock()) if module.check_mode else host.unlock())


if __name__ == "__main__":
    main()
