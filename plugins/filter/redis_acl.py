"""What redis-cli reads: the login of an administrator, and an access list as the commands that bring it into effect."""

from __future__ import annotations

import re
from typing import Any


def redis_login(passwords: dict[str, str], name: str = "admin") -> str:
    """Write the line with which redis-cli logs in as the administrator, the password quoted as redis-cli reads its input.

    :param passwords: what the running server accepts, Redis user to password; `admin` is used.
    :param name: of the administrator at that server.
    """
    quoted = passwords["admin"].replace("\\", "\\\\").replace('"', '\\"')
    return f'AUTH {name} "{quoted}"\n'


def redis_acl_lines(answer: str, app: str) -> str:
    """Choose the lines of one application's users from those of a server that others use too.

    :param answer: to ACL LIST.
    :param app: `app_name`, with which the names of its users begin.
    """
    return "\n".join(line for line in answer.splitlines() if line.startswith(f"user {app}-"))


def redis_acl_commands(
    access_list: str, passwords: dict[str, str], before: str = "", name: str = "admin", keep: list[str] | None = None
) -> str:
    """Turn the lines of an access list file into redis-cli's input, which keeps all connections.

    :param access_list: lines such as `user web on #... ~default -@all +ping`.
    :param passwords: what the running server accepts, Redis user to password; `admin` is used.
    :param before: the lines of the file that it replaces.
    :param name: of the administrator at that server.
    :param keep: users that are not deleted; the server may have another access list too.
    :returns: a login, for each line the command that makes the user so, and one that deletes those who are gone.
    """
    wanted, known = (dict(re.findall(r"^user (\S+) (.+)$", text, re.M)) for text in (access_list, before))
    commands = [f"ACL SETUSER {name} reset {rules}\n" for name, rules in wanted.items()]
    commands += [f"ACL DELUSER {name}\n" for name in known if name not in {*wanted, *(keep or ())}]
    return redis_login(passwords, name) + "".join(commands)


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {filter_.__name__: filter_ for filter_ in (redis_acl_commands, redis_acl_lines, redis_login)}
