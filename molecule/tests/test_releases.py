"""Going back, looking, pruning, and deploys that meet or die. These tests change the host."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.playbooks import ROOT, changed, deploy, output, play, restore, roll_back
from support.units import current, instances, newest_report, once, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes]


def state(host, app, name):
    """A file of the host's state, as text."""
    return host.check_output(f"cat /var/lib/coldframe/{app}/{name}")


def history(host, app):
    """The history's events."""
    return [json.loads(line) for line in state(host, app, "history.jsonl").splitlines() if line]


@pytest.fixture
def elsewhere(host, deployment):
    """Somebody else's deploy has the lock."""
    path = f"/var/lib/coldframe/{deployment.app_name}/lock.json"
    lock = {
        "deploy": "x",
        "who": "anna@elsewhere",
        "controller": "another",
        "pid": 1,
        "started": "1",
        "since": 1700000000,
    }
    host.check_output(f"printf %s '{json.dumps(lock)}' >{path}")
    yield
    host.run(f"rm -f {path}")


@pytest.fixture
def original(host, deployment, inventory):
    """The release that runs; it runs again after the test."""
    app = deployment.app_name
    before = current(host, app)
    yield before
    if current(host, app) != before:
        restore(inventory, before)
    assert current(host, app) == before
    wait_for(lambda: running(host, app) == wanted(deployment, before), 60, f"only {before} runs")


def test_deploy_is_refused_while_another_has_the_lock(host, deployment, inventory, elsewhere):
    app = deployment.app_name
    before = running(host, app)
    for verb in (["deploy"], ["rollback", "-e", f"release_rollback_to={current(host, app)}"]):
        result = play(inventory, *verb)
        assert result.returncode != 0 and changed(result) == 0
        assert f"anna@elsewhere has been deploying {app} since 2023-11-14 22:13:20 UTC" in output(result)
        assert "make unlock" in output(result)
    assert running(host, app) == before
    assert "deploy lock: anna@elsewhere since 2023-11-14 22:13:20 UTC" in output(play(inventory, "status"))
    assert "Removed the deploy lock of anna@elsewhere, taken at 2023-11-14 22:13:20 UTC." in output(
        play(inventory, "unlock")
    )
    assert "There was no deploy lock." in output(play(inventory, "unlock"))
    assert play(inventory, "deploy").returncode == 0


def test_environment_that_is_gone_is_made_anew_and_vain_starts_until_then_do_not_count(
    host, deployment, inventory, original
):
    """As after an upgrade of Debian, which brings another Python."""
    app = deployment.app_name
    units = " ".join(instances(host, app, state="active"))
    host.check_output(f"rm -r $(readlink -f /srv/{app}/current/.venv) && systemctl kill --signal=KILL {units}")

    def restarts():
        return [int(each) for each in host.check_output(f"systemctl show --value -p NRestarts {units}").split()]

    wait_for(lambda: min(restarts()) > 1, 60, "each unit was started again in vain")
    result = play(inventory, "deploy")
    assert result.returncode == 0 and current(host, app) == original, result.stdout
    assert running(host, app) == wanted(deployment, original) and max(restarts()) == 0


def start(inventory, **variables):
    """Begin a deploy that goes on while the test does; Python writes out each line at once."""
    command = ["ansible-playbook", "-i", inventory, "playbooks/deploy.yml", "-e", json.dumps(variables)]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process, text):
    """Read what a deploy prints until it prints the text."""
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return
    raise AssertionError(f"{text!r} was never said:\n{seen}")


def test_of_two_deploys_at_once_the_second_is_refused(host, deployment, inventory, original):
    first = start(inventory, app_environment={"CHANGED": "first"})
    try:
        read_until(first, "TASK [release : Lock the host for this deploy]")
        wait_for(lambda: host.file(f"/var/lib/coldframe/{deployment.app_name}/lock.json").exists, 10, "it has the lock")
        os.killpg(first.pid, signal.SIGSTOP)  # so that it is not done before the second asks
        second = deploy(inventory, app_environment={"CHANGED": "second"})
        os.killpg(first.pid, signal.SIGCONT)
        assert second.returncode != 0 and changed(second) == 0
        assert f"has been deploying {deployment.app_name} since" in output(second)
        first.communicate(timeout=120)
        assert first.returncode == 0
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)


@pytest.mark.thorough  # under load, the scenario `release` does the same at other moments
def test_deploy_killed_while_it_migrates_is_repaired_by_running_it_again(host, deployment, inventory, original):
    app, moment = deployment.app_name, "Check the release, collect static files"
    variables = {"app_environment": {"CHANGED": f"{moment} {time.time()}"}}
    killed = start(inventory, **variables)
    read_until(killed, moment)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert deployment.request("/healthz/").status == 200
    result = deploy(inventory, **variables)
    assert result.returncode == 0, result.stdout
    release = current(host, app)
    assert release != original
    wait_for(lambda: running(host, app) == wanted(deployment, release), 60, f"only {release} runs")
    assert deployment.request("/healthz/").json["release"] == release
    assert not host.file(f"/var/lib/coldframe/{app}/lock.json").exists
    ends = [event["outcome"] for event in history(host, app) if event["event"] == "ended"]
    assert ends[-2:] == ["cut off", "done"]


@pytest.mark.thorough  # under load, the scenario `release` goes back and forth too
def test_rollback_and_the_way_back_are_in_the_history(host, deployment, inventory, original):
    app = deployment.app_name
    result = deploy(inventory, app_environment={"CHANGED": "rolled back"})
    newer = current(host, app)
    assert result.returncode == 0 and newer != original, result.stdout
    result = play(inventory, "rollback", "--check")
    assert result.returncode == 0 and current(host, app) == newer, result.stdout
    result = play(inventory, "rollback")
    assert result.returncode == 0 and current(host, app) == original, result.stdout
    wait_for(lambda: running(host, app) == wanted(deployment, original), 60, f"only {original} runs")
    status = output(play(inventory, "status"))
    assert f"release {original} can roll back to: {newer}" in status and f"previous: {newer}" in status
    assert re.search(rf"\S+@\S+ rollback {original} done in \d+ s", status), status
    assert re.search(rf"\S+@\S+ deploy {newer} done in \d+ s", status), status
    result = roll_back(inventory, newer)
    assert result.returncode == 0 and current(host, app) == newer, result.stdout
    result = roll_back(inventory, "absent")
    assert result.returncode != 0 and changed(result) == 0
    assert "release_rollback_to is absent, which is not on this host or never ran here" in output(result)


def test_dry_run_names_units_queues_and_migrations_and_changes_nothing(host, deployment, inventory, tmp_path):
    app, queues = deployment.app_name, deployment.celery_queues
    before, events = current(host, app), history(host, app)
    shutil.copytree(deployment.app_source, tmp_path / "app")
    shutil.copy(tmp_path / "app/orders/migrations/0001_initial.py", tmp_path / "app/orders/migrations/0009_more.py")
    result = deploy(inventory, "--check", "--diff", app_source=str(tmp_path / "app"))
    assert result.returncode == 0, result.stdout
    assert "new migrations: orders/migrations/0009_more.py" in output(result)
    assert f"would start {app}-web@" in output(result) and f"would stop {app}-beat@{before}.service" in output(result)
    assert f"queues whose workers change: {', '.join(sorted(queues))}" in output(result)
    assert running(host, app) == wanted(deployment, before) and history(host, app) == events


# Waits for one file, then imports what nobody has imported yet, and waits for the other.
WAIT = """

@shared_task(name={name!r})
def wait():
    import os, time

    while not os.path.exists({stop!r}):
        time.sleep(0.5)
    import gunicorn, orders.late
    log.warning("imported late: %s %s", orders.late.__file__, gunicorn.__file__)
    while not os.path.exists({go!r}):
        time.sleep(0.5)
"""


# Sends short tasks until a file says to stop; prints how many.
STREAM = """
import os, time
from django.conf import settings
from orders.tasks import echo

sent = 0
while sent < 3000 and not os.path.exists(os.path.join(settings.MEDIA_ROOT, "stop")):
    echo.delay(sent)
    sent += 1
    time.sleep(0.05)
print(sent)
"""


@pytest.fixture
def signals(host, deployment, original):
    """Two files that do not exist yet: the first lets the waiting task end, the second the stream of tasks."""
    go, stop = (f"/srv/{deployment.app_name}/shared/media/{name}" for name in ("go-on", "stop"))
    host.check_output(f"rm -f {go} {stop}")
    yield go, stop
    host.check_output(f"touch {go} {stop}")


def test_worker_that_drains_holds_one_task_and_is_in_no_rollbacks_way(
    host, deployment, inventory, signals, manage, redis, tmp_path
):
    app, name = deployment.app_name, "status.tasks.wait"
    shutil.copytree(deployment.app_source, tmp_path / "app")
    go, stop = signals
    with (tmp_path / "app/orders/tasks.py").open("a") as file:
        file.write(WAIT.format(name=name, go=go, stop=stop))
    (tmp_path / "app/orders/late.py").touch()
    assert deploy(inventory, app_source=str(tmp_path / "app")).returncode == 0
    old = current(host, app)
    manage("from orders.tasks import wait; wait.delay()")
    unit = f"{app}-worker-default@{old}.service"

    def status_line():
        return host.check_output(f"systemctl show --property=StatusText --value {unit}")

    wait_for(lambda: f"running {name}[" in status_line(), 10, "the worker says what it runs")
    later = manage("from orders.tasks import echo; print(echo.apply_async((1,), countdown=20).id)")
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(manage, STREAM)
        assert deploy(inventory, app_source=str(tmp_path / "app"), app_environment={"CHANGED": "1"}).returncode == 0
        host.check_output(f"touch {stop}")
        late = f"imported late: /srv/{app}/releases/{old}/orders/late.py /srv/{app}/releases/{old}/.venv/"
        journal = f"journalctl --output=cat --since=-1min --unit={unit}"
        wait_for(lambda: late in host.check_output(journal), 10, "the old release's code, while another is current")
        assert int(stream.result()) > 50, "tasks came all the time"
    done = f"from celery.result import AsyncResult; print(AsyncResult({later!r}).status)"
    wait_for(lambda: manage(done) == "SUCCESS", 30, "the task with a countdown is done")
    wait_for(
        lambda: redis("HLEN unacked").removeprefix("(integer) ") == "1",
        10,
        lambda: f"one task is held, which runs; there are {redis('HVALS unacked')}",
    )
    assert f"running {name}[" in status_line()
    status = output(play(inventory, "status"))
    assert re.search(rf"{re.escape(unit)} draining since [\w :+-]{{5,40}} running {name}\[[0-9a-f-]+\]", status), status
    for queue in deployment.celery_queues:
        assert re.search(rf" {queue} done \d+ s ago by {queue}-", status), status
    removed = deploy(inventory, app_source=str(tmp_path / "app"), app_environment={"CHANGED": "1"}, release_keep=1)
    assert removed.returncode == 0 and host.file(f"/srv/{app}/releases/{old}").exists, "it drains"
    (told,) = newest_report(host, app)[1]["hosts"].values()
    assert (told["draining"], told["draining_tasks"]) == ([unit], 1)
    back = roll_back(inventory, old)
    assert back.returncode == 0 and current(host, app) == old, back.stdout
    beside = unit.replace(".service", ":2.service")
    assert host.run(f"systemctl is-active {unit} {beside}").stdout.split() == ["deactivating", "active"]
    assert changed(deploy(inventory, app_source=str(tmp_path / "app"))) == 0, "it is the release that runs"
    host.check_output(f"touch {go}")
    wait_for(lambda: host.run(f"systemctl is-active {unit}").stdout == "inactive\n", 30, "it has finished its task")


def test_pruning_removes_what_nobody_needs(host, deployment, inventory, original):
    app = deployment.app_name
    for number in range(2):
        result = deploy(inventory, app_environment={"CHANGED": f"prune {number}"})
        assert result.returncode == 0, result.stdout
    second = current(host, app)
    wait_for(lambda: running(host, app) == wanted(deployment, second), 60, f"only {second} runs")
    result = deploy(inventory, release_keep=1)
    assert result.returncode == 0, result.stdout
    left = set(host.check_output(f"ls /srv/{app}/releases").split())
    assert left == {original, second}, "the one that runs, and the one before"
    assert set(host.check_output(f"ls /etc/credstore/{app}").split()) == left
    units = host.check_output(f"ls /etc/systemd/system | grep -E '^{app}-.*@.*service$'").split()
    assert {once(unit).partition("@")[2].removesuffix(".service") for unit in units} == left
    used = {host.check_output(f"readlink -f /srv/{app}/releases/{release}/.venv") for release in left}
    assert set(host.check_output(f"ls -d /srv/{app}/venvs/*").split()) == used


@pytest.mark.thorough
def test_by_hand_changes_are_found_by_site_and_a_changed_variable_by_any_deploy(host, inventory):
    path = "/etc/systemd/journald.conf.d/coldframe.conf"
    host.check_output(f"echo '# by hand' >>{path}")
    result = deploy(inventory)
    assert (result.returncode, changed(result)) == (0, 0), result.stdout
    try:
        result = deploy(inventory, base_journal_max_use="900M")
        assert result.returncode == 0, result.stdout
        assert "SystemMaxUse=900M" in host.file(path).content_string
        host.check_output(f"echo '# by hand' >>{path}")
    finally:
        result = play(inventory, "site")
    assert result.returncode == 0 and changed(result) >= 1, result.stdout
    text = host.file(path).content_string
    assert "SystemMaxUse=1G" in text and "by hand" not in text


def test_a_misspelt_tag_is_rejected(inventory):
    result = deploy(inventory, "--tags=redsi")
    assert result.returncode != 0 and changed(result) == 0
    assert "There is no tag 'redsi'. Did you mean 'redis'?" in output(result)


@pytest.mark.thorough
def test_a_tag_converges_its_part_and_the_next_deploy_the_rest(host, deployment, inventory):
    path, app = "/etc/systemd/journald.conf.d/coldframe.conf", deployment.app_name
    before = running(host, app)
    try:
        result = deploy(
            inventory, "--tags=base_configure", base_journal_max_use="900M", app_environment={"CHANGED": "tag"}
        )
        assert result.returncode == 0, result.stdout
        assert "SystemMaxUse=900M" in host.file(path).content_string
        assert running(host, app) == before, "a release needs the tag release"
    finally:
        result = deploy(inventory)
    assert result.returncode == 0 and changed(result) >= 1, result.stdout
    assert "SystemMaxUse=1G" in host.file(path).content_string, "the variables are those of the last full deploy"
    assert changed(deploy(inventory)) == 0


@pytest.mark.thorough
def test_queue_with_threads_runs_many_tasks_at_once_and_is_taken_away_again(
    host, deployment, inventory, original, manage
):
    app, queues = deployment.app_name, deployment.celery_queues
    refused = deploy(inventory, celery_queues=queues | {"calls": {"pool": "threads", "time_limit": 60}})
    assert refused.returncode != 0 and changed(refused) == 0
    assert "celery_queues.calls.time_limit is 60 and pool is threads: no thread can be ended" in output(refused)
    refused = deploy(inventory, celery_queues=queues | {"calls": {"pool": "gevent"}})
    assert refused.returncode != 0 and current(host, app) == original
    assert "pool: gevent in celery_queues is set, and requirements.txt does not lock gevent" in output(refused)
    result = deploy(inventory, celery_queues=queues | {"calls": {"pool": "threads", "concurrency": 40}})
    assert result.returncode == 0, result.stdout
    (unit,) = instances(host, app, "worker-calls")
    shown = dict(
        line.split("=", 1)
        for line in host.check_output(f"systemctl show --property=LimitNOFILE,StatusText,ActiveState {unit}").split(
            "\n"
        )
    )
    assert shown["ActiveState"] == "active" and shown["StatusText"].startswith("consuming")
    assert shown["LimitNOFILE"] == "65536"
    code = (
        "from orders.tasks import echo; sent = [echo.apply_async(args=[n], queue='calls') for n in range(100)]; "
        "print(sum(each.get(timeout=30) for each in sent))"
    )
    assert manage(code) == "4950"
