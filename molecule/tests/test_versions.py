"""Celery and kombu in the versions that an application may bring (runtime/coldframe/versions.py), on real workers.

Three deployed workers get the environment of a lock file of molecule/versions each, in their own sandbox and for a while: one
for each series of Celery, with kombu of the same series. What they must do is what the others do with the example's lock file,
which the other tests show.
"""

import json
import re
import time

import pytest
from support.playbooks import ROOT, ansible
from support.units import children, current, instances, logged
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("workers")]
FOLDER = "/run/versions"
LOCKS = [
    file for file in sorted((ROOT / "molecule/versions").glob("*.txt")) if re.search(r"celery(\d+)-kombu\1", file.name)
]
QUEUES = ("bulk", "critical", "default")
LIMIT = 8  # seconds, the time limit of these workers
TASKS = """
import importlib.metadata
import json
import logging
import os
import signal
import time

from celery import current_app, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from kombu.serialization import register

register("own_json", json.dumps, json.loads, content_type="application/x-own-json", content_encoding="utf-8")
current_app.conf.update(task_serializer="own_json", accept_content=["own_json", "json"])  # an application may choose


@shared_task(bind=True, name="versions.hold", ignore_result=False)
def hold(self, seconds):
    logging.warning("%s begins in %s", self.request.id, os.getpid())
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except SoftTimeLimitExceeded:
            pass
    return [importlib.metadata.version(name) for name in ("celery", "kombu")]


@shared_task(bind=True, name="versions.poison", ignore_result=False, max_retries=1, default_retry_delay=0)
def poison(self):
    logging.warning("%s begins", self.request.id)
    os.kill(os.getpid(), signal.SIGKILL)
"""
SEND = """
import json
from celery import current_app
from celery.result import AsyncResult
def send(name, *arguments, **options):
    return [current_app.send_task("versions." + name, arguments, queue=q, ignore_result=False, **options).id for q in {queues}]
def end(id):
    try:
        AsyncResult(id).get(timeout=60)
    except Exception as error:
        return type(error).__name__
    return "SUCCESS"
"""


@pytest.fixture(scope="module")
def units(host, deployment, inventory):
    """Run a queue's worker with each lock file's environment; return their units, and since when they run."""
    app = deployment.app_name
    units = [next(iter(instances(host, app, f"worker-{queue}")), "") for queue in QUEUES]
    if len(deployment.groups["workers"]) > 1 or not all(units):
        pytest.skip("another host's worker would be given the tasks")
    release = f"/srv/{app}/releases/{current(host, app)}"
    environment = host.check_output(f"realpath {release}/.venv")
    runtime, name = f"{release}/.release/runtime", host.backend.get_hostname()
    uv = host.check_output("ls -d /opt/uv-*/bin/uv").splitlines()[0]

    def write(path, text):
        host.check_output(f"mkdir -p {path.rpartition('/')[0]} && printf %%s %s >{path}", text)

    write(f"{FOLDER}/versions.py", TASKS)
    for number, (unit, queue, lock) in enumerate(zip(units, QUEUES, LOCKS, strict=True)):
        arguments = {
            "path": f"/opt/versions-{number}",
            "lock": f"{{{{ lookup('file', '{lock}', rstrip=false) }}}}",
            "uv": uv,
        }
        result = ansible("ansible", name, "-i", inventory, "--become", "-m", "uv_venv", "-a", json.dumps(arguments))
        assert result.returncode == 0, result.stdout + result.stderr
        options = host.check_output(f"cat {release}/.release/worker-{queue}.env").strip()
        options += f" --include=versions --concurrency=2 --time-limit={LIMIT} --soft-time-limit={LIMIT - 1}"
        write(f"{FOLDER}/{queue}.env", options + "\n")
        settings = (
            "[Service]",
            f"Environment=PYTHONPATH={runtime}:{FOLDER}",
            f"EnvironmentFile={FOLDER}/{queue}.env",
            f"BindReadOnlyPaths=/opt/versions-{number}:{environment}",
        )
        write(f"/run/systemd/system/{unit}.d/versions.conf", "\n".join(settings) + "\n")
    host.check_output(f"systemctl daemon-reload && systemctl restart {' '.join(units)}")
    yield units, time.monotonic()
    folders = " ".join(f"/run/systemd/system/{unit}.d" for unit in units)
    host.check_output(f"rm -r {FOLDER} {folders} /opt/versions-* && systemctl daemon-reload")
    host.check_output(f"systemctl restart {' '.join(units)}")


@pytest.fixture
def ask(manage):
    """Run Python that sends tasks to all the queues; return what it prints."""
    return lambda code: json.loads(manage(SEND.format(queues=QUEUES) + code))


@pytest.mark.group("redis")
def test_supported_versions_of_celery(host, units, ask, journal, redis):
    units, started = units
    before = [children(host, unit)[0] for unit in units]
    # A task is done, and it is these versions that do it.
    versions = ask("print(json.dumps([AsyncResult(i).get(timeout=60) for i in send('hold', 0)]))")
    locked = [re.findall(r"^(?:celery|kombu)==(\S+)", lock.read_text(), re.M) for lock in LOCKS]
    assert versions == locked
    # Who asks workers is answered in JSON, whatever tasks are written in.
    names = ask("print(json.dumps(list(current_app.control.inspect(timeout=5).ping() or {})))")
    assert all(any(name.startswith(f"{queue}-") for name in names) for queue in QUEUES), names
    # A task that kills its process is tried again once; one that asks for more than its queue allows gets no more; and
    # one that runs while the broker is restarted is done once.
    poison, endless = ask("print(json.dumps([send('poison'), send('hold', 50, time_limit=60, soft_time_limit=59)]))")
    for unit, killed, late in zip(units, poison, endless, strict=True):
        wait_for(lambda: len(logged(journal(unit), f"{killed} begins")) == 2, 30, f"{unit}: tried twice")  # noqa: B023
        begun = wait_for(lambda: logged(journal(unit), f"{late} begins"), 10, f"{unit}: begun")[0]  # noqa: B023
        ended = f"Hard time limit ({LIMIT}.0s) exceeded for versions.hold[{late}]"
        done = wait_for(lambda: logged(journal(unit), ended), LIMIT + 10, f"{unit}: ended at the limit")[0]  # noqa: B023
        assert done - begun < LIMIT + 5
    running = ask("print(json.dumps(send('hold', 5)))")
    for unit, task in zip(units, running, strict=True):
        wait_for(lambda: logged(journal(unit), f"{task} begins"), 10, f"{unit}: it runs")  # noqa: B023
    host.check_output("systemctl restart redis-server@broker")
    ends = ask(
        f"print(json.dumps([[end(i) for i in ids] for ids in ({poison}, {endless}, {running}, send('hold', 0))]))"
    )
    assert ends == [[end] * len(QUEUES) for end in ("WorkerLostError", "TimeLimitExceeded", "SUCCESS", "SUCCESS")]
    assert all(len(logged(journal(u), f"{t} begins")) == 1 for u, t in zip(units, running, strict=True)), "each once"
    # With nothing to do it is no less alive: the watchdog ends one that is not fed after 30 seconds.
    wait_for(lambda: time.monotonic() > started + 40, 45, "an idle worker's watchdog would have ended it")
    assert [children(host, unit)[0] for unit in units] == before, "no worker was restarted"
    assert all("not watched" not in host.check_output(f"systemctl status {unit}") for unit in units)
    # A worker that is asked to stop finishes what runs, and gives back what waits: behind it, and for its time.
    ids = ask("print(json.dumps([send('hold', 4), send('hold', 4), send('hold', 0, countdown=20), send('hold', 0)]))")
    for unit, *tasks in zip(units, *ids[:2], strict=True):
        wait_for(lambda: all(logged(journal(unit), f"{t} begins") for t in tasks), 10, f"{unit}: both run")  # noqa: B023
    host.check_output(f"systemctl stop {' '.join(units)}")
    wait_for(lambda: redis("HLEN unacked") == "0", 5, "nothing is left with a worker that has stopped")
    for index, queue in enumerate(QUEUES):
        waiting = redis(f"LRANGE {queue} 0 -1")
        assert all(tasks[index] in waiting for tasks in ids[2:]), "both are in the queue again"
    host.check_output(f"systemctl start {' '.join(units)}")
    assert ask(f"print(json.dumps([end(i) for ids in {ids} for i in ids]))") == ["SUCCESS"] * 4 * len(QUEUES)
    for index, unit in enumerate(units):
        assert all(len(logged(journal(unit), f"{tasks[index]} begins")) == 1 for tasks in ids), "each once"
