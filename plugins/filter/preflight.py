"""Checks before anything is touched: each returns sentences that name the variable and the remedy."""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

SUPPORTED = {"Debian": ("12", "13")}
POSTGRESQL = {"12": "15", "13": "17"}  # Debian release to the version that it carries
SECRET_LENGTH = 16  # characters; the sandbox makes 40
KEY_LENGTH = 50  # of app_secret_key: with less, Django's own check fails when the release is there already
SECRET_CHARACTERS = 6  # different ones; 16 random hexadecimal digits have fewer once in 31,000
EMAIL_SECRET = "EMAIL_HOST_PASSWORD"  # of app_email, in app_secrets  # noqa: S105  # pragma: allowlist secret
# What examples and keyboards give. Each is long enough not to come up by chance.
PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "password",
    "insecure",
    "example",
    "qwerty",
    "123456",
)
# Group to the name of the process that may listen on its ports already.
OWN_LISTENERS = {"edge": "nginx", "redis": "redis-server", "postgresql": "postgres"}
# Group: least and most hosts in it.
GROUPS = {
    "redis": (1, 1),
    "postgresql": (1, 1),
    "web": (1, 99),
    "workers": (1, 99),
    "beat": (1, 99),
    "flower": (0, 1),
    "edge": (1, 99),
    "monitoring": (0, 1),
}


def host_problems(facts: dict[str, Any]) -> list[str]:
    """Refuse a distribution that the roles were not tried on, and a kernel that has not what the units need."""
    name, version = str(facts.get("distribution")), str(facts.get("distribution_major_version"))
    if facts.get("virtualization_type") == "openvz":
        return [
            "This host is an OpenVZ container: its machine's kernel has neither the sandbox of the units nor nftables. "
            "Deploy to a virtual machine (KVM), or take it out of the inventory."
        ]
    if version in SUPPORTED.get(name, ()):
        return []
    return [
        f"This host runs {name} {version}. Supported are Debian 12 (bookworm) and 13 (trixie): reinstall it, or take it out of the inventory."
    ]


def interpreter_problems(found: dict[str, str], path: str) -> list[str]:
    """Refuse a host that has not the application's Python.

    :param found: `version` and `error`, as deploy_state found them.
    :param path: `app_python_interpreter`.
    """
    if not found.get("error"):
        return []
    return [
        f"app_python_interpreter is {path}, which {found['error']} on this host. Install CPython there (Coldframe installs none), or leave "
        "app_python_interpreter out: the application then runs with Debian's."
    ]


def postgresql_version(debian: str) -> str:
    """Name the version of PostgreSQL that a release of Debian carries; empty when it is none of the supported."""
    return POSTGRESQL.get(debian, "")


def postgresql_problems(clusters: dict[str, int], debian: str) -> list[str]:
    """Refuse a host whose data is in another cluster than the one that its Debian release carries.

    :param clusters: those of the host, such as `15/main`, to their ports.
    :param debian: the host's release, such as `13`.
    """
    version = postgresql_version(debian)
    port = clusters.get(f"{version}/main")
    if not version or not clusters or port == 5432:
        return []
    shown = ", ".join(f"{name} on port {port}" for name, port in clusters.items())
    where = f"The application's database belongs into PostgreSQL's cluster {version}/main, on port 5432, and this host has {shown}."
    older = [name.split("/")[0] for name in clusters if name.endswith("/main") and name.split("/")[0] < version]
    if not older:
        what = f"pg_createcluster --port=5432 {version} main" if port is None else f"give {version}/main that port"
        return [f"{where} On the host, as root: {what}. Or take the host out of the group 'postgresql'."]
    empty = (
        f"pg_dropcluster --stop {version} main (it is new and empty, as Debian made it: make sure), then "
        if port
        else ""
    )
    return [
        f"{where} Debian {debian} carries {version} and does not move the data itself. On the host, as root: {empty}"
        f"pg_upgradecluster {older[-1]} main. Then deploy again; when all is well, pg_dropcluster {older[-1]} main."
    ]


def secret_problems(secrets: dict[str, Any], redis_users: list[str], environment: str = "NAME") -> list[str]:
    """Refuse a missing, short, guessable or reused secret, by the variable's name and never by its value.

    :param secrets: variable name to value; `app_redis_passwords` holds one for each Redis user.
    :param redis_users: their names; what stands there for others is nobody's.
    :param environment: the `ENV` of the inventory, for the command that makes them.
    """
    redis = secrets.get("app_redis_passwords") or {}
    flat = {name: value for name, value in secrets.items() if name != "app_redis_passwords"}
    flat |= {f"app_redis_passwords.{user}": redis.get(user) for user in redis_users}
    problems = []
    if missing := [name for name, value in flat.items() if not value]:
        one = len(missing) == 1
        least = KEY_LENGTH if missing == ["app_secret_key"] else SECRET_LENGTH
        problems.append(
            f"{', '.join(missing)} {'is' if one else 'are'} missing: 'make secrets ENV={environment}' makes "
            f"{'it' if one else 'them'}. Or set {'it' if one else 'each'} in the inventory's vault, at least {least} random "
            f"characters{f' (app_secret_key {KEY_LENGTH})' if not one and 'app_secret_key' in missing else ''}."
        )
    for name, value in flat.items():
        least = KEY_LENGTH if name == "app_secret_key" else SECRET_LENGTH
        if not value:
            continue
        if not isinstance(value, str) or len(value) < least:
            problems.append(
                f"{name} is shorter than {least} characters: set a longer random one in the inventory's vault."
            )
        elif not value.isascii() or not value.isprintable() or " " in value:
            problems.append(f"{name} holds a space or a character that is not printable ASCII: set one without.")
        elif name == "app_database_password" and re.match(r"SCRAM-SHA-256\$|md5[0-9a-f]{32}$", value):
            problems.append(
                f"{name} looks like a digest, which PostgreSQL would take for one: set the password itself."
            )
        elif name == "app_secret_key" and value.startswith("django-insecure-"):
            problems.append(f"{name} is one that Django made for development: set a random one.")
        elif len(set(value)) < SECRET_CHARACTERS or any(word in value.lower() for word in PLACEHOLDERS):
            problems.append(f"{name} can be guessed (a placeholder, or few different characters): set a random one.")
        elif same := [other for other in flat if flat[other] == value and other != name]:
            problems.append(f"{name} is the same as {', '.join(same)}: set a value of its own for each.")
    return problems


def login_problems(given: dict[str, Any]) -> list[str]:
    """Refuse a login at somebody else's server that has no password.

    :param given: `app_broker_url`, `app_broker_password`, `app_email` and `app_secrets` to their values.
    """
    problems = []
    if given["app_broker_url"] and not given["app_broker_password"]:
        problems.append(
            f"app_broker_url is {given['app_broker_url']!r}, and app_broker_password is missing: put the provider's password there, "
            "in the vault."
        )
    user = given["app_email"].get("user")
    if user and EMAIL_SECRET not in given["app_secrets"]:
        problems.append(
            f"app_email.user is {user!r}, and there is no app_secrets.{EMAIL_SECRET}: add the password there."
        )
    return problems


def topology_problems(
    groups: dict[str, list[str]], queues: Any, hostvars: Any, managed: dict[str, str] | None = None
) -> list[str]:
    """Refuse an inventory in which a part of the application runs nowhere, or one that must be alone does not.

    :param groups: Ansible's groups.
    :param queues: `celery_queues`.
    :param hostvars: Ansible's hostvars, for `celery_host_queues` and `app_private_address`.
    :param managed: groups that have no host because a provider runs the service, to the variable that says so.
    """
    problems = []
    for group, (least, most) in GROUPS.items():
        hosts = groups.get(group, [])
        if managed and group in managed:
            if hosts:
                problems.append(
                    f"The inventory group {group!r} has {', '.join(hosts)}, and {managed[group]} names a provider's server, "
                    f"which the application would use instead: take the group's hosts out, or {managed[group]}."
                )
            continue
        if len(hosts) < least:
            problems.append(f"The inventory group {group!r} has no host: put one in it.")
        if len(hosts) > most:
            problems.append(
                f"The inventory group {group!r} has {len(hosts)} hosts ({', '.join(hosts)}). Leave {most} in it."
            )
    placed = {host for group in GROUPS for host in groups.get(group, [])}
    for group, hosts in groups.items():
        near = difflib.get_close_matches(group, GROUPS, 1, 0.8)
        if group not in GROUPS and near and set(hosts) - placed:
            problems.append(
                f"The inventory group {group!r} is none of the application's, and nothing would run on "
                f"{', '.join(sorted(set(hosts) - placed))}: is {near[0]!r} meant? Call it otherwise if not."
            )
    problems += _address_problems(private_addresses(groups, hostvars))
    if not isinstance(queues, dict):
        return problems  # said elsewhere
    served: set[str] = set()
    for host in groups.get("workers", []):
        own = hostvars[host].get("celery_host_queues", list(queues)) if host in hostvars else list(queues)
        own = list(queues) if isinstance(own, str) else own
        served |= set(own)
        for queue in sorted(set(own) - set(queues)):
            problems.append(
                f"celery_host_queues of {host} names {queue!r}, which is not in celery_queues: add it there or take it out here."
            )
    if groups.get("workers"):
        problems += [
            f"No host of the group 'workers' serves the queue {queue!r}: add it to a host's celery_host_queues or take it out of celery_queues."
            for queue in queues
            if queue not in served
        ]
    return problems


def private_addresses(groups: dict[str, list[str]], hostvars: Any) -> dict[str, str]:
    """Map each host of the application to its `app_private_address`; nothing when all of it runs on one host.

    :returns: the addresses as they stand in the inventory, unchecked; "" where there is none.
    """
    hosts = sorted({host for group in GROUPS for host in groups.get(group, [])})
    if len(hosts) < 2:
        return {}
    return {host: str(hostvars[host].get("app_private_address") or "") if host in hostvars else "" for host in hosts}


def _address_problems(addresses: dict[str, str]) -> list[str]:
    problems = []
    for host, address in addresses.items():
        where = f"app_private_address of {host} is {address!r}"
        try:
            parsed = ip_address(address)
        except ValueError:
            problems.append(
                f"{where}, and the application runs on {len(addresses)} hosts ({', '.join(addresses)}): "
                "set it to the IP address under which the others reach this host."
            )
            continue
        if parsed.is_unspecified or parsed.is_loopback or parsed.is_multicast or parsed.is_link_local:
            problems.append(f"{where}, which other hosts cannot reach: set it to this host's address in your network.")
        same = [other for other in addresses if other != host and addresses[other] == address]
        if same:
            problems.append(f"{where}, and so is that of {', '.join(same)}: each host has one of its own.")
    return problems


def interface_problems(facts: dict[str, Any], address: str) -> list[str]:
    """Refuse a private address that is on none of the host's interfaces.

    :param facts: with Ansible's network facts.
    :param address: `app_private_address`, or "" where none is needed.
    """
    own = [*facts.get("all_ipv4_addresses", []), *facts.get("all_ipv6_addresses", [])]
    if not address or address in own:
        return []
    return [
        f"app_private_address is {address!r}, and this host has {', '.join(own) or 'none'}: set it to one of these, "
        "as it is written here, or give the host that address."
    ]


def socket_group_problems(asked: list[str], present: list[str], alone: bool, group: str = "redis-clients") -> list[str]:
    """Refuse groups with which the units would not start, or not reach Redis.

    :param asked: `app_socket_groups`.
    :param present: the groups that the host has; the one of Redis' sockets may yet come.
    :param alone: whether everything runs on one host, and talks through sockets.
    :param group: `app_redis_group`, that of Redis' sockets.
    """
    problems = [
        f"app_socket_groups holds {name!r}, a group that this host does not have: add it there or take it out."
        for name in asked
        if name not in (*present, group)
    ]
    if alone and group not in asked:
        problems.append(f"app_socket_groups is {asked!r}; it must hold {group!r}, or nothing reaches Redis.")
    return problems


def hostname_problems(host: str, states: dict[str, Any]) -> list[str]:
    """Refuse hosts of one name: workers are told apart by it.

    :param host: the host that is looked at.
    :param states: host to what deploy_state says of it, or nothing where it was not asked.
    """
    name = states[host]["hostname"]
    same = sorted(other for other, state in states.items() if other != host and state and state["hostname"] == name)
    if not same:
        return []
    return [
        f"This host and {', '.join(same)} have the host name {name!r}, and workers are told apart by it: give each its own, "
        f"here with 'hostnamectl set-hostname {host.split('.')[0]}'."
    ]


def occupied_problems(state: dict[str, Any], groups: list[str], app: str, sandbox: str = "") -> list[str]:
    """Refuse a host that something else uses, which the deploy would take out of service.

    :param state: what deploy_state says of the host.
    :param groups: the inventory groups that the host is in.
    :param app: `app_name`.
    :param sandbox: the command that removes the host, when it is a sandbox host.
    """
    problems = []
    for other, there in state["others"].items():
        if there["record"]:
            continue  # of these beside_problems tells
        way = (
            f"give {app} a host of its own, with another SANDBOX_NAME and other SANDBOX_*_PORTs, or remove this one: '{sandbox}'"
            if sandbox == "make sandbox-down"
            else f"remove this host with all its data: '{sandbox}'"
            if sandbox
            else f"remove {other} (make down)"
        )
        problems.append(
            f"app_name is {app!r}, and this host has another application, {other!r} (last deployed {there['deployed']} by an "
            f"earlier Coldframe, which left no room for a second one). If it is the same application, call it {other!r} as "
            f"before: its database and folders have that name. Else deploy {other} once with this Coldframe, then {app} beside "
            f"it (docs/two-applications.md); or {way}."
        )
    ways = {
        "edge": "Coldframe's nginx.conf would put out of service. Remove them",
        "redis": "Coldframe would stop. Remove it (systemctl disable --now redis-server)",
        "postgresql": "Coldframe's pg_hba.conf would shut out. Remove them",
    }
    problems += [
        f"This host is in the inventory group {group!r} and has {what}, which {ways[group]}, or take another server."
        for group, what in state["foreign"].items()
        if group in groups
    ]
    return problems


def port_problems(listeners: dict[str, str], groups: list[str], ports: dict[str, int]) -> list[str]:
    """Refuse a host on which another program listens where nginx, Redis or PostgreSQL is to.

    :param listeners: port to the name of the process, as deploy_state says.
    :param groups: the inventory groups that the host is in.
    :param ports: inventory group to its port on the private address; empty when everything runs on one host.
    """
    wanted = [("edge", 80), ("edge", 443), *ports.items()]
    return [
        f"This host is in the inventory group {group!r}, and {listeners[str(port)]!r} listens on port {port}, which "
        f"{OWN_LISTENERS[group]} needs. Stop and disable what that belongs to (on the host, as root: ss -ltnp 'sport = :{port}'), "
        "or take another server."
        for group, port in wanted
        if group in groups and listeners.get(str(port), "") not in ("", OWN_LISTENERS[group])
    ]


def beside_problems(state: dict[str, Any], app: str, record: dict[str, Any], allowed: list[str] | str) -> list[str]:
    """Refuse what does not go together with the other applications of a host, or with the one that was deployed before.

    :param state: what deploy_state says of the host.
    :param app: `app_name`.
    :param record: `app_record`, what this application is to take of the host.
    :param allowed: `release_allow_shared`; from the command line one text with commas.
    """
    allowed = allowed.split(",") if isinstance(allowed, str) else allowed
    problems = []
    before = bool(state["record"].get("additional"))
    if state["current"] and record["additional"] != before:
        problems.append(
            f"app_additional is {_yaml(record['additional'])}, and {app} was deployed with {_yaml(before)}: its queued tasks are in Redis "
            f"instances of other names. Set it to {_yaml(before)}."
        )
    for other, its in ((name, there["record"]) for name, there in state["others"].items() if there["record"]):
        if not record["additional"] and not its["additional"]:
            problems.append(
                f"app_additional is false, and this host has an application already, {other!r}. If {app} is another one, set "
                f"app_additional to true. If it is the same, call it {other!r} as before (app_name)."
            )
        spread = [name for name, of in ((app, record), (other, its)) if of["hosts"] > 1]
        if spread:
            problems.append(
                f"This host has another application, {other!r}, and {' and '.join(spread)} "
                f"{'are' if len(spread) > 1 else 'is'} spread over several hosts. Only applications that run on one host "
                "as a whole can share it: take another server."
            )
        for name in sorted(set(record["names"]) & set(its["names"])):
            problems.append(
                f"{name!r} is a host name of {other} too (app_url, nginx_server_name, app_aliases, nginx_redirect_names): nginx "
                "serves one application at a name. Use another one."
            )
        roots = [Path(record["root"]), Path(its["root"])]
        if roots[0].is_relative_to(roots[1]) or roots[1].is_relative_to(roots[0]):
            problems.append(
                f"app_root is {record['root']!r}, and that of {other} is {its['root']!r}: use another folder."
            )
        for socket in sorted(set(record["sockets"]) & set(its["sockets"])):
            problems.append(f"{socket!r} is a socket of {other} too: use another path, or leave the variable out.")
        for name, value in record["shared"].items():
            if name in its["shared"] and value != its["shared"][name] and name not in allowed:
                problems.append(
                    f"{name} is {_yaml(value)}, and {_yaml(its['shared'][name])} for {other}: it is a setting of the whole host. "
                    f"Make them alike. To change it, change it in both inventories, deploy {app} with ALLOW_SHARED={name}, then {other}."
                )
    return problems


def _yaml(value: Any) -> str:
    """Write a value as it stands in an inventory."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def host_port(address: str, port: int) -> str:
    """Join an IP address and a port; version 6 needs brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def source_problems(source: str, python_path: str, lock_file: str, modules: dict[str, str]) -> list[str]:
    """Refuse modules that are neither in the application's folder nor, by their name, in a locked package.

    :param source: the application's folder on the controller.
    :param python_path: `app_python_path`, relative to it.
    :param lock_file: `app_lock_file`, relative to it.
    :param modules: variable name to a module, such as `site.wsgi:application`.
    """
    root, lock = Path(source), Path(source, lock_file)
    if not root.is_dir() or not lock.is_file():
        return []  # said elsewhere
    if python_path and not (root / python_path).is_dir():
        return [
            f"app_python_path is {python_path!r}, and {source} has no such folder: set it to one that it has, or to ''."
        ]
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", lock.read_text(errors="replace"), re.M)
    packages = [re.sub(r"[-_.]+", "_", name).lower() for name in names]
    problems = []
    for variable, value in modules.items():
        parts = value.partition(":")[0].split(".")
        folders = [root, root / python_path]
        if any(_module(folder, parts) for folder in folders):
            continue
        if not any(_module(folder, parts[:1]) for folder in folders):
            if any(parts[0].lower() in package for package in packages):
                continue
            elsewhere = sorted(
                str(p.parent.relative_to(root)) for p in root.glob(f"*/{parts[0]}*") if _module(p.parent, parts)
            )
            remedy = f"set app_python_path to {elsewhere[0]!r}, where it is" if elsewhere else "name one that is there"
            problems.append(
                f"{variable} is {value!r}, and there is no {parts[0]!r} in {source}, nor a package of that name in {lock_file}: {remedy}."
            )
        else:
            problems.append(
                f"{variable} is {value!r}, and {parts[0]!r} in {source} has no module {'.'.join(parts[1:])!r}: name one that is there."
            )
    return problems


def _module(folder: Path, parts: list[str]) -> bool:
    """Whether a folder has a module or package of this name."""
    place = folder.joinpath(*parts)
    return place.is_dir() or place.with_name(f"{place.name}.py").is_file()


def acme_problems(
    name: str, agreed: bool, directory: str, certificate: str, edges: list[str], others: list[str]
) -> list[str]:
    """Refuse what no CA can make a certificate from by asking the host itself.

    :param name: `nginx_server_name`.
    :param agreed: `nginx_acme_terms_agreed`.
    :param directory: `nginx_acme_directory`.
    :param certificate: `nginx_tls_certificate`.
    :param edges: the hosts of the inventory's group `edge`.
    :param others: `app_aliases` and `nginx_redirect_names`.
    """
    problems = []
    in_dns = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")
    if not in_dns.fullmatch(name):
        problems.append(
            f"nginx_acme is on and nginx_server_name is {name!r}: it must be one name in the DNS, in lower case, such as www.example.com."
        )
    problems += [
        f"nginx_acme is on, and {other!r} of app_aliases and nginx_redirect_names is no name that the CA can verify: write "
        "each name out, such as www.example.org, or set nginx_tls_certificate and nginx_tls_key instead."
        for other in others
        if not in_dns.fullmatch(other)
    ]
    if len(others) > 99:
        problems.append(
            f"nginx_acme is on, and a certificate would have {len(others) + 1} names; CAs allow 100. Set "
            "nginx_tls_certificate and nginx_tls_key instead."
        )
    if not agreed:
        problems.append(
            f"nginx_acme is on and nginx_acme_terms_agreed is not: read the terms of {directory}, and set it to true."
        )
    if not re.fullmatch(r"https://[\w.:/-]+", directory):
        problems.append(
            f"nginx_acme_directory is {directory!r}: it must be the https:// address of a CA's ACME directory."
        )
    if certificate:
        problems.append(
            f"nginx_acme is on and nginx_tls_certificate is {certificate!r}: set one of the two, for nginx serves one certificate."
        )
    if len(edges) > 1:
        problems.append(
            f"nginx_acme is on and the inventory group 'edge' has {len(edges)} hosts ({', '.join(edges)}): the CA "
            "asks any of them, and one alone has the answer. Set nginx_tls_certificate and nginx_tls_key instead."
        )
    return problems


def smoke_problems(request: Any, further: Any) -> list[str]:
    """Refuse requests of the smoke test that cannot be sent: it comes last, when the release runs already.

    :param request: `smoke_request`.
    :param further: `smoke_requests`.
    """
    if not isinstance(request, dict) or "path" not in request:
        return [
            "smoke_request must name the page that shows after a deploy that the application works, such as "
            "smoke_request: {path: /} (docs/releases.md, 'The smoke test').",
            *_further_problems(further),
        ]
    return _request_problems("smoke_request", request) + _further_problems(further)


def _further_problems(further: Any) -> list[str]:
    """Say what is wrong with `smoke_requests`."""
    if not isinstance(further, list):
        return [f"smoke_requests is {further!r}; it must be a list of requests, such as [{{path: /}}]."]
    return [
        problem
        for number, request in enumerate(further)
        for problem in _request_problems(f"smoke_requests[{number}]", request)
    ]


def _request_problems(name: str, request: Any) -> list[str]:
    """Say what is wrong with a request of the smoke test."""
    known = ("path", "method", "body", "status")
    path = request.get("path") if isinstance(request, dict) else None
    if not isinstance(path, str) or not path.startswith("/"):
        return [f"{name} is {request!r}; it must have a path that begins with /, such as {{path: /}}."]
    problems = [f"{name}.{word} is unknown. Known: {', '.join(known)}." for word in request if word not in known]
    status = request.get("status", [200])
    if not isinstance(status, list) or not all(isinstance(code, int) and 100 <= code <= 599 for code in status):
        problems.append(f"{name}.status is {status!r}; it must be a list of status codes of HTTP, such as [200].")
    return problems


class FilterModule:
    """Filters of the preflight."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        checks = (
            host_problems,
            interpreter_problems,
            postgresql_version,
            postgresql_problems,
            secret_problems,
            topology_problems,
        )
        hosts = (hostname_problems, occupied_problems, beside_problems, port_problems, interface_problems)
        more = (*hosts, login_problems, source_problems, socket_group_problems, acme_problems, smoke_problems)
        return {filter_.__name__: filter_ for filter_ in (*checks, *more, private_addresses, host_port)}
