"""A release whose tasks fail, or take much longer, is replaced by the one before; the waits of queues are told with their budgets."""

import json
import re
import shutil
import threading

import pytest
from support.playbooks import ROOT, deploy, output, play, restore
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes, pytest.mark.example]

WATCHED = 60  # seconds
BODY = '    """Return what came: a check that the queue is served, all the way and back."""\n'
SEND = """
import time
from django.core.cache import cache
from orders.tasks import echo
cache.delete("quiet")
for number in range({count}):
    if cache.get("quiet"):
        break
    echo.apply_async([number], ignore_result=True)
    time.sleep({pause})
"""


@pytest.fixture
def variant(tmp_path):
    """Make a variant of the application, whose task `echo` begins with further lines."""

    def make(folder, *lines):
        shutil.copytree(ROOT / "app_stub", tmp_path / folder)
        file = tmp_path / folder / "orders/tasks.py"
        text = file.read_text()
        assert BODY in text
        file.write_text(text.replace(BODY, BODY + "".join(f"    {line}\n" for line in lines)))
        return str(tmp_path / folder)

    return make


@pytest.fixture
def before(host, deployment, inventory, manage, redis):
    """The release that runs, which has executed `echo` 20 times or more; it runs again after the test."""
    release = current(host, deployment.app_name)
    manage(SEND.format(count=40, pause=0))

    def timed():
        """How many runs are recorded with their time."""
        keys = redis(f"SELECT 1\nKEYS runs:{release}:*").split()[1:]
        numbers = redis("\n".join(["SELECT 1", *(f"HGET {key} 'timed orders.tasks.echo'" for key in keys)])).split()[1:]
        return sum(map(float, numbers))

    wait_for(lambda: timed() >= 30, 40, "they are recorded")
    yield release
    if current(host, deployment.app_name) != release:
        restore(inventory, release)
        assert current(host, deployment.app_name) == release


@pytest.fixture
def traffic(manage):
    """Send a task now and then while the release is deployed, for two minutes at most."""
    thread = threading.Thread(target=manage, args=[SEND.format(count=240, pause=0.5)])
    thread.start()
    yield
    manage("from django.core.cache import cache; cache.set('quiet', True, 60)")
    thread.join(200)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "raise LookupError(value)",
            r"orders\.tasks\.echo fails: \d+ of \d+ first attempts, and with release {} 0 of \d+ in a day\.",
        ),
        (
            "__import__('time').sleep(1)",
            r"orders\.tasks\.echo takes too long: typically [1-9]\.\d+ s in \d+ runs, and with release {} 0\.\d+ s in \d+\.",
        ),
    ],
    ids=["fails", "takes long"],
)
def test_release_that_breaks_a_budget_is_replaced_by_the_one_before(
    host, deployment, inventory, variant, before, traffic, line, said
):
    app = deployment.app_name
    result = deploy(inventory, app_source=variant("other", line), release_watch=WATCHED)
    assert result.returncode != 0 and re.search(said.format(before), output(result)), output(result)
    assert "Restore the previous release" in result.stdout
    assert current(host, app) == before
    wait_for(lambda: running(host, app) == wanted(deployment, before), 40, "its units run, and no others")
    assert deployment.request("/healthz/").status == 200
    status = output(play(inventory, "status"))
    assert f"deploy {before} failed" not in status and "Check that the release keeps its budgets" in status, status


def test_release_that_keeps_its_budgets_stays_and_its_report_has_the_comparison(
    host, deployment, inventory, variant, before, traffic
):
    app = deployment.app_name
    result = deploy(inventory, app_source=variant("other", "value = value"), release_watch=15)
    assert result.returncode == 0 and current(host, app) != before, output(result)
    path = host.check_output(f"ls /var/lib/coldframe/{app}/reports/*.json | grep -v cdx | tail -1")
    watch = json.loads(host.check_output(f"cat {path}"))["watch"]
    (echo,) = [each for each in watch["tasks"] if each["task"] == "orders.tasks.echo"]
    assert watch["seconds"] >= 15 and echo["now"]["done"] > 3 and echo["before"]["done"] >= 20


def test_waits_of_a_day_are_told_with_the_budget_of_each_queue(inventory, deployment, redis):
    queue = next(iter(deployment.celery_queues))
    entries = "\n".join(f"XADD probe:waits:{queue} * seconds 7.5" for _ in range(30))
    redis(f"SELECT 1\n{entries}")
    try:
        result = play(
            inventory,
            "status",
            "-e",
            json.dumps({"celery_queues": deployment.celery_queues | {queue: {"wait_slo": 5}}}),
        )
        found = re.search(
            rf"{queue} +(\d+) probes? in a day: p50 7\.5 s, p99 \d+\.\d s, (\d+) above wait_slo, 5 s", output(result)
        )
        assert found and int(found[1]) >= 30 and int(found[2]) >= 30, output(result)
    finally:
        redis(f"SELECT 1\nDEL probe:waits:{queue}")
