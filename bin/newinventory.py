"""Writes the inventory of a project: `make new`, and for a sandbox host `make try`."""

from __future__ import annotations

import ast
import contextlib
import os
import platform
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import ansible  # noqa: F401
    import debian_packages
    import locking
    import own_code
    import yaml
    from connections import ROOT, environment_of, inventory_of
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.utils import canonicalize_name
    from project import Found, Project, RefusedError, python_wanted, read
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}: run it by make, such as 'make new', or 'make setup' once and then .venv/bin/python {' '.join(sys.argv)}"
    )

WORDS = ("ENV", "APP", "HOST", "USER", "DOMAIN", "NAME", "SETTINGS", "WSGI", "CELERY", "REQUIREMENTS", "DEBIAN")
GROUPS = ("redis", "postgresql", "web", "workers", "beat", "flower", "edge")
SHIPPED = ("sandbox", "single", "cluster")  # inventories that come with Coldframe
LOCK = "requirements.txt"
WHEELS = ".wheels"
APP_MISSING = "APP is missing: set it to the folder of your project, such as APP=../mysite."
SANDBOX = ROOT / ".sandbox"
# What `make try` sets for a variable without a default, by the end of its name; "try" for others. An empty DSN sends no reports.
# Those with {site} are set for servers too: it is the site's own name.
PLACEHOLDERS = (
    (r"(SITE|APP|BASE|PUBLIC|ROOT)_(URL|ORIGIN)", "https://{site}"),
    (r"(SITE|APP|BASE|PUBLIC)_(DOMAIN|HOST|HOSTNAME)", "{site}"),
    (r"ADMIN_(URL|PATH)", "admin/"),
    (r"DSN", ""),
    (r"URL|ENDPOINT", "https://example.invalid/"),
    (r"HOST|DOMAIN", "example.invalid"),
    (r"EMAIL|EMAIL_ADDRESS", "try@example.invalid"),
    (r"PORT|TIMEOUT|SECONDS|DAYS|AGE|SIZE|COUNT|LIMIT", "1"),
)
# What settings read of what the deployment decides. It takes the place of these values, with which the settings can be loaded.
DECIDED = (
    (r"BROKER(_URL|_URI)?", "redis://localhost:6379/0"),
    (r"RESULT_BACKEND(_URL)?", "redis://localhost:6379/1"),
    (r"(REDIS|BROKER|CACHE)_HOST(NAME)?", "localhost"),
    (r"(REDIS|BROKER|CACHE)_PORT", "6379"),
    (r"(REDIS|BROKER|CACHE)_(PASS|PASSWORD|USER|USERNAME)", ""),
    (r"(REDIS|BROKER|CACHE)_DB", "0"),
    (r"(DB|DATABASE|SQL|POSTGRES)_(ENGINE|BACKEND)", "django.db.backends.postgresql"),
)
SANDBOX_SITE = "localhost:{{ sandbox_https_port }}"
PORTS = {"ssh": 2300, "https": 8500, "http": 8100}  # from which ports are chosen for sandbox hosts of `make try`
PORT_WORDS = {name: f"SANDBOX_{name.upper()}_PORT" for name in PORTS}  # as the command line has them


VARIABLES, TABLE = own_code.load("plugins/filter/inventory.py"), own_code.load("plugins/filter/queues.py")
# Environment variables that a process has: from systemd, from its unit, and for the settings (docs/settings.md). The runtime
# has the names of a database's parts.
GIVEN = {
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "INVOCATION_ID", "JOURNAL_STREAM", "RUNTIME_DIRECTORY"),
    *VARIABLES.OWN_ENVIRONMENT,
    *(
        prefix + name
        for prefix in ("", "DJANGO_")
        for name in ("SECRET_KEY", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "DEBUG")
    ),
    *("DATABASE_URL", "REDIS_URL", "CACHE_URL", "LOCKS_URL", "CELERY_BROKER_URL", "MEDIA_ROOT"),
    *(
        name
        for statement in ast.parse((ROOT / "runtime/coldframe/overlay/environment.py").read_text()).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "DATABASE"
        for names in ast.literal_eval(statement.value).values()
        for name in names
    ),
}
# A variable of such a name is a secret, which belongs into the vault.
SECRET = re.compile(r"(^|_)(PASS|PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIALS?|DSN|\w*KEY)(_|$)")
CERTIFICATE = (
    "Which certificate does the site have? Without an answer it is a self-signed one. For one of Let's Encrypt, if you agree to its "
    "terms: nginx_acme and nginx_acme_terms_agreed. For your own: nginx_tls_certificate and nginx_tls_key."
)
SERVES_ASGI = ["uvicorn-worker", "uvicorn[standard]"]
# Packages that a project has for what only ASGI can do.
ASGI_PACKAGES = {"channels", "daphne", "hypercorn", "uvicorn"}


@dataclass
class Plan:
    """What is to be written for a project."""

    environment: str
    inventory: Path
    app: Path
    given: dict[str, str]
    project: Project
    source: locking.Source | None = None
    target: locking.Target = field(default_factory=lambda: locking.Target("13", "x86_64"))
    locked: locking.Locked | None = None
    sandbox: bool = False
    questions: list[str] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)  # question to the lines that answer it, as comments
    beside: str = ""  # the inventory of another application on the server

    @property
    def inside(self) -> str:
        """Return the application's own lock file, where it serves as it is; empty where another is made."""
        if not self.source or not self.locked or self.source.path.suffix != ".txt" or len(self.source.files) != 1:
            return ""
        name = self.source.shown(self.source.path)
        if name.startswith("..") or self.locked.missing or self.locked.said or self.locked.problems:
            return ""
        python = debian_packages.PYTHON[self.target.debian]
        return (
            ""
            if locking.lock_filter.lock_problems(
                str(self.project.folder), name, python=python, asgi="app_asgi" in self.project.found
            )
            else name
        )


def words(arguments: list[str], known: Iterable[str] = WORDS) -> dict[str, str]:
    """Read the command line, whose words are as `make` has them: NAME=value. Empty values count as not given.

    Raises RefusedError for an unknown one.
    """
    given = {}
    for word in arguments:
        name, equal, value = word.partition("=")
        if not equal or name not in known:
            raise RefusedError(f"{word!r} is unknown. Known: {', '.join(f'{each}=' for each in known)}.")
        if value.strip():
            given[name] = value.strip()
    return given


def plan(given: dict[str, str], environment: str, *, sandbox: bool = False, wheels: Path | None = None) -> Plan:
    """Read a project and lock its packages; nothing is written.

    Raises RefusedError with all that is wrong.
    """
    problems = []
    if re.search(r"\s", environment):
        problems.append(f"ENV is {environment!r}: make cannot take a path with a space in it.")
    elif "/" not in environment and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", environment):
        problems.append(
            f"ENV is {environment!r}; it must be a name of letters, digits and _.-, or a path with a / in it."
        )
    elif environment in SHIPPED:
        problems.append(f"ENV is {environment!r}, which comes with Coldframe: choose another name.")
    if (debian := given.get("DEBIAN", "13")) not in debian_packages.PYTHON:
        problems.append(f"DEBIAN is {debian!r}; it must be {' or '.join(debian_packages.PYTHON)}.")
        debian = "13"
    if "APP" not in given:
        raise RefusedError(*problems, APP_MISSING)
    app = Path(given["APP"]).expanduser().resolve()
    try:
        project = read(app, given["APP"], given)
    except RefusedError as error:
        raise RefusedError(*problems, *error.problems) from error
    machine = platform.machine() if sandbox else "x86_64"
    result = Plan(environment, inventory_of(environment), app, given, project, sandbox=sandbox)
    result.target = locking.Target(debian, machine)
    early = len(problems)
    try:
        result.source = locking.find(project.folder, app, given.get("REQUIREMENTS", ""))
        if project.elsewhere:
            with locking.unpacked(result.source, result.target, project.elsewhere, wheels) as library:
                project = result.project = read(app, given["APP"], given, library) if library else project
        more = choose_asgi(project, result.source.names())
        before = result.inventory / LOCK
        text = before.read_text() if before.is_file() else ""
        if not current(result, text):
            result.locked = locking.Maker(result.source, result.target, wheels, more).run(text)
            problems += result.locked.problems
            if (problems or project.problems) and result.locked.missing:
                problems.append(without_wheels(result))
    except ValueError as error:
        problems.append(str(error))
    problems[early:early] = project.problems
    if problems:
        raise RefusedError(*problems)
    result.questions = questions(result)
    return result


def choose_asgi(project: Project, packages: set[str]) -> list[str]:
    """Choose whether ASGI is served; return what serves it."""
    served = project.found.get("ASGI application")
    wanted = project.asgi or packages & ASGI_PACKAGES or set(project.installed) & ASGI_PACKAGES
    if not served or not (wanted or "app_wsgi" not in project.found):
        return []
    project.found["app_asgi"] = served
    if "app_wsgi" in project.found:
        project.found["WSGI application"] = project.found.pop("app_wsgi")
    return SERVES_ASGI


def current(made: Plan, text: str) -> bool:
    """Whether a lock file is there and is of the requirements as they are."""
    source = made.source
    if not source or locking.target_of(text) != made.target:
        return False
    files = {source.shown(path): locking.lock_filter.digest(path) for path in source.files}
    return dict(locking.lock_filter.MADE_FROM.findall(text)) == files


def packages_of(made: Plan) -> dict[str, str]:
    """Return the packages of the lock file, name to version."""
    if made.locked:
        return made.locked.packages
    file = made.inventory / LOCK
    locked, _ = locking.lock_filter.read(file.read_text() if file.is_file() else "")
    return {name: found[0] for name, found in locked.items()}


def without_default(project: Project) -> dict[str, str]:
    """Map the variables that the settings read without a default, and the deployment does not give, to where they are read."""
    known = GIVEN | decided(project).keys()
    return {name: where for name, where in project.environment.items() if name not in known}


def decided(project: Project) -> dict[str, str]:
    """Map the variables that the settings read without a default, and that say what the deployment decides, to values."""
    return {
        name: value
        for name in project.environment
        if name not in GIVEN
        for pattern, value in DECIDED
        if re.fullmatch(rf"(DJANGO_|CELERY_)?{pattern}", name)
    }


def placeholder(name: str, site: str = SANDBOX_SITE) -> str:
    """Return a value with which settings that read a variable can be loaded on a sandbox host, or on servers the site's own."""
    values = (value for pattern, value in PLACEHOLDERS if re.search(rf"(^|_)({pattern})$", name))
    return next(values, "try").replace("{site}", site)


def without_wheels(made: Plan) -> str:
    """Say which packages have no wheel, and what to do."""
    return (
        f"There is no wheel for {made.target} of {', '.join(made.locked.missing if made.locked else [])}. Take versions that have "
        f"one, or 'make wheels ENV={environment_of(made.inventory)}' builds them, once."
    )


def questions(made: Plan) -> list[str]:
    """List what the project does not say."""
    project, asked = made.project, []
    pattern = VARIABLES.schemas(str(ROOT))["celery_queues"]["propertyNames"]
    for name, queue in project.queues.items():
        if not re.fullmatch(pattern["pattern"], name):
            asked.append(
                f"The queue {name!r} ({queue.where}) cannot be in celery_queues: a name must be {pattern['title']}. Call it otherwise."
            )
    if missing := without_default(project):
        shown = ", ".join(f"{name} ({where})" for name, where in missing.items())
        asked.append(
            f"The settings read variables that have no default: {shown}. "
            + (
                "app_environment has a value for each to try it with: set those that matter."
                if made.sandbox
                else how_to_set(made, missing)
            )
        )
        if not made.sandbox:
            heading = "# In app_environment above:" if decided(project) else "# app_environment:"
            made.answers[asked[-1]] = environment_lines(missing, made.given.get("DOMAIN", ""), heading)
    if project.missing_middleware:
        checks = ", ".join(project.missing_middleware)
        lacking = ", ".join(found.value for found in project.missing_middleware.values())
        where = next(iter(project.missing_middleware.values())).where
        asked.append(
            f"MIDDLEWARE ({where}) does not have {lacking}, and a deploy refuses that ({checks}). "
            + (
                "To try the project, release_check_ignore has it. Add the class, or keep the line if that is intended."
                if made.sandbox
                else f"Add the class, or set release_check_ignore: [{checks}] if that is intended."
            )
        )
    asked += project.questions
    folders = [project.folder, *([made.app] if made.app != project.folder else [])]
    for found in python_wanted(folders):
        with contextlib.suppress(InvalidSpecifier):
            text = str(found.value)
            spec = re.sub(r"\^\s*([\d.]+)", r">=\1", text)
            exact = re.fullmatch(r"[\d.]+", spec)
            wanted = SpecifierSet(f"=={'.'.join(spec.split('.')[:2])}.*" if exact else spec)
            if not wanted.contains(debian_packages.PYTHON[made.target.debian]):
                fits = [release for release, python in debian_packages.PYTHON.items() if wanted.contains(python)]
                other = f", or set DEBIAN={fits[0]} if your servers are that" if fits and not made.sandbox else ""
                asked.append(
                    f"{found.where} says Python {text}, and Debian {made.target.debian} has {made.target.python}: the packages "
                    f"are locked for that one. Run the project's tests with it{other}."
                )
                break
    if "django.contrib.gis" in project.installed:
        asked.append(
            "The project uses GeoDjango: PostGIS is a package of PostgreSQL's host (postgresql_packages), and its extension is created by "
            "an administrator of the database."
        )
    if made.locked and made.locked.missing:
        asked.append(without_wheels(made))
    return asked


def how_to_set(made: Plan, missing: dict[str, str]) -> str:
    """Say where variables without a default are set: secrets in the vault, by a command."""
    env = f"ENV={environment_of(made.inventory)}"
    secrets = [f"'make secrets {env} SET={name}'" for name in missing if SECRET.search(name)]
    told = []
    if len(secrets) < len(missing):
        told.append("Set those that are needed in app_environment.")
    if secrets:
        told.append(f"What is secret goes into the vault, after 'make secrets {env}': {', '.join(secrets)}.")
    return " ".join(told)


def environment_lines(missing: dict[str, str], domain: str, heading: str) -> list[str]:
    """Write app_environment with the variables that are no secrets, to be uncommented; those of the site have its domain."""
    lines = [
        f"#   {line(name, value if domain and (value := placeholder(name, domain)).endswith(domain) else '', where)}"
        for name, where in missing.items()
        if not SECRET.search(name)
    ]
    return [heading, *lines] if lines else []


# Texts


def scalar(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("\n...").removesuffix("...").strip()


def line(name: str, value: Any, why: str = "") -> str:
    """Write a variable, and where it is from."""
    text = f"{name}: {scalar(value)}"
    return f"{text}   # {why}" if why else text


def path_from(made: Plan) -> str:
    """Return app_source: relative to the inventory where both move together, else as it is."""
    path, inventory = made.project.folder, made.inventory
    beside = inventory.is_relative_to(ROOT) and path.is_relative_to(ROOT.parent)
    if not beside and not inventory.is_relative_to(made.app):
        return str(path)
    return os.path.relpath(path, inventory)


def queue_lines(project: Project) -> list[str]:
    """Write celery_queues: time limits only where the project has higher ones than the profile."""
    pattern = VARIABLES.schemas(str(ROOT))["celery_queues"]["propertyNames"]["pattern"]
    lines = ["celery_queues:"]
    for name, queue in project.queues.items():
        if not re.fullmatch(pattern, name):
            lines.append(f"  # {scalar(name)}: {{}}   # {queue.where}; not a valid name, see below")
            continue
        least = TABLE.celery_queue_table({name: {}})[name]["time_limit"]
        options = {"time_limit": queue.time_limit} if queue.time_limit > least else {}
        lines.append(f"  {line(name, options, queue.where)}")
    return lines


def commented(text: str, width: int = 118) -> list[str]:
    """Write a text as comments."""
    import textwrap

    return [f"# {each}" for each in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)]


def app_yml(made: Plan) -> str:
    """Write group_vars/all/app.yml."""
    project, found = made.project, made.project.found
    lines = [
        f"# The application, as make {'try' if made.sandbox else 'new'} found it. This file is yours: it is never written again.",
        "# docs/variables.md has every variable. What the project does not say is at the end.",
        line("app_name", project.name, found["app_name"].where),
        line(
            "app_source",
            path_from(made),
            "" if os.path.isabs(path_from(made)) else "relative to the inventory's folder",
        ),
    ]
    if built(made):
        lines.append(line("app_packages_from", "controller", f"'make wheels' builds {', '.join(built(made))}"))
    if made.beside:
        why = f"inventories/{made.beside} has this server too: docs/two-applications.md"
        lines.insert(3, line("app_additional", True, why))
    if made.inventory.is_relative_to(project.folder):
        lines.append(line("app_exclude", [str(made.inventory.relative_to(project.folder))], "this inventory"))
    lock = made.inside or f"{{{{ inventory_dir }}}}/{LOCK}"
    lines.append(
        line(
            "app_lock_file",
            lock,
            f"from {made.source.shown(made.source.path)}" if made.source and not made.inside else "",
        )
    )
    for name in ("app_python_path", "app_settings_module", "app_wsgi", "app_asgi", "app_celery"):
        if name in found:
            lines.append(line(name, found[name].value, found[name].where))
    lines.append(
        line(
            "app_url",
            f"https://{SANDBOX_SITE}" if made.sandbox else f"https://{made.given['DOMAIN']}",
        )
    )
    lines += ["", *queue_lines(project)]
    if project.default_queue and project.default_queue != "default":
        lines.append(line("celery_default_queue", project.default_queue, found["default queue"].where))
    if scheduler := found.get("celery_beat_scheduler"):
        value = str(scheduler.value)
        if ":" not in value and "." in value:
            value = ":".join(value.rsplit(".", 1))
    if scheduler and value != VARIABLES.specs(str(ROOT))["celery_beat_scheduler"]["default"]:
        lines.append(line("celery_beat_scheduler", value, scheduler.where))
    if folders := found.get("app_writable"):
        lines += ["", line("app_writable", folders.value, folders.where)]
    if build := found.get("app_build"):
        lines += ["", line("app_build", build.value, f"{build.where}: docs/releases.md#build-steps")]
    if media := found.get("nginx_media_url"):
        lines += ["", line("nginx_media_url", media.value, media.where)]
    if needs := system_packages(made):
        default = VARIABLES.specs(str(ROOT))["base_packages"]["default"]
        names = list(dict.fromkeys([*default, *(name for each in needs.values() for name in each)]))
        lines += ["", line("base_packages", names, ", ".join(needs))]
    given, missing = decided(project), without_default(project) if made.sandbox else {}
    if given:
        lines += [
            "",
            f"# The settings read {', '.join(given)}, which the deployment decides. It takes the place of the values.",
        ]
    if missing:
        lines += ["", "# Values to try it with: the settings have no default for these. One that is secret is given by"]
        lines.append(f"# 'make secrets ENV={environment_of(made.inventory)} SET=NAME' in place of a line here.")
    if given or missing:
        lines.append("app_environment:")
        lines += [f"  {line(name, placeholder(name), where)}" for name, where in missing.items()]
        lines += [f"  {line(name, value, project.environment[name])}" for name, value in given.items()]
    if made.sandbox and project.missing_middleware:
        why = next(iter(project.missing_middleware.values())).where
        lines += ["", line("release_check_ignore", list(project.missing_middleware), f"MIDDLEWARE in {why}, see below")]
    smoke = found.get("smoke_request")
    lines += ["", "# The page that shows after a deploy that the application works.", "smoke_request:"]
    lines.append(
        f"  {line('path', smoke.value if smoke else '/', smoke.where if smoke else 'no page was found: see below')}"
    )
    if made.sandbox:
        lines += ["", line("secrets_place", f"{environment_of(made.inventory)}/.host/secrets.yml")]
    lines += ["", "# What the project does not say:"]
    for number, question in enumerate(made.questions, 1):
        lines += commented(f"{number}. {question}") + made.answers.get(question, [])
    if not made.questions:
        lines.append("# nothing.")
    return "\n".join(lines) + "\n"


def built(made: Plan) -> list[str]:
    """List the packages that have no wheel of their own: `make wheels` builds them, or has done so."""
    names = [path.name.split("-")[0] for path in (made.inventory / WHEELS).glob("*.whl")]
    names += [re.split(r"[=<>!~ @]", each)[0] for each in (made.locked.missing if made.locked else [])]
    return sorted({canonicalize_name(name) for name in names})


def system_packages(made: Plan) -> dict[str, list[str]]:
    """Map what needs packages of Debian to these packages."""
    needs = debian_packages.to_run([*packages_of(made), *built(made)], made.target.debian, built(made))
    if "django.contrib.gis" in made.project.installed:
        needs["django.contrib.gis"] = [debian_packages.GEODJANGO]
    return needs


@dataclass(frozen=True)
class Server:
    """A server: its name in the inventory, its address, and that in the private network."""

    name: str
    address: str
    private: str = ""


def servers(text: str) -> list[Server]:
    """Read HOST: names or addresses, several with spaces or commas between, each NAME or NAME=PRIVATE_ADDRESS.

    Raises RefusedError.
    """
    found: list[Server] = []
    for each in re.split(r"[\s,]+", text.strip()):
        address, _, private = each.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]*", address):
            raise RefusedError(f"HOST is {text!r}: {each!r} is no name or address of a server.")
        label = address.split(".")[0].lower()
        name = label if re.fullmatch(r"[a-z][a-z0-9-]*", label) else f"server{len(found) + 1}"
        if name in (*GROUPS, "all", "ungrouped", "localhost"):
            name += "1"  # a host must not have the name of a group
        if name in [server.name for server in found]:
            name = f"server{len(found) + 1}"
        found.append(Server(name, address, private))
    return found


def beside(made: Plan, hosts: list[Server], root: Path = ROOT) -> str:
    """Return the name of an inventory of another application that has one of these servers; empty if there is none."""
    addresses = {host.address for host in hosts}
    for file in sorted(root.glob("inventories/*/hosts.yml")):
        if file.parent.name in SHIPPED or file.parent == made.inventory:
            continue
        try:
            there = (yaml.safe_load(file.read_text()) or {})["all"]["hosts"]
            app = yaml.safe_load((file.parent / "group_vars/all/app.yml").read_text()) or {}
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            continue  # written by hand, in another way
        has = {str((values or {}).get("ansible_host", name)) for name, values in (there or {}).items()}
        if has & addresses and app.get("app_name") != made.project.name:
            return file.parent.name
    return ""


def hosts_yml(hosts: list[Server], user: str) -> str:
    """Write hosts.yml: the first server has Redis, PostgreSQL and Flower, and all of them the rest."""
    several = len(hosts) > 1
    lines = ["# The servers, and what runs on which. docs/design.md, 'Topology', has the groups."]
    lines += ["all:"]
    if user:
        lines += ["  vars:", f"    {line('ansible_user', user, 'an account with sudo or root, reached by SSH key')}"]
    lines.append("  hosts:")
    for host in hosts:
        lines += [f"    {host.name}:", f"      {line('ansible_host', host.address)}"]
        if several:
            why = "" if host.private else "its address in the network of the servers is needed: docs/variables.md"
            lines.append(f"      {line('app_private_address', host.private, why)}")
    lines.append("  children:")
    for group in GROUPS:
        members = hosts[:1] if group in ("redis", "postgresql", "flower") else hosts[:2] if group == "beat" else hosts
        lines.append(f"    {group}: {{hosts: {{{', '.join(f'{host.name}: {{}}' for host in members)}}}}}")
    return "\n".join(lines) + "\n"


# Writing


def write(made: Plan, files: dict[str, str]) -> tuple[list[str], list[str]]:
    """Write the files that are not there; return their names, and those of the files that were kept."""
    written, kept = [], []
    for name, text in files.items():
        path = made.inventory / name
        if path.exists():
            kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(name)
    return written, kept


def write_lock(made: Plan) -> str:
    """Write the lock file, where it is made anew; say what was done."""
    if made.inside or not made.locked or not made.locked.text:
        return ""
    path = made.inventory / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    same = path.is_file() and path.read_text() == made.locked.text
    path.write_text(made.locked.text)
    return "" if same else f"{len(made.locked.packages)} packages, locked for {made.target}"


def differences(made: Plan) -> list[str]:
    """Say what the project says now and an app.yml that was kept does not."""
    path = made.inventory / "group_vars/all/app.yml"
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError):
        return []
    told = []
    for name in ("app_settings_module", "app_wsgi", "app_asgi", "app_celery", "app_python_path"):
        found = made.project.found.get(name)
        if found and isinstance(values, dict) and values.get(name) != found.value:
            told.append(f"{name} is {values.get(name)!r} there, and {found.value!r} in {found.where}.")
    if built(made) and isinstance(values, dict) and values.get("app_packages_from") != "controller":
        told.append(
            f"app_packages_from is not 'controller' there, and {', '.join(built(made))} has no wheel in a package index."
        )
    queues = values.get("celery_queues") if isinstance(values, dict) else None
    for name, queue in made.project.queues.items():
        if isinstance(queues, dict) and name not in queues and queue.where != "the default queue":
            told.append(f"celery_queues there does not have {name!r} ({queue.where}).")
    return told


def folder_of(made: Plan) -> str:
    """Return the inventory's folder, as one types it in this project's."""
    folder = environment_of(made.inventory)
    return folder if "/" in folder else f"inventories/{folder}"


def report(made: Plan, written: list[str], kept: list[str], lock: str) -> str:
    """Say what was found and where, what was written, and what is open."""
    folder = folder_of(made)
    lines = [f"{made.project.name}: {made.project.folder}"]
    for name, found in made.project.found.items():
        lines.append(f"  {name:<22} {shown(found)}")
    for name, queue in made.project.queues.items():
        lines.append(f"  {'queue':<22} {name:<32} {queue.where}")
    if made.source:
        lines.append(f"  {'packages':<22} {made.source.shown(made.source.path)}")
    for name, needs in system_packages(made).items():
        lines.append(f"  {'Debian packages':<22} {' '.join(needs):<32} for {name}")
    if written or lock:
        lines.append(f"Written in {folder}:")
        lines += [f"  {name}" for name in written]
        lines += [f"  {LOCK}: {lock}"] if lock else []
    if kept:
        lines.append(f"Kept in {folder}: {', '.join(kept)}")
        lines += [f"  {each}" for each in differences(made)]
    lines += made.locked.said if made.locked else []
    if made.questions:
        lines.append("What the project does not say (also at the end of group_vars/all/app.yml):")
        lines += [f"  {number}. {question}" for number, question in enumerate(made.questions, 1)]
    return "\n".join(lines)


def shown(found: Found) -> str:
    """Write a value and where it is from."""
    return f"{found.value!s:<32} {found.where}"


# make new


def ask(given: dict[str, str], prompt: Callable[[str], str]) -> None:
    """Ask for what was not given, on a terminal."""
    texts = {
        "HOST": "Server (name or address; several with spaces between, each NAME=PRIVATE_ADDRESS): ",
        "USER": "SSH user, with sudo (empty: as your SSH configuration has it): ",
        "DOMAIN": "Domain of the site, such as www.example.com: ",
    }
    try:
        for name, text in texts.items():
            if name not in given and (answer := prompt(text).strip()):
                given[name] = answer
    except EOFError:
        print()  # the end of the line of the question


def new(arguments: list[str], prompt: Callable[[str], str] | None) -> str:
    """Write an inventory; return what to tell.

    :param prompt: asks the person at the terminal; None where there is none.

    Raises RefusedError with all that is wrong; then nothing is written.
    """
    given = words(arguments)
    environment = given.get("ENV", "")
    if not environment:
        missing = "ENV is missing: a name for the inventory, such as ENV=production, or a folder, such as ENV=../mysite/deploy."
        raise RefusedError(missing, *([] if "APP" in given else [APP_MISSING]))
    inventory = inventory_of(environment)
    needs_hosts = not (inventory / "hosts.yml").exists()
    needs_domain = not (inventory / "group_vars/all/app.yml").exists()
    made, problems = None, []
    try:
        made = plan(given, environment, wheels=inventory / WHEELS)
    except RefusedError as error:
        problems += error.problems
    if prompt and made and (needs_hosts or needs_domain):
        ask(given, prompt)
        made.questions = questions(made)  # with the domain
    hosts: list[Server] = []
    if needs_hosts and "HOST" not in given:
        problems.append("HOST is missing: the name or address of your server, such as HOST=server1.example.com.")
    elif needs_hosts:
        try:
            hosts = servers(given["HOST"])
        except RefusedError as error:
            problems += error.problems
    if "USER" in given and not re.fullmatch(r"[a-z_][a-z0-9_.-]*", given["USER"]):
        problems.append(f"USER is {given['USER']!r}; it must be the name of an account on the servers.")
    if needs_domain and "DOMAIN" not in given:
        problems.append("DOMAIN is missing: the name of the site, such as DOMAIN=www.example.com.")
    elif needs_domain:
        problems += [
            f"DOMAIN is {given['DOMAIN']!r}: {problem.partition('; ')[2]}"
            for problem in VARIABLES.value_problems(
                "app_url", f"https://{given['DOMAIN']}", VARIABLES.schemas(str(ROOT))["app_url"]
            )
        ]
    if problems or not made:
        raise RefusedError(*problems)
    if len(hosts) > 1 and not all(host.private for host in hosts):
        names = ", ".join(host.name for host in hosts if not host.private)
        made.questions.append(
            f"Which addresses have {names} in the network between the servers? Write them as app_private_address into hosts.yml."
        )
    if needs_domain:
        made.questions.append(CERTIFICATE)
        made.answers[CERTIFICATE] = [
            "# nginx_acme: true",
            "# nginx_acme_terms_agreed: true",
            "# or your own files on the server:",
            f"# nginx_tls_certificate: /etc/ssl/{made.project.name}/fullchain.pem",
            f"# nginx_tls_key: /etc/ssl/{made.project.name}/privkey.pem",
        ]
    made.beside = beside(made, hosts)
    files = {"hosts.yml": hosts_yml(hosts, given.get("USER", ""))} if needs_hosts else {"hosts.yml": ""}
    files["group_vars/all/app.yml"] = app_yml(made) if needs_domain else ""
    lock = write_lock(made)
    written, kept = write(made, files)
    return f"{report(made, written, kept, lock)}\n{next_step(made)}"


def next_step(made: Plan) -> str:
    """Name the questions that are open, and the next commands."""
    env = f"ENV={shlex.quote(environment_of(made.inventory))}"
    if made.locked and made.locked.missing:
        return f"Next: make wheels {env}" + (f" DEBIAN={made.target.debian}" if made.target.debian != "13" else "")
    secrets = [] if (made.inventory / "group_vars/all/vault.yml").exists() else ["secrets"]
    commands = [f"  make {target} {env}" for target in (*secrets, "check-app", "doctor", "deploy")]
    what = "question 1" if len(made.questions) == 1 else f"questions 1 to {len(made.questions)}"
    first = (
        f"Next: answer {what} above, in {folder_of(made)}/group_vars/all/app.yml, then" if made.questions else "Next:"
    )
    return "\n".join([first, *commands])


# make try


def is_taken(folder: Path) -> bool:
    """Whether a folder is a sandbox host's: one with nothing but further variables or wheels waits for its host."""
    return any(path.name not in ("group_vars", WHEELS) for path in (folder.iterdir() if folder.is_dir() else ()))


def tried(app: Path) -> Path:
    """Return the inventory of a project's sandbox host: the one that is there, or a new one named after its folder."""
    root = SANDBOX
    for path in sorted(root.glob("*/group_vars/all/try.yml")):
        if str(app) == (yaml.safe_load(path.read_text()) or {}).get("try_app"):
            return path.parents[2]
    names = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (app.name, app.parent.name)]
    stem = next((name for name in names if name and name not in ("backend", "src", "app")), "app")
    numbered = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return root / next(
        name for name in numbered if name not in ("sandbox", "coldframe-sandbox") and not is_taken(root / name)
    )


def ports_of(own: Path) -> dict[str, int]:
    """Return the ports of a sandbox host, from its try.yml; none where there is no such file."""
    said = (yaml.safe_load(own.read_text()) or {}) if own.exists() else {}
    return {name: said[f"sandbox_{name}_port"] for name in PORTS if isinstance(said.get(f"sandbox_{name}_port"), int)}


def is_free(port: int) -> bool:
    """Whether nobody has bound a port on loopback.

    To connect would not tell: the port of a container leads to it, and it may not listen yet.
    """
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def free_ports(wanted: Mapping[str, int] | None = None, inventory: Path | None = None) -> dict[str, int]:
    """Choose ports on loopback that nobody has bound and no other sandbox host has.

    :param wanted: ports that are taken if they are free.
    :param inventory: that of the host, whose own ports count as free.

    Raises RefusedError when there are none.
    """
    taken: set[int] = set()
    for path in SANDBOX.glob("*/group_vars/all/try.yml"):
        taken |= set(ports_of(path).values()) if path.parents[2] != inventory else set()
    chosen: dict[str, int] = {}
    for name, first in PORTS.items():
        for port in [*([wanted[name]] if wanted and name in wanted else []), *range(first, first + 200)]:
            if port not in taken and port not in chosen.values() and is_free(port):
                chosen[name] = port
                break
        else:
            raise RefusedError(f"None of the ports {first} to {first + 199} is free on this machine.")
    return chosen


def asked_ports(given: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that the command line names. Raises RefusedError for what is none."""
    asked: dict[str, int] = {}
    problems = []
    for name, word in PORT_WORDS.items():
        text = given.get(word, "")
        if not text:
            continue
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
            problems.append(f"{word} is {text!r}; it must be a port, a number from 1 to 65535.")
        elif int(text) in asked.values():
            problems.append(f"{word} is {text!r}, which another port of the host is too: give it another one.")
        else:
            asked[name] = int(text)
    if problems:
        raise RefusedError(*problems)
    return asked


def has_run(inventory: Path) -> bool:
    """Whether a project's sandbox host was ever started: then its container has its ports for good."""
    return (inventory / ".host/ssh_config").exists()


def choose_ports(inventory: Path, given: Mapping[str, str]) -> dict[str, int]:
    """Return the ports of a project's sandbox host: those that it has, or that are asked for, or free ones.

    Until it was started, ports that another program took meanwhile are changed. Raises RefusedError with all that is wrong.
    """
    has, asked = ports_of(inventory / "group_vars/all/try.yml"), asked_ports(given)
    if has_run(inventory):
        down = f"make try-down APP={given.get('APP', '...')}"
        if problems := [
            f"{PORT_WORDS[name]} is {port}, and the sandbox host of this project has {has.get(name)}, which cannot change. "
            f"Leave it out; or remove the host with all its data, '{down}', and give the port again."
            for name, port in asked.items()
            if has.get(name) != port
        ]:
            raise RefusedError(*problems)
        return has
    chosen = free_ports(has | asked, inventory)
    if problems := [
        f"{PORT_WORDS[name]} is {port}, which another program or sandbox host has: give another port, or leave it out."
        for name, port in asked.items()
        if chosen[name] != port
    ]:
        raise RefusedError(*problems)
    return chosen


def write_ports(inventory: Path, ports: Mapping[str, int]) -> str:
    """Write ports into try.yml, which is there; return what to tell, empty if it has them already."""
    own = inventory / "group_vars/all/try.yml"
    had = ports_of(own)
    if not had or had == ports:
        return ""
    text = own.read_text()
    for name, port in ports.items():
        text = re.sub(rf"^(sandbox_{name}_port:).*$", rf"\1 {port}", text, flags=re.MULTILINE)
    own.write_text(text)
    changed = ", ".join(f"{name} {had.get(name)} -> {port}" for name, port in ports.items() if had.get(name) != port)
    return f"Ports of the sandbox host: {changed}"


def try_yml(inventory: Path, app: Path, suite: str, ports: dict[str, int]) -> str:
    """Write group_vars/all/try.yml: what is this sandbox host's own."""
    lines = [
        "# The sandbox host of one project, made by make try. Its ports were free when it was chosen.",
        line("try_app", str(app)),
        line("sandbox_name", f"coldframe-{inventory.name}"),
        line("sandbox_suite", suite),
        *(line(f"sandbox_{name}_port", port) for name, port in ports.items()),
        line("sandbox_state", "{{ inventory_dir }}/.host"),
    ]
    return "\n".join(lines) + "\n"


def prepare(given: dict[str, str]) -> Plan:
    """Write the inventory of a project's sandbox host, and print what was found.

    Raises RefusedError with all that is wrong; then nothing is written.
    """
    app = Path(given.get("APP", "")).expanduser().resolve()
    inventory = tried(app) if "APP" in given else SANDBOX / "app"
    own = inventory / "group_vars/all/try.yml"
    said = yaml.safe_load(own.read_text()) if own.exists() else {}
    suite = said.get("sandbox_suite") or os.environ.get("SANDBOX_SUITE") or "trixie"
    debian = next((release for release, name in debian_packages.SUITE.items() if name == suite), suite)
    ports, problems = dict[str, int](), list[str]()
    try:
        ports = choose_ports(inventory, given)
    except RefusedError as error:
        problems += error.problems
    try:
        made = plan(given | {"DEBIAN": debian}, str(inventory), sandbox=True, wheels=inventory / WHEELS)
    except RefusedError as error:
        raise RefusedError(*problems, *error.problems) from error
    if problems:
        raise RefusedError(*problems)
    files = {
        "hosts.yml": (ROOT / "inventories/sandbox/hosts.yml").read_text(),
        "group_vars/all/try.yml": try_yml(inventory, app, suite, ports),
        "group_vars/all/app.yml": app_yml(made),
    }
    lock = write_lock(made)
    written, kept = write(made, files)
    if moved := write_ports(inventory, ports):
        print(moved)
    for name in ("sandbox.yml", "secrets.yml"):  # as of the example's sandbox host, whatever version this is
        link = inventory / "group_vars/all" / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(ROOT / "inventories/sandbox/group_vars/all" / name, link.parent))
    print(report(made, written, [name for name in kept if name.endswith("app.yml")], lock), flush=True)
    return made


def refused(what: str, error: RefusedError) -> str:
    """Write a refusal: every problem on a line of its own."""
    if len(error.problems) == 1:
        return f"make {what}: {error.problems[0]}"
    return "\n".join(
        [f"make {what}: {len(error.problems)} problems", *(f"  - {problem}" for problem in error.problems)]
    )


def terminal() -> Callable[[str], str] | None:
    """Return what asks the person at the terminal; None where there is none."""
    return input if sys.stdin.isatty() and sys.stdout.isatty() else None
