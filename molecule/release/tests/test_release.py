"""Deploys and rollbacks under load, one after the other: nothing is dropped, doubled or cut off.

The tests are steps: each begins where the one before it ended.
"""

import itertools
import json
import subprocess

import pytest
from conftest import ROOT, wait_for
from load import summary
from scene import LONG, Scene, assert_served, said
from test_deploy import changed

pytestmark = pytest.mark.changes

ROLLBACK = "playbooks/rollback.yml"
TICK = 5  # seconds between heartbeats
WITHOUT_BULK = {
    "celery_queues": {name: {"concurrency": 6} for name in ("critical", "default", "express")},
    "celery_task_routes": {"orders.tasks.charge_order": "critical"},
}
FAILING_MIGRATION = """
from django.db import migrations


def fail(apps, editor):
    raise RuntimeError("this migration fails")


class Migration(migrations.Migration):
    dependencies = [("orders", "0002_heartbeat_schedule")]
    operations = [migrations.RunPython(fail)]
"""


@pytest.fixture(scope="module")
def scene(host, deployment, inventory, tmp_path_factory):
    """The application under load, from here to the last test."""
    scene = Scene(host, deployment, inventory, tmp_path_factory.mktemp("sources"))
    code = (
        "from django_celery_beat.models import IntervalSchedule, PeriodicTask; "
        f"often, _ = IntervalSchedule.objects.get_or_create(every={TICK}, period='seconds'); "
        "task = PeriodicTask.objects.get(name='heartbeat'); task.interval = often; task.save()"
    )
    host.check_output(f"{scene.app}-manage shell --no-imports --command %s", code)
    scene.load.start()
    yield scene
    scene.load.stop()


def test_changed_release_is_deployed(scene):
    scene.source = scene.variant("changed", {"orders/views.py": "# changed\n"})
    with scene.step("one line changed") as before:
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
    assert scene.release != before


def test_same_release_again_changes_nothing(scene):
    processes = scene.processes()
    with scene.step("nothing changed") as before:
        result = scene.deploy()
        assert (result.returncode, changed(result)) == (0, 0), result.stdout
        scene.assert_all_on(before)
    assert scene.processes() == processes


BROKEN = {
    "web": ({"shop/wsgi.py": "raise RuntimeError('the web does not boot')\n"}, "the web does not boot"),
    "worker": (
        {"shop/celery.py": "import sys\nif 'worker' in sys.argv:\n    raise RuntimeError('no worker boots')\n"},
        "no worker boots",
    ),
    "migration": ({"orders/migrations/0003_fails.py": FAILING_MIGRATION}, "this migration fails"),
}


@pytest.mark.parametrize("part", BROKEN)
def test_broken_release_leaves_the_old_one_serving(scene, part):
    additions, reason = BROKEN[part]
    processes = scene.processes()
    with scene.step(f"broken: {part}") as before:
        result = scene.deploy(scene.variant(f"broken-{part}", additions))
        assert result.returncode != 0
        assert reason in said(result), result.stdout
        scene.assert_all_on(before)
    assert scene.processes() == processes


@pytest.mark.parametrize("task", ["Release unpacked", "Release is the running one"])
def test_killed_deploy_is_repaired_by_the_next(scene, task):
    scene.source = scene.variant(f"killed at {task}", {"orders/views.py": f"# killed at {task}\n"})
    with scene.step(f"killed: {task}"):
        scene.deploy_killed_at(task)
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)


def test_rollback_to_the_release_before_and_forward_by_name(scene):
    with scene.step("rollback") as newer:
        result = scene.play(ROLLBACK)
        assert result.returncode == 0, result.stdout
        assert scene.release != newer
        scene.assert_all_on(scene.release)
    with scene.step("rollback by name"):
        result = scene.play(ROLLBACK, release_rollback_to=newer)
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(newer)
    assert all(step["seconds"] < LONG / 2 for step in scene.steps[-2:]), "none waits for the tasks of a minute"


def test_queue_is_replaced(scene):
    """The removed queue's worker finishes what it is at."""
    with scene.step("queue replaced") as before:
        scene.load.queues.remove("bulk")
        scene.queues(**WITHOUT_BULK)
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
        scene.load.queues.append("express")
    assert scene.release != before


def test_other_lock_file_is_another_environment(host, scene):
    """The old one stays while somebody works from it."""
    bulk = f"{scene.app}-worker-bulk@"
    wait_for(lambda: not [unit for unit in scene.units() if unit.startswith(bulk)], 90, "the removed queue is drained")
    scene.source = scene.variant("locked", {"requirements.in": "inflection\n"})
    lock = "uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-build --output-file"
    subprocess.run([*lock.split(), "requirements.txt", "requirements.in"], cwd=scene.source, check=True)

    def environment():
        return host.check_output(f"readlink -f /srv/{scene.app}/current/.venv")

    old = environment()
    with scene.step("lock file changed"):
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
    assert environment() != old and host.file(f"{old}/bin/python").exists


def test_queue_comes_back(scene):
    with scene.step("queue added again"):
        scene.load.queues.remove("express")
        scene.queues()
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
        scene.load.queues.append("bulk")


def test_nothing_was_lost_in_the_end(host, manage, scene, capsys):
    """Every accepted order is charged once; every long task ran once, in one process, to its end."""
    scene.load.stop()
    wait_for(lambda: set(scene.units()) == set(scene.processes()), 120, "what was replaced has finished")
    wait_for(lambda: all(len(notes) > 1 for notes in scene.holds().values()), 90, "every long task has ended")
    code = (
        "import json; from orders.models import Order; "
        f"orders = Order.objects.filter(email={scene.load.customer!r}).select_related('charge'); "
        "print(json.dumps([[str(o.pk), o.is_charged and (o.charge.created_at - o.created_at).total_seconds()] for o in orders]))"
    )
    wait_for(lambda: all(delay for _, delay in json.loads(manage(code))), 30, "all orders are charged")
    orders = dict(json.loads(manage(code)))

    total = {"step": "all", **summary(scene.load.requests)}
    report = {
        "steps": scene.steps,
        "total": total,
        "orders": len(orders),
        "longest_wait_for_a_charge_s": round(max(orders.values()), 1),
        "long_tasks": len(scene.load.holds),
    }
    (ROOT / ".cache/molecule-release.json").write_text(json.dumps(report, indent=1))
    with capsys.disabled():
        print(f"\n{scene.table()}\n{json.dumps({name: report[name] for name in list(report)[1:]})}")

    assert sorted(orders) == sorted(scene.load.orders)
    assert max(orders.values()) < LONG / 2, "none waits until a worker has drained"
    holds = scene.holds()
    for key in scene.load.holds:
        notes = holds.get(key, [])
        assert [note["event"] for note in notes] == ["begin", "end"], (key, notes)
        assert notes[0]["process"] == notes[1]["process"], notes
    assert_served(scene.load.requests)


def test_never_two_beats_and_no_tick_twice(host, manage, scene):
    done = int(manage("from orders.models import Heartbeat; print(Heartbeat.objects.latest('pk').pk)"))

    def journal(what):
        lines = host.check_output(f"journalctl --output=json --no-pager {what}").splitlines()
        return [json.loads(line) for line in lines]

    # pragma: allowlist nextline secret
    starting, stopped = "7d4958e842da4a758f6c1cdc7b36dcc5", "9d1aaa27d60140bd96365438aad20286"
    events = [
        (int(entry["__REALTIME_TIMESTAMP"]) / 1e6, entry["UNIT"], entry["MESSAGE_ID"] == starting)
        for entry in journal(f"MESSAGE_ID={starting} MESSAGE_ID={stopped}")
        if entry["UNIT"].startswith(f"{scene.app}-beat@")
    ]
    assert len(events) > 5
    for (at, unit, starts), (_, following, starts_next) in itertools.pairwise(events):
        assert starts != starts_next, f"after {at}: {unit}, {following}"
        assert not starts or unit == following, f"{following} while {unit} ran, after {at}"

    ticks = [
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        for entry in journal(f"--unit='{scene.app}-beat@*'")
        if "Sending due task heartbeat" in str(entry["MESSAGE"])
    ]
    gaps = [b - a for a, b in itertools.pairwise(ticks[2:])]  # the first two are from before the schedule was changed
    assert min(gaps) > TICK - 1, f"a tick came twice: {sorted(gaps)[:3]}"
    assert done <= len(ticks), f"{done} heartbeats were done of {len(ticks)} that were sent"
