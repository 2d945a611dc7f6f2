"""Fixtures and hooks of all host tests: the deployment that they look at, and ways to ask it.

`pytest` gets the hosts from testinfra (`--hosts`, `--ssh-config`), and the inventory's
variables, templated, from `COLDFRAME_INVENTORY`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.deployment import Answer, Deployment, deployed
from support.hosts import redis_client, root_shell
from support.sandbox import probed


@pytest.fixture(scope="session")
def inventory() -> str:
    """The inventory that the hosts were deployed from."""
    return os.environ["COLDFRAME_INVENTORY"]


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


@pytest.fixture
def flower(deployment: Deployment) -> Callable[..., Answer]:
    """Request a page of Flower's, logged in."""
    login = f"ops:{deployment.app_flower_password}"
    return lambda path, **options: deployment.request(f"/flower/{path}", login=login, **options)


@pytest.fixture
def flower_python(shell: Callable[[str], str], deployment: Deployment) -> Callable[..., str]:
    """Run Python in Flower's environment, with Flower's login to Redis, in a time zone; return what it prints."""
    app = deployment.app_name

    def run(code: str, zone: str = "UTC") -> str:
        settings = (
            f"PYTHONPATH=/etc/{app}-flower CELERY_SETTINGS_FILE=/etc/{app}-flower/celery.json REDIS_USERNAME=flower"
        )
        settings += f" CREDENTIALS_DIRECTORY=/etc/credstore/{app}-flower TZ={zone}"
        python = f"$(systemctl cat {app}-flower | sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p')"
        return shell(f"{settings} {python} - 2>&1 <<'END'\n{code}\nEND\n")

    return run


@pytest.fixture
def send_events(flower_python: Callable[..., str]) -> Callable[..., None]:
    """Send events as a worker of that name does whose application is in that time zone."""

    def send(worker: str, events: list[tuple[str, dict[str, Any]]], zone: str = "UTC") -> None:
        code = f"""
from flowerapp import app
with app.connection_for_write() as connection, app.events.Dispatcher(connection, hostname={worker!r}) as dispatcher:
    for kind, fields in {events!r}:
        dispatcher.send(kind, **fields)
"""
        assert flower_python(code, zone) == ""

    return send


@pytest.fixture
def probe(host: Any) -> Iterator[Callable[[str], dict[str, str]]]:
    """Run support/probe.py in a unit's sandbox; return what became of each attempt."""
    with probed(host) as run:
        yield run


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
