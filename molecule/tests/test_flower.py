"""Flower shows what happens, to who logs in."""

import base64
import re
import shlex
import time
import uuid
from urllib.parse import urlsplit

import pytest
from support.playbooks import deploy, output
from support.units import instances
from waits import wait_for

pytestmark = pytest.mark.group("flower")
PAGES = ["/flower/", "/flower/workers", "/flower/tasks", "/flower/api/workers", "/flower/api/tasks"]


def queue(worker):
    """The queue that a worker's name begins with."""
    return worker.partition("-")[0]


def online(flower, whole=False):
    """The queues, or the names, of the workers that Flower shows as online."""
    answer = flower("workers?json=1")
    workers = answer.json["data"] if answer.status == 200 else []  # Flower may be about to start
    return {worker["hostname"] if whole else queue(worker["hostname"]) for worker in workers if worker["status"]}


def assert_page(flower, worker):
    """Assert that Flower has a page of the worker, unless it ended with its release and is not shown as online any more."""
    wait_for(
        lambda: flower(f"worker/{worker}").status == 200 or worker not in online(flower, whole=True),
        60,
        "it has a page",
    )


@pytest.mark.parametrize("path", PAGES)
def test_closed_without_login(deployment, path):
    assert deployment.request(path).status == 401
    assert deployment.request(path, login="ops:wrong").status == 401


@pytest.mark.parametrize("path", PAGES)
def test_open_with_login(deployment, path):
    assert deployment.request(path, login=f"ops:{deployment.app_flower_password}").status == 200


@pytest.mark.parametrize("path", ["/flower/metrics", "/flower/healthcheck"])
def test_pages_without_login_stay_inside(deployment, path):
    assert deployment.request(path).status == 403


READS = {
    "workers": 200, "workers?refresh=1": 200, "workers?status=1": 200, "worker/shutdown/x": 405, "tasks?limit=10": 200,
    "tasks?search=state:SUCCESS": 200, "task/types": 200, "task/info/x": 404, "task/result/x": 503, "queues/length": 200,
}  # fmt: skip


@pytest.mark.parametrize("path", READS)
def test_api_tells_and_fails_for_a_reason(flower, path):
    """Results are the application's: Flower has no way to them."""
    assert flower(f"api/{path}").status == READS[path]


@pytest.mark.changes
def test_shows_idle_workers_with_their_load(host, deployment, flower):
    """Also those that began before Flower or after it, and did nothing since."""
    host.check_output(f"systemctl restart {deployment.app_name}-flower")
    queues = set(deployment.celery_queues)
    wait_for(lambda: queues <= online(flower), 30, "Flower shows a worker of each queue")
    wait_for(lambda: queues <= {queue(name) for name in flower("api/workers").json}, 30, "and knows what each is")
    for worker in flower("workers?json=1").json["data"]:
        if worker["status"] and queue(worker["hostname"]) in queues:
            assert len(worker["loadavg"]) == 3, worker
            assert worker["active"] is not None and worker["processed"] is not None, worker
            assert_page(flower, worker["hostname"])


@pytest.mark.changes
@pytest.mark.group("workers")
def test_shows_a_worker_that_stopped_and_counts_what_waits_for_it(host, deployment, flower, redis):
    if len(deployment.groups["workers"]) > 1 or "redis" not in deployment.group_names:
        pytest.skip("another host's worker would do the tasks")
    unit = instances(host, deployment.app_name, "worker-*", "active").pop()
    name, release = re.search(r"-worker-(.+)@(\w+)", unit).groups()
    # A worker of the release before may still be shown as online.
    (worker,) = wait_for(
        lambda: [each for each in online(flower, whole=True) if each.startswith(f"{name}-{release}")],
        30,
        "Flower shows the worker",
    )
    host.check_output(f"systemctl stop {unit}")
    try:
        redis(f"LPUSH {name} {{}} {{}} {{}}")
        waiting = {entry["name"]: entry["messages"] for entry in flower("api/queues/length").json["active_queues"]}
        assert waiting.keys() == set(deployment.celery_queues)
        assert waiting[name] in (3, 4), "perhaps a queue probe, too"
        assert re.search(rf"<td>{name}</td>\s*<td[^>]*>[34]</td>", flower("broker").body)
        wait_for(lambda: worker not in online(flower, whole=True), 40, "Flower shows it as offline")
        assert worker in {w["hostname"] for w in flower("workers?json=1").json["data"]}
        assert flower(f"worker/{worker}").status == 200
    finally:
        redis(f"LREM {name} 0 {{}}")
        host.check_output(f"systemctl start {unit}")
    wait_for(lambda: worker in online(flower, whole=True), 30, "Flower shows it as online again")


@pytest.mark.changes
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_times_are_right_whatever_the_zone_of_a_worker(host, deployment, flower, send_events, zone):
    worker = f"zone-{uuid.uuid4()}@test"
    task = str(uuid.uuid4())
    before = time.time()
    send_events(
        worker,
        [
            ("worker-heartbeat", {"freq": 10}),
            ("task-received", {"uuid": task, "name": "zone", "args": "()", "kwargs": "{}"}),
        ],
        zone,
    )
    seen = wait_for(lambda: (answer := flower(f"api/task/info/{task}")).status == 200 and answer.json, 10, "the task")
    assert before - 5 < seen["received"] < time.time() + 5
    assert flower("api/workers?status=1").json[worker] is True
    send_events(worker, [("worker-offline", {})], zone)
    wait_for(
        lambda: worker not in flower("api/workers?status=1").json, 15, "Flower forgets a worker that said good-bye"
    )
    journal = host.check_output(f"journalctl --unit={deployment.app_name}-flower --since=-2min --no-pager")
    assert not [line for line in journal.splitlines() if worker in line]


FORGOTTEN = """
from types import SimpleNamespace as Thing
from flowermonitor import Monitor

NOW = 1_000_000.0
KNOWN = {"stats": {}, "timestamp": NOW - 1000}
for heartbeats, info, stays in [
    ([NOW - 5], {}, True),
    ([NOW - 299], KNOWN, True),
    ([NOW - 500, NOW - 301], KNOWN, False),
    ([NOW - 59], {}, True),
    ([NOW - 61], {}, False),
    ([], KNOWN, False),
    ([NOW + 3600], KNOWN, False),
    (None, {"stats": {}, "timestamp": NOW - 299}, True),
    (None, KNOWN, False),
]:
    monitor = Thing(
        options=Thing(purge_offline_workers=300),
        workers={"w": info} if info else {},
        events=Thing(state=Thing(workers={}, counter={"w": 1, "other": 2})),
    )
    if heartbeats is not None:
        monitor.events.state.workers["w"] = Thing(heartbeats=heartbeats)
    filled = [place for place in (monitor.workers, monitor.events.state.workers, monitor.events.state.counter) if place]
    Monitor.forget(monitor, NOW)
    if ["w" in place for place in filled] != [stays] * len(filled) or "other" not in monitor.events.state.counter:
        print(heartbeats, info, stays)
"""


def test_workers_without_a_sign_of_life_are_forgotten(flower_python):
    assert flower_python(FORGOTTEN) == ""


def test_its_lines_in_the_journal_bear_its_name(host, deployment):
    name = f"{deployment.app_name}-flower"
    assert host.check_output(f"journalctl --unit={name} --identifier={name} --lines=1 --output=cat") not in (
        "",
        "-- No entries --",
    )


@pytest.mark.changes
@pytest.mark.group("web")
def test_queue_probes_are_not_shown_as_pending(deployment, flower, manage):
    """Where the application has it that the sending of a task is told, too."""
    code = """
import time
from types import SimpleNamespace
from celery import current_app as app
from coldframe.probe import NAME, Probes
app.conf.task_send_sent_event = True
notes = SimpleNamespace(time=lambda: (int(time.time()), 0), set=lambda *_, **__: None)
Probes(app, notes).send(app.conf.task_default_queue)
print(app.send_task("celery.backend_cleanup").id)
"""

    def pending():
        return set(flower("api/tasks?taskname=coldframe.probe&state=PENDING").json)

    before = pending()
    task = manage(code)
    wait_for(lambda: flower(f"api/task/info/{task}").status == 200, 10, "Flower knows what was sent after it")
    assert pending() == before


def rows(parameters=""):
    """The address where the page Tasks gets its rows."""
    return f"tasks/datatable?draw=1&start=0&length=5&order[0][column]=0&order[0][dir]=desc&columns[0][data]=received{parameters}"


def test_rows_of_the_page_tasks_are_shown(flower, deployment):
    assert flower(rows(), data=b"").json.keys() >= {"data", "recordsTotal", "recordsFiltered"}
    assert deployment.request("/flower/" + rows(), data=b"").status == 401
    for method in ("PUT", "PATCH", "DELETE"):
        assert flower(rows(), data=b"", method=method).status == 403
    elsewhere = {"Origin": "https://other.example"}
    assert flower(rows(), data=b"", headers=elsewhere).status == 403, "another site's page"


def test_nothing_else_is_let_through_that_is_a_post(flower, flower_python):
    """Of all that the installed Flower takes by POST. The tests of the edge have paths that only look like that one."""
    code = """
from flower.urls import handlers
for handler in handlers:
    pattern, target = (handler[0], handler[1]) if isinstance(handler, tuple) else (handler.regex.pattern, handler.target)
    if "post" in vars(target) or "put" in vars(target) or "delete" in vars(target):
        print(pattern.rstrip("$").replace("(.+)", "x").replace("(.*)", "x"))
"""
    paths = set(flower_python(code).split())
    assert "/tasks/datatable" in paths and len(paths) > 10
    assert {path: flower(path[1:], data=b"").status for path in paths - {"/tasks/datatable"}} == dict.fromkeys(
        paths - {"/tasks/datatable"}, 403
    )
    # As the client writes it, this path is that of another handler.
    for path in ("api/worker/shutdown/x", "api/task/send-task/x"):
        assert "recordsTotal" in flower(f"{path}/../../../../{rows()}", data=b"").json


def test_flower_itself_refuses_to_control(host, deployment, shell):
    """Behind the edge, as if it let all through."""
    if set(deployment.groups["edge"]) != set(deployment.groups["flower"]):
        pytest.skip("Flower listens on its host's private address")
    login = base64.b64encode(f"ops:{deployment.app_flower_password}".encode()).decode()
    code = f"""
import http.client, socket
for path in ("worker/shutdown/x", "worker/pool/grow/x", "task/send-task/x", "task/revoke/x", "task/rate-limit/x"):
    connection = http.client.HTTPConnection("{urlsplit(deployment.app_url).netloc}")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/{deployment.app_name}-flower/flower.sock")
    connection.request("POST", "/flower/api/" + path, headers={{"Authorization": "Basic {login}"}})
    print(connection.getresponse().status)
"""
    assert shell(f"python3 - <<'END'\n{code}\nEND\n").split() == ["403"] * 5


def test_socket_is_closed_to_others(host, deployment):
    if set(deployment.groups["edge"]) != set(deployment.groups["flower"]):
        pytest.skip("Flower listens on its host's private address")
    result = host.run(f"runuser -u nobody -- ls /run/{deployment.app_name}-flower")
    assert "Permission denied" in result.stderr


@pytest.mark.changes
def test_remembers_tasks_over_a_restart(host, deployment, manage):
    def knows(task_id):
        answer = deployment.request("/flower/api/tasks?limit=50", login=f"ops:{deployment.app_flower_password}")
        return answer.status == 200 and task_id in answer.json

    task_id = manage("from orders.tasks import echo; print(echo.delay('remember me').id)")
    wait_for(lambda: knows(task_id), 20, "Flower has seen the task")
    host.check_output(f"systemctl restart {deployment.app_name}-flower")
    wait_for(lambda: knows(task_id), 20, "Flower still knows the task")


@pytest.mark.changes
@pytest.mark.one_host
def test_deploy_fails_when_flower_does_not_answer(host, deployment, inventory):
    unit = f"{deployment.app_name}-flower"
    folder = f"/run/systemd/system/{unit}.service.d"
    script = "\n".join(["[Service]", "ExecStart=", "ExecStart=/bin/sh -c 'echo no port is left; exit 1'"])
    host.check_output(f"mkdir -p {folder} && echo {shlex.quote(script)} > {folder}/end.conf && systemctl daemon-reload")
    host.check_output(f"systemctl restart {unit}")
    try:
        result = deploy(inventory, "--tags=flower")
        assert result.returncode != 0
        assert "Flower does not answer. Its journal:" in output(result) and "no port is left" in output(result)
    finally:
        host.check_output(f"rm -r {folder} && systemctl daemon-reload && systemctl restart {unit}")
    result = deploy(inventory, "--tags=flower")
    assert result.returncode == 0 and "changed=0" in result.stdout, result.stdout
