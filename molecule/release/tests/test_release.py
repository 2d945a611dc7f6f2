"""Deploys and rollbacks under load, one after the other: nothing is dropped, doubled or cut off.

The tests are steps: each begins where the one before it ended.
"""

import itertools
import json
import subprocess
import sys

import pytest
import yaml
from scene import LONG, P99_MS, Scene, assert_served
from support.deployment import Deployment
from support.hosts import entries
from support.load import summary
from support.playbooks import ROOT, ansible, changed, output
from waits import wait_for

pytestmark = pytest.mark.changes

ROLLBACK = "playbooks/rollback.yml"
TICK = 5  # seconds between heartbeats
WITHOUT_BULK = {
    "celery_queues": {name: {"concurrency": 6} for name in ("critical", "default", "express")},
    "celery_task_routes": {"orders.tasks.charge_order": "critical"},
    "release_allow_queues": ["bulk"],
}
FAILING_MIGRATION = """
from django.db import migrations


def fail(apps, editor):
    raise RuntimeError("this migration fails")


class Migration(migrations.Migration):
    dependencies = [("orders", "0006_forget_schedule")]
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
    scene.machine.start()
    scene.load.start()
    yield scene
    scene.load.stop()
    scene.machine.stop()


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
        assert "Nothing has changed since the last deploy" in output(result)
        scene.assert_all_on(before)
    assert scene.processes() == processes


BROKEN = {
    "web": ({"shop/wsgi.py": "raise RuntimeError('the web does not boot')\n"}, "the web does not boot"),
    "worker": (
        {"shop/celery.py": "import sys\nif 'worker' in sys.argv:\n    raise RuntimeError('no worker boots')\n"},
        "no worker boots",
    ),
    "migration": ({"orders/migrations/0005_fails.py": FAILING_MIGRATION}, "this migration fails"),
}


@pytest.mark.parametrize("part", ["web", pytest.param("worker", marks=pytest.mark.thorough), "migration"])
def test_broken_release_leaves_the_old_one_serving(scene, part):
    additions, reason = BROKEN[part]
    processes = scene.processes()
    with scene.step(f"broken: {part}") as before:
        result = scene.deploy(scene.variant(f"broken-{part}", additions))
        assert result.returncode != 0
        assert reason in output(result), result.stdout
        scene.assert_all_on(before)
    assert scene.processes() == processes


@pytest.mark.parametrize(
    "task", [pytest.param("Unpack the release", marks=pytest.mark.thorough), "Activate the release"]
)
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
        assert scene.still_busy(newer), "it does not wait for the tasks of a minute"
    with scene.step("rollback by name") as older:
        result = scene.play(ROLLBACK, release_rollback_to=newer)
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(newer)
        assert scene.still_busy(older), "it does not wait for the tasks of a minute"


def test_tasks_that_one_release_alone_can_execute_are_each_done_once(scene, redis, capsys):
    """The web sends them at a deploy, at a rollback, and at the deploy of a release that can execute all of them."""
    original, tasks = scene.source, ["first", "second", "signed"]

    def variant(names, signed):
        text = f"LEDGER = {names!r}\nLEDGER_SIGNED = {signed!r}\n"
        return scene.variant(f"ledger-{signed}", {"shop/settings.py": text}, of=original.name)

    def parked():
        """How many messages of each task are parked, where there are some."""
        queues = scene.deployment.celery_queues
        counts = {
            task: sum(int(redis(f"LLEN unknown:{queue}:holds.ledger.{task}")) for queue in queues) for task in tasks
        }
        return {task: count for task, count in counts.items() if count}

    scene.load.entries.clear()
    scene.load.start_entries()
    left = []
    contracts, expands = variant(["second"], "always"), variant(["first", "second"], "perhaps")
    allow = {"release_allow_tasks": ["holds.ledger.first", "holds.ledger.signed"]}
    for source, allowed in ((contracts, allow), (None, {}), (expands, {})):
        result = scene.deploy(source, **allowed) if source else scene.play(ROLLBACK)
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
        left.append(parked())
        assert not left[-1] or "parked until a release has it: holds.ledger" in output(result)
    scene.source = source
    scene.load.stop_entries()
    sent = list(scene.load.entries)

    def done():
        ledger = scene.ledger()
        return ledger if all(len(ledger.get(key, [])) >= 3 for key in sent) else None

    ledger = wait_for(done, 180, "every part of each is done")
    parts = [ledger[key] for key in sent]
    with capsys.disabled():
        print(f"\n{len(sent)} entries, {sum(map(len, parts))} parts done, parked after each step: {left}")
    assert len(sent) > 100 and [each for each in parts if sorted(each) != [0, 1, 2]] == []
    assert {"signed"} < set().union(*left), "messages of both kinds were parked"
    assert not parked()
    assert redis("\n".join(f"EXISTS dead:{queue}" for queue in scene.deployment.celery_queues)).split() == ["0"] * 3


def test_queue_is_replaced(scene):
    """The removed queue's worker finishes what it is at."""
    with scene.step("queue replaced", leaving="bulk") as before:
        scene.queues(**{name: value for name, value in WITHOUT_BULK.items() if name != "release_allow_queues"})
        refused = scene.deploy()
        assert refused.returncode != 0 and scene.release == before, refused.stdout
        assert "The queue 'bulk' is no longer in celery_queues and holds messages" in output(refused)
        assert "ALLOW_QUEUES=bulk" in output(refused)
        scene.queues(**WITHOUT_BULK)
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
        scene.load.queues.append("express")
    assert scene.release != before
    scene.with_bulk = before


def test_other_lock_file_is_another_environment(host, scene):
    """The old one stays while somebody works from it."""
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
    bulk = f"{scene.app}-worker-bulk@"
    drained = 2 * LONG + 60  # its last task may have begun late, behind others
    wait_for(lambda: not any(unit.startswith(bulk) for unit in scene.units()), drained, "the removed queue is drained")
    with scene.step("queue added again", leaving="express") as before:
        refused = scene.play(ROLLBACK, release_rollback_to=scene.with_bulk)
        assert refused.returncode != 0 and scene.release == before, refused.stdout
        assert f"The queue 'express' is not served by the workers of release {scene.with_bulk}" in output(refused)
        scene.queues(release_allow_queues=["express"])
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
        scene.load.queues.append("bulk")


@pytest.fixture
def secrets(scene):
    """Do one of the steps of changing a secret."""
    file = f"{scene.deployment.sandbox_state}/secrets.yml"

    def step(*step):
        done = ansible(sys.executable, "bin/secrets", step[0], file, *step[1:])
        assert done.returncode == 0, done.stderr
        scene.deployment.variables |= Deployment(scene.inventory, scene.host.backend.get_hostname()).variables
        return done.stdout

    return step


def session(manage, name):
    """Log somebody in; return the cookie."""
    code = (
        "from django.contrib.auth.models import User; from django.test import Client; client = Client(); "
        f"user, _ = User.objects.get_or_create(username={name!r}, is_staff=True); client.force_login(user); "
        "print(client.cookies['sessionid'].value)"
    )
    return {"Cookie": f"sessionid={manage(code)}"}


def test_every_secret_is_changed(scene, secrets, manage, redis, shell):
    """Each process logs in with what it was given, until it has ended; then the old ones are refused."""
    old, first = dict(scene.deployment.variables), scene.release
    kept, late = session(manage, "kept"), session(manage, "late")
    with scene.step("secrets changed: new beside old"):
        assert "secret_key" in secrets("begin", "all")
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
    between = scene.release
    result = scene.play("playbooks/wait_for_drain.yml")
    assert result.returncode == 0 and not any(first in unit for unit in scene.units()), result.stdout
    with scene.step("secrets changed: new alone"):
        secrets("finish", "all")
        result = scene.deploy()
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(scene.release)
    assert len({first, between, scene.release}) == 3

    new = scene.deployment
    users = yaml.safe_load((ROOT / "roles/redis/vars/main.yml").read_text())["redis_users"]
    for user, password in old["app_redis_passwords"].items():
        instance = "cache" if user == "cache" else "broker"
        answer = shell(f"redis-cli -s /run/redis-{instance}/redis-server.sock <<'END'\nAUTH {user} {password}\nEND\n")
        assert "WRONGPASS" in answer, user
        if user in users["broker"] and user != "admin":
            assert redis("PING", user=user) == "PONG"
    for login in ("a", "b"):
        for password, code in ((old["app_database_password"], 2), (new.app_database_password, 0)):
            psql = f"PGPASSWORD={password} psql -w -h /run/postgresql -U {scene.app}_{login} -c 'select 1' {scene.app}"
            assert shell(f"{psql} >/dev/null 2>&1; echo $?").strip() == str(code), login
    for password, status in ((old["app_flower_password"], 401), (new.app_flower_password, 200)):
        assert new.request("/flower/workers", login=f"ops:{password}").status == status
    assert new.request("/admin/", headers=kept).status == 200, "who was logged in still is"

    secrets("begin", "secret_key_before")
    result = scene.deploy()
    assert result.returncode == 0, result.stdout
    assert new.request("/admin/", headers=late).status == 302, "what the old key has signed is worth nothing any more"


@pytest.mark.thorough
def test_release_from_before_runs_with_the_present_secrets(scene):
    """The one before the last change of a secret's, whose login for the database is the other one."""
    newest = scene.release
    parts = scene.host.check_output(f"ls -t /srv/{scene.app}/releases").split()
    login = f"grep -o 'postgres://[^@]*' /srv/{scene.app}/releases/%s/.release/environment"
    older = next(
        release
        for release in parts
        if scene.host.check_output(login, release) != scene.host.check_output(login, newest)
    )
    for release in (older, newest):
        result = scene.play(ROLLBACK, release_rollback_to=release)
        assert result.returncode == 0, result.stdout
        scene.assert_all_on(release)


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

    total, during = summary(scene.load.requests), summary(scene.requests)
    report = {
        "steps": scene.steps,
        "total": {"step": "all", **total},
        "during the steps": during,
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
    assert during["p99_ms"] < P99_MS


def test_never_two_beats_and_no_tick_twice(host, manage, scene):
    done = int(manage("from orders.models import Heartbeat; print(Heartbeat.objects.latest('pk').pk)"))
    # pragma: allowlist nextline secret
    starting, stopped = "7d4958e842da4a758f6c1cdc7b36dcc5", "9d1aaa27d60140bd96365438aad20286"
    events = [
        (int(entry["__REALTIME_TIMESTAMP"]) / 1e6, entry["UNIT"], entry["MESSAGE_ID"] == starting)
        for entry in entries(host, f"MESSAGE_ID={starting} MESSAGE_ID={stopped}")
        if entry["UNIT"].startswith(f"{scene.app}-beat@")
    ]
    assert len(events) > 5
    for (at, unit, starts), (_, following, starts_next) in itertools.pairwise(events):
        assert starts != starts_next, f"after {at}: {unit}, {following}"
        assert not starts or unit == following, f"{following} while {unit} ran, after {at}"

    ticks = [
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        for entry in entries(host, f"--unit='{scene.app}-beat@*'")
        if "Sending due task heartbeat" in entry["MESSAGE"]
    ]
    gaps = [b - a for a, b in itertools.pairwise(ticks[2:])]  # the first two are from before the schedule was changed
    assert min(gaps) > TICK - 1, f"a tick came twice: {sorted(gaps)[:3]}"
    assert done <= len(ticks), f"{done} heartbeats were done of {len(ticks)} that were sent"
