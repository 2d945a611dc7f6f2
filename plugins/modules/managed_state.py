#!/usr/bin/python
"""Ansible module: what a deployment must know of a provider's servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_state
short_description: Asks a provider's PostgreSQL and Redis what a deployment needs, from this host
description:
  - Changes nothing on the servers. Never fails; what is wrong is part of the answer.
  - Needs no client on the host but Python.
options:
  servers:
    description: "C(database), C(broker) and C(cache), those that there are, as made by P(managed_servers#filter)."
    type: dict
    required: true
  passwords: {description: "The password of each, by the same names.", type: dict, required: true}
  certificates:
    description: "The authorities that each is trusted by, by the same names, in PEM. If empty, those that the host trusts."
    type: dict
    default: {}
author: Coldframe
"""

EXAMPLES = r"""
- managed_state:
    servers: "{{ app_managed }}"
    passwords: {database: "{{ app_database_password }}"}
  no_log: true
"""

RETURN = r"""
database:
  description:
    - C(stage) and C(error), empty if it can be used; C(version), such as 160004; C(standby), C(encoding), C(schema), C(create), C(superuser).
    - C(foreign), the owner of Django's tables if the login may not act as it; C(connections), how many it may have.
    - C(pooler), whether something stands between; C(transactions), whether it gives each transaction another connection.
  type: dict
  returned: when asked
broker:
  description:
    - C(stage) and C(error), as above; C(version), such as 7.2.4; C(replica), C(cluster), C(policy), C(maxmemory) in bytes or none, C(appendonly) or none.
    - C(index), why its database cannot be selected; C(denied), commands that the login may not use.
    - C(users), why it can make no Redis users that stay; empty if it can.
  type: dict
  returned: when asked
cache: {description: The same of the cache., type: dict, returned: when asked}
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_servers import Failed, PostgreSQL, Redis, Refused

# In the order of DATABASE below.
QUERY = """
SELECT current_setting('server_version_num'), pg_is_in_recovery(), current_setting('server_encoding'), current_schema(),
    has_schema_privilege(current_schema(), 'CREATE'), r.rolsuper,
    (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = to_regclass('django_migrations') AND NOT pg_has_role(relowner, 'USAGE')),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    r.rolconnlimit, d.datconnlimit, pg_backend_pid()
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""
DATABASE = ("version", "standby", "encoding", "schema", "create", "superuser", "foreign")
PID = "SELECT pg_backend_pid()"
NOTHING = "coldframe:preflight"  # a key that nobody has
# Commands of each kind that the processes use. Without that key they have no effect.
NEEDED = (
    ("LLEN", NOTHING),
    ("DEL", NOTHING),
    ("EXPIRE", NOTHING, "1"),
    ("LREM", NOTHING, "0", "x"),
    ("HDEL", NOTHING, "x"),
    ("ZREM", NOTHING, "x"),
    ("SREM", NOTHING, "x"),
    ("PUBLISH", NOTHING, "x"),
    ("EVAL", "return 1", "0"),
    ("TIME",),
)


def database(server: dict[str, Any], password: str, ca: str) -> dict[str, Any]:
    """Ask a PostgreSQL. Returns RV(database)."""
    place = (server["host"], int(server["port"]), server["user"], server["name"], password, ca)
    try:
        session = PostgreSQL(*place)
    except Refused as error:
        return {"stage": error.stage, "error": str(error)}
    try:
        (row,) = session.ask(QUERY)
        found: dict[str, Any] = dict(zip(DATABASE, row, strict=False))
        for name in ("standby", "create", "superuser"):
            found[name] = found[name] == "t"
        most, limits = int(row[7] or 0), [int(each or 0) for each in row[8:10]]
        found |= {"version": int(found["version"]), "connections": min([most, *(n for n in limits if n >= 0)])}
        # A pooler answers with numbers of its own where a server names its process.
        found["pooler"] = int(row[10] or 0) != session.pid
        found["transactions"] = found["pooler"] and in_transactions(session, PostgreSQL(*place))
        session.close()
    except (Failed, Refused, OSError, ValueError) as error:
        return {"stage": "ask", "error": str(error) or type(error).__name__}
    return {"stage": "", "error": ""} | found


def in_transactions(one: PostgreSQL, other: PostgreSQL) -> bool:
    """Whether a pooler gives each transaction another of its connections. Raises Failed and OSError."""
    first = one.ask(PID)
    other.ask("BEGIN")
    second = other.ask(PID)
    shared = second == first or one.ask(PID) != first
    other.ask("COMMIT")
    other.close()
    return shared


def redis(server: dict[str, Any], password: str, ca: str) -> dict[str, Any]:
    """Ask a Redis. Returns RV(broker)."""
    try:
        client = Redis.at(server["host"], int(server["port"]), ca)
    except Refused as error:
        return {"stage": error.stage, "error": str(error)}
    try:
        try:
            client.ask("AUTH", server["user"], password)
        except Failed as error:
            return {"stage": "login", "error": str(error)}
        found = described(client, server)
        client.close()
    except (Failed, OSError, ValueError) as error:
        return {"stage": "ask", "error": str(error) or type(error).__name__}
    return {"stage": "", "error": ""} | found


def described(client: Redis, server: dict[str, Any]) -> dict[str, Any]:
    """Ask for the state of a Redis after the login. Raises Failed and OSError."""
    index = refusal(client, "SELECT", str(server["index"]))
    info = dict(re.findall(r"^([a-z_0-9]+):(.*?)\r?$", str(client.ask("INFO")), re.M))
    version = info.get("redis_version", "0")
    memory = info.get("maxmemory") or setting(client, "maxmemory")
    append = {"1": "yes", "0": "no"}.get(info.get("aof_enabled", "")) or setting(client, "appendonly")
    return {
        "version": version,
        "replica": info.get("role") == "slave",
        "cluster": info.get("cluster_enabled") == "1",
        "policy": info.get("maxmemory_policy") or setting(client, "maxmemory-policy"),
        "maxmemory": int(memory) if memory and memory.isdigit() else None,
        "appendonly": {"yes": True, "no": False}.get(append or ""),
        "index": index,
        "denied": [words[0] for words in NEEDED if refusal(client, *words)],
        "users": no_users(client, server["user"], info),
    }


def setting(client: Redis, name: str) -> str:
    """Return a setting of the server; empty if the login may not read it."""
    try:
        answer = client.ask("CONFIG", "GET", name)
    except Failed:
        return ""
    return str(answer[1]) if answer and len(answer) > 1 else ""


def refusal(client: Redis, *words: str) -> str:
    """Send a command; return why it was refused, or an empty text."""
    try:
        client.ask(*words)
    except Failed as error:
        return str(error)
    return ""


def no_users(client: Redis, user: str, info: dict[str, str]) -> str:
    """Say why the login can make no Redis users that stay; empty if it can.

    They stay if the server keeps them in a file, and if there is no replica, which would have none of them.
    """
    for command in ("ACL SETUSER coldframe", "ACL LIST", "ACL SAVE"):
        try:
            answer = client.ask("ACL", "DRYRUN", user, *command.split())
        except Failed as error:
            return str(error)
        if answer != "OK":
            return str(answer)
    if not setting(client, "aclfile"):
        return "the server has no aclfile, and would lose them when it restarts"
    if info.get("connected_slaves", "0") != "0":
        return "the server has replicas, to which they are not copied"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "servers": {"type": "dict", "required": True},
            "passwords": {"type": "dict", "required": True, "no_log": True},
            "certificates": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given, passwords, certificates = (module.params[name] for name in ("servers", "passwords", "certificates"))
    found = {
        name: (database if name == "database" else redis)(server, passwords[name], certificates.get(name, ""))
        for name, server in given.items()
    }
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
