"""Checks each variable of the inventory by the roles' argument specs and by what can be right, on the controller alone.

Ansible's own check takes "50" for a number and gives it on as text, [] for a text, and any text for right; it
knows nothing of misspelt names, and comes when the role does: after others have changed the host.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

SECRET = {"app_secret_key", "app_database_password", "app_flower_password", "app_redis_passwords", "app_secrets"}
SECRET |= {"app_secret_key_next", "app_secret_key_before", "app_database_password_before", "app_redis_passwords_before"}
SECRET |= {"app_tls_authority", "app_tls_given"}
# Given as one text with commas on the command line.
COMMAS = {"release_allow_migrations", "release_allow_queues"}
TYPES = {"str": "a text", "path": "a text", "int": "a whole number", "bool": "true or false"}
TYPES |= {"list": "a list", "dict": "a mapping"}

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = rf"(?=.{{1,64}}(:|$))({LABEL}\.)*(?=[a-z0-9-]*[a-z]){LABEL}"
MODULE = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
FOLDER = r"(/(?!\.\.?(/|$))[A-Za-z0-9._+@-]+)+"
SYSTEM = r"(?!/(bin|boot|dev|etc|home|lib|lib64|proc|root|run|sbin|sys|tmp|usr|var/tmp)(/|$))"
SOCKET = r"(?=.{1,100}$)/run(/(?!\.\.?(/|$))[A-Za-z0-9._+@-]+)+"
PACKAGE = (r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[\w.+:~-]+)?", "the name of a Debian package")
PORT = (range(1024, 65536), "a port from 1024 to 65535")
MEMORY = (range(16, 2**24), "MiB, from 16")
INDEX = (r"(https?://[\w.~:/@%+-]+)?", "empty or the address of a package index, http(s)://...")
ANY = (r".+", "not empty")
SECRET_TEXT = (r"[!-~]*", "empty or a text of printable ASCII without blanks")
# Each variable, or each element of a list: what it must match (a text) or lie in (a number), and that in words.
RIGHT: dict[str, tuple[Any, str]] = {
    "app_name": (r"[a-z][a-z0-9]{0,19}", "lower-case letters and digits, at most 20, beginning with a letter"),
    "app_source": (r".*", "a folder on the controller"),
    "app_repository": (r"(?!-).*", "a repository's address or path"),
    "app_version": (r"([A-Za-z0-9_][A-Za-z0-9_./+@-]*)?", "a branch, a tag or a commit"),
    "app_repository_folder": (r"(?!/)(?!(.*/)?\.\.(/|$)).*", "a folder inside the repository"),
    "app_python_path": (r"((?!\.\.?(/|$))[A-Za-z0-9._+@-]+(/(?!\.\.?(/|$)|$)[A-Za-z0-9._+@-]+)*)?", "empty or a folder inside the application"),
    "app_settings_module": (MODULE, "a Python module, such as myapp.settings"),
    "app_wsgi": (rf"{MODULE}:{MODULE}", "module:name, such as myapp.wsgi:application"),
    "app_celery": (rf"{MODULE}(:{MODULE})?", "module:name or module, such as myapp.celery:app"),
    "app_url": (rf"https://{HOST}(:[1-9][0-9]{{0,4}})?", "https://NAME or https://NAME:PORT in lower case, nothing behind"),
    "app_secret_key": (r".*", "random"),
    "app_secret_key_next": SECRET_TEXT,
    "app_secret_key_before": SECRET_TEXT,
    "app_database_password": (r".*", "random"),
    "app_database_password_before": SECRET_TEXT,
    "app_flower_password": (r".*", "random"),
    "app_root": (SYSTEM + FOLDER, "a folder of its own, such as /srv/myapp, of letters, digits and ._+@-; services see no "
                 "/home, /root and /tmp, and the system's folders are no place"),
    "app_lock_file": (r"(?!/)(?!(.*/)?\.\.(/|$)).+", "a file inside the application's folder"),
    "app_include": ANY,
    "app_exclude": ANY,
    "app_apt_lock_timeout": (range(86401), "seconds, from 0 to 86400"),
    "app_memory_max": (r"(100|[1-9][0-9]?)%|[1-9][0-9]{0,11}[KMGT]", "a size, such as 2G, or a share of the host's memory, such as 75%"),
    "app_tasks_max": (range(100, 2**22), "from 100"),
    "app_web.workers": (range(1, 513), "from 1 to 512"),
    "app_web.threads": (range(1, 1025), "from 1 to 1024"),
    "app_web.timeout": (range(1, 86401), "seconds, from 1 to 86400"),
    "app_web.max_requests": (range(2**31), "0 or more"),
    "app_start_timeout": (range(5, 3601), "seconds, from 5 to 3600"),
    "app_web_socket": (SOCKET, "a path below /run"),
    "app_broker_socket": (rf"(?=/run/redis-broker/){SOCKET}", "a path in /run/redis-broker, the only folder that it may write"),
    "app_cache_socket": (rf"(?=/run/redis-cache/){SOCKET}", "a path in /run/redis-cache, the only folder that it may write"),
    "app_socket_groups": (r"[a-z_][a-z0-9_-]{0,31}", "a group's name"),
    "app_database_socket": (r"/(var/)?run/postgresql", "/run/postgresql, where Debian's PostgreSQL has it"),
    "app_private_address": (r"([0-9.]+|[0-9a-f:]+)?", "an IP address"),
    "app_web_port": PORT,
    "app_broker_port": PORT,
    "app_cache_port": PORT,
    "app_flower_port": PORT,
    "celery_default_queue": ANY,
    "celery_beat_scheduler": (rf"{MODULE}:{MODULE}", "module:Class, such as django_celery_beat.schedulers:DatabaseScheduler"),
    "celery_visibility_timeout": (range(366 * 86400 + 1), "seconds, from 0 to 31622400, a year"),
    "celery_unknown_task_seconds": (range(60, 366 * 86400 + 1), "seconds, from 60 to 31622400, a year"),
    "celery_host_queues": ANY,
    "base_packages": PACKAGE,
    "base_journal_max_use": (r"[1-9][0-9]{0,11}[KMGT]?", "a size, such as 500M or 2G"),
    "firewall_open_ports": (range(1, 65536), "a TCP port from 1 to 65535"),
    "firewall_packages": PACKAGE,
    "flower_user": (r"[A-Za-z0-9._@-]{1,64}", "letters, digits and ._@-"),
    "flower_max_tasks": (range(1, 10**7 + 1), "from 1 to 10000000"),
    "flower_index_url": INDEX,
    "nginx_packages": PACKAGE,
    "nginx_server_name": (HOST, "one host name in lower case"),
    "nginx_tls_certificate": (rf"({FOLDER})?", "empty or a path on the server of letters, digits and ._+@-"),
    "nginx_tls_key": (rf"({FOLDER})?", "empty or a path on the server of letters, digits and ._+@-"),
    "nginx_acme_directory": (r"https?://[\w.:/-]+", "the https:// address of an authority's directory"),
    "nginx_client_max_body_size": (r"[0-9]{1,9}[kKmMgG]?", "a size, such as 10m"),
    "nginx_media_url": (r"((?!/static/|/flower/)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+/)?",
                        "empty, or a path with a slash before and after it, such as /media/, and not in /static/ or /flower/"),
    "nginx_trusted_proxies": (r"[0-9A-Fa-f.:]+(/[0-9]+)?", "a network, such as 10.0.7.0/24"),
    "nginx_referrer_policy": (r"[a-z, -]*", "a Referrer-Policy such as same-origin, or empty"),
    "nginx_requests_per_second": (range(1, 10**6 + 1), "from 1 to 1000000"),
    "nginx_connections_per_client": (range(1, 65536), "from 1 to 65535"),
    "nginx_hsts_seconds": (range(2**31), "0 or more"),
    "postgresql_packages": PACKAGE,
    "postgresql_max_connections": (range(20, 10001), "from 20 to 10000"),
    "postgresql_shared_buffers_mb": MEMORY,
    "redis_packages": PACKAGE,
    "redis_broker_maxmemory_mb": (range(64, 2**24), "MiB, from 64: one slow Flower may take 32 of it"),
    "redis_cache_maxmemory_mb": MEMORY,
    "release_packages": PACKAGE,
    "release_artifact_dir": (r"(/.*|\.{1,2}/.*)", "a folder on the controller"),
    "release_index_url": INDEX,
    "release_keep": (range(1001), "from 0 to 1000"),
    "release_rollback_to": (r"([0-9a-f]{12})?", "empty or the id of a release, 12 digits"),
    "release_allow_migrations": (r"[A-Za-z_]\w*\.\w+", "app_label.migration_name, such as blog.0007_title"),
    "release_check_ignore": (r"[A-Za-z_][\w-]*(\.[\w-]+)+", "the id of a finding, such as security.W005"),
    "release_commands": (r"[A-Za-z_]\w*(\s.*)?", "a command of manage.py with its arguments, such as compress --force"),
    "release_allow_queues": (r"[a-z][a-z0-9_]{0,31}", "the name of a queue"),
    "release_migration_lock_timeout": (range(86401), "seconds, from 0 to 86400"),
}  # fmt: skip
# Names that Debian has for groups, or systemd for targets and slices: the application would get into theirs.
TAKEN = """adm audio backup basic bin bluetooth boot cdrom crontab daemon default dialout dip disk emergency exit fax final
    floppy games getty graphical halt hibernate init initrd input irc kexec kmem kvm list local lp machine mail man
    messagebus multi network news nginx nobody nogroup operator paths plugdev polkitd postfix postgres postgresql poweroff
    printer proxy reboot redis remote render rescue root sasl sgx shadow shutdown sleep slices smartcard sockets sound src
    ssh sshd staff sudo suspend swap sync sys sysinit syslog system systemd tape time timers tty umount user users utmp
    uucp video voice wheel"""
# What the units set themselves, and what systemd does.
OWN_ENVIRONMENT = {"RELEASE_ID", "CELERY_SKIP_CHECKS", "PYTHONPATH", "CELERY_SETTINGS_FILE", "STATIC_ROOT"}
OWN_ENVIRONMENT |= {
    "REDIS_USERNAME",
    "START_TIMEOUT",
    "WORKER_ARGUMENTS",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
}
OWN_SECRETS = {"secret_key", "secret_key_fallbacks", "database_password", "cache_password", "redis_password"}


@cache
def specs(project: str) -> dict[str, dict[str, Any]]:
    """Read every role's options from its argument spec, name to option."""
    files = sorted(Path(project, "roles").glob("*/meta/argument_specs.yml"))
    mains = [yaml.safe_load(path.read_text())["argument_specs"]["main"] for path in files]
    return {name: option for main in mains for name, option in main["options"].items()}


@cache
def redis_users(project: str) -> dict[str, dict[str, Any]]:
    """Read the users of both Redis instances from the role's table, name to what it says of the user."""
    table = yaml.safe_load(Path(project, "roles/redis/vars/main.yml").read_text())["__redis_users"]
    return {name: user for users in table.values() for name, user in users.items()}


def _plain(value: Any) -> Any:
    """Work out all that is in a value: Ansible does so when each part is asked for, and raises when it is looked at."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    repr(value)
    return value


def _is(value: Any, kind: str) -> bool:
    """Whether a value is of a type, as it stands: text is no number, and true is none either."""
    python: Any = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict}[kind]
    return isinstance(value, python) and (kind == "bool" or not isinstance(value, bool))


def _shown(name: str, value: Any) -> str:
    """Show a value, but a secret's type only, nor the password of an address."""
    if name.split(".")[0].split("[")[0] in SECRET:
        return f"of the type {type(value).__name__.removeprefix('_AnsibleTagged').lower()}"
    text = re.sub(r"(://)[^/@\s]*@", r"\1***@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _value_problems(name: str, value: Any, option: Mapping[str, Any], right: tuple[Any, str] | None) -> list[str]:
    """Say what is wrong with one value, by its option in an argument spec and by what is right."""
    where = f"{name} is {_shown(name, value)}"
    kind = option["type"]
    if not _is(value, kind):
        hint = ", without quotes" if kind in ("int", "bool") and isinstance(value, str) else ""
        return [f"{where}; it must be {TYPES[kind]}{hint}" + (f": {right[1]}." if right and kind != "list" else ".")]
    if kind == "list":
        each = {"type": option["elements"], "choices": option.get("choices")}
        return [p for i, v in enumerate(value) for p in _value_problems(f"{name}[{i}]", v, each, right)]
    if kind == "dict":
        known = option.get("options")
        if known is None:
            return []
        problems = [f"{name}.{k} is unknown. Known: {', '.join(known)}." for k in value if k not in known]
        options = ((k, o) for k, o in known.items() if k in value)
        return problems + [
            p for k, o in options for p in _value_problems(f"{name}.{k}", value[k], o, RIGHT.get(f"{name}.{k}"))
        ]
    if option.get("choices"):
        return [] if value in option["choices"] else [f"{where}; it must be one of {', '.join(option['choices'])}."]
    if isinstance(value, str) and not value.isprintable():
        return [f"{where}; it must not hold a character that cannot be printed, such as the end of a line."]
    if isinstance(value, str) and len(value) > 1000 and name not in SECRET:
        return [f"{where}; it must not be longer than 1000 characters."]
    if right is None:
        return []
    # A number of Ansible's is of a type of its own, which Python would look for one by one.
    fits = int(value) in right[0] if isinstance(right[0], range) else re.fullmatch(right[0], value)
    return [] if fits else [f"{where}; it must be {right[1]}."]


def _environment_problems(environment: Mapping[Any, Any]) -> list[str]:
    problems = []
    for key, value in environment.items():
        where = f"app_environment.{key if isinstance(key, str) and key.isprintable() else repr(key)}"
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            problems.append(f"{where}: a name must be letters, digits and _, and not begin with a digit.")
        elif key in OWN_ENVIRONMENT:
            problems.append(f"{where} is set by the units themselves: take it out.")
        elif not isinstance(value, (str, int, float)):
            problems.append(f"{where} is {_shown(where, value)}; it must be a text or a number.")
        elif not str(value).isprintable():
            problems.append(f"{where} must not hold a character that cannot be printed, such as the end of a line.")
    return problems


def _secrets_problems(secrets: Mapping[Any, Any], users: Mapping[str, Any]) -> list[str]:
    problems = []
    own = OWN_SECRETS | {f"redis_{name}" for name, user in users.items() if "group" in user}
    for key, value in secrets.items():
        where = f"app_secrets.{key if isinstance(key, str) and key.isprintable() else repr(key)}"
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", key):
            problems.append(
                f"{where}: a name must be at most 64 letters, digits and _.-, and not begin with - or a dot."
            )
        elif key in own:
            problems.append(f"{where} has the name of a secret that every application has: choose another.")
        elif not isinstance(value, str) or not value or "\0" in value:
            problems.append(f"{where} is {_shown(where, value)}; it must be a text that is not empty and holds no NUL.")
        elif len(value.encode(errors="replace")) > 2**16:
            problems.append(
                f"{where} has more than 65536 bytes, which is no secret: make it a file of the application."
            )
    return problems


def _together_problems(values: Mapping[str, Any], options: Mapping[str, Any], users: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with values that are right each for itself."""
    problems = []
    if values.get("app_name") in TAKEN.split():
        problems.append(f"app_name is {values['app_name']!r}, which the system has a use for: choose another.")
    if address := values.get("app_private_address"):
        try:
            ip_address(address)
        except ValueError:
            problems.append(f"app_private_address is {address!r}; it must be an IP address.")
    if (port := re.search(r":(\d+)$", values.get("app_url", ""))) and int(port[1]) > 65535:
        problems.append(f"app_url is {values['app_url']!r}; its port must be from 1 to 65535.")
    ports = {5432: "PostgreSQL's"}
    for name in ("app_web_port", "app_broker_port", "app_cache_port", "app_flower_port"):
        port = values.get(name, options[name]["default"])
        if port in ports:
            problems.append(f"{name} is {port}, which is {ports[port]}: each has a port of its own.")
        elif port in values.get("firewall_open_ports", []):
            problems.append(
                f"firewall_open_ports holds {port}, which is {name}: what listens there is for the inventory's hosts alone."
            )
        ports.setdefault(port, name)
    for name in ("redis_packages", "postgresql_packages", "nginx_packages", "firewall_packages", "release_packages"):
        if values.get(name) == []:
            problems.append(f"{name} is empty; it must hold the package that the role is about.")
    # An older vault still has passwords of users that are gone: they do no harm.
    known = {*users, *values.get("app_redis_passwords", {})}
    for user, password in values.get("app_redis_passwords_before", {}).items():
        if user not in known or not isinstance(password, str) or not re.fullmatch(r"[!-~]+", password):
            problems.append(
                "app_redis_passwords_before must hold a text of printable ASCII without blanks for one of "
                f"{', '.join(users)}: make rotate-secret sets it."
            )
    problems += _environment_problems(values.get("app_environment", {}))
    return problems + _secrets_problems(values.get("app_secrets", {}), users)


def variables_of_others(variables: Mapping[str, Any]) -> list[str]:
    """Name the variables of a host that follow from other hosts'; its entry of hostvars cannot tell their values."""
    names = []
    for name in variables:
        try:
            _plain(variables[name])
        except Exception as error:
            names += [name] if "'hostvars' is undefined" in str(error) else []
    return names


def variable_problems(variables: Mapping[str, Any], project: str, others: Mapping[str, Any] | None = None) -> list[str]:
    """Say which variables of a host are unknown, missing, of the wrong type or not right, and what would be.

    :param variables: of one host; its entry of Ansible's hostvars will do.
    :param project: the project's folder.
    :param others: values of those that follow from other hosts'.
    :returns: sentences that name the variable; of a secret never the value.
    """
    options = specs(project)
    prefixes = tuple({name.split("_")[0] + "_" for name in options} | {"gunicorn_"})
    problems, values = [], {}
    for name in sorted(str(name) for name in variables if str(name).startswith(prefixes)):
        if name not in options:
            near = difflib.get_close_matches(name, options, 1, 0.6)
            meant = f" Is {near[0]} meant?" if near else ""
            problems.append(
                f"{name} is no variable of the roles (docs/variables.md).{meant} One of your own needs a name that begins otherwise."
            )
            continue
        try:
            value = _plain(others[name] if others and name in others else variables[name])
        except Exception as error:  # whatever Ansible makes of a template that cannot be worked out
            why = f": {error}" if name not in SECRET or str(error).endswith("is undefined") else ""
            problems.append(f"{name} cannot be worked out{why}.")
            continue
        if name in COMMAS and isinstance(value, str):
            value = value.split(",")
        found = _value_problems(name, value, options[name], RIGHT.get(name))
        problems += found
        if not found:
            values[name] = value
    missing = [name for name, option in options.items() if option.get("required") and name not in variables]
    problems += [f"{name} is missing: {options[name]['description']}" for name in missing]
    return problems + _together_problems(values, options, redis_users(project))


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"variable_problems": variable_problems, "variables_of_others": variables_of_others}
