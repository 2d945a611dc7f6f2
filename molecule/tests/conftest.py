"""What the host tests share: the deployment they look at, and ways to ask it.

`pytest` gets the hosts from testinfra (`--hosts`, `--ssh-config`), and the inventory's
variables, templated, from `COLDFRAME_INVENTORY`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VARIABLES = [
    "app_name",
    "app_celery",
    "app_source",
    "app_url",
    "celery_queues",
    "celery_default_queue",
    "app_redis_passwords",
    "app_database_login",
    "app_flower_password",
    "app_secret_key",
    "app_database_password",
    "sandbox_name",
    "sandbox_state",
    "group_names",
    "groups",
    "celery_host_queues",
    "app_private_address",
    "app_network",
    "app_tls",
    "app_tls_authority",
    "base_ssh_hardening",
]


# Ansible's output as text, whatever the caller's environment asks for: Molecule asks for colours.
PLAIN = {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_NOCOLOR": "1",
    "LC_ALL": "C.UTF-8",
}


def ansible(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs from the project's folder."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | PLAIN | environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@dataclass
class Answer:
    """What an HTTP request was answered."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Deployment:
    """A deployed application: its variables, and requests as its users make them."""

    def __init__(self, inventory: str, host: str) -> None:
        """Read the variables of the inventory for one host."""
        self.inventory = inventory
        message = "{{ {" + ", ".join(f"'{v}': {v} | default(none)" for v in VARIABLES) + "} | to_json }}"
        result = ansible(
            "ansible",
            host,
            "-i",
            inventory,
            "-m",
            "ansible.builtin.debug",
            "-a",
            "msg=" + json.dumps(message),
            ANSIBLE_CALLBACK_RESULT_FORMAT="json",
            ANSIBLE_STRATEGY="linear",
        )
        assert result.returncode == 0, result.stdout + result.stderr
        message = json.loads(result.stdout.split("=>", 1)[1])["msg"]
        self.variables: dict[str, Any] = json.loads(message) if isinstance(message, str) else message

    def __getattr__(self, name: str) -> Any:
        """A variable of the inventory."""
        return self.variables[name]

    @property
    def hosts(self) -> set[str]:
        """The hosts that the application runs on."""
        groups = ("redis", "postgresql", "edge", "web", "workers", "beat", "flower")
        return {host for group in groups for host in self.groups.get(group, [])}

    def request(
        self,
        path: str,
        data: Any = None,
        login: str = "",
        method: str | None = None,
        url: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Ask the application through its front door. Certificates are another test's subject."""
        request = urllib.request.Request((url or self.app_url) + path, method=method, headers=headers or {})
        if data is not None:
            request.data = data if isinstance(data, bytes) else json.dumps(data).encode()
            request.add_header("Content-Type", "application/json")
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=ssl._create_unverified_context()),
            NoRedirect(),
        )
        try:
            with opener.open(request, timeout=15) as response:
                return Answer(response.status, response.read().decode(), dict(response.headers))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answers here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def wait_for(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str]) -> Any:
    """Await a condition; return its first true value.

    Raises AssertionError, saying what was awaited, when `seconds` have passed; `what` may be asked for that then.
    """
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.25)


@pytest.fixture(scope="session")
def inventory() -> str:
    """The inventory that the hosts were deployed from."""
    return os.environ["COLDFRAME_INVENTORY"]


@functools.cache
def deployed(inventory: str, host: str) -> Deployment:
    """Read each host's variables once."""
    return Deployment(inventory, host)


@pytest.fixture(scope="module")
def deployment(host: Any, inventory: str) -> Deployment:
    """The deployed application, seen from one host."""
    return deployed(inventory, host.backend.get_hostname())


@pytest.fixture(autouse=True)
def host_of_its_group(request: pytest.FixtureRequest) -> None:
    """Skip what is about a group that the host is not in."""
    for mark in request.node.iter_markers("group"):
        if not set(mark.args) & set(request.getfixturevalue("deployment").group_names):
            pytest.skip(f"host is not in the group {' or '.join(mark.args)}")


@pytest.fixture
def manage(host: Any, deployment: Deployment) -> Callable[[str], str]:
    """Run Python in the application, on the host, with the web unit's settings; return what it prints."""
    if not {"web", "workers", "beat"} & set(deployment.group_names):
        pytest.skip("the application does not run on this host")

    def run(code: str) -> str:
        result = host.run(f"{deployment.app_name}-manage shell --no-imports --command %s", code)
        assert result.rc == 0, result.stdout + result.stderr
        return result.stdout.strip()

    return run


def root_shell(host: Any) -> Callable[[str], str]:
    """Run a script as root that must not be seen: sudo writes commands into the journal, but not their input."""

    def run(script: str) -> str:
        backend = host.backend
        if backend.NAME == "ansible":  # the SSH that it goes by
            backend = backend.ansible_runner.get_host(
                backend.host, ssh_config=backend.ssh_config, ssh_identity_file=backend.ssh_identity_file
            ).backend
        words, arguments = backend._build_ssh_command("sudo sh -s")
        command = backend.quote(" ".join(words), *arguments)
        return subprocess.run(command, shell=True, input=script, capture_output=True, text=True, check=False).stdout  # noqa: S602

    return run


def redis_client(shell: Callable[[str], str], deployment: Deployment) -> Callable[..., str]:
    """Ask a Redis instance as one of its users; return its answer."""

    def ask(command: str, user: str = "admin", instance: str = "broker") -> str:
        lines = f"AUTH {user} {json.dumps(deployment.app_redis_passwords[user])}\n{command}"
        socket = f"/run/redis-{instance}/redis-server.sock"
        return shell(f"redis-cli -s {socket} <<'END' | tail -n +2\n{lines}\nEND\n").strip()

    return ask


@pytest.fixture
def shell(host: Any) -> Callable[[str], str]:
    """Run a script on the host as root, unseen."""
    return root_shell(host)


@pytest.fixture
def redis(shell: Callable[[str], str], deployment: Deployment) -> Callable[..., str]:
    """Ask a Redis instance of the host."""
    return redis_client(shell, deployment)


@pytest.fixture
def journal(host: Any) -> Callable[[str], list[tuple[float, str]]]:
    """What a unit has logged since the test began, each line with its time."""
    since = host.check_output("date +%s.%N")

    def read(unit: str) -> list[tuple[float, str]]:
        lines = host.check_output(f"journalctl --output=short-unix --since=@{since} --unit={unit}").splitlines()
        return [(float(at), line) for at, _, line in (line.partition(" ") for line in lines) if at[0].isdigit()]

    return read


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long and shows a little more than other tests, unless asked for."""
    if not os.environ.get("THOROUGH"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """On failure, add what the application's units logged last."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed and "host" in getattr(item, "funcargs", {}):
        host = item.funcargs["host"]
        app = item.funcargs["deployment"].app_name if "deployment" in item.funcargs else ""
        units = f"--unit='{app}-*' --unit='redis-server@*' --unit=nginx"
        with contextlib.suppress(RuntimeError):  # the host is not reached, as the test's own error says
            journal = host.run(f"journalctl --no-pager --lines=60 --output=short-iso --since=-3min {units}")
            report.sections.append(("journal of the host", journal.stdout))
