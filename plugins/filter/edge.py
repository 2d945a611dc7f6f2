"""Checks the variables of the edge: names, load balancers, paths, and files on the controller."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# What an entry of nginx_locations does; without one of them the application answers.
KINDS = ("shared", "static", "proxy", "redirect")
# Which kinds an option is for; "" is the application.
ONLY_FOR = {
    "internal": ("shared",),
    "status": ("redirect",),
    "body_size": ("", "proxy"),
    "timeout": ("", "proxy"),
    "buffering": ("", "proxy"),
    "allow": ("", "shared", "static", "proxy"),
    "limit": ("", "shared", "static", "proxy"),
}
PAGES = ("413.html", "429.html", "502.html", "503.html", "504.html")
# Directives that people try in a snippet, and that nginx does not take inside a server block.
OUTSIDE = ("geo", "http", "limit_conn_zone", "limit_req_zone", "load_module", "log_format", "map", "server", "upstream")


def _network_problems(where: str, networks: Iterable[str]) -> list[str]:
    """Refuse what is no network."""
    problems = []
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            problems.append(f"{where} has {network!r}: {error}. Write a network such as 10.0.7.0/24.")
    return problems


def _name_problems(values: Mapping[str, Any]) -> list[str]:
    """Refuse a host name that is given twice: it cannot serve the site and redirect to it."""
    problems = []
    host = urlsplit(values["app_url"]).hostname
    places = [("app_url", [host])]
    if values["nginx_server_name"] != host:
        places.append(("nginx_server_name", [values["nginx_server_name"]]))
    places += [(name, values[name]) for name in ("app_aliases", "nginx_redirect_names")]
    first: dict[str, str] = {}
    for place, names in places:
        for name in names:
            if name in first:
                where = "twice" if first[name] == place else f"and {first[name]} too"
                problems.append(f"{place} has {name!r} {where}: remove one. A name serves the site, or only redirects.")
            first.setdefault(name, place)
    return problems


def _balancer_problems(values: Mapping[str, Any]) -> list[str]:
    """Refuse load balancers that are no networks or everybody, and what needs one where none is named."""
    problems = _network_problems("nginx_trusted_proxies", values["nginx_trusted_proxies"])
    problems += [
        f"nginx_trusted_proxies has {network!r}, which is everybody: anybody could then claim any address. "
        "Name the networks of your load balancers."
        for network in values["nginx_trusted_proxies"]
        if re.search("/0+$", network)
    ]
    if not values["nginx_trusted_proxies"]:
        problems += [
            f"{name} is true and nginx_trusted_proxies is empty: name the networks of your load balancers there."
            for name in ("nginx_proxy_protocol", "nginx_tls_at_proxy")
            if values[name]
        ]
    if values["nginx_tls_at_proxy"] and values["nginx_acme"]:
        problems.append(
            "nginx_tls_at_proxy and nginx_acme are true: the load balancer has the certificate. Set one of them to false."
        )
    return problems


def _path_problems(values: Mapping[str, Any]) -> list[str]:
    """Refuse paths of uploads that are public and private at once."""
    media, private = values["nginx_media_url"], values["nginx_private_media"]
    if not media or not private.startswith(media):
        return []
    if private == media:
        return [
            f"nginx_private_media is {private!r}, at which nginx_media_url lets everybody read: set nginx_media_url to '', "
            "or choose another path."
        ]
    folder = private.removeprefix(media).strip("/")
    return [
        f"nginx_private_media is {private!r}, which is below nginx_media_url. It must be outside, such as /protected/. To make "
        f"only the folder {folder!r} private, use nginx_locations: {{path: {private}, shared: media/{folder}, internal: true}}."
    ]


def _proxy_problems(where: str, proxy: str) -> list[str]:
    """Refuse an upstream without a valid address and port."""
    if proxy.startswith("http://unix:"):
        return []
    try:
        parts = urlsplit(proxy)
        ip_address(parts.hostname or "")
        return [] if parts.port is None or parts.port else [f"{where}.proxy is {proxy!r}; its port must not be 0."]
    except ValueError as error:
        return [f"{where}.proxy is {proxy!r}: {error}. Write an address such as http://10.0.0.5:3000."]


def _entry_problems(where: str, entry: Mapping[str, Any]) -> list[str]:
    """Refuse an entry of `nginx_locations` whose options do not fit together."""
    path, kinds = entry["path"], [kind for kind in KINDS if kind in entry]
    if len(kinds) > 1:
        return [f"{where} has {' and '.join(kinds)}: choose one, and make another entry for another path."]
    if set(entry) == {"path"}:
        return [f"{where} has a path and nothing else: say what to do there, or remove it."]
    (kind,) = kinds or [""]
    name = kind or "nothing of shared, static, proxy and redirect"
    problems = [
        f"{where} has {option} and {name}: {option} is only for {' and '.join(each or 'the application' for each in valid)}."
        for option, valid in ONLY_FOR.items()
        if option in entry and kind not in valid
    ]
    problems += _network_problems(f"{where}.allow", entry.get("allow", []))
    if kind == "proxy":
        problems += _proxy_problems(where, entry["proxy"])
    if kind == "redirect":
        target = entry["redirect"].partition("?")[0]
        if target == path.rstrip("/") or (path.endswith("/") and target.startswith(path)):
            problems.append(
                f"{where}.redirect is {entry['redirect']!r}, which this entry redirects again: choose another."
            )
    return problems


def _location_problems(values: Mapping[str, Any]) -> list[str]:
    """Refuse entries of `nginx_locations` that are wrong by themselves or beside others."""
    problems = []
    taken = {values[name]: f"is {name}" for name in ("nginx_media_url", "nginx_private_media") if values[name]}
    for number, entry in enumerate(values["nginx_locations"]):
        where, path = f"nginx_locations[{number}]", entry["path"]
        problems += _entry_problems(where, entry)
        if path in taken:
            problems.append(f"{where}.path is {path!r}, which {taken[path]}: one path has one entry.")
        taken.setdefault(path, f"is nginx_locations[{number}].path")
    return problems


def _status_problems(values: Mapping[str, Any]) -> list[str]:
    """Refuse a path of the status page at which there is something else."""
    path = values["nginx_status_path"]
    if not path:
        return []
    uploads = {name: values[name] for name in ("nginx_media_url", "nginx_private_media") if values[name]}
    others = uploads | {"nginx_health_path": values["nginx_health_path"]}
    others |= {f"nginx_locations[{at}].path": entry["path"] for at, entry in enumerate(values["nginx_locations"])}
    return [
        f"nginx_status_path is {path!r}, and {name} is {other!r}: the status page of monitoring needs a path of its own. "
        "Set nginx_status_path to another one, such as /monitoring/."
        for name, other in others.items()
        if other.startswith(path) or (name in uploads and path.startswith(other))
    ]


def _without_text(directives: str) -> str:
    """Take comments and quoted texts out of nginx's directives."""
    text = re.compile(r"""(?<!\S)#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
    return text.sub(lambda found: "\n" * found[0].count("\n"), directives)


def _snippet_problems(path: str) -> list[str]:
    """Refuse a snippet that cannot be read, ends the site's server block, or belongs outside of it."""
    try:
        text = _without_text(Path(path).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        return [f"nginx_snippet is {path!r}, which cannot be read on the controller: {reason}."]
    depth, problems = 0, []
    for number, line in enumerate(text.split("\n"), 1):
        word = re.match(r"\s*(\w+)", line)
        if depth == 0 and word and word[1] in OUTSIDE:
            problems.append(
                f"nginx_snippet, {path}, line {number}: {word[1]!r} cannot be used there, because the file is added to the "
                "site's server block. Write only what belongs there, such as location { ... }."
            )
        for brace in re.findall(r"[{}]", line):
            depth += 1 if brace == "{" else -1
            if depth < 0:
                return [*problems, f"nginx_snippet, {path}, line {number}: a }} has no {{ before it."]
    return [*problems, f"nginx_snippet, {path}: {depth} {{ without a }} after it."] if depth else problems


def _error_page_problems(path: str) -> list[str]:
    """Refuse a folder that is missing or has no error page."""
    folder = Path(path)
    if not folder.is_dir():
        return [f"nginx_error_pages is {path!r}, and the controller has no such folder."]
    if any((folder / page).is_file() for page in PAGES):
        return []
    return [f"nginx_error_pages is {path!r}, which has no error page: add {', '.join(PAGES[:-1])} or {PAGES[-1]}."]


def edge_problems(values: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the variables of the role nginx, each valid by itself.

    :param values: variable name to value: `app_url`, `app_aliases`, and those of the role; `nginx_status_path` is empty without monitoring.
    :returns: sentences that name the variable and the remedy.
    """
    problems = _name_problems(values) + _balancer_problems(values) + _path_problems(values) + _location_problems(values)
    problems += _status_problems(values)
    if values["nginx_snippet"]:
        problems += _snippet_problems(values["nginx_snippet"])
    if values["nginx_error_pages"].startswith("/"):
        problems += _error_page_problems(values["nginx_error_pages"])
    return problems


def nginx_refusal(message: str, configuration: str, mark: str) -> str:
    """Say which line nginx refuses, and whether it is the snippet's.

    :param message: what `nginx -t` said.
    :param configuration: the file that it read.
    :param mark: the line of it that comes before the snippet has this text.
    """
    said = re.search(r"\[(?:emerg|crit|error)\] (?:\d+#\d+: )?(.*?)(?: in \S+?:(\d+))?$", message, re.MULTILINE)
    if not said:
        return message.strip()
    if not said[2]:
        return said[1]
    lines, number = configuration.split("\n"), int(said[2])
    line = lines[number - 1].strip() if number <= len(lines) else ""
    marked = next((at for at, each in enumerate(lines, 1) if mark in each), number)
    place = f"line {number - marked} of {mark.rstrip(':')}" if marked < number else f"line {number}"
    return f"{said[1]}, {place}: {line}"


def maintenance_problems(state: str, networks: list[str], page: str, deployed: bool) -> list[str]:
    """Refuse what cannot be done for `make maintenance`.

    :param state: STATE: `on`, `off`, or empty to be told.
    :param networks: ALLOW: networks and addresses whose requests go to the site.
    :param page: PAGE: a file on the controller; empty for the page that comes with the role.
    :param deployed: whether nginx's configuration of the site has a place for it.
    """
    problems = _network_problems("ALLOW", networks)
    if state not in ("", "on", "off"):
        problems.append(f"STATE is {state!r}: set it to on or off.")
    if page and not Path(page).is_file():
        problems.append(f"PAGE is {page!r}, which is no file on this machine: give the path of an HTML page.")
    if state != "on" and (networks or page):
        problems.append("ALLOW and PAGE are for STATE=on.")
    if state and not deployed:
        problems.append("nginx does not know of maintenance yet: run make deploy first.")
    return problems


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {filter_.__name__: filter_ for filter_ in (edge_problems, maintenance_problems, nginx_refusal)}
