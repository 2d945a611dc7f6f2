"""A Redis server, and workers on it that are started as a unit starts them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import celery
import pytest
import redis
from coldframe import versions
from sites import CACHE_PASSWORD, RUNTIME, Site
from waits import wait_for

HERE = Path(__file__).parent
QUEUE = "mail"
# What starts a worker of the queue.
WORKER = ("worker", f"--queues={QUEUE}", "--concurrency=2", "--hostname=a@test", "--without-gossip", "--without-mingle")
LIMIT = 8  # seconds, the queue's hard time limit
LONGEST = 60  # seconds for which a task may be put off
USER, PASSWORD = "unit", "secret1"  # of the Redis user of the units  # pragma: allowlist secret
LOGIN = "credential_provider=coldframe.credentials.Redis"


def pytest_runtest_setup(item):
    """Skip a test that needs what the versions of this environment lack."""
    lacked = {lack.name for lack in versions.lacks(versions.installed())}
    for name in (name for mark in item.iter_markers("needs") for name in mark.args):
        assert name in {lack.name for lack in versions.LACKS}
        if name in lacked:
            pytest.skip(f"these versions lack {name}")


class Server:
    """Redis behind a socket in a folder; what was written is there again after a restart."""

    def __init__(self, folder):
        """Remember where."""
        self.folder, self.path, self.process = folder, folder / "redis.sock", None
        self.client = redis.Redis(unix_socket_path=str(self.path), decode_responses=True)
        self.raw = redis.Redis(unix_socket_path=str(self.path))

    def start(self):
        """Start it, unless it runs, and wait until it answers."""
        if self.process and self.process.poll() is None:
            return
        # Debian's redis-tools has the server under the name of its checks, and starts no service.
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        assert program, "install Debian's package redis-tools"
        options = ("--port 0", f"--unixsocket {self.path}", f"--dir {self.folder}", "--appendonly yes", '--save ""')
        users = [f"--user {USER} on >{PASSWORD} ~* &* +@all", f"--user cache on >{CACHE_PASSWORD} ~* &* +@all -@admin"]
        command = ["redis-server", *" ".join((*options, *users)).split()]
        self.process = subprocess.Popen(command, executable=program, stdout=-3)
        wait_for(self.answers, 10, "Redis answers")

    def answers(self):
        """Whether it does."""
        with suppress(redis.ConnectionError):
            return self.client.ping()

    def stop(self):
        """End it; it writes first."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)


def listen(path):
    """Return what processes send to a socket, as systemd reads it, and the socket."""
    said, end = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(str(path))

    def read():
        with suppress(OSError):
            while True:
                said.append(end.recv(10000).decode())

    threading.Thread(target=read, daemon=True).start()
    return said, end


def of_journal(file):
    """What systemd sets where stderr is the journal, for a file in its place."""
    there = os.fstat(file.fileno())
    return {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}


class Journal:
    """The socket of systemd's journal: reads its native protocol, as the journal does."""

    def __init__(self, path):
        """Listen."""
        self.path, self.entries = str(path), []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Read entries, also those that are too long for a datagram and come as a file."""
        with suppress(OSError):
            while True:
                data, files, *_ = socket.recv_fds(self.socket, 1 << 20, 1)
                for file in files:
                    with open(file, "rb") as memory:
                        memory.seek(0)
                        data = memory.read()
                self.entries.append(self.parsed(data))

    @staticmethod
    def parsed(data):
        """Return the fields of an entry. Raises ValueError for one that the journal would not read."""
        entry = {}
        while data:
            name, data = data.split(b"\n", 1)
            if b"=" in name:
                name, value = name.split(b"=", 1)
            else:
                length = int.from_bytes(data[:8], "little")
                value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
                assert end == b"\n"
            entry[name.decode()] = value.decode()
        return entry

    def of(self, **wanted):
        """Return the entries with these fields; of MESSAGE a part is enough."""
        text = wanted.pop("MESSAGE", "")
        found = (entry for entry in self.entries if text in entry["MESSAGE"])
        return [entry for entry in found if wanted.items() <= entry.items()]

    def wait(self, seconds=20, **wanted):
        """Return the first entry with these fields, once it is there."""
        return wait_for(lambda: self.of(**wanted), seconds, f"the journal has {wanted}")[0]


class Process:
    """A process of a unit, and what it says to systemd."""

    def __init__(self, folder, environment, *command):
        """Start `python -m coldframe.process --app=project` with a command."""
        folder.mkdir()
        self.log = folder / "log"
        self.said, self.socket = listen(folder / "notify")
        command = [sys.executable, "-m", "coldframe.process", "--app=project", *command, "--loglevel=INFO"]
        environment = environment | {"NOTIFY_SOCKET": str(folder / "notify"), "PYTHONFAULTHANDLER": "1"}
        with self.log.open("w") as log:
            environment |= of_journal(log) if "JOURNAL_SOCKET" in environment else {}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=HERE)

    def ready(self):
        """Wait until it is, and return it."""
        wait_for(lambda: any("READY=1" in said for said in self.said) or self.process.poll(), 30, "it is ready")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def status(self):
        """What systemd's status line is."""
        return next(said.partition("STATUS=")[2] for said in reversed(self.said) if "STATUS=" in said)

    def logged(self, text):
        """Whether its log has that."""
        return text in self.log.read_text()

    def stop(self):
        """Have it finish; return how many seconds that took."""
        start = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)  # it writes where it hangs
                self.process.wait(10)
                raise
            finally:
                self.process.kill()
        self.socket.close()
        return time.monotonic() - start


class Worker(Process):
    """A worker, and what its tasks note."""

    def __init__(self, folder, environment, *options):
        """Start it."""
        self.notes = folder.with_suffix(".notes")
        self.notes.touch()
        limits = (
            f"--time-limit={LIMIT}",
            f"--soft-time-limit={LIMIT - 1}",
            "--prefetch-multiplier=1",
            "--concurrency=2",
        )
        without = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        own = (f"--queues={QUEUE}", f"--hostname={folder.name}@test", *without, *limits)
        super().__init__(folder, environment | {"NOTES": str(self.notes)}, "worker", *own, *options)

    def noted(self, task, word="begins"):
        """The process and the time of each such note of a task."""
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return [(int(line[-2]), float(line[-1])) for line in lines if line[0] == task and word in " ".join(line[1:-2])]

    def children(self):
        """Its processes' ids."""
        return set(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())


def address(server):
    """The address by which an application without the runtime reaches the broker."""
    return f"redis+socket://{server.path}?virtual_host=0"


def contract(broker):
    """What the deployment gives each process (plugins/filter/contract.py), with the address of the broker."""
    return {
        "broker_url": f"{broker}&{LOGIN}",
        "broker_transport_options": {
            "visibility_timeout": 600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 5,
            "priority_steps": [0],
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "task_queues": {QUEUE: {}},
        "task_default_queue": QUEUE,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_retry_on_worker_lost": True,
        "task_reject_on_worker_lost": True,
        "task_longest_countdown": {QUEUE: LONGEST},
        "task_unknown_seconds": 86400,
        "worker_prefetch_multiplier": 1,
        "accept_content": ["json"],
        "task_serializer": "json",
        "coldframe": {"routes": {"project.routed": {"queue": QUEUE}}, "limits": {QUEUE: {"time_limit": LIMIT}}},
    }


def credentials(folder):
    """The environment by which a process logs in to Redis, with files in a folder."""
    (folder / "redis_password").write_text(f"{PASSWORD}\n")
    return {"CREDENTIALS_DIRECTORY": str(folder), "REDIS_USERNAME": USER}


def unit(server, settings, folder):
    """The environment of a unit's processes, without the login."""
    file = folder / "celery.json"
    file.write_text(json.dumps(settings))
    url = f"redis+socket://{server.path}?virtual_host=2&{LOGIN}"
    return os.environ | {"PYTHONPATH": f"{RUNTIME}:{HERE}", "CELERY_SETTINGS_FILE": str(file), "RESULTS": url}


class Sent:
    """A task that was sent, and what became of it."""

    def __init__(self, server, id_):
        """Remember whose result it is."""
        self.results = redis.Redis(unix_socket_path=str(server.path), db=2)
        self.id = id_

    def ended(self):
        """How it has ended: SUCCESS or the name of an exception; empty when it has not."""
        result = json.loads(self.results.get(f"celery-task-meta-{self.id}") or "{}")
        if result.get("status") == "FAILURE":
            return result["result"]["exc_type"]
        return result.get("status", "").replace("RETRY", "")


def sender(server, settings):
    """What sends a task of the project from an application with nothing of the runtime."""
    app = celery.Celery("sender", set_as_current=False)
    app.conf.update(settings | {"broker_url": address(server)})
    return lambda name, *arguments, **options: Sent(server, app.send_task(f"project.{name}", arguments, **options).id)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Redis."""
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def broker(server):
    """The address by which an application without the runtime reaches the broker."""
    return address(server)


@pytest.fixture(scope="session")
def settings(broker):
    """What the deployment gives each process."""
    return contract(broker)


@pytest.fixture(scope="session")
def login(tmp_path_factory):
    """The environment by which a process logs in to Redis."""
    return credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="session")
def environment(server, settings, login, tmp_path_factory):
    """The environment of a unit's processes."""
    return unit(server, settings, tmp_path_factory.mktemp("settings")) | login


@pytest.fixture(scope="session")
def send(server, settings):
    """Send a task of the project from an application with nothing of the runtime."""
    return sender(server, settings)


@pytest.fixture
def start(server, environment, tmp_path):
    """Start a worker with further options on an empty broker."""
    started = []
    server.start()  # a test that failed may have left it stopped
    server.client.flushall()

    def run(*options):
        started.append(Worker(tmp_path / f"worker{len(started)}", environment, *options))
        return started[-1].ready()

    yield run
    for worker in started:
        try:
            worker.stop()
        finally:
            print(worker.log.read_text())


@pytest.fixture
def journal(tmp_path):
    """The journal, for processes whose JOURNAL_SOCKET is its path."""
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.socket.close()


@pytest.fixture
def site(server, settings, environment, tmp_path):
    """Make a project."""
    server.start()
    server.client.flushall()
    unit = {
        "REDIS_SOCKET": str(server.path),
        "REDIS_PASSWORD": Path(environment["CREDENTIALS_DIRECTORY"], "redis_password").read_text(),
        "CELERY_SETTINGS_FILE": str(tmp_path / "celery.json"),
    }
    own = {
        "routes": {},
        "limits": {QUEUE: {"time_limit": 60}},
        "scheduler": "django_celery_beat.schedulers:DatabaseScheduler",
    }
    (tmp_path / "celery.json").write_text(json.dumps(settings | {"coldframe": own}))

    def make(files, module, celery, start=""):
        folder = tmp_path / "site"
        folder.mkdir()
        if start:
            subprocess.run([sys.executable, "-m", "django", "startproject", start, folder], check=True)
        return Site(folder, files, unit, module, celery)

    return make


@pytest.fixture
def run(site, server, tmp_path):
    """Start a process of a unit in a project, and wait until it is ready; return its log, and what it says to systemd."""
    started = []

    def start(own, *arguments, **variables):
        said, notify = listen(tmp_path / f"notify{len(started)}")
        log = tmp_path / f"log{len(started)}"
        variables |= {"NOTIFY_SOCKET": str(tmp_path / f"notify{len(started)}")}
        command = [sys.executable, "-m", "coldframe.process", f"--app={own.celery}", *arguments, "--loglevel=INFO"]
        with log.open("w") as file:
            variables |= of_journal(file) if "JOURNAL_SOCKET" in variables else {}
            process = subprocess.Popen(command, cwd=own.folder, env=own.unit() | variables, stdout=file, stderr=file)
        started.append((process, notify, log))
        wait_for(lambda: any("READY=1" in each for each in said) or process.poll() is not None, 40, "it is ready")
        assert process.poll() is None, log.read_text()
        return log, said

    start.started = started
    yield start
    for process, notify, log in started:
        process.terminate()
        process.wait(40)
        notify.close()
        print(log.read_text())
