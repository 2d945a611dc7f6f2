"""A provider's PostgreSQL and Redis in place of the roles: where they are, who logs in, and whether they can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PORTS = {"database": 5432, "broker": 6379, "cache": 6379}
GROUPS = {"database": "postgresql", "broker": "redis"}  # the inventory groups that have no host then
VARIABLES = {
    "database": ("app_database_url", "app_database_password", "app_database_ca_file"),
    "broker": ("app_broker_url", "app_broker_password", "app_redis_ca_file"),
    "cache": ("app_cache_url", "app_cache_password", "app_redis_ca_file"),
}
# The oldest versions that the roles install, on Debian 12. Older ones were not tried.
POSTGRESQL, REDIS = 15, (7, 0)
LEAST_MEMORY = 64 * 2**20  # bytes that the broker has at least, as with redis_broker_maxmemory_mb
RESERVED = 3  # PostgreSQL's superuser_reserved_connections
OTHERS = 2  # connections besides those of the units: manage.py, and the migrations of a deploy
NOEVICTION = "noeviction"


def managed_servers(urls: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Take the addresses of a provider's servers apart.

    :param urls: `database`, `broker` and `cache` to a URL; empty for a server that the roles install.
    :returns: the same names to `host`, `port`, `user`, `url` (without the user, but for the database), and `name` of the
        database or `index` in Redis. The cache is the broker's server if it has no URL; it then has the next index.
    """
    servers = {name: _server(name, url) for name, url in urls.items() if url}
    if "broker" in servers and "cache" not in servers:
        broker = servers["broker"]
        index = broker["index"] + 1
        servers["cache"] = broker | {"index": index, "url": f"{broker['url'].rpartition('/')[0]}/{index}"}
    return servers


def _server(kind: str, url: str) -> dict[str, Any]:
    """Take one address apart."""
    parts = urlsplit(url)
    server: dict[str, Any] = {"host": parts.hostname or "", "port": parts.port or PORTS[kind]}
    place = f"[{server['host']}]" if ":" in server["host"] else server["host"]
    path = parts.path.strip("/")
    if kind == "database":
        server |= {"user": unquote(parts.username or ""), "name": unquote(path)}
        return server | {"url": f"postgres://{parts.username}@{place}:{server['port']}/{path}"}
    index = int(path) if path.isdigit() else 0
    return server | {
        "user": unquote(parts.username or "") or "default",
        "index": index,
        "url": f"rediss://{place}:{server['port']}/{index}",
    }


def managed_groups(servers: Mapping[str, Any]) -> dict[str, str]:
    """Map each inventory group that has no host, because a provider runs it, to the variable that says so."""
    return {group: VARIABLES[name][0] for name, group in GROUPS.items() if name in servers}


def read_certificates(path: str) -> str:
    """Read the certificates of a file on the controller; return an empty text if there are none."""
    try:
        text = Path(path).read_text() if path else ""
    except (OSError, UnicodeDecodeError):
        return ""
    return text if "-----BEGIN CERTIFICATE-----" in text else ""


def certificate_file_problems(files: Mapping[str, str]) -> list[str]:
    """Refuse a file without certificates.

    :param files: variable name to path; empty for the authorities that the hosts trust already.
    """
    return [
        f"{name} is {path!r}, which is no file with certificates in PEM on the controller: save there what the provider "
        "offers as its CA certificate, or leave the variable out if Debian trusts that CA."
        for name, path in files.items()
        if path and not read_certificates(path)
    ]


def same_server(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two addresses are those of one Redis."""
    return bool((one["host"], one["port"]) == (other["host"], other["port"]))


def managed_users(found: Mapping[str, Any], servers: Mapping[str, Any]) -> list[str]:
    """List at which of a provider's Redis, `broker` and `cache`, each kind of process has a Redis user of its own.

    :param found: what managed_state says.
    """
    return [name for name in ("broker", "cache") if name in servers and found.get(name, {}).get("users", "?") == ""]


def redis_logins(
    table: Mapping[str, Mapping[str, Any]],
    servers: Mapping[str, Any],
    own: Iterable[str],
    app: str,
    passwords: Mapping[str, str],
    given: Mapping[str, str],
) -> dict[str, dict[str, str]]:
    """Map each user of `redis_users` to the `name` and the `password` that it logs in with.

    :param table: `redis_users`: instance to users.
    :param servers: what `managed_servers` returns.
    :param own: what `managed_users` returns.
    :param app: `app_name`, which a provider's server may have beside others.
    :param passwords: the variable app_redis_passwords.
    :param given: `broker` and `cache` to the password of the provider's login.
    """
    logins = {}
    for instance, users in table.items():
        for user in users:
            if instance not in servers:
                logins[user] = {"name": user, "password": passwords.get(user, "")}
            elif instance in own and user != "admin":
                logins[user] = {"name": f"{app}-{user}", "password": passwords.get(user, "")}
            elif user not in logins:
                logins[user] = {"name": servers[instance]["user"], "password": given[instance]}
    return logins


def connections(
    groups: Mapping[str, list[str]],
    table: Mapping[str, Any],
    web: Mapping[str, Any],
    hostvars: Any,
    services: Mapping[str, Any],
    timers: Mapping[str, Any],
) -> int:
    """Count the connections to the database that all processes of the application may have at the same time.

    :param groups: Ansible's groups.
    :param table: what `celery_queue_table` returns.
    :param web: all options of Gunicorn.
    :param hostvars: Ansible's hostvars, for `celery_host_queues` and the number of processors.
    :param services: what `process_table` returns of `app_services`. Each process counts once.
    :param timers: the same of `app_timers`.
    """
    total: int = OTHERS + len(timers)
    total += sum(1 if each["hosts"] == "one" else len(groups.get(each["hosts"], [])) for each in services.values())
    total += len(groups.get("beat", [])) + len(groups.get("web", [])) * web["workers"] * web["threads"]
    for host in groups.get("workers", []):
        served = hostvars[host].get("celery_host_queues", list(table)) if host in hostvars else list(table)
        served = list(table) if isinstance(served, str) else served
        processors = hostvars[host].get("ansible_facts", {}).get("processor_vcpus", 1) if host in hostvars else 1
        for options in (table[queue] for queue in served if queue in table):
            total += options["tasks"] + options["tasks_per_processor"] * processors
    return total


def connection_problems(needed: int, most: int, table: Mapping[str, Any]) -> list[str]:
    """Refuse pools of threads whose tasks may need more connections than the application's own PostgreSQL allows.

    :param needed: what `connections` returns.
    :param most: `postgresql_max_connections`.
    :param table: what `celery_queue_table` returns.
    """
    many = [
        f"celery_queues.{name}.concurrency is {options['concurrency']} with pool {options['pool']}"
        for name, options in table.items()
        if options["pool"] in ("threads", "gevent")
    ]
    if not many or needed <= most - RESERVED:
        return []
    return [
        f"{', '.join(many)}, so that up to {needed} connections to the database are needed at the same time, and "
        f"postgresql_max_connections is {most}, of which {RESERVED} are for superusers: set it to {needed + RESERVED} or more, or lower "
        "concurrency."
    ]


def managed_problems(
    found: Mapping[str, Any], servers: Mapping[str, Any], urls: Mapping[str, str], needed: int, pooled: bool
) -> list[str]:
    """Refuse a provider's server that cannot be used as it is.

    :param found: what managed_state says, from one of the application's hosts.
    :param servers: what `managed_servers` returns.
    :param urls: what `managed_servers` was given.
    :param needed: what `connections` returns.
    :param pooled: `app_database_pooled`.
    """
    problems = []
    if "broker" in servers and all(
        servers["broker"][part] == servers["cache"][part] for part in ("host", "port", "index")
    ):
        problems.append(
            f"app_cache_url is {urls['cache']!r}, the database of app_broker_url, and clearing the cache would delete queued "
            "tasks: end it with another index, or name another server."
        )
    for name, server in servers.items():
        state = found.get(name)
        if not state:
            continue
        named = name if urls.get(name) else "broker"  # the cache may have no address of its own
        where = f"{VARIABLES[named][0]} is {urls[named]!r}"
        if name != named and state["stage"] and found.get(named, {}).get("stage"):
            continue  # said of the broker
        if state["stage"]:
            problems.append(f"{where}, and {_unusable(named, server, state)}")
        elif name == "database":
            problems += [f"{where}, and {what}" for what in _database(server, state, needed, pooled)]
        elif name == "broker":
            problems += [f"{where}, and {what}" for what in _broker(server, state)]
        else:
            problems += [f"{where}, and {what}" for what in _cache(server, state, servers["broker"])]
    return problems


def _unusable(name: str, server: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Say why there is no session with a server, and what helps."""
    _, password, file = VARIABLES[name]
    place, why = f"{server['host']}:{server['port']}", state["error"]
    database = f" for the database {server['name']!r}" if name == "database" else ""
    return {
        "resolve": f"this host does not find {server['host']} ({why}): correct the name, or this host's DNS.",
        "connect": f"this host does not reach {place} ({why}): add this host's address to those that the provider lets in, "
        "or correct the address.",
        "tls": f"the TLS of {place} is not to be trusted ({why}): set {file} to the provider's CA certificate, and write the "
        "host as it is in the server's certificate.",
        "login": f"the server refuses the login {server['user']!r}{database} ({why}): correct the address, or {password} in the vault.",
        "ask": f"the server does not answer as expected ({why}): is it {'PostgreSQL' if name == 'database' else 'Redis'}?",
    }[state["stage"]]


def _database(server: Mapping[str, Any], state: Mapping[str, Any], needed: int, pooled: bool) -> list[str]:
    """Say what is wrong with a PostgreSQL that answers."""
    login, problems = server["user"], []
    if state["version"] // 10000 < POSTGRESQL:
        problems.append(
            f"the server has PostgreSQL {state['version'] // 10000}: upgrade it to {POSTGRESQL} or a later version."
        )
    if state["standby"]:
        problems.append("the server is a standby, which is read-only: give the address of the primary server.")
    if state["encoding"] != "UTF8":
        problems.append(f"the database has the encoding {state['encoding']}: create one with the encoding UTF8.")
    if not state["schema"] or not state["create"]:
        schema = state["schema"] or "public"
        problems.append(
            f"{login} may not create tables in the schema {schema!r}: as the database's owner, run "
            f'GRANT USAGE, CREATE ON SCHEMA {schema} TO "{login}"; or make {login} the owner.'
        )
    if state["foreign"]:
        problems.append(
            f"Django's tables belong to {state['foreign']!r}, and {login} could not migrate them: run "
            f'GRANT "{state["foreign"]}" TO "{login}" and ALTER ROLE "{login}" SET role = \'{state["foreign"]}\'; or log in as it.'
        )
    if state["transactions"] and not pooled:
        problems.append(
            "this is a pooler that gives each transaction another connection: set app_database_pooled to true, or give the "
            "address of the server itself."
        )
    if not state["pooler"] and needed > state["connections"]:
        problems.append(
            f"the application may need {needed} connections at the same time (each thread of app_web on each host, each process "
            f"of celery_queues, each Beat, and {OTHERS} more), and the server gives {state['connections']}: raise its "
            "max_connections or choose a larger plan, lower app_web or concurrency in celery_queues, or use a pooler."
        )
    return problems


def _version(text: str) -> tuple[int, ...]:
    """Read a version of Redis."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _redis(server: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a Redis that answers, whatever it is for."""
    problems = []
    if _version(state["version"]) < REDIS:
        problems.append(
            f"the server has Redis {state['version']}: upgrade it to {'.'.join(map(str, REDIS))} or a later version."
        )
    if state["replica"]:
        problems.append("the server is a replica, which is read-only: give the address of the primary server.")
    if state["cluster"]:
        problems.append(
            "the server runs in cluster mode, which Celery does not support: create one without cluster mode."
        )
    if state["denied"]:
        problems.append(
            f"{server['user']} may not use the commands {', '.join(state['denied'])}: allow them, or log in as a user who may."
        )
    return problems


def _broker(server: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a Redis as broker."""
    problems = _redis(server, state)
    if state["index"]:
        problems.append(
            f"the server does not have the database {server['index']} ({state['index']}): end the address with one that it has, such as /0."
        )
    if state["policy"] not in ("", NOEVICTION):
        problems.append(
            f"the server's maxmemory-policy is {state['policy']}, by which it deletes queued tasks when its memory is full: set it to "
            f"{NOEVICTION} at the provider, or with CONFIG SET maxmemory-policy {NOEVICTION}."
        )
    if state["maxmemory"] and state["maxmemory"] < LEAST_MEMORY:
        problems.append(
            f"the server's maxmemory is {state['maxmemory'] // 2**20} MiB: choose a plan with {LEAST_MEMORY // 2**20} MiB or more."
        )
    return problems


def _cache(server: Mapping[str, Any], state: Mapping[str, Any], broker: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a Redis as cache."""
    together = same_server(server, broker)
    problems = [] if together else _redis(server, state)
    if state["index"] and together:
        problems.append(
            f"the cache needs a database of its own there, {server['index']}, which the server does not have ({state['index']}): "
            "give the cache a server of its own, app_cache_url. No prefix of its keys would do: a cache is cleared with "
            "FLUSHDB, which deletes queued tasks in the same database."
        )
    elif state["index"]:
        problems.append(
            f"the server does not have the database {server['index']} ({state['index']}): end the address with one that it has, such as /0."
        )
    return problems


def managed_lines(
    found: Mapping[str, Any], servers: Mapping[str, Any], own: Iterable[str], needed: int, pooled: bool
) -> list[str]:
    """Describe a provider's servers that can be used, a line each, and what an operator should know of them.

    :param found: what managed_state says.
    :param servers: what `managed_servers` returns.
    :param own: what `managed_users` returns.
    :param needed: what `connections` returns.
    :param pooled: `app_database_pooled`.
    """
    lines = []
    for name, server in servers.items():
        state = found.get(name)
        if not state:
            continue
        place = f"{name:<8} {server['host']}:{server['port']}"
        if state["stage"]:
            lines.append(f"{place}: cannot be used: {state['error']}")
            continue
        if name == "database":
            lines.append(
                f"{place}: PostgreSQL {state['version'] // 10000}, database {server['name']}, {_budget(state, needed)}"
            )
            lines += [f"{place}: {note}" for note in _database_notes(server, state, needed, pooled)]
            continue
        policy = state["policy"] or "not shown"
        lines.append(f"{place}: Redis {state['version']}, database {server['index']}, maxmemory-policy {policy}")
        notes = _broker_notes(state) if name == "broker" else _cache_notes(server, state, servers["broker"])
        if name in own:
            notes = ["each kind of process has a Redis user of its own", *notes]
        else:
            notes = [
                f"all processes log in as {server['user']}, because it can make no Redis users that stay ({state['users']})",
                *notes,
            ]
        lines += [f"{place}: {note}" for note in notes]
    return lines


def _budget(state: Mapping[str, Any], needed: int) -> str:
    """Say how many connections there are."""
    if state["pooler"]:
        return f"through a pooler; {needed} connections to it are needed"
    return f"{needed} connections needed of {state['connections']}"


def _database_notes(server: Mapping[str, Any], state: Mapping[str, Any], needed: int, pooled: bool) -> list[str]:
    """Say what an operator should know of a PostgreSQL."""
    notes = []
    if not state["pooler"] and needed <= state["connections"] < 2 * needed:
        notes.append(
            f"tight: while a deploy changes over, up to {2 * needed} connections are needed, and there are {state['connections']}"
        )
    if pooled:
        notes.append(
            "server-side cursors are off, and migrations limit their wait for a lock in transactions only. LISTEN, advisory "
            "locks of a session and SET do not work for the application"
        )
    if state["superuser"]:
        notes.append(f"{server['user']} is a superuser: a login that owns the database would do")
    return notes


def _broker_notes(state: Mapping[str, Any]) -> list[str]:
    """Say what an operator should know of a Redis as broker."""
    notes = []
    if not state["policy"]:
        notes.append(f"it does not show its maxmemory-policy: make sure at the provider that it is {NOEVICTION}")
    if state["appendonly"] is None:
        notes.append(
            "it does not show whether it has an append-only file: ask the provider how tasks outlive a failure"
        )
    elif not state["appendonly"]:
        notes.append("it has no append-only file (appendonly is no): a failure loses the tasks since its last snapshot")
    return notes


def _cache_notes(server: Mapping[str, Any], state: Mapping[str, Any], broker: Mapping[str, Any]) -> list[str]:
    """Say what an operator should know of a Redis as cache."""
    if same_server(server, broker):
        return [
            "it shares its memory with the broker: when the cache fills it, no task can be sent. app_cache_url gives it another server"
        ]
    if state["policy"] == NOEVICTION:
        return ["when it is full, nothing can be cached: set its maxmemory-policy to allkeys-lru"]
    return []


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        servers = (managed_servers, managed_groups, managed_users, redis_logins)
        checks = (read_certificates, certificate_file_problems, managed_problems, managed_lines, connection_problems)
        return {filter_.__name__: filter_ for filter_ in (*servers, *checks)} | {"database_connections": connections}
