"""Faults under load, one after the other: everything works again soon, nothing is lost and nothing done twice."""

import json
import math
import os
import time
import urllib.parse
import uuid
from contextlib import suppress

import pytest
from causes import FAULTS, network_cut
from cluster import Cluster
from customers import PERIOD, Customers
from ledger import NOTE, Ledger, by_step, still_open
from recovery import LIMIT, at_last, hold, measured
from support.deployment import deployed
from support.load import connect
from support.playbooks import ROOT
from waits import wait_for

pytestmark = pytest.mark.changes

ORDERS = int(os.environ.get("ORDERS") or 0)  # at least so many; with some, each fault is long once, and short twice
ROUNDS = ("long", "short", "short") if ORDERS else ("short",)
CUSTOMERS = int(os.environ.get("CUSTOMERS") or 5)  # two orders a second each
TICK = 2  # seconds between heartbeats
HOLD = 5  # seconds of the tasks that workers are at when something happens
RECOVERY = 15  # seconds
STOP = 30  # seconds
ANSWER = 5  # seconds for the answer to an order, whatever is broken behind the web
ALERT = 120  # seconds from a fault to its alert
RESOLVED = 420  # seconds from the last fault until no alert is left: a restart is one for 5 minutes


class Scene:
    """The cluster under load, and what was seen at each fault."""

    def __init__(self, cluster: Cluster) -> None:
        """Begin."""
        self.cluster, self.began = cluster, time.time()
        self.customers = Customers(cluster.url, CUSTOMERS)
        self.holds: list[str] = []  # keys of the long tasks that were accepted
        self.steps: list[dict] = []

    def hold(self) -> None:
        """Send each queue a long task; return when they are under way."""
        keys = {queue: str(uuid.uuid4()) for queue in self.cluster.queues}
        for queue, key in keys.items():
            at_last(lambda q=queue, k=key: hold(connect(self.cluster.url), q, k, HOLD), f"{queue} gets a long task")
        self.holds += keys.values()
        # Behind what an outage before has left.
        wait_for(lambda: set(keys.values()) <= set(self.cluster.holds()), LIMIT, "each queue is at a long task")


@pytest.fixture(scope="module")
def scene(inventory):
    """The load, from here to the last test."""
    scene = Scene(Cluster(inventory, deployed(inventory, "f-data")))
    code = (
        "from django_celery_beat.models import IntervalSchedule, PeriodicTask; "
        f"often, _ = IntervalSchedule.objects.get_or_create(every={TICK}, period='seconds'); "
        "task = PeriodicTask.objects.get(name='heartbeat'); task.interval = often; task.save()"
    )
    scene.cluster.run("web", f"{scene.cluster.app}-manage shell --no-imports --command %s", code)
    scene.cluster.psql(NOTE)
    scene.customers.start()
    yield scene
    scene.customers.stop()
    scene.cluster.psql("DROP SCHEMA ledger CASCADE")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("length", ROUNDS)
def test_everything_works_again_soon_after(scene, fault, length, capsys):
    with fault.around(scene.cluster):
        scene.hold()
        step = {"fault": str(fault), "length": length, "began": time.time()}
        scene.steps.append(step)
        with fault.cause(scene.cluster):
            time.sleep(getattr(fault, length))
        ended = time.time()
        step |= {"lasted": round(ended - step["began"], 1)} | measured(scene.cluster, scene.customers, ended)
    with capsys.disabled():
        print(f"\n{step}")
    # What gathered meanwhile may take as long again.
    behind = RECOVERY + step["lasted"]
    limits = {"tasks": RECOVERY, "beat": RECOVERY, "order": behind, "queues": behind}
    slow = [part for part, limit in limits.items() if step[part] > limit]
    assert not slow, f"{step}\n{scene.cluster.journals(step['began'])}"
    assert not scene.cluster.failed()


def test_a_worker_that_is_cut_off_from_the_broker_can_be_stopped(scene):
    def run(command):
        return scene.cluster.run("workers", command)

    unit = run(f"systemctl list-units --plain --no-legend '{scene.cluster.app}-worker-bulk@*'").split()[0]
    status = f"systemctl show --property=StatusText --value {unit}"
    wait_for(lambda: run(status) == "consuming", 30, "it has nothing to do")
    with network_cut("workers")(scene.cluster):
        began = time.monotonic()
        run(f"systemctl stop {unit}")
        took = time.monotonic() - began
        result = run(f"systemctl show --property=Result --value {unit}")
    run(f"systemctl start {unit}")
    assert took < STOP and result == "success"


def test_ledger_balances(scene, capsys):
    cluster, customers = scene.cluster, scene.customers
    missing = max(0, ORDERS - len(customers.accepted))
    wait_for(lambda: len(customers.accepted) >= ORDERS, 3 * missing * PERIOD / CUSTOMERS, f"{ORDERS} orders")
    customers.stop()

    def unfinished():
        notes = cluster.holds()
        return [key for key in scene.holds if not any(note["event"] == "end" for note in notes.get(key, []))]

    with suppress(AssertionError):  # the ledger tells more
        wait_for(lambda: not unfinished() and not still_open(cluster, customers), 150, "everything is done")
    ledger, begins = Ledger(cluster, customers, scene.began), [step["began"] for step in scene.steps]
    times = {
        "repeated": [at for at, _ in customers.repeated],
        "again": ledger.again,
        "resent": ledger.resent,
    }
    counts = {what: by_step(at, begins) for what, at in times.items()}
    for number, (step, end) in enumerate(zip(scene.steps, [*begins[1:], math.inf], strict=True)):
        step |= {what: count[number] for what, count in counts.items()}
        step["longest_wait"] = ledger.longest_wait(step["began"], end)
        step["slowest_answer"] = customers.slowest_answer(step["began"], end)
    total = {
        "orders": len(customers.accepted),
        "orders never answered": len(customers.given_up),
        "lost": len(set(customers.accepted) - set(ledger.orders)) + len(ledger.open),
        "effects doubled": len(ledger.doubled),
        "tasks sent again": len(ledger.resent),
        "charges executed again": len(ledger.again),
        "long tasks": len(scene.holds),
        "long tasks lost": len(unfinished()),
    }
    (ROOT / ".cache/molecule-faults.json").write_text(json.dumps({"faults": scene.steps, "total": total}, indent=1))
    with capsys.disabled():
        print(f"\n{table(scene.steps)}\n{json.dumps(total)}")
    assert set(customers.accepted) == set(ledger.orders)
    assert not any(total[what] for what in ("orders never answered", "lost", "effects doubled", "long tasks lost"))
    behind_the_web = [step for step in scene.steps if step["fault"] not in ("web-killed", "host-rebooted web")]
    assert max(step["slowest_answer"] for step in behind_the_web) <= ANSWER


def test_each_fault_fired_its_alert_in_time_and_all_have_resolved(scene):
    deployment = next(iter(scene.cluster.deployments.values()))

    def ask(path, **parameters):
        path = f"/prometheus/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        answer = deployment.request(path, login=f"ops:{deployment.app_flower_password}")
        assert answer.status == 200, answer.body
        return answer.json["data"]["result"]

    late, firing = {}, 'alertstate="firing"'
    for step in scene.steps:
        (fault,) = (each for each in FAULTS if str(each) == step["fault"])
        if fault.alert and getattr(fault, step["length"]) >= fault.alert_after:
            query = f"ALERTS{{{firing},{fault.alert}}}"
            times = {"start": step["began"], "end": step["began"] + ALERT, "step": 5}
            if not ask("query_range", query=query, **times):
                seen = ask("query_range", query=f'ALERTS{{{firing},alertname!="Watchdog"}}', **times)
                late[f"{step['fault']}, {step['length']}"] = [each["metric"]["alertname"] for each in seen]
    assert not late, f"faults without their alert within {ALERT} s, and which there were: {late}"
    left = f'ALERTS{{{firing},alertname!="Watchdog"}}'
    wait_for(lambda: not ask("query", query=left), RESOLVED, "every alert has resolved")


def table(steps):
    """The steps, one a line."""
    names = [name for name in steps[0] if name != "began"]
    rows = [names, *([str(step.get(name, "")) for name in names] for step in steps)]
    return "\n".join(f"{row[0]:<26}" + "".join(f"{cell:>15}" for cell in row[1:]) for row in rows)
