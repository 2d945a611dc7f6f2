"""What redis-cli reads: the login of an administrator, and an access list as the commands that bring it into effect."""

from __future__ import annotations

import re
from typing import Any


def redis_login(passwords: dict[str, str]) -> str:
    """Write the line with which redis-cli logs in as `admin`, its password quoted as redis-cli reads its input.

    :param passwords: what the running server accepts, Redis user to password.
    """
    quoted = passwords["admin"].replace("\\", "\\\\").replace('"', '\\"')
    return f'AUTH admin "{quoted}"\n'


def redis_acl_commands(access_list: str, passwords: dict[str, str], before: str = "") -> str:
    """Turn the lines of an access list file into redis-cli's input, which keeps all connections.

    :param access_list: lines such as `user web on #... ~default -@all +ping`.
    :param passwords: what the running server accepts, Redis user to password; `admin` is used.
    :param before: the lines of the file that it replaces.
    :returns: a login, for each line the command that makes the user so, and one that deletes those who are gone.
    """
    wanted, known = (dict(re.findall(r"^user (\S+) (.+)$", text, re.M)) for text in (access_list, before))
    commands = [f"ACL SETUSER {name} reset {rules}\n" for name, rules in wanted.items()]
    commands += [f"ACL DELUSER {name}\n" for name in known if name not in wanted]
    return redis_login(passwords) + "".join(commands)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"redis_acl_commands": redis_acl_commands, "redis_login": redis_login}
