#!/usr/bin/python
"""Ansible module: ends a deploy on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_end
short_description: Notes how a deploy ended, removes old releases, and gives the lock back
description:
  - Ends what M(deploy_begin) began. In check mode it says which releases would go, and changes nothing.
options:
  app: {description: The application's name., type: str, required: true}
  root: {description: The application's folder., type: path, required: true}
  deploy: {description: The deploy that ends., type: str, required: true}
  outcome: {description: How it ended., type: str, choices: [done, failed], default: done}
  reason: {description: Why it failed., type: str, default: ""}
  keep:
    description:
      - How many releases stay for a rollback. What runs, drains or starts at boot, and the current and the
        previous release, always stay, with their environments. 0 removes nothing.
    type: int
    default: 0
  release: {description: "The release that a deploy in check mode would make the current one, which stays.", type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- deploy_end: {app: shop, root: /srv/shop, deploy: "{{ release_begun.deploy }}", keep: 5}
"""

RETURN = r"""
removed: {description: What was removed., type: list, returned: always}
units: {description: "As of M(deploy_state).", type: list, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe import Application, remove


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "deploy": {"type": "str", "required": True},
            "outcome": {"type": "str", "choices": ["done", "failed"], "default": "done"},
            "reason": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 0},
            "release": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    p = module.params
    host = Application(module, p["app"], p["root"])
    paths = host.prunable(p["keep"], p["release"]) if p["keep"] else []
    if not module.check_mode:
        if p["outcome"] == "failed":  # a release that had to go again is nothing to roll back to
            for event in host.activations():
                if event["deploy"] == p["deploy"] and event["release"] != host.current:
                    remove(host.root / "releases" / event["release"] / ".release/ready")
        for path in paths:
            remove(path)
        if paths:
            host.keep_static()
        if p["outcome"] == "done":
            host.see_to_shared()
        if any(path.parent == host.units for path in paths):
            host.systemctl("daemon-reload")
        if host.lock().get("deploy") == p["deploy"]:
            host.finish(p["deploy"], p["outcome"], **({"reason": p["reason"]} if p["reason"] else {}))
    module.exit_json(changed=bool(paths), removed=[str(path) for path in paths], units=host.status())


if __name__ == "__main__":
    main()
