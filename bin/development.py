"""Local development with what the servers run: `make dev`, `make dev-test`, `make dev-manage`.

What the servers would run is what playbooks/dev.yml tells; here it gets addresses of this machine.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ansible.module_utils
import dev_services
import newinventory
import own_code
import yaml
from connections import ROOT, environment_of, environments, inventory_of, make_sandbox_secrets, played
from dev_services import LONGEST, SOCKET, Failed, PostgreSQL, Redis
from foreground import Output, Process, Stopping, stop
from project import RefusedError
from watchfiles import PythonFilter, watch

ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))  # as its own modules are imported
FINDINGS = own_code.load("plugins/modules/release_check.py")
RUNTIME = ROOT / "runtime"
PLACE = ROOT / ".cache/dev"
OF_PROJECT = ("NAME", "SETTINGS", "WSGI", "CELERY", "REQUIREMENTS")  # for a project that has no inventory yet
WORDS = {
    "dev": ("ENV", "APP", "PORT", "EAGER", "VENV", *OF_PROJECT),
    "dev-test": ("ENV", "APP", "VENV", "ARGS", *OF_PROJECT),
    "dev-manage": ("ENV", "APP", "VENV", "CMD", *OF_PROJECT),
}
PORT = 8000
RELOADS = 4.0  # seconds in which runserver, which looks at its files each second, has ended and started again
LOADS = 30.0  # seconds in which it has loaded the code and looked at the times of its files
HOSTS = ("localhost", ".localhost", "127.0.0.1", "[::1]")
# Variables of this program and of the shell's Python that are not for the application.
DROPPED = re.compile(
    r"ANSIBLE_\w+|COLDFRAME_\w+|SANDBOX_(NAME|SSH_PORT|HTTPS_PORT|HTTP_PORT)|MAKE(FLAGS|LEVEL|OVERRIDES|_TERMOUT|_TERMERR)?|MFLAGS"
    r"|PYTHON(PATH|HOME)?|PIP_FIND_LINKS|VIRTUAL_ENV"
)
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# Signals to a process of the application, each with the seconds until the next one. A worker finishes its tasks after the first,
# and gives them up after the second.
ASK = {"worker": [(signal.SIGTERM, 3.0), (signal.SIGQUIT, 2.0)], "other": [(signal.SIGTERM, 3.0)]}
DEBIAN = "sudo apt-get install --no-install-recommends"
GET = {
    "redis": f"Redis is missing. On Debian or Ubuntu: {DEBIAN} redis-tools, which has the server and starts none. "
    "Elsewhere: the package redis of your distribution, which has redis-server.",
    "postgresql": f"PostgreSQL is missing. On Debian or Ubuntu: {DEBIAN} postgresql. "
    "Elsewhere: the package of your distribution that has initdb and postgres, such as postgresql-server.",
}
LINUX = (
    "This machine runs {}, and what runs on the servers needs Linux. Work in a virtual machine with Debian, which can share your "
    "folders: 'brew install lima' and 'limactl start template://debian' on macOS, or WSL on Windows; and run make dev there."
)


def told(
    inventory: Path, playbook: str, folder: Path, venv: str, secret: str, redis: str
) -> tuple[list[str], dict[str, Any]]:
    """Ask a playbook what the servers of an inventory run; return problems, and what it told if that is possible.

    :param playbook: the path of dev.yml.
    :param folder: the one for the services of this machine.
    :param venv: a virtual environment to use in place of the lock file's; may be empty.
    :param secret: the password of all Redis users here.
    :param redis: the version of Redis here.
    """
    table = yaml.safe_load((ROOT / "roles/redis/vars/main.yml").read_text())["redis_users"]
    given = {
        "dev_folder": str(folder),
        "dev_venv": venv,
        "dev_redis_version": redis,
        "app_redis_passwords": {name: secret for users in table.values() for name in users},
        "app_redis_passwords_before": {},
    }
    problems: list[str] = []
    app: dict[str, Any] = {}
    for task, _, result in played(str(inventory), playbook, given):
        if result.get("failed"):
            problems += str(result.get("msg")).splitlines()
        elif task == "Problems":
            problems += result["msg"]
        elif task == "Application" and not result.get("skipped"):
            app = result["msg"]
    return problems, app


class Settings:
    """What processes of the application are started with, written to a folder."""

    def __init__(
        self, app: dict[str, Any], folder: Path, *, port: int, eager: bool | None, secret: str, test: bool
    ) -> None:
        """Write the files.

        :param app: what the playbook told.
        :param folder: for the files.
        :param port: of the site.
        :param eager: whether tasks run where they are sent; None leaves that to the application.
        :param secret: every password of this machine's services, and the secret key.
        :param test: whether they are for tests, which have databases of their own.
        """
        self.app, self.folder = app, folder
        (folder / "credentials").mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        own = {name: secret for name in ("secret_key", "database_password", "cache_password", "redis_password")}
        own["secret_key"] = secret * 2
        for name, value in (app["placeholders"] | own).items():
            shell = os.environ.get(name) if VARIABLE.fullmatch(name) else None
            dev_services.private(folder / "credentials" / name, value if shell is None else shell)
        self.environment = addresses(app["environment"], port, test)
        overlay = app["overlay"] | {
            "environment": self.environment,
            "development": {"eager": eager},
            "email": {},
            "tracing": app["overlay"]["tracing"] | {"sentry": False, "otel_endpoint": ""},
        }
        files = {"overlay.json": overlay}
        for name in ("celery_settings", "celery_web_settings"):
            files[f"{name}.json"] = app[name] | {"broker_url": at_index(app[name]["broker_url"], test)}
        for name, value in files.items():
            (folder / name).write_text(json.dumps(value, indent=2))

    def variables(self, user: str, module: str = "") -> dict[str, str]:
        """Return all variables of a process.

        :param user: the kind of process, by which it logs in to Redis: web, worker or beat.
        :param module: the settings, if they are not those of the inventory.
        """
        app, venv = self.app, Path(self.app["venv"])
        shell = {name: value for name, value in os.environ.items() if not DROPPED.fullmatch(name)}
        given = {name: os.environ.get(name, str(value)) for name, value in app["given"].items()}
        path = [str(RUNTIME), *([str(Path(app["folder"], app["python_path"]))] if app["python_path"] else [])]
        celery = "celery_settings" if user == "worker" else "celery_web_settings"
        return (
            shell
            | self.environment
            | given
            | {
                "PATH": f"{venv / 'bin'}:{os.environ.get('PATH', os.defpath)}",
                "VIRTUAL_ENV": str(venv),
                "PYTHONPATH": ":".join(path),
                "PYTHONUNBUFFERED": "1",
                "DJANGO_SETTINGS_MODULE": "coldframe.settings",
                "APP_SETTINGS_MODULE": module or app["settings"],
                "CELERY_SETTINGS_FILE": str(self.folder / f"{celery}.json"),
                "OVERLAY_FILE": str(self.folder / "overlay.json"),
                "CREDENTIALS_DIRECTORY": str(self.folder / "credentials"),
                "REDIS_USERNAME": app["users"][user],
                "STATIC_ROOT": str(self.folder / "static"),
                "RELEASE_ID": "development",
                "CELERY_SKIP_CHECKS": "1",
            }
        )


def addresses(environment: dict[str, str], port: int, test: bool) -> dict[str, str]:
    """Return the deployment's variables for this machine.

    :param environment: what the playbook told.
    :param test: whether they are for tests, which have databases of their own in Redis.
    """
    found = environment | {
        "ALLOWED_HOSTS": ",".join(HOSTS),
        "CSRF_TRUSTED_ORIGINS": ",".join(f"http://{host}:{port}" for host in ("localhost", "127.0.0.1")),
    }
    if test:
        found["LOCKS_URL"] = found["LOCKS_URL"].replace("db=1", f"db={dev_services.TESTS_LOCKS}")
        found["CACHE_URL"] = found["CACHE_URL"].replace("db=0", f"db={dev_services.TESTS_CACHE}")
    return found


def at_index(url: str, test: bool) -> str:
    """Return the broker's address, with the database of tests for them."""
    return url.replace("virtual_host=0", f"virtual_host={dev_services.TESTS_QUEUES}") if test else url


def folder_of(inventory: Path) -> Path:
    """Return the folder of an inventory's services."""
    digest = hashlib.sha256(str(inventory).encode()).hexdigest()
    return PLACE / (
        inventory.name if inventory.parent == ROOT / "inventories" else f"{inventory.name[:20]}-{digest[:6]}"
    )


def processes(
    app: dict[str, Any], settings: Settings, folder: Path, output: Output, port: int, eager: bool
) -> list[Process]:
    """List the processes of the application.

    :param folder: the one for the services of this machine.
    :param eager: whether there are no workers, and no Beat.
    """
    python, here = str(Path(app["venv"], "bin/python")), Path(app["folder"])
    manage = [python, "-m", "coldframe.manage"]
    web = [*manage, "manage.py", "runserver", f"127.0.0.1:{port}"]
    found = [Process("web", web, settings.variables("web"), here, output, ASK["other"])]
    for name, command in app["services"].items():
        program, *arguments = shlex.split(command)
        program = str(here / program) if "/" in program else program
        words = [*(manage if program == "manage.py" else []), program, *arguments]
        found.append(Process(f"service-{name}", words, settings.variables("web"), here, output, ASK["other"]))
    if eager:
        return found
    celery = [python, "-m", "coldframe.process", "--quiet", f"--app={app['celery']}"]
    for name, arguments in app["queues"].items():
        own = ["worker", f"--hostname={name}-development@%h", "--without-gossip", "--without-mingle", "--loglevel=INFO"]
        words = [*celery, *own, *arguments]
        found.append(Process(f"worker-{name}", words, settings.variables("worker"), here, output, ASK["worker"]))
    lease = folder / "beat"  # keeps by which name this Beat holds its lease
    lease.mkdir(exist_ok=True)
    words = [*celery, "beat", f"--scheduler={app['scheduler']}", "--pidfile=", "--loglevel=INFO"]
    variables = settings.variables("beat") | {"RUNTIME_DIRECTORY": str(lease)}
    found.append(Process("beat", words, variables, here, output, ASK["other"]))
    return found


def test_command(folder: Path) -> tuple[list[str], str, str]:
    """Say how a project's tests are run: the command's words, why, and the settings that pytest's configuration names.

    pytest runs them where the project configures it, or has a conftest.py beside manage.py; else Django does.
    """
    for name, section in (
        ("pytest.ini", "pytest"),
        (".pytest.ini", "pytest"),
        ("tox.ini", "pytest"),
        ("setup.cfg", "tool:pytest"),
    ):
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error, OSError, UnicodeError):
            parser.read(folder / name)
        if parser.has_section(section):
            settings = parser.get(section, "DJANGO_SETTINGS_MODULE", fallback="")
            return ["-m", "pytest"], f"{name} has [{section}]", settings
    with contextlib.suppress(OSError, ValueError):
        tool = tomllib.loads((folder / "pyproject.toml").read_text()).get("tool", {}).get("pytest", {})
        options = tool.get("ini_options", tool)
        if tool:
            return ["-m", "pytest"], "pyproject.toml configures pytest", str(options.get("DJANGO_SETTINGS_MODULE", ""))
    if (folder / "conftest.py").is_file():
        return ["-m", "pytest"], "there is a conftest.py", ""
    return ["-m", "coldframe.manage", "manage.py", "test"], "nothing configures pytest", ""


class Run:
    """One run of a command: what is asked for, what is found, and what is wrong."""

    def __init__(self, verb: str, environment: str, playbook: str, given: dict[str, str]) -> None:
        """Remember what is asked.

        :param verb: the target of make.
        :param environment: ENV.
        :param playbook: the path of dev.yml.
        :param given: variables of make, name to value.
        """
        self.verb, self.playbook, self.given = verb, playbook, given
        self.problems: list[str] = []
        self.environment, self.port = environment, PORT
        self.eager = given.get("EAGER", "") not in ("", "0")
        self.app: dict[str, Any] = {}
        self.programs: Path | None = None
        self.owned: list[Process] = []  # services that this run has started
        self.stopping = Stopping()
        self.hurry = 0.0  # when a first signal came

    # What is found before anything is started

    def machine(self) -> None:
        """Look at this machine."""
        if platform.system() != "Linux":
            raise RefusedError(LINUX.format(platform.system()))
        self.redis = dev_services.redis_program()
        self.programs = dev_services.postgresql_programs()
        if not self.redis:
            self.problems.append(GET["redis"])
        if not self.programs:
            self.problems.append(GET["postgresql"])
        text = self.given.get("PORT", str(PORT))
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1024 <= int(text) <= 65535:
            self.problems.append(f"PORT is {text!r}; it must be a number from 1024 to 65535.")
        else:
            self.port = int(text)
            if self.verb == "dev" and not is_free(self.port):
                self.problems.append(
                    f"PORT is {text!r}, which another program has: end it, or give another one, PORT={self.port + 1}."
                )
        venv = self.given.get("VENV", "")
        self.venv = str(Path(venv).expanduser().absolute()) if venv else ""
        if venv and not os.access(Path(self.venv, "bin/python"), os.X_OK):
            self.problems.append(f"VENV is {venv!r}, which is no virtual environment: it has no bin/python.")

    def project(self) -> None:
        """Find the inventory of APP, or write it. Raises RefusedError."""
        if "APP" not in self.given:
            self.inventory = inventory_of(self.environment)
            if not self.inventory.exists():
                raise RefusedError(
                    *self.problems,
                    f"ENV is {self.environment!r}, and there is no {self.inventory}. Set it to one of {environments()}.",
                )
            return
        if "ENV" in self.given:
            raise RefusedError(
                *self.problems,
                "ENV and APP are both given: APP is a project without an inventory. Leave one of them out.",
            )
        said = io.StringIO()
        new = not newinventory.tried(Path(self.given["APP"]).expanduser().resolve()).exists()
        with contextlib.redirect_stdout(said):
            try:
                made = newinventory.prepare(
                    {name: self.given[name] for name in ("APP", *OF_PROJECT) if name in self.given}
                )
            except RefusedError as error:
                raise RefusedError(*self.problems, *error.problems) from error
        if new:
            print(said.getvalue(), end="", flush=True)
        self.inventory = made.inventory
        if made.locked and made.locked.missing and not self.venv:
            self.problems.append(
                f"{newinventory.without_wheels(made)} Or name an environment of your own that has them, VENV=."
            )

    def secrets(self) -> None:
        """Have the inventory's secrets, where it is a sandbox host's; none of them is used here. Packages that were built are known."""
        make_sandbox_secrets(self.inventory)
        if (wheels := self.inventory / newinventory.WHEELS).is_dir():
            os.environ["PIP_FIND_LINKS"] = f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels}".strip()

    def place(self) -> None:
        """Choose the folder of this application's services, and its secret."""
        self.folder = folder_of(self.inventory)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        longest = self.folder / "postgresql" / SOCKET
        if len(os.fsencode(longest)) > LONGEST:
            self.problems.append(
                f"The path of PostgreSQL's socket would be too long, {len(os.fsencode(longest))} of at most {LONGEST} bytes: {longest}. "
                "Move Coldframe's folder to a shorter path."
            )
        for each in ("run", "shared/media"):
            (self.folder / each).mkdir(parents=True, exist_ok=True)
        (self.folder / "run").chmod(0o700)
        secret = self.folder / "secret"
        if not secret.exists():
            dev_services.private(secret, secrets.token_hex(32))
        self.secret = secret.read_text()
        self.lock = (self.folder / "lock").open("a+")
        self.alone = True
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.alone = False
            if self.verb == "dev":
                self.problems.append(
                    f"make dev, or a command with its services, runs already for {environment_of(self.inventory)}: end it there with Ctrl-C."
                )
        if self.programs:
            self.postgresql = PostgreSQL(self.folder / "postgresql", self.programs)
            self.problems += self.postgresql.problems()

    def application(self) -> None:
        """Ask what the servers run, and load the application here."""
        version = dev_services.redis_version(self.redis) if self.redis else "7.0"
        try:
            problems, self.app = told(self.inventory, self.playbook, self.folder, self.venv, self.secret, version)
        except ValueError as error:
            raise RefusedError(
                *self.problems, f"Ansible cannot read {environment_of(self.inventory)}: {error}"
            ) from error
        self.problems += problems
        if not self.app:
            return
        if self.app["repository"]:
            self.problems.append(
                f"app_repository is {self.app['repository']!r}: name the folder that you work in, APP=../mysite."
            )
        for name in self.app["folders"]:
            (self.folder / "shared" / name).mkdir(parents=True, exist_ok=True)
        if not Path(self.app["folder"], "manage.py").is_file():
            self.problems.append(
                f"There is no manage.py in {self.app['folder']}: set app_source to the folder that has it."
            )
        if self.verb == "dev" and not self.alone:
            return  # the files are those of the one that runs
        python = Path(self.app["venv"], "bin/python")
        self.tests = test_command(Path(self.app["folder"])) if self.verb == "dev-test" else ([], "", "")
        eager = None if self.verb == "dev-test" else self.eager
        self.settings = Settings(
            self.app,
            self.folder / self.verb,
            port=self.port,
            eager=eager,
            secret=self.secret,
            test=self.verb == "dev-test",
        )
        if problems or not python.exists():
            return
        stamp = Path(self.app["venv"], ".lock-sha256")
        if stamp.exists():
            os.utime(stamp)  # it is in use: release_check removes those that are not
        if self.verb == "dev-test" and "pytest" in self.tests[0]:
            done = subprocess.run(
                [python, "-c", "import pytest"], env=self.settings.variables("web"), capture_output=True, check=False
            )
            if done.returncode:
                near = Path(self.app["folder"], ".venv")
                self.problems.append(
                    f"{self.tests[1]}, so pytest runs the tests, and {self.app['venv']} has no pytest. Name an environment that has it and the "
                    f"application's packages: VENV={near if near.is_dir() else '../mysite/.venv'}."
                )
        if self.verb == "dev":
            self.load(python)

    def load(self, python: Path) -> None:
        """Load the application as the check of a deploy does, with no connection to anything."""
        app = self.app
        order = {
            "celery": app["celery"],
            "wsgi": app["wsgi"],
            "check": False,
            "check_level": "ERROR",
            "check_ignore": [],
            "load_timeout": app["load_timeout"],
            "writable": None,
            "secrets": bool(app["secrets"]),
        }
        last = "its process does not end"
        try:
            done = subprocess.run(
                [python, "-m", "coldframe.release.controller"],
                cwd=app["folder"],
                env=self.settings.variables("web"),
                input=json.dumps(order),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=app["load_timeout"] + 120,  # missing variables are looked for, for up to 60 s
            )
            last = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
            findings = json.loads(done.stdout)["findings"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            self.problems.append(f"The application cannot be loaded: {last}")
            return
        about = {
            "python": app["python"],
            "python_path": app["python_path"],
            "source": app["folder"],
            "lock_remedy": app["lock_remedy"],
        }
        wanted = FINDINGS.python_wanted(Path(app["folder"]), app["python"])
        for finding in findings:
            text = FINDINGS.written(finding, about, wanted)
            if finding.get("module"):
                text += "\n    One that only developers have: name your own environment, VENV=../mysite/.venv."
            self.problems.append(text)

    def prepare(self) -> None:
        """Find everything that is wrong before anything is started. Raises RefusedError with all of it."""
        self.machine()
        self.project()
        self.secrets()
        self.place()
        self.application()
        if self.problems or not self.app:
            raise RefusedError(*(self.problems or ["The application cannot be read: make check-app says why."]))

    # What runs

    def signals(self, numbers: Iterable[int]) -> None:
        """Have signals end this run; a second one a moment later makes it hurry."""

        def handle(*_: Any) -> None:
            now = time.monotonic()
            if self.hurry and now > self.hurry + 1:
                self.hurry = -1.0
            elif not self.hurry:
                self.hurry = now
            self.stopping.set()

        for number in numbers:
            signal.signal(number, handle)

    def start_services(self, output: Output) -> None:
        """Start Redis and PostgreSQL, or wait for those of a make dev that runs. Raises Failed."""
        assert self.programs
        redis = Redis(self.folder, self.redis, self.secret)
        if not self.alone:
            until = time.monotonic() + dev_services.PATIENCE
            while not (redis.answers("broker") and redis.answers("cache") and self.postgresql.answers()):
                if time.monotonic() > until or self.stopping.wait(0.2):
                    raise Failed("make dev runs for this application, and its services do not answer.")
        else:
            started = redis.processes(self.app["redis_conf"], self.app["redis_acl"], output)
            self.postgresql.create()
            checks: list[tuple[Process, Callable[[], bool]]] = [
                (self.postgresql.process(output), self.postgresql.answers)
            ]
            for each in started:
                name = each.name.removeprefix("redis-")
                redis.socket(name).unlink(missing_ok=True)
                checks.append((each, lambda name=name: redis.answers(name)))  # type: ignore[misc]
            for process, _ in checks:
                process.muted = True
                process.start()
                self.owned.append(process)
            for process, answers in checks:
                dev_services.wait_for(process, answers)
        self.postgresql.database(self.app["name"], self.app["database_user"])
        if self.verb == "dev-test":
            redis.flush_tests()

    def stop_services(self) -> None:
        """End the services that this run has started."""
        for each in self.owned:
            each.muted = True
        stop(self.owned, self.hurried)

    def manage(self, output: Output, name: str, *words: str) -> None:
        """Run a command of manage.py, its lines with a name. Raises Failed."""
        command = [str(Path(self.app["venv"], "bin/python")), "-m", "coldframe.manage", "manage.py", *words]
        process = Process(name, command, self.settings.variables("web"), Path(self.app["folder"]), output)
        process.start()
        while not process.ended():
            if self.stopping.wait(0.1):
                stop([process], self.hurried)
                return
        if code := process.reap():
            raise Failed(f"manage.py {' '.join(words)} ended with {code}.")

    def hurried(self) -> bool:
        """Whether a second signal came."""
        return self.hurry < 0

    def serve(self) -> int:
        """Run the application until a signal comes; return the exit status."""
        self.signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        names = ["make dev", "web", *(f"service-{name}" for name in self.app["services"])]
        names += [] if self.eager else [*(f"worker-{name}" for name in self.app["queues"]), "beat"]
        output = Output([*names, "migrate", "redis-broker", "redis-cache", "postgresql"], coloured())
        running: list[Process] = []
        code = 0
        try:
            self.start_services(output)
            self.manage(output, "migrate", "migrate", "--no-input", "--verbosity=0")
            if not self.stopping.is_set():
                running = processes(self.app, self.settings, self.folder, output, self.port, self.eager)
                for each in running:
                    each.start()
                output.tell("make dev", f"http://localhost:{self.port}/ in a moment. Ctrl-C ends everything.")
                if self.app["timers"]:
                    output.tell("make dev", f"Not run here, but by hand: app_timers {', '.join(self.app['timers'])}.")
                code = self.attend(running, output)
        except Failed as error:
            for line in str(error).splitlines():
                output.tell("make dev", line)
            code = 1
        finally:
            if self.hurry:
                output.tell("make dev", "Ending.")
            stop(running, self.hurried)
            self.stop_services()
        return code

    def attend(self, running: list[Process], output: Output) -> int:
        """Start processes again when code changes, until a signal comes or a service ends; return the exit status.

        runserver does that itself, unless it has ended or serves nothing: it does not see a change that comes while it fails to
        load the code, nor one that comes after it has loaded a file and before it first looks at the file's time.
        """
        changed: list[str] = []
        files: list[str] = []
        last = seen = 0.0  # when they changed, by the clock, until web has loaded them again; and when that was noted
        threading.Thread(target=self.watch, args=(changed, output), daemon=True).start()
        told: set[Process] = set()
        while not self.stopping.wait(0.2):
            for each in self.owned:
                if each.ended():
                    output.tell("make dev", f"{each.name} ended with {each.reap()}: so does everything.")
                    return 1
            for each in running:
                if each.ended() and each not in told:
                    told.add(each)
                    output.tell(
                        "make dev",
                        f"{each.name} ended with {each.reap()}. It is started again when a Python file changes.",
                    )
            if changed:
                files, seen = sorted(set(changed)), time.monotonic()
                last = changed_at(Path(self.app["folder"], name) for name in files)
                changed.clear()
                again = [each for each in running if each.name != "web" or each.ended() or not listens(self.port)]
            elif last and time.monotonic() > seen + RELOADS:
                again = [each for each in running if each.name == "web" and last - LOADS < each.began() < last]
                last = 0.0
            else:
                again = []
            if again:
                shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
                output.tell("make dev", f"{shown} changed: {', '.join(each.name for each in again)} again.")
                stop(again, self.stopping.is_set)
                for each in again:
                    told.discard(each)
                    if not self.stopping.is_set():
                        each.start()
        return 0

    def watch(self, changed: list[str], output: Output) -> None:
        """Note which Python files of the application change, in a thread."""
        folder = Path(self.app["folder"])
        ignored = [each.parent for each in folder.glob("*/pyvenv.cfg")]
        try:
            for changes in watch(
                folder, watch_filter=PythonFilter(ignore_paths=ignored), stop_event=self.stopping, rust_timeout=1000
            ):
                changed.extend(os.path.relpath(path, folder) for _, path in changes)
        except (OSError, RuntimeError) as error:
            output.tell(
                "make dev",
                f"Changes of files are not seen: {error}. Workers and Beat keep their code until make dev is run again.",
            )

    def command(self, words: list[str], module: str = "") -> int:
        """Run a command in the terminal, with the services; return its exit status."""
        self.signals((signal.SIGTERM, signal.SIGHUP))
        signal.signal(signal.SIGINT, lambda *_: None)  # it is the command's
        output = Output(["redis-broker", "redis-cache", "postgresql", self.verb], coloured())
        process = None
        try:
            self.start_services(output)
            python = str(Path(self.app["venv"], "bin/python"))
            process = subprocess.Popen(
                [python, *words], cwd=self.app["folder"], env=self.settings.variables("web", module)
            )
            while process.poll() is None:
                if self.stopping.wait(0.05):
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(3)
                    process.kill()
                    process.wait()
            return process.returncode if process.returncode >= 0 else 128 - process.returncode
        except Failed as error:
            print(f"make {self.verb}: {error}", file=sys.stderr)
            return 1
        finally:
            self.stop_services()


def changed_at(files: Iterable[Path]) -> float:
    """When the last of some files changed, in seconds since the epoch: now, if one is gone."""
    try:
        return max(path.stat().st_ctime for path in files)
    except OSError:
        return time.time()


def listens(port: int) -> bool:
    """Whether something accepts connections at a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def is_free(port: int) -> bool:
    """Whether runserver can listen on a port. Connections that were closed a moment ago are in nobody's way."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
        return True
    return False


def coloured() -> bool:
    """Whether names are coloured: on a terminal, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def run(verb: str, environment: str, playbook: str, arguments: list[str]) -> int:
    """Run a command; return its exit status. Raises RefusedError with all that is wrong, before anything is started."""
    for word in arguments:  # make exports them, and they are not for the application
        os.environ.pop(word.partition("=")[0], None)
    os.environ.pop("CMD", None)
    asked = Run(verb, environment, playbook, newinventory.words(arguments, WORDS[verb]))
    asked.prepare()
    if verb == "dev":
        return asked.serve()
    if verb == "dev-manage":
        words = shlex.split(os.environ.get("COLDFRAME_COMMAND", "")) or ["help"]
        return asked.command(["-m", "coldframe.manage", "manage.py", *words])
    words, why, module = asked.tests
    print(f"{'pytest' if 'pytest' in words else 'manage.py test'}: {why}", flush=True)
    return asked.command([*words, *shlex.split(asked.given.get("ARGS", ""))], module)
