"""Redis and PostgreSQL of a developer's machine: processes of the user, with sockets and data in a folder.

Both are the programs that Debian packages. They listen on no port, so they are in nobody's way, and they need no root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM
from typing import Any

import own_code
from foreground import Output, Process

SERVERS = own_code.load("plugins/module_utils/coldframe_servers.py")
DEBIAN = Path("/usr/lib/postgresql")  # where Debian has the programs of each version
OWNER = "postgres"  # as whom PostgreSQL runs for root, which it refuses
PATIENCE = 30.0  # seconds until a service answers
SOCKET = ".s.PGSQL.5432"
LONGEST = 107  # bytes in the path of a socket
# Redis' databases: of the broker 0 has the queues and 1 the locks; those of tests follow. The cache has as many for each.
TESTS_QUEUES, TESTS_LOCKS, TESTS_CACHE = 2, 3, 16
DATABASES = {"broker": 4, "cache": 32}


def redis_program() -> str:
    """Return the Redis server; empty if there is none. Debian's redis-tools has it under the name of its checks."""
    return shutil.which("redis-server") or shutil.which("redis-check-rdb") or ""


def redis_version(program: str) -> str:
    """Return the version of a Redis server."""
    done = subprocess.run(
        ["redis-server", "--version"], executable=program, capture_output=True, text=True, check=False
    )
    found = re.search(r"v=(\d+\.\d+)", done.stdout)
    return found[1] if found else "7.0"


def postgresql_programs(places: Path = DEBIAN) -> Path | None:
    """Return the folder with PostgreSQL's programs, those of the newest version; None if there is none."""
    found = [path.parent for path in places.glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
    program = shutil.which("initdb")
    return Path(os.path.realpath(program)).parent if program else None


def major(programs: Path) -> str:
    """Return the major version of PostgreSQL's programs."""
    done = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)", done.stdout)
    return found[1] if found else "0"


class Failed(Exception):
    """A service that does not start."""


def wait_for(process: Process, answers: Callable[[], bool]) -> None:
    """Wait until a service answers. What it says until then is of interest only if it does not. Raises Failed."""
    until = time.monotonic() + PATIENCE
    while not answers():
        if process.ended():
            code = process.reap()
            raise Failed("\n    ".join([f"{process.name} ended with {code}:", *process.last]))
        if time.monotonic() > until:
            raise Failed("\n    ".join([f"{process.name} does not answer after {PATIENCE:.0f} s:", *process.last]))
        time.sleep(0.05)
    process.muted = False


class Redis:
    """The two instances of Redis, as the servers have them: the same settings, and users who may do the same."""

    def __init__(self, folder: Path, program: str, secret: str) -> None:
        """Remember where.

        :param folder: with `run/`, where the sockets are.
        :param secret: the password of all users.
        """
        self.folder, self.program, self.secret = folder, program, secret

    def socket(self, name: str) -> Path:
        """Return the socket of an instance."""
        return self.folder / "run" / name

    def processes(self, conf: dict[str, str], acl: dict[str, str], output: Output) -> list[Process]:
        """Write the configuration; return the processes.

        :param conf: instance to the text of its configuration on a server.
        :param acl: the same of its access list.
        """
        found = []
        for name, text in conf.items():
            place = self.folder / "redis" / name
            place.mkdir(parents=True, exist_ok=True)
            text = re.sub(r"(?m)^dir .*$", f"dir {place}", text)
            text = re.sub(r"(?m)^aclfile .*$", f"aclfile {place}.acl", text)
            text = re.sub(r"(?m)^databases .*$", f"databases {DATABASES[name]}", text)
            Path(f"{place}.conf").write_text(f"{text}\nloglevel warning\n")
            # The channels of a database have its number in their names.
            users = re.sub(r" &/0[.](\S+)", rf" &/0.\1 &/{TESTS_QUEUES}.\1", acl[name])
            private(Path(f"{place}.acl"), users)
            command = ["redis-server", f"{place}.conf"]
            environment = {"LC_ALL": "C.UTF-8"}
            options = {"executable": self.program}
            found.append(Process(f"redis-{name}", command, environment, place, output, [(SIGTERM, 3.0)], **options))
        return found

    def ask(self, name: str, *commands: Sequence[str]) -> None:
        """Send commands as the administrator. Raises Refused, Failed of the client, or OSError."""
        client = SERVERS.Redis.behind(str(self.socket(name)))
        try:
            client.ask("AUTH", "admin", self.secret)
            for words in commands:
                client.ask(*words)
        finally:
            client.close()

    def answers(self, name: str) -> bool:
        """Whether an instance does."""
        try:
            self.ask(name, ["PING"])
        except (SERVERS.Refused, SERVERS.Failed, OSError):
            return False
        return True

    def flush_tests(self) -> None:
        """Empty the databases of tests."""
        for name, first in (("broker", TESTS_QUEUES), ("cache", TESTS_CACHE)):
            for index in range(first, DATABASES[name]):
                self.ask(name, ["SELECT", str(index)], ["FLUSHDB"])


def private(path: Path, text: str) -> None:
    """Write a file that nobody else may read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


class PostgreSQL:
    """A cluster of PostgreSQL's with the application's database and roles, which are named as on the servers."""

    def __init__(self, folder: Path, programs: Path) -> None:
        """Remember where. A later version cannot read the data of an earlier one, so each has its own.

        :param folder: of the socket and the data; nobody else may enter it, so no password is asked for.
        :param programs: the folder of PostgreSQL's programs.
        """
        self.folder, self.programs = folder, programs
        self.data = folder / f"data-{major(programs)}"
        self.options: dict[str, Any] = {"env": {"LC_ALL": "C.UTF-8", "PATH": os.defpath}, "cwd": "/"}
        if os.geteuid() == 0:
            self.options |= {"user": OWNER, "group": OWNER, "extra_groups": []}

    def problems(self) -> list[str]:
        """Say why it cannot run for root: its own user must get at the folder."""
        if os.geteuid():
            return []
        try:
            asked = subprocess.run(["test", "-x", self.folder.parent], **self.options, check=False)
        except (LookupError, OSError):
            return [
                f"You are root, and PostgreSQL refuses to run as root. Use another account, or create the user {OWNER}."
            ]
        if asked.returncode:
            return [
                f"You are root, and PostgreSQL runs as the user {OWNER}, who cannot enter {self.folder.parent}. Use another account, "
                f"or let others pass through the folders above it (chmod o+x)."
            ]
        return []

    def create(self) -> None:
        """Create the cluster, unless it is there. Raises Failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if "user" in self.options:
            shutil.chown(self.folder, OWNER, OWNER)
        if (self.data / "PG_VERSION").exists():
            return
        new = self.data.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        command = [
            str(self.programs / "initdb"),
            "--pgdata",
            str(new),
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
        ]
        done = subprocess.run(
            [*command, "--locale=C.UTF-8", "--no-sync"], capture_output=True, text=True, check=False, **self.options
        )
        if done.returncode:
            raise Failed(f"initdb of PostgreSQL ended with {done.returncode}: {done.stderr.strip()}")
        new.rename(self.data)

    def process(self, output: Output) -> Process:
        """Return the process of the server."""
        command = [str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=", "-c", "port=5432", "-c", "log_min_messages=fatal"]
        options = {name: value for name, value in self.options.items() if name not in ("env", "cwd")}
        # SIGINT: clients are cut off. SIGQUIT: at once, and the next start recovers.
        return Process(
            "postgresql", command, self.options["env"], Path("/"), output, [(SIGINT, 3.0), (SIGQUIT, 1.0)], **options
        )

    def ask(self, statements: str, database: str = "postgres") -> subprocess.CompletedProcess[str]:
        """Run statements as the administrator."""
        command = [str(self.programs / "psql"), "-h", str(self.folder), "-p", "5432", "-U", "postgres", "-d", database]
        command += ["-X", "-q", "-v", "ON_ERROR_STOP=1"]
        return subprocess.run(command, input=statements, capture_output=True, text=True, check=False, **self.options)

    def answers(self) -> bool:
        """Whether it does."""
        return (self.folder / SOCKET).exists() and self.ask("SELECT 1").returncode == 0

    def database(self, name: str, user: str) -> None:
        """Create the database, its owner and the login that acts as the owner, as on the servers. Raises Failed.

        They may create databases besides, for tests.
        """
        done = self.ask(
            f"""
            SELECT 'CREATE ROLE "{name}" NOLOGIN CREATEDB' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec
            SELECT 'CREATE ROLE "{user}" LOGIN CREATEDB IN ROLE "{name}"'
                WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') \\gexec
            ALTER ROLE "{user}" SET role = '{name}';
            SELECT 'CREATE DATABASE "{name}" OWNER "{name}" ENCODING UTF8 TEMPLATE template0'
                WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec
            """  # noqa: S608  # names by the pattern of app_name
        )
        if done.returncode:
            raise Failed(f"The database {name} was not created: {done.stderr.strip()}")
