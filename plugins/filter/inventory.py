"""Checks the variables of a host on the controller, before any host is changed.

What a variable may be is described by its role: the type in `meta/argument_specs.yml`, the valid values in
`meta/schema.yml`. Both together are one JSON Schema. Ansible's own check of the argument specs is not enough: it takes
"50" for a number and passes it on as text, does not know misspelt names, and runs when the role does, after other roles
have changed the host.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.common.yaml import yaml_load

PROJECT = Path(__file__).parents[2]
# Types of an argument spec in JSON Schema, and those of JSON Schema in words.
TYPES = {"str": "string", "path": "string", "int": "integer", "bool": "boolean", "list": "array", "dict": "object"}
WORDS = {"string": "a text", "integer": "a whole number", "boolean": "true or false", "array": "a list"}
WORDS |= {"object": "a mapping"}
# Texts that are meant to be of these types.
QUOTED = {"integer": r"-?\d+", "boolean": "true|false|yes|no|on|off"}
LONGEST = 1000  # characters of a text that is no secret

# Names of Debian's groups and of systemd's targets and slices, which the application must not share.
TAKEN = """adm audio backup basic bin bluetooth boot cdrom crontab daemon default dialout dip disk emergency exit fax final
    floppy games getty graphical halt hibernate init initrd input irc kexec kmem kvm list local lp machine mail man
    messagebus multi network news nginx nobody nogroup operator paths plugdev polkitd postfix postgres postgresql poweroff
    printer proxy reboot redis remote render rescue root sasl sgx shadow shutdown sleep slices smartcard sockets sound src
    ssh sshd staff sudo suspend swap sync sys sysinit syslog system systemd tape time timers tty umount user users utmp
    uucp video voice wheel"""
MONITORING_PORTS = ("app_metrics_port", "app_prometheus_port", "app_alertmanager_port")
# Environment variables that the units set, and those that systemd sets.
OWN_ENVIRONMENT = {
    "RELEASE_ID",
    "CELERY_SKIP_CHECKS",
    "PYTHONPATH",
    "CELERY_SETTINGS_FILE",
    "STATIC_ROOT",
    "OVERLAY_FILE",
}
OWN_ENVIRONMENT |= {"DJANGO_SETTINGS_MODULE", "APP_SETTINGS_MODULE"}  # app_settings_module
OWN_ENVIRONMENT |= {
    "REDIS_USERNAME",
    "START_TIMEOUT",
    "SYSLOG_IDENTIFIER",
    "WORKER_ARGUMENTS",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
}
# What the programs of any process depend on. In app_environment an operator may mean them, such as LD_PRELOAD.
PROCESS_ENVIRONMENT = """PATH HOME USER LOGNAME SHELL PWD IFS ENV BASH_ENV TERM TZ TMPDIR LANG LANGUAGE LC_ALL LC_CTYPE
    LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_DEBUG LD_BIND_NOW GCONV_PATH LOCPATH MALLOC_ARENA_MAX OPENSSL_CONF
    SSL_CERT_FILE SSL_CERT_DIR PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONHASHSEED PYTHONWARNINGS
    PYTHONBREAKPOINT PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED PYTHONIOENCODING PYTHONUTF8 PYTHONUSERBASE
    PYTHONNOUSERSITE PYTHONSAFEPATH GUNICORN_CMD_ARGS WEB_CONCURRENCY LISTEN_PID LISTEN_FDNAMES MAINPID
    INVOCATION_ID JOURNAL_STREAM WATCHDOG_PID WATCHDOG_USEC RUNTIME_DIRECTORY STATE_DIRECTORY CACHE_DIRECTORY
    LOGS_DIRECTORY CONFIGURATION_DIRECTORY"""
SENTRY = "sentry_dsn"  # the secret that makes the application's processes report to Sentry (docs/tracing.md)
DSN = r"https?://[A-Za-z0-9]+(:[A-Za-z0-9]*)?@([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~-]+)*/\d+"
OWN_SECRETS = {"secret_key", "secret_key_fallbacks", "database_password", "cache_password", "redis_password"}


@cache
def specs(project: str) -> dict[str, dict[str, Any]]:
    """Read the options of every role's argument spec, name to option."""
    files = sorted(Path(project, "roles").glob("*/meta/argument_specs.yml"))
    mains = [yaml_load(path.read_text())["argument_specs"]["main"] for path in files]
    return {name: option for main in mains for name, option in main["options"].items()}


@cache
def schemas(project: str) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every variable, from the argument specs and the schemas of the roles."""
    valid: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(project, "roles").glob("*/meta/schema.yml")):
        valid |= yaml_load(path.read_text())["properties"]
    return {name: _schema(option, valid.get(name, {})) for name, option in specs(project).items()}


def _schema(option: dict[str, Any], valid: dict[str, Any]) -> dict[str, Any]:
    """Join an option of an argument spec and the schema of its valid values; the first keyword that fails is reported."""
    schema: dict[str, Any] = {} if option["type"] == "raw" else {"type": TYPES[option["type"]]}
    if option["type"] == "raw":  # of several types, which the schema of its values has
        return schema | valid
    if schema["type"] == "array":
        each = {name: option[name] for name in ("choices", "options") if name in option} | {"type": option["elements"]}
        return schema | valid | {"items": _schema(each, valid.get("items", {}))}
    if option.get("choices"):
        schema["enum"] = option["choices"]
    elif schema["type"] == "string":
        schema |= {"format": "printable"} | ({} if option.get("no_log") else {"maxLength": LONGEST})
    if "options" in option:
        inner = valid.get("properties", {})
        schema["properties"] = {name: _schema(each, inner.get(name, {})) for name, each in option["options"].items()}
        schema["required"] = [name for name, each in option["options"].items() if each.get("required")]
        return valid | schema | {"additionalProperties": False}
    return schema | valid


@cache
def redis_users(project: str) -> dict[str, dict[str, Any]]:
    """Read the users of both Redis instances from the role's table, user to permissions."""
    table = yaml_load(Path(project, "roles/redis/vars/main.yml").read_text())["redis_users"]
    return {name: user for users in table.values() for name, user in users.items()}


def _plain(value: Any) -> Any:
    """Evaluate all templates in a value: Ansible evaluates each part when it is read, and raises an error when it is used."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    repr(value)
    return value


def words(schema: Mapping[str, Any]) -> str:
    """Say in words what a schema allows, such as "a whole number from 1 to 512"."""
    if "anyOf" in schema:
        return ", or ".join(words(each) for each in schema["anyOf"])
    if "enum" in schema:
        *others, last = [str(each or "empty") for each in schema["enum"]]
        return f"{', '.join(others)} or {last}" if others else str(last)
    what: str = schema.get("title") or WORDS[schema["type"]]
    return f"{what} from {schema['minimum']} to {schema['maximum']}" if "minimum" in schema else what


@cache
def _validator() -> Any:
    """Make a function that checks a value by a schema and yields jsonschema's errors."""
    # Imported when needed: Ansible loads the files of all filters, in many of its processes, and jsonschema takes a while.
    from jsonschema import Draft4Validator, Draft202012Validator, FormatChecker
    from jsonschema.validators import extend

    formats = FormatChecker(())
    formats.checks("printable")(lambda value: not isinstance(value, str) or value.isprintable())
    formats.checks("lines")(
        lambda value: not isinstance(value, str) or all(line.isprintable() for line in value.split("\n"))
    )
    formats.checks("command")(lambda value: not isinstance(value, str) or not command_problem(value))
    # In draft 4, as in YAML, 1.0 is no whole number.
    kind = extend(Draft202012Validator, type_checker=Draft4Validator.TYPE_CHECKER)
    return lambda schema, value: kind(schema, format_checker=formats).iter_errors(value)


def _shown(value: Any, secret: bool) -> str:
    """Show a value: of a secret the type only, and of an address not its password."""
    if secret:
        return f"of the type {type(value).__name__.removeprefix('_AnsibleTagged').lower()}"
    text = re.sub(r"(://)[^/@\s]*@", r"\1***@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def command_problem(command: str) -> str:
    """Say what is wrong with a command, which is run without a shell; empty if nothing is.

    The sentence goes on after "it". `{valid}` in it stands for what would be right.
    """
    if not command.isprintable():
        return "must not contain a character that cannot be printed, such as the end of a line"
    bare = re.sub(r"\"[^\"\\]*\"|'[^']*'", "-", command)  # with - for each part in quotes
    if (quote := re.search(r"[\"']", bare)) and "\\" not in bare:
        return f"has a quotation mark that is not closed, {quote[0]}: close it, or put it in quotes of the other kind"
    if "\\" in bare:
        return "has a backslash outside of single quotes: put that word in single quotes"
    if not re.match(r"[A-Za-z0-9_./]", command):
        return "must be {valid}"
    first, *others = bare.split()
    shell = "write sh -c '...' around it"
    if first == "cd":
        return (
            "begins with cd, which only a shell knows: write env -C FOLDER before the program, for npm its option --prefix FOLDER, or "
            + shell
        )
    if name := re.match(r"([A-Za-z_]\w*)=", first):
        return f"begins with the variable {name[1]}: write env before it"
    if found := next(filter(None, map(_operator, [first, *others])), ""):
        return (
            f"has {found}, which only a shell knows: {shell}"
            + (", or make two commands of it" if found in ("&&", ";") else "")
            + ". A word that is meant so goes in quotes"
        )
    return ""


def _operator(word: str) -> str:
    """Return what a shell would obey in a word: an operator that is the word or ends it, or a redirection; empty if nothing."""
    found = re.fullmatch(r"(&&|\|\||\|&?|;;?|&)|(?:\d?|&)(>>?|<{1,3})(?:[^=].*)?|.+(;)", word)
    return next(filter(None, found.groups()), "") if found else ""


def _place(name: str, path: Iterable[Any]) -> str:
    """Name a part of a variable: app_web.workers, firewall_open_ports[0]."""
    named = (f".{part}" if isinstance(part, str) and part.isprintable() else f"[{part!r}]" for part in path)
    return name + "".join(named)


def _demand(error: Any) -> str:
    """Say what a value must be or do, by the keyword of the schema that it does not satisfy."""
    value, schema = error.instance, error.schema
    if error.validator == "format" and schema["format"] == "command":
        return command_problem(value).format(valid=words(schema))
    if error.validator == "format":
        ends = "other than" if schema["format"] == "lines" else "such as"
        return f"must not contain a character that cannot be printed, {ends} the end of a line"
    if error.validator == "maxLength":
        return f"must not be longer than {error.validator_value} characters"
    valid = words(schema)
    if error.validator != "type":
        return f"must be {valid}"
    if schema["type"] == "string" and not valid.startswith("a text"):
        return f"must be a text{', in quotes' if isinstance(value, (int, float)) else ''}: {valid}"
    quoted = isinstance(value, str) and schema["type"] in QUOTED and re.fullmatch(QUOTED[schema["type"]], value, re.I)
    return f"must be {valid}{', without quotes' if quoted else ''}"


def value_problems(name: str, value: Any, schema: Mapping[str, Any], secret: bool = False) -> list[str]:
    """Say what is wrong with a value, in one sentence for each part of it.

    :param name: of the variable.
    :param value: the variable's, without templates.
    :param schema: one of `schemas`.
    :param secret: whether the value must not be shown.
    """
    problems: dict[str, str] = {}
    for error in _validator()(schema, value):
        where = _place(name, error.absolute_path)
        if error.validator == "additionalProperties":
            known = ", ".join(sorted(error.schema["properties"]))
            for unknown in (_place(where, [key]) for key in error.instance if key not in error.schema["properties"]):
                problems[unknown] = f"{unknown} is unknown. Known options: {known}."
        elif error.validator == "required":
            for missing in (part for part in error.validator_value if part not in error.instance):
                valid = words(error.schema["properties"][missing])
                problems[f"{where}.{missing}"] = f"{where}.{missing} is missing; it must be {valid}."
        elif "propertyNames" in error.schema_path:
            noun, valid = error.schema.get("description", "name"), error.schema["title"]
            problems[f"{where}: {error.instance!r}"] = f"The {noun} {error.instance!r} in {where} must be {valid}."
        else:
            problems.setdefault(where, f"{where} is {_shown(error.instance, secret)}; it {_demand(error)}.")
    return list(problems.values())


def _text(description: str | list[str]) -> str:
    """Join the paragraphs of a description and remove Ansible's markup."""
    text = description if isinstance(description, str) else " ".join(description)
    return re.sub(r"\b[CLO]\(([^,)]*)[^)]*\)", r"\1", text)


def _reserved_problems(values: Mapping[str, Any], users: Mapping[str, Any]) -> list[str]:
    """Say which names of environment variables and secrets are used by Coldframe itself, and which secrets are too long."""
    environment, secrets = values.get("app_environment", {}), values.get("app_secrets", {})
    own = OWN_SECRETS | {f"redis_{name}" for name, user in users.items() if "group" in user}
    problems = [
        f"app_environment.{name} is set by the units themselves: remove it."
        for name in environment
        if name in OWN_ENVIRONMENT
    ]
    for name, value in secrets.items():
        if name in own:
            problems.append(
                f"app_secrets.{name} has the name of a secret that Coldframe creates itself: choose another name."
            )
        elif name in OWN_ENVIRONMENT:  # a name in upper case is a variable of the application's code
            problems.append(
                f"app_secrets.{name} has the name of a variable that the units set themselves: choose another name."
            )
        elif name in PROCESS_ENVIRONMENT.split():
            problems.append(
                f"app_secrets.{name} has the name of a variable that the programs of a process depend on: choose another name."
            )
        elif name == SENTRY and not re.fullmatch(DSN, value):
            problems.append(
                f"app_secrets.{name} is no address of a project in Sentry: its page Client Keys shows it, as "
                "https://KEY@HOST/PROJECT."
            )
        elif len(value.encode(errors="replace")) > 2**16:
            problems.append(
                f"app_secrets.{name} is larger than 65536 bytes: make it a file of the application, or a shorter secret."
            )
        elif name in environment and re.fullmatch("[A-Z][A-Z0-9_]*", name):
            problems.append(
                f"app_environment.{name} and app_secrets.{name} are both set, and the application would see the first alone: remove "
                "one of them."
            )
    return problems


def secret_name_problems(name: str, value: str) -> list[str]:
    """Say what is wrong with an entry of `app_secrets`, in the words of `variable_problems`; never the value."""
    entry, project = {name: value}, str(PROJECT)
    found = value_problems("app_secrets", entry, schemas(project)["app_secrets"], secret=True)
    return found or _reserved_problems({"app_secrets": entry}, redis_users(project))


def _destination_problem(value: str) -> str:
    """Say what is wrong with a destination of a list of network connections, as systemd's IPAddressAllow; empty if nothing is."""
    plain = re.fullmatch(r"[0-9a-fA-F.:]+(/(0|[1-9]\d{0,2}))?", value)
    try:
        network = ip_network(value, strict=False) if plain else None
    except ValueError:
        network = None
    if not network and re.fullmatch(r"[0-9.]*[A-Za-z_-][\w.-]*", value):
        return f"systemd resolves no names: write the addresses or networks that 'getent ahosts {value}' prints"
    if not network:
        return "it must be an IP address or a network, such as 203.0.113.7 or 203.0.113.0/24"
    if mapped := getattr(network.network_address, "ipv4_mapped", None):
        return f"write it as IPv4, such as {mapped}"
    if network.prefixlen == 0:
        return "that is every address: write egress in place of the list"
    if str(network.network_address) != str(ip_address(value.partition("/")[0])):
        return f"write {network} for the network, or {value.partition('/')[0]} for the address"
    return ""


def _networks(values: Mapping[str, Any]) -> dict[str, Any]:
    """Map `app_network`, and each `network` of a unit, such as `app_web.network`, to its value."""
    networks = {"app_network": values.get("app_network")}
    networks |= {f"{name}.network": values.get(name, {}).get("network") for name in ("app_web", "app_beat")}
    for variable in ("celery_queues", "app_services", "app_timers"):
        entries = values.get(variable, {})
        networks |= {f"{variable}.{name}.network": options.get("network") for name, options in entries.items()}
    return networks


def _network_problems(values: Mapping[str, Any]) -> list[str]:
    """Say which destinations of `app_network`, and of `network` of a unit, are no addresses or networks."""
    found = [
        (_place(name, [number]), value, _destination_problem(value))
        for name, destinations in _networks(values).items()
        if isinstance(destinations, list)
        for number, value in enumerate(destinations)
    ]
    return [f"{place} is {_shown(value, secret=False)}; {problem}." for place, value, problem in found if problem]


def _together_problems(values: Mapping[str, Any], options: Mapping[str, Any], users: Mapping[str, Any]) -> list[str]:
    """Say which values are valid by themselves and not together."""
    problems = []
    if values.get("app_name") in TAKEN.split():
        problems.append(
            f"app_name is {values['app_name']!r}, which Debian or systemd uses already: choose another name."
        )
    if address := values.get("app_private_address"):
        try:
            ip_address(address)
        except ValueError:
            problems.append(f"app_private_address is {address!r}; it must be an IP address.")
    if (port := re.search(r":(\d+)$", values.get("app_url", ""))) and int(port[1]) > 65535:
        problems.append(f"app_url is {values['app_url']!r}; its port must be from 1 to 65535.")
    additional = values.get("app_additional", False)
    for instance in ("broker", "cache"):
        folder = f"/run/redis-{values.get('app_name', '')}-{instance}/" if additional else f"/run/redis-{instance}/"
        socket = values.get(f"app_{instance}_socket", folder)
        if "app_name" in values and not socket.startswith(folder):
            problems.append(
                f"app_{instance}_socket is {socket!r}; it must be in {folder}, the only folder that this Redis may write."
            )
    if additional and values.get("nginx_health_path"):
        problems.append(
            f"nginx_health_path is {values['nginx_health_path']!r} and app_additional is true: requests without a host name are "
            "for the first application of the server. Leave nginx_health_path out, and let the load balancer send the host name."
        )
    ports = {5432: "PostgreSQL's"}
    for name in ("app_web_port", "app_broker_port", "app_cache_port", "app_flower_port", *MONITORING_PORTS):
        port = values.get(name, options[name]["default"])
        if port in ports:
            problems.append(f"{name} is {port}, which is {ports[port]}: use a different port for each.")
        elif port in values.get("firewall_open_ports", []):
            problems.append(
                f"firewall_open_ports holds {port}, which is {name}: remove it, because that port is only for the inventory's hosts."
            )
        ports.setdefault(port, name)
    email = values.get("app_email") or {}
    if email and not email.get("host"):
        problems.append("app_email has no host: name the SMTP server, or leave app_email out.")
    if values.get("alerts_email") and not email.get("host"):
        problems.append(
            f"alerts_email is {values['alerts_email']!r}, and app_email names no SMTP server that could send to them: set app_email, or "
            "leave alerts_email out."
        )
    problems += _pattern_problems("app_log_redact", values.get("app_log_redact", []))
    # An older vault may have passwords of users that were removed. They are ignored.
    known = {*users, *values.get("app_redis_passwords", {})}
    for user, password in values.get("app_redis_passwords_before", {}).items():
        if user not in known or not isinstance(password, str) or not re.fullmatch(r"[!-~]+", password):
            problems.append(
                "app_redis_passwords_before must have a password of printable ASCII without spaces for one of "
                f"{', '.join(users)}: make rotate-secret sets it."
            )
    problems += _network_problems(values) + _managed_problems(values) + _report_problems(values)
    return problems + _reserved_problems(values, users)


def _pattern_problems(name: str, patterns: Sequence[str]) -> list[str]:
    """Say which elements are no regular expressions, or such as match an empty text, and so between all characters."""
    problems = []
    for index, pattern in enumerate(patterns):
        try:
            wrong = "matches an empty text: name at least one character" if re.search(pattern, "") else ""
        except re.error as error:
            wrong = f"is no regular expression of Python: {error}"
        if wrong:
            problems.append(f"{name}[{index}] is {pattern!r}, which {wrong}.")
    return problems


def report_addresses(urls: Iterable[str]) -> list[str]:
    """Return the addresses of those who are reported to, as systemd's IPAddressAllow takes them.

    :param urls: of them; one that is empty, or that has a name in place of an address, has none.
    """
    found = []
    for url in urls:
        with suppress(ValueError):
            found.append(str(ip_address(urlsplit(url).hostname or "")))
    return sorted(set(found))


def _report_problems(values: Mapping[str, Any]) -> list[str]:
    """Say which of those who are reported to cannot be reached. Of a secret address only the host is told."""
    endpoint, dsn = values.get("app_otel_endpoint", ""), str(values.get("app_secrets", {}).get(SENTRY, ""))
    urls = {"app_otel_endpoint": (endpoint, repr(endpoint)), f"app_secrets.{SENTRY}": (dsn, "")}
    sealed = [name for name, network in _networks(values).items() if network == "sealed"]
    problems = []
    for name, (url, shown) in urls.items():
        if not url or (name != "app_otel_endpoint" and not re.fullmatch(DSN, url)):
            continue
        host, port = urlsplit(url).hostname, re.search(r":(\d+)(/|$)", url)
        if port and int(port[1]) > 65535:
            problems.append(f"{name} is {shown or 'an address'} with the port {port[1]}; it must be from 1 to 65535.")
        elif sealed and not report_addresses([url]):
            problems.append(
                f"{name} {f'is {shown}' if shown else f'leads to {host}'}, and {' and '.join(sealed)} is sealed, with which no unit can "
                f"look up a name: write the IP address in place of {host}, or set the network to egress, or to a list that has the "
                "receiver's addresses and the name server's (docs/tracing.md)."
            )
    return problems


# What is for a provider's server, to the variable with its address.
OF_SERVERS = {
    "app_database_ca_file": "app_database_url",
    "app_database_pooled": "app_database_url",
    "app_redis_ca_file": "app_broker_url",
    "app_broker_password": "app_broker_url",  # pragma: allowlist secret
    "app_cache_url": "app_broker_url",
    "app_cache_password": "app_cache_url",  # pragma: allowlist secret
}


def _managed_problems(values: Mapping[str, Any]) -> list[str]:
    """Say what does not go together in the variables of a provider's servers."""
    secrets = {"app_broker_password", "app_cache_password"}
    problems = [
        f"{name} is {'set' if name in secrets else repr(values[name])}, and {url} is empty: set both, or leave {name} out."
        for name, url in OF_SERVERS.items()
        if values.get(name) and not values.get(url)
    ]
    urls = {name: values[name] for name in ("app_database_url", "app_broker_url", "app_cache_url") if values.get(name)}
    sealed = [name for name, network in _networks(values).items() if network == "sealed"]
    for name, url in urls.items():
        if (port := re.search(r":(\d+)(/|$)", url)) and int(port[1]) > 65535:
            problems.append(f"{name} is {url!r}; its port must be from 1 to 65535.")
        if sealed:
            problems.append(
                f"{name} is {url!r}, and {' and '.join(sealed)} is sealed, with which no unit reaches a server outside of the inventory: "
                "set it to egress, or to a list that has the provider's addresses."
            )
    if "app_database_url" in urls and values.get("app_database_password_before"):
        problems.append(
            f"app_database_url is {urls['app_database_url']!r}, and app_database_password_before is set, which is for logins that Coldframe "
            "makes: move its value back to app_database_password, and change a provider's password as docs/managed.md says."
        )
    return problems


def variables_of_others(variables: Mapping[str, Any]) -> list[str]:
    """Name the variables of a host whose templates read other hosts' variables: its entry of hostvars has no value for them."""
    names = []
    for name in variables:
        try:
            _plain(variables[name])
        except Exception as error:
            names += [name] if "'hostvars' is undefined" in str(error) else []
    return names


def worked_out_once(variables: Mapping[str, Any], project: str) -> dict[str, Any]:
    """Work out what is to be worked out once, and not wherever it is used.

    These are the secrets of a host, for a lookup may run a command, and the variables that say where a sandbox host is, for each
    connection is made with them.

    :param variables: of one host, such as its entry of Ansible's hostvars.
    :param project: the project's folder.
    :returns: name to value; nothing for those that cannot be worked out, which `variable_problems` names.
    """
    found = {}
    secrets = [name for name, option in specs(project).items() if option.get("no_log") and name in variables]
    sandbox = [name for name in map(str, variables) if name.startswith("sandbox_") and name.isidentifier()]
    for name in secrets + sandbox:
        with suppress(Exception):  # whatever Ansible makes of a template that cannot be worked out
            found[name] = _plain(variables[name])
    return found


def _failing(where: str, read: Callable[[], Any], error: Exception) -> list[tuple[str, Exception]]:
    """Name the parts of a value that cannot be worked out, with the error of each."""
    try:
        value = read()
    except Exception as own:
        return [(where, own)]
    if not isinstance(value, Mapping):
        return [(where, error)]
    found = []
    for key in value:
        try:
            _plain(value[key])
        except Exception as inner:
            found += _failing(_place(where, [key]), partial(value.__getitem__, key), inner)
    return found or [(where, error)]


def _cause(error: Exception, secret: bool) -> str:
    """Say why a value cannot be worked out. What is said of a secret has nothing of its value, nor its command."""
    if ended := re.search(r"lookup_plugin\.pipe\(.*\) returned (-?\d+)", str(error), re.S):
        return f": the command that prints it ended with the status {ended[1]}. Run it by hand to see why"
    return f": {error}" if not secret or str(error).endswith("is undefined") else ""


def variable_problems(variables: Mapping[str, Any], project: str, others: Mapping[str, Any] | None = None) -> list[str]:
    """Say which variables of a host are unknown, missing, of the wrong type or not valid, and what would be valid.

    :param variables: of one host, such as its entry of Ansible's hostvars.
    :param project: the project's folder.
    :param others: the values of those that `variables_of_others` names.
    :returns: sentences that name the variable; of a secret never the value.
    """
    options, valid = specs(project), schemas(project)
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
        secret = options[name].get("no_log", False)
        try:
            value = _plain(others[name] if others and name in others else variables[name])
        except Exception as error:  # whatever Ansible makes of a template that cannot be worked out
            failing = _failing(name, partial(variables.__getitem__, name), error)
            problems += [f"{where} cannot be worked out{_cause(why, secret)}." for where, why in failing]
            continue
        if isinstance(value, str) and valid[name].get("type") == ["array", "string"]:
            value = value.split(",")
        found = value_problems(name, value, valid[name], secret)
        problems += found
        if not found:
            values[name] = value
    missing = [name for name, option in options.items() if option.get("required") and name not in variables]
    problems += [f"{name} is missing: {_text(options[name]['description'])}" for name in missing]
    if all(name not in variables or values.get(name) == "" for name in ("app_wsgi", "app_asgi")):
        problems.append(
            "app_wsgi is missing: name the WSGI application, such as mysite.wsgi:application, or in app_asgi the ASGI application."
        )
    return problems + _together_problems(values, options, redis_users(project))


def with_defaults(value: dict[str, Any], name: str) -> dict[str, Any]:
    """Fill in the options that a variable leaves out, from its argument spec.

    :param value: the variable's, a mapping of options.
    :param name: the variable's name.
    """
    options = specs(str(PROJECT))[name]["options"]
    return {key: option["default"] for key, option in options.items()} | value


def placeholders(secrets: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands for the secrets of a release where its code is only looked at, name to text.

    :param secrets: the value of app_secrets. Of each the form stays, so that code which parses it goes on: letters become `x`, digits
        `1`, and all else is kept, such as the scheme of an address.
    """
    own = {name: (f"placeholder-of-{name}-" * 4)[:60] for name in OWN_SECRETS} | {"secret_key_fallbacks": ""}
    return own | {name: _placeholder(str(value)) for name, value in secrets.items()}


def _placeholder(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "", value
    return scheme + separator + re.sub(r"\d", "1", re.sub(r"[^\W\d_]", "x", rest))


def variable_files(inventory: str) -> list[str]:
    """List the files with variables of an inventory, absolute.

    :param inventory: its folder; empty if there is none.
    """
    found = [path for name in ("group_vars", "host_vars") for path in sorted(Path(inventory, name).rglob("*"))]
    return [
        str(path) for path in found if inventory and path.is_file() and path.suffix in ("", ".yml", ".yaml", ".json")
    ]


def secret_place_problems(files: list[str], texts: list[str], inventory: str) -> list[str]:
    """Say where `app_secrets` is set besides the file that `make secrets` writes: only the last file counts.

    :param files: what `variable_files` returns.
    :param texts: what is in them, decrypted.
    :param inventory: its folder.
    """
    having = [
        Path(file).relative_to(inventory)
        for file, text in zip(files, texts, strict=True)
        if re.search(r"""^["']?app_secrets["']?\s*:""", text, re.MULTILINE)
    ]
    if len(having) < 2:
        return []
    kept = [path for path in having if path.name in ("secrets.yml", "vault.yml")] or having[-1:]
    others = [str(path) for path in having if path != kept[-1]]
    return [
        f"app_secrets is in {' and '.join(map(str, having))} of {inventory}, and one file alone counts: remove it from "
        f"{' and '.join(others)}, and give each secret that was there by 'make secrets ENV={inventory} SET=NAME'."
    ]


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {
            "placeholders": placeholders,
            "report_addresses": report_addresses,
            "variable_problems": variable_problems,
            "variables_of_others": variables_of_others,
            "worked_out_once": worked_out_once,
            "variable_files": variable_files,
            "secret_place_problems": secret_place_problems,
            "with_defaults": with_defaults,
        }
