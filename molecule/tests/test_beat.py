"""One Beat ticks, however many there are: another takes over from it, and no tick comes twice."""

import itertools
import re

import pytest
from support.hosts import entries
from support.playbooks import output, play
from support.units import current, instances
from waits import wait_for

pytestmark = [pytest.mark.changes, pytest.mark.group("beat")]
TTL = 20  # seconds; coldframe.beat.lease says so
END = """
from datetime import timedelta
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_results.models import TaskResult
PeriodicTask.objects.filter(name__in=["tick", "rare"]).delete()
"""
# One task is due every second; the other is due now, and in an hour again.
START = f"""
{END}
TaskResult.objects.filter(periodic_task_name="tick").delete()
for name, seconds in ("tick", 1), ("rare", 3600):
    interval, _ = IntervalSchedule.objects.get_or_create(every=seconds, period="seconds")
    last = timezone.now() - timedelta(seconds=seconds)
    PeriodicTask.objects.create(name=name, task="orders.tasks.echo", args="[1]", interval=interval, last_run_at=last)
"""
DONE = "from django_celery_results.models import TaskResult as T; print(T.objects.filter(periodic_task_name='tick').count())"


@pytest.fixture
def first(host, deployment):
    """The Beat that runs on this host."""
    return f"{deployment.app_name}-beat@{current(host, deployment.app_name)}.service"


@pytest.fixture
def second(host, first):
    """Another one, which stands for another host's."""
    unit = first.replace(".service", ":2.service")
    host.check_output(f"cp /etc/systemd/system/{first} /run/systemd/system/{unit} && systemctl daemon-reload")
    host.check_output(f"systemctl start {unit}")
    yield unit
    host.check_output(f"systemctl start {first}; systemctl stop {unit}")
    host.check_output(f"rm /run/systemd/system/{unit} && systemctl daemon-reload")


@pytest.fixture
def ask(host):
    """One property of a unit."""
    return lambda unit, name="StatusText": host.check_output(f"systemctl show --property={name} --value {unit}")


@pytest.fixture
def ticks(host, deployment, manage):
    """Have two entries in the schedule; when and by which process an entry's tasks were sent, up to now."""
    since = host.check_output("date +%s")
    manage(START)

    def read(entry="tick"):
        found = entries(host, f"--since=@{since} --unit='{deployment.app_name}-beat@*'")
        sent = [each for each in found if f"Sending due task {entry} " in each["MESSAGE"]]
        return [(int(each["__REALTIME_TIMESTAMP"]) / 1e6, each["_PID"]) for each in sent]

    yield read
    manage(END)


def test_watchdog_is_fed_by_the_ticks(ask, first):
    assert ask(first, "WatchdogUSec") == "30s"
    fed = ask(first, "WatchdogTimestampMonotonic")
    wait_for(lambda: ask(first, "WatchdogTimestampMonotonic") != fed, 10, "a turn of Beat's")


@pytest.mark.group("redis")
def test_the_queue_of_a_stopped_worker_has_one_probe_however_often_beat_begins(host, deployment, first, redis):
    """The other queues have theirs done each time."""
    if len(deployment.groups["beat"]) > 1 or len(deployment.groups["workers"]) > 1:
        pytest.skip("another host's Beat or worker would see to it")
    worker = instances(host, deployment.app_name, "worker-bulk").pop()
    host.check_output(f"systemctl stop {worker}")
    try:
        for _ in range(2):
            redis("SELECT 1\nDEL probe:done:default")
            host.check_output(f"systemctl restart {first}")
            wait_for(lambda: redis("SELECT 1\nEXISTS probe:done:default").endswith("1"), 20, "one is done")
            wait_for(lambda: redis("LRANGE bulk 0 -1").count('"task": "coldframe.probe"') == 1, 10, "one waits")
        redis("SELECT 1\nDEL probe:done:bulk")
    finally:
        host.check_output(f"systemctl start {worker}")
    wait_for(lambda: redis("SELECT 1\nEXISTS probe:done:bulk").endswith("1"), 10, "it is done")


def test_another_takes_over_and_no_tick_comes_twice_or_is_missed(host, deployment, ask, ticks, second, first, manage):
    if len(deployment.groups["beat"]) > 1:
        pytest.skip("another host's Beat would take over")
    hostname = host.check_output("hostname")
    assert (ask(first), ask(second)) == ("ticking", f"standby, {hostname} is active")
    leader = wait_for(ticks, 15, "ticks")[-1][1]

    # Killed, it is started again and goes on with its own lease.
    host.check_output(f"kill -KILL {leader}")
    wait_for(lambda: ticks()[-1][1] != leader, 15, "its successor ticks")
    leader = ticks()[-1][1]
    assert (ask(first), ask(second)) == ("ticking", f"standby, {hostname} is active")

    # Stopped for longer than the lease lasts, it has nothing to say when it goes on.
    host.check_output(f"kill -STOP {leader}")
    wait_for(lambda: ticks()[-1][1] != leader, TTL + 10, "the other one ticks")
    host.check_output(f"kill -CONT {leader}")
    wait_for(lambda: host.run(f"kill -0 {leader}").rc, 10, "the one that has lost the lease ends")
    wait_for(lambda: ask(first).startswith("standby"), 30, "it stands by")

    # Stopped in order, it hands over at once.
    leader = ticks()[-1][1]
    host.check_output(f"systemctl stop {second}")
    wait_for(lambda: ticks()[-1][1] != leader, 10, "the other one ticks")
    sent = ticks()
    assert len([pid for pid, _ in itertools.groupby(pid for _, pid in sent)]) == len({pid for _, pid in sent}) == 4
    gaps = sorted(b - a for (a, _), (b, _) in itertools.pairwise(sent))
    assert gaps[0] > 0.5, "a tick came twice"
    assert gaps[-1] < TTL + 5 and gaps[-2] < 12 and gaps[-3] < 5, f"ticks are missing: {gaps[-3:]}"
    assert len(ticks("rare")) == 1, "who takes over sends again what was sent"
    manage(END)
    wait_for(lambda: int(manage(DONE)) == len(ticks()), 20, "each tick was done once")


@pytest.mark.one_host
def test_stored_tasks_are_counted_and_sent_once_whoever_sends_them(deployment, ask, first, manage, redis, inventory):
    """Beat and four other senders; no release has the task, so its messages wait in the broker to be counted."""
    if "redis" not in deployment.group_names:
        pytest.skip("the broker runs elsewhere")
    start = """
import json, threading
from celery import current_app as app
from coldframe.delayed.sender import Sender
from coldframe.delayed.store import rows
mine = rows().filter(name="trial.stored")
"""
    try:
        manage(f"{start}for _ in range(60): app.send_task('trial.stored', queue='bulk', countdown=10**7)")
        wait_for(lambda: "ticking, stored tasks: " in ask(first), 20, "Beat counts them")
        assert re.search(r"ticking, stored tasks: \d+, the next is due at 20", output(play(inventory, "status")))
        race = "\n".join(
            (
                "mine.update(due=0)",
                "threads = [threading.Thread(target=Sender(app).send_due) for _ in range(4)]",
                "[thread.start() for thread in threads] and [thread.join() for thread in threads]",
            )
        )
        manage(start + race)
        wait_for(lambda: manage(f"{start}print(mine.count())") == "0", 20, "all are sent")
        wait_for(lambda: int(redis("LLEN unknown:bulk:trial.stored")) >= 60, 20, "workers have parked them")
        ids = re.findall(r'"id": "([-0-9a-f]{36})"', redis("LRANGE unknown:bulk:trial.stored 0 -1"))
        assert redis("LLEN unknown:bulk:trial.stored") == "60" == str(len(set(ids)))
    finally:
        manage(f"{start}mine.delete()")
        redis("DEL unknown:bulk:trial.stored\nSREM unknown:bulk trial.stored")


def test_several_hosts_take_turns(host, deployment, ask, first, manage):
    if len(deployment.groups["beat"]) < 2:
        pytest.skip("one host alone has Beat")
    hostname = host.check_output("hostname")
    host.check_output(f"systemctl stop {first}")
    try:
        holder = "from coldframe.beat.lease import Lease; print(Lease().holder())"
        wait_for(lambda: manage(holder) not in ("nobody", hostname), 30, "another host's Beat has the lease")
    finally:
        host.check_output(f"systemctl start {first}")
    other = manage(holder)
    assert other != hostname
    wait_for(lambda: ask(first) == f"standby, {other} is active", 20, "this one stands by")
