#!/usr/bin/python
"""Ansible module: commands for a Redis."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_commands
short_description: Sends commands to a Redis, and returns what redis-cli would print
description:
  - Needs neither redis-cli nor another client on the host. Reaches a Redis of the host through its socket, and another server by TLS.
  - Reports a change if O(compare) has another answer afterwards.
  - In check mode only the commands are sent with which nothing is compared.
options:
  server:
    description: C(socket), a path; or C(host), C(port) and C(ca), the certificates of the authorities that it is trusted by, in PEM, or empty.
    type: dict
    required: true
  commands: {description: "Commands, a line each, as redis-cli reads them. The first logs in.", type: str, required: true}
  compare: {description: "A command that is sent after the first one, and at the end.", type: str, default: ""}
author: Coldframe
"""

EXAMPLES = r"""
- redis_commands:
    server: {socket: /run/redis-broker/redis-server.sock}
    commands: |
      AUTH admin "{{ app_redis_passwords.admin }}"
      PING
  no_log: true
"""

RETURN = r"""
stdout: {description: "The answers, a line each.", type: str, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_servers import Redis, Refused, conversation


def run(redis: Redis, commands: str, compare: str, check: bool) -> tuple[bool, str]:
    """Send the commands; return whether the answer to `compare` has changed, and all other answers. Raises OSError."""
    if not compare:
        return False, conversation(redis, commands)
    login, _, rest = commands.partition("\n")
    said = conversation(redis, login)
    before = conversation(redis, compare)
    if not check:
        said = f"{said}\n{conversation(redis, rest)}"
    return conversation(redis, compare) != before, said


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "dict", "required": True},
            "commands": {"type": "str", "required": True, "no_log": True},
            "compare": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        redis = Redis.of(module.params["server"])
        changed, said = run(redis, module.params["commands"], module.params["compare"], module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=f"Redis does not answer: {error}")
        raise  # fail_json does not return
    module.exit_json(changed=changed, stdout=said)


if __name__ == "__main__":
    main()
