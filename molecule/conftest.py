"""Fixtures and hooks of the host tests in every scenario.

testinfra connects to the hosts (`--hosts`, `--ssh-config`). `COLDFRAME_INVENTORY` is the inventory that they were
deployed from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from support.deployment import Answer, Deployment, deployed
from support.hosts import entries, redis_client, root_shell
from support.sandbox import attempted
from support.units import current


@pytest.fixture(scope="session")
def inventory() -> str:
    """Return the inventory that the hosts were deployed from."""
    return os.environ["COLDFRAME_INVENTORY"]


@pytest.fixture(scope="module")
def deployment(host: Any, inventory: str) -> Deployment:
    """Return the deployed application, with the variables of the test's host."""
    return deployed(inventory, host.backend.get_hostname())


@pytest.fixture
def manage(host: Any, deployment: Deployment) -> Callable[[str], str]:
    """Run Python in the application, on the host, with the web unit's settings; return what it prints."""
    if not {"web", "workers", "beat"} & set(deployment.group_names):
        pytest.skip("the application does not run on this host")

    def run(code: str) -> str:
        result = host.run(f"{deployment.app_name}-manage shell --no-imports --command %s", code)
        assert result.rc == 0, result.stdout + result.stderr
        return str(result.stdout.strip())

    return run


@pytest.fixture
def shell(host: Any) -> Callable[[str], str]:
    """Run a script on the host as root, without a trace in the journal; return what it prints."""
    return root_shell(host)


@pytest.fixture
def redis(shell: Callable[[str], str], deployment: Deployment) -> Callable[..., str]:
    """Send commands to a Redis instance of the host; return its answer."""
    return redis_client(shell, deployment)


@pytest.fixture
def journal(host: Any) -> Callable[[str], list[tuple[float, str]]]:
    """Return what a unit has logged since the test began: each entry's text with its time, in seconds since 1970."""
    since = host.check_output("date +%s.%N")

    def read(unit: str) -> list[tuple[float, str]]:
        found = entries(host, f"--since=@{since} --unit={unit}")
        return [(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, entry["MESSAGE"]) for entry in found]

    return read


@pytest.fixture
def worker_unit(host: Any, deployment: Deployment) -> Iterator[str]:
    """Return the unit of a queue's worker; it runs as it should after the test, without drop-ins in /run."""
    app, queue = deployment.app_name, next(iter(deployment.celery_queues))
    unit = f"{app}-worker-{queue}@{current(host, app)}.service"
    yield unit
    host.check_output(f"rm -rf /run/systemd/system/{unit}.d && systemctl daemon-reload && systemctl restart {unit}")


@pytest.fixture
def flower(deployment: Deployment) -> Callable[..., Answer]:
    """Request one of Flower's pages, logged in."""
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
    """Send events as a worker of that name, whose application is in that time zone."""

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
def attempts(host: Any) -> Iterator[Callable[..., dict[str, str]]]:
    """Run support/attempts.py in a unit's sandbox; return the result of each attempt: `done`, or the name of the error."""
    with attempted(host) as run:
        yield run


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip a test of inventory groups that the host is not in, before any fixture of the test changes that host."""
    for mark in item.iter_markers("group"):
        if not hasattr(item, "callspec"):
            return  # it runs on no host
        host: Any = item.callspec.params["_testinfra_host"]
        groups = deployed(os.environ["COLDFRAME_INVENTORY"], host.backend.get_hostname()).group_names
        if not set(mark.args) & set(groups):
            pytest.skip(f"host is not in the group {' or '.join(mark.args)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that are marked `thorough`, unless THOROUGH is set."""
    if not os.environ.get("THOROUGH"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last lines of the application's units to the report of a test that fails."""
    report = yield
    fixtures = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and "host" in fixtures:
        app = fixtures["deployment"].app_name if "deployment" in fixtures else ""
        units = f"--unit='{app}-*' --unit='redis-server@*' --unit=nginx"
        with contextlib.suppress(RuntimeError):  # the host is not reached, which the test's own error says
            journal = fixtures["host"].run(f"journalctl --no-pager --lines=60 --output=short-iso --since=-3min {units}")
            report.sections.append(("journal of the host", journal.stdout))
    return report
