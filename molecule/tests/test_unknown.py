"""Tasks that a worker does not know, or cannot call, are kept: for a release that can execute them, or as dead letters."""

import base64
import json
import re
import time
import uuid

import pytest
from support.playbooks import output, play
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.group("redis")]

NAME = "another.release.knows"


@pytest.fixture
def parked(manage, redis, deployment):
    """Send two tasks that nobody knows to each queue, one of them for later; return their ids by queue."""
    ids = json.loads(
        manage(
            "import json; from importlib import import_module; "
            f"module, _, name = {deployment.app_celery!r}.partition(':'); app = getattr(import_module(module), name or 'app'); "
            f"send = lambda queue, **more: app.send_task({NAME!r}, [1], {{'b': 2}}, queue=queue, **more).id; "
            f"print(json.dumps({{q: [send(q), send(q, countdown=60, expires=600)] for q in {list(deployment.celery_queues)!r}}}))"
        )
    )
    for queue in ids:
        wait_for(lambda q=queue: redis(f"LLEN unknown:{q}:{NAME}") == "2", 30, f"both are parked: {queue}")
    yield ids
    redis("\n".join(f"DEL unknown:{queue} unknown:{queue}:{NAME} dead:{queue}" for queue in ids))


def probe(redis, queue, way, arguments=None):
    """Put another queue probe at a place of the broker, or one with other arguments; return when it says that it was sent."""
    sent, tag = time.time() - 1000, str(uuid.uuid4())
    body = base64.b64encode(json.dumps([arguments or [queue, sent], {}, {}]).encode()).decode()
    where = {"exchange": "default", "routing_key": queue}
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "coldframe.probe", "id": tag, "retries": 0, "eta": None, "expires": None},
        "properties": {"correlation_id": tag, "delivery_info": where, "priority": 0, "body_encoding": "base64"}
        | {"delivery_mode": 2, "delivery_tag": tag},
    }
    redis(way.format(json.dumps(json.dumps(message))[1:-1]))
    return sent


def done(redis, queue):
    """When the last probe of a queue that was done says that it was sent."""
    noted = redis(f"SELECT 1\nGET probe:done:{queue}").split("\n")[-1]
    return json.loads(noted)["sent"] if noted else None


def make_old(redis, queue, name=NAME):
    """Have the first parked task of a name and a queue wait since 1970."""
    script = (
        "local e = redis.call('LRANGE', KEYS[1], 0, 0)[1] redis.call('LSET', KEYS[1], 0, '7' .. e:sub(e:find(' '), -1))"
    )
    redis(f'EVAL "{script}" 1 unknown:{queue}:{name}')


def test_task_that_nobody_knows_waits_and_holds_up_nothing(parked, redis, inventory):
    unacked = redis("HVALS unacked")
    assert not any(task in unacked for ids in parked.values() for task in ids)
    for queue in parked:
        sent = probe(redis, queue, f'LPUSH {queue} "{{}}"')
        wait_for(lambda q=queue, s=sent: done(redis, q) == s, 20, f"a task behind them is done: {queue}")
        count, *names = redis(f"LLEN unknown:{queue}:{NAME}\nSMEMBERS unknown:{queue}").split()
        assert count == "2" and NAME in names  # other tests leave names of their own
    told = output(play(inventory, "status"))
    for queue in parked:
        line = rf"{queue} parked until a release has it: [^:]*{re.escape(NAME)} \(2\)"
        assert re.search(line, " ".join(told.split())), told


def test_parked_task_that_a_worker_knows_is_done_by_it(redis, deployment):
    for queue in deployment.celery_queues:
        park = f'SADD unknown:{queue} coldframe.probe\nRPUSH unknown:{queue}:coldframe.probe "{time.time():.0f} {{}}"'
        sent = probe(redis, queue, park)
        wait_for(lambda q=queue, s=sent: done(redis, q) == s, 20, f"it is done: {queue}")
        gone = f"EXISTS unknown:{queue} unknown:{queue}:coldframe.probe"
        wait_for(lambda keys=gone: redis(keys) == "0", 10, f"nothing of it is left: {queue}")


def test_task_that_nobody_has_known_for_too_long_is_a_dead_letter(host, parked, redis, deployment, inventory):
    for queue in parked:
        make_old(redis, queue)
    for queue, (task, _) in parked.items():
        wait_for(lambda q=queue: redis(f"LLEN dead:{q}") == "1", 20, f"the first one is a dead letter: {queue}")
        assert task in redis(f"LRANGE dead:{queue} 0 -1") and redis(f"LLEN unknown:{queue}:{NAME}") == "1"
        journal = f"journalctl --no-pager --output=cat --since=-5min --unit='{deployment.app_name}-worker-{queue}@*'"
        wait_for(
            lambda command=journal, t=task, q=queue: (
                f"{NAME}[{t}] of the queue {q} is a dead letter" in host.check_output(command)
            ),
            10,
            "its worker says so",
        )
    told = " ".join(output(play(inventory, "status")).split())
    assert all(f"{queue} 1 dead letters of tasks that no release has: {NAME} (1)" in told for queue in parked)


def test_task_that_a_worker_knows_and_cannot_call_is_kept_too(host, redis, deployment):
    """Every release has the task of the queue probes: this one is for a queue without a time."""
    for queue in deployment.celery_queues:
        name, key = "coldframe.probe", f"unknown:{queue}:coldframe.probe"
        journal = f"journalctl --no-pager --output=cat --since=-5min --unit='{deployment.app_name}-worker-{queue}@*'"
        probe(redis, queue, f'LPUSH {queue} "{{}}"', arguments=[queue])
        try:
            wait_for(lambda k=key: redis(f"LLEN {k}") == "1", 30, f"it is parked: {queue}")
            make_old(redis, queue, name)
            wait_for(lambda q=queue: redis(f"LLEN dead:{q}") == "1", 30, f"it is a dead letter: {queue}")
            assert redis(f"EXISTS {key}") == "0"
            said = host.check_output(journal)
            assert f"of the queue {queue} is a dead letter" in said and "does not let parked tasks go" not in said
        finally:
            redis(f"DEL unknown:{queue} {key} dead:{queue}")


def test_application_is_told_of_a_dead_letter(parked, redis, manage, deployment):
    if "shop" not in deployment.app_celery:
        pytest.skip("another application keeps its dead letters elsewhere")
    queue, (task, _) = next(iter(parked.items()))
    make_old(redis, queue)
    seen = (
        "from orders.models import DeadLetter; from celery import current_app; "
        f"print(*DeadLetter.objects.filter(task_id={task!r}).values_list('task', 'queue', 'error', 'arguments'), "
        f"current_app.AsyncResult({task!r}).state)"
    )
    expected = f"({NAME!r}, {queue!r}, 'NotRegistered', '[[1], {{\"b\": 2}}]') FAILURE"
    wait_for(lambda: manage(seen) == expected, 30, expected)
