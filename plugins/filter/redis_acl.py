"""An access list of Redis as the commands that bring it into effect."""

from __future__ import annotations

import re


def redis_acl_commands(access_list: str, passwords: dict[str, str]) -> str:
    """Turn the lines of an access list file into redis-cli's input, which keeps all connections.

    :param access_list: lines such as `user web on #... ~default -@all +ping`.
    :param passwords: what the running server accepts, Redis user to password; `admin` is used.
    :returns: a login, and for each line the command that makes the user so.
    """
    commands = re.findall(r"^user (\S+) (.+)$", access_list, re.M)
    return "".join(
        [f"AUTH admin {passwords['admin']}\n", *(f"ACL SETUSER {name} reset {rules}\n" for name, rules in commands)]
    )


class FilterModule:
    """The filter."""

    def filters(self) -> dict:
        """Name the filter for Ansible."""
        return {"redis_acl_commands": redis_acl_commands}
