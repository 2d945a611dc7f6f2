"""Releases that start slowly, hang or cannot be loaded. These tests change the host, and leave it with its release."""

import shutil

import pytest
from support.playbooks import deploy, output
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("web")]

LIMIT = 8  # app_start_timeout, seconds
BURN = 4  # seconds of the processor for each process; all units together use more than the limit on one

# A thread of the kind that telemetry has, and what keeps a process from being ready, by files and the environment.
READY = """
import os
import threading
import time

THREAD = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
THREAD.start()
if os.path.exists("{media}/burn"):
    end = time.process_time() + {burn}
    while time.process_time() < end:
        sum(range(1000))
"""
# When a release is prepared, the same module is loaded without Gunicorn, and is in order.
WSGI = """
import os, sys, time

if "gunicorn.arbiter" in sys.modules and os.environ.get("AT_START") == "hang":
    def never_comes_to_an_end():
        time.sleep(600)
    never_comes_to_an_end()
if "gunicorn.arbiter" in sys.modules and os.environ.get("AT_START") == "raise":
    def read_the_map():
        os.listdir("/no/map")
    read_the_map()
"""
URLS = """
from django.http import JsonResponse
from django.urls import path as _path
from orders import slow

urlpatterns += [_path("thread/", lambda request: JsonResponse({"alive": slow.THREAD.is_alive()}))]
"""


@pytest.fixture(scope="module")
def slow(deployment, tmp_path_factory):
    """A variant of the application."""
    folder = tmp_path_factory.mktemp("slow") / "app"
    shutil.copytree(deployment.app_source, folder)
    media = f"/srv/{deployment.app_name}/shared/media"
    (folder / "orders/slow.py").write_text(READY.format(media=media, burn=BURN))
    apps = folder / "orders/apps.py"
    apps.write_text(apps.read_text().replace("import dead_letters,", "import slow, dead_letters,"))
    with (folder / "shop/wsgi.py").open("a") as file:
        file.write(WSGI)
    with (folder / "shop/urls.py").open("a") as file:
        file.write(URLS)
    return str(folder)


@pytest.fixture(scope="module")
def unloaded(host, deployment, inventory, slow):
    """The variant runs, each of Gunicorn's processes having loaded it; the release before it runs again at the end."""
    before = current(host, deployment.app_name)
    variables = {"app_source": slow, "app_web": {"preload": False}, "app_start_timeout": LIMIT}
    result = deploy(inventory, **variables)
    assert result.returncode == 0, result.stdout
    yield variables
    result = deploy(inventory)
    assert result.returncode == 0 and current(host, deployment.app_name) == before, result.stdout


def alive(deployment):
    """Whether the thread lives in the processes that answer some requests."""
    return {deployment.request("/thread/").json["alive"] for _ in range(10)}


def test_thread_that_was_started_while_loading_lives_without_preload(deployment, unloaded):
    assert alive(deployment) == {True}


def test_units_that_share_a_processor_at_a_cold_start_all_become_ready(host, deployment, unloaded):
    app = deployment.app_name
    units = " ".join(sorted(wanted(deployment, current(host, app))))
    dropin, burn = f"/run/systemd/system/{app}-.service.d", f"/srv/{app}/shared/media/burn"
    host.check_output(f"mkdir -p {dropin} && echo '[Service]\nCPUAffinity=0' >{dropin}/one.conf && touch {burn}")
    try:
        host.check_output("systemctl daemon-reload")
        host.check_output(f"systemctl restart --no-block {units}")

        def settled():
            return set(host.run(f"systemctl is-active {units}").stdout.split()) <= {"active", "failed"}

        wait_for(settled, 240, "every unit has started")
        properties = "NRestarts,ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
        shown = host.check_output(f"systemctl show --property={properties} {units}").split("\n\n")
        states = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown]
        assert {(state["ActiveState"], state["NRestarts"]) for state in states} == {("active", "0")}, states
        first = min(int(state["InactiveExitTimestampMonotonic"]) for state in states)
        last = max(int(state["ActiveEnterTimestampMonotonic"]) for state in states)
        assert (last - first) / 1_000_000 > 1.5 * LIMIT, "it was longer than any of them has"
    finally:
        host.check_output(f"rm -r {dropin} {burn}; systemctl daemon-reload")


FAILURES = {
    # 3, or 1 if a second process of Gunicorn ends while it stops for the first.
    "raise": ["No such file or directory: '/no/map'", "in read_the_map", "(exit status "],
    "hang": ["(timeout: it was not ready within app_start_timeout)"],
}


@pytest.mark.parametrize("failure", FAILURES)
def test_release_that_cannot_be_loaded_fails_the_deploy(host, deployment, inventory, unloaded, failure):
    app, before = deployment.app_name, current(host, deployment.app_name)
    result = deploy(inventory, **unloaded, app_environment={"AT_START": failure})
    assert result.returncode != 0
    for text in [*FAILURES[failure], f"does not start; {before} was left running", f"{app}-web@"]:
        assert text in output(result), result.stdout
    assert "in spawn_worker" not in result.stdout
    assert current(host, app) == before and running(host, app) == wanted(deployment, before)
    assert deployment.request("/healthz/").json["release"] == before


@pytest.mark.thorough
def test_thread_that_was_started_while_loading_is_in_no_forked_process(deployment, inventory, unloaded):
    result = deploy(inventory, app_source=unloaded["app_source"])
    assert result.returncode == 0, result.stdout
    assert alive(deployment) == {False}
