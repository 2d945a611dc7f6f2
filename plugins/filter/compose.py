"""Services of a Compose file, from the units of a release: a container gets the command, the variables and the secrets of its unit."""

from __future__ import annotations

import re
import shlex
import tarfile
from typing import Any

CREDENTIALS = "/run/credentials"  # in a container, where systemd has a folder for each unit
SUPERVISOR = ["/usr/bin/python3", "/usr/local/lib/coldframe/supervise.py"]


def directives(text: str) -> dict[str, list[str]]:
    """Map the directives of a rendered unit to their values, in order; an empty value is none."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, equal, value = line.partition("=")
        if equal and re.fullmatch(r"[A-Za-z]+", name) and value.strip():
            found.setdefault(name, []).append(value.strip())
    return found


def seconds(text: str) -> int:
    """Return a span of time, which the units write in seconds."""
    return int(text.removesuffix("s"))


def environment(unit: dict[str, list[str]], files: dict[str, str]) -> dict[str, str]:
    """Return the variables of a unit: its own, and those in its files.

    :param files: the generated files of the release, by their paths in it.
    """
    found = dict(pair.split("=", 1) for line in unit.get("Environment", []) for pair in shlex.split(line))
    for path in unit.get("EnvironmentFile", []):
        for line in files[path[path.index("/.release/") + 1 :]].splitlines():
            name, equal, value = line.partition("=")
            if equal:
                found[name] = " ".join(shlex.split(value))
    return found


def words(command: str, variables: dict[str, str]) -> list[str]:
    """Return the words of a command as systemd makes them: a word that is a variable stands for its words, and $$ for $."""
    found: list[str] = []
    for word in shlex.split(command):
        if re.fullmatch(r"\$[A-Z_]+", word):
            found += variables.get(word[1:], "").split()
        else:
            found.append(word.replace("$$", "$"))
    return found


def service(name: str, text: str, files: dict[str, str], release: str, users: dict[str, int]) -> dict[str, Any]:
    """Return what a container needs to be what a unit is."""
    text = text.replace("@RELEASE@", release)
    # Specifiers (systemd.unit(5)): %% is %.
    for specifier, value in {"%I": release, "%H": name, "%%": "%"}.items():
        text = text.replace(specifier, value)
    unit = directives(text)
    variables = environment(unit, files)
    command = words(unit["ExecStart"][-1], variables)
    credentials = dict(line.split(":", 1) for line in unit.get("LoadCredential", []))
    notify = unit["Type"][-1] == "notify"
    options = [f"--umask={unit['UMask'][-1]}", *(["--notify"] if notify else [])]
    if notify and "WatchdogSec" in unit:
        options += [f"--watchdog={seconds(unit['WatchdogSec'][-1])}"]
        options += [f"--watchdog-signal={unit.get('WatchdogSignal', ['SIGABRT'])[-1]}"]
    login = credentials["redis_password"].rpartition("/")[2]
    groups = [group for line in unit.get("SupplementaryGroups", []) for group in line.split()]
    return {
        "command": [*SUPERVISOR, "run", *options, "--", *command],
        "plain": command,
        "umask": unit["UMask"][-1],
        "notify": notify,
        "folder": unit["WorkingDirectory"][-1],
        "environment": variables | {"CREDENTIALS_DIRECTORY": CREDENTIALS},
        "secrets": "flower" if login == "redis_password" else login.removeprefix("redis_"),  # pragma: allowlist secret
        "credentials": {name: path.rpartition("/")[2] for name, path in credentials.items()},
        "user": users[unit["User"][-1]],
        "groups": [users[group] for group in groups if group in users],
        "stop": seconds(unit["TimeoutStopSec"][-1]),
        "network": "PrivateNetwork" not in unit,
        "shared": "ReadWritePaths" in unit,
        "open_files": int(unit["LimitNOFILE"][-1]) if "LimitNOFILE" in unit else 0,
    }


def of_release(artifact: str) -> tuple[str, dict[str, str]]:
    """Return the id of a release, and the texts of its generated files by their paths in it.

    :param artifact: its file, as release_artifact builds it.
    """
    files, release = {}, ""
    with tarfile.open(artifact) as archive:
        for member in archive:
            release, _, path = member.name.partition("/")
            content = archive.extractfile(member) if re.match(r"\.release/(units/)?[^/]+$", path) else None
            if content:
                files[path] = content.read().decode(errors="replace")
    return release, files


def compose_services(artifact: str, users: dict[str, int], more: dict[str, str]) -> dict[str, Any]:
    """Turn the units of a release into services of a Compose file. Timers have none.

    :param artifact: the release's file.
    :param users: user or group to its number in the image.
    :param more: further rendered units, part to text.
    :returns: part (`web`, `worker-QUEUE`, `beat`, `service-NAME`) to `command` (with the supervisor), `plain` (without), `umask`,
        `notify`, `folder`, `environment`, `secrets` (the name of their folder), `credentials` (name to file in /etc/credstore),
        `user`, `groups`, `stop` (seconds), `network` (whether it has one), `shared` (whether it writes there) and `open_files`
        (0: no limit of its own).
    """
    release, files = of_release(artifact)
    found = ((re.fullmatch(r"\.release/units/(.+)\.service", path), text) for path, text in sorted(files.items()))
    units = {match[1]: text for match, text in found if match and not match[1].startswith("timer-")} | more
    return {name: service(name, text, files, release, users) for name, text in units.items()}


def compose_secrets(services: dict[str, Any], values: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the folders of secrets, each with name to value. Services that log in as one Redis user share one.

    :param services: what `compose_services` returns.
    :param values: of all secrets, by their names in /etc/credstore.
    """
    return {
        each["secrets"]: {name: values[source] for name, source in each["credentials"].items()}
        for each in services.values()
    }


def compose_value(value: Any) -> Any:
    """Return a value in which Compose replaces nothing: $ starts one of its variables.

    :param value: a text, a number, or a list or mapping of such.
    """
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {name: compose_value(each) for name, each in value.items()}
    return [compose_value(each) for each in value] if isinstance(value, list) else value


def compose_problems(values: dict[str, str]) -> list[str]:
    """Say what of an inventory cannot be run in containers.

    :param values: variable to value: `app_database_url`, `app_broker_url`, `app_cache_url` and `app_python_interpreter`.
    """
    problems = [
        f"{name} is {values[name].rpartition('@')[2]!r}, a provider's server. A stack in containers has servers of its own, and would "
        "change the data there. Leave it out, or run the project with an inventory of its own: make compose APP=..."
        for name in ("app_database_url", "app_broker_url", "app_cache_url")
        if values[name]
    ]
    if values["app_python_interpreter"] != "/usr/bin/python3":
        problems.append(
            f"app_python_interpreter is {values['app_python_interpreter']!r}; the image has Debian's, /usr/bin/python3. Leave it out."
        )
    return problems


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        each = (compose_services, compose_secrets, compose_value, compose_problems)
        return {filter_.__name__: filter_ for filter_ in each}
