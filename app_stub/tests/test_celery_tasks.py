"""Django's tasks on Celery's workers."""

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta

import news_tasks
import pytest
from billiard.exceptions import WorkerLostError
from celery.contrib.testing.worker import start_worker
from celery.signals import task_success
from django.core.management import call_command
from django.db import OperationalError as DatabaseError
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError
from test_worker import eventually

from celery_tasks import backend
from celery_tasks.models import EnqueuedTask
from shop.celery import app

pytestmark = pytest.mark.django_db(transaction=True)

CELERY = "celery_tasks.backend.CeleryBackend"
PRIORITIES = {"HIGH_PRIORITY_QUEUE": "critical", "LOW_PRIORITY_QUEUE": "bulk"}


@pytest.fixture
def worker(broker, monkeypatch) -> Iterator[None]:
    monkeypatch.setitem(app.conf.broker_transport_options, "socket_timeout", 5)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
        yield


def run(result):
    """Execute what was enqueued, as a worker would."""
    return app.tasks[result.task.module_path].apply(task_id=result.id)


def test_a_worker_executes_it_and_the_result_is_read_by_its_id(worker):
    result = news_tasks.add.enqueue(1, 2, three=3)
    eventually(lambda: news_tasks.add.get_result(result.id).is_finished)
    found = news_tasks.add.get_result(result.id)
    assert (found.status, found.return_value, found.attempts) == ("SUCCESSFUL", 6, 1)
    assert (found.args, found.kwargs, found.errors) == ([1, 2], {"three": 3}, [])
    assert result.enqueued_at <= found.started_at <= found.finished_at
    result.refresh()
    assert result.return_value == 6


def test_its_result_is_read_before_it_is_executed(broker):
    result = news_tasks.add.enqueue(1)
    assert result.status == news_tasks.add.get_result(result.id).status == "READY"


def test_it_is_sent_when_the_transaction_is_committed(broker):
    with transaction.atomic():
        result = news_tasks.add.enqueue(1)
        assert broker.waiting("default") == 0
    [message] = map(json.loads, broker.redis.lrange("default", 0, -1))
    assert (message["headers"]["task"], message["headers"]["id"]) == ("news_tasks.add", result.id)


def test_it_is_not_sent_when_the_transaction_is_rolled_back(broker):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        news_tasks.add.enqueue(1)
        raise ZeroDivisionError
    assert broker.waiting("default") == 0
    assert not EnqueuedTask.objects.exists()


def test_its_queue_is_the_named_one_or_the_one_of_the_routes(broker):
    news_tasks.in_bulk.enqueue()
    news_tasks.in_bulk.using(queue_name="critical").enqueue()
    assert [broker.waiting(queue) for queue in ("bulk", "critical", "default")] == [1, 1, 0]
    news_tasks.attempt.enqueue()
    assert broker.waiting("bulk") == 2


def test_a_priority_is_a_queue(broker, settings):
    with pytest.raises(Exception, match="does not support setting priority"):
        news_tasks.add.using(priority=1)
    settings.TASKS = {"default": {"BACKEND": CELERY, "QUEUES": [], "OPTIONS": PRIORITIES}}
    for priority in (100, 1, 0, -1):
        result = news_tasks.add.using(priority=priority).enqueue(1)
        assert news_tasks.add.get_result(result.id).task.priority == priority
    news_tasks.in_bulk.using(priority=100).enqueue()
    assert [broker.waiting(queue) for queue in ("critical", "default", "bulk")] == [2, 1, 2]


def test_a_queue_that_celery_has_not_is_found_by_the_checks(settings):
    call_command("check")
    settings.TASKS = {"default": {"BACKEND": CELERY, "QUEUES": ["default", "slow"]}}
    [problem] = backend.CeleryBackend("default", settings.TASKS["default"]).check()
    assert "the queue 'slow', which Celery has not" in problem.msg
    assert problem.hint == "Its queues are bulk, critical, default."
    assert not list(backend.CeleryBackend("default", {"QUEUES": ["default", "bulk"]}).check())


def test_a_later_one_is_sent_with_its_time(broker):
    later = timezone.now() + timedelta(minutes=5)
    news_tasks.add.using(run_after=later).enqueue(1)
    [message] = map(json.loads, broker.redis.lrange("default", 0, -1))
    assert message["headers"]["eta"] == later.isoformat()


def test_a_failure_is_told_with_its_reason(broker):
    result = news_tasks.fail.enqueue()
    assert run(result).state == "FAILURE"
    result.refresh()
    assert (result.status, result.attempts) == ("FAILED", 1)
    [error] = result.errors
    assert error.exception_class is KeyError
    assert 'raise KeyError("news")' in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_one_whose_process_was_lost_has_failed(broker):
    """Celery tells of it in the worker's main process."""
    result = news_tasks.add.enqueue(1)
    backend.failed(app.tasks["news_tasks.add"], result.id, WorkerLostError("killed"), None)
    result.refresh()
    assert (result.status, result.errors[0].exception_class) == ("FAILED", WorkerLostError)


def test_a_successful_one_stays_so_whatever_comes_after(broker):
    result = news_tasks.add.enqueue(1)
    assert run(result).state == "SUCCESS"
    backend.failed(app.tasks["news_tasks.add"], result.id, WorkerLostError("killed"), None)
    result.refresh()
    assert (result.status, result.return_value, result.errors) == ("SUCCESSFUL", 1, [])


def test_a_failed_one_may_be_executed_again_a_successful_one_is_not(broker):
    news_tasks.CALLS.clear()
    result = news_tasks.add.enqueue(1)
    backend.failed(app.tasks["news_tasks.add"], result.id, WorkerLostError("killed"), None)
    for _ in range(2):
        assert run(result).state == "SUCCESS"
    assert news_tasks.CALLS == [(1,)]
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 1, 1)


def test_a_coroutine_and_one_with_a_context_are_executed(broker):
    later, attempt = news_tasks.add_later.enqueue(1, other=2), news_tasks.attempt.enqueue()
    run(later), run(attempt)
    assert news_tasks.add_later.get_result(later.id).return_value == 3
    assert news_tasks.attempt.get_result(attempt.id).return_value == [1, attempt.id]


def test_a_row_that_cannot_be_read_now_is_read_later(broker, monkeypatch):
    result = news_tasks.add.enqueue(1)
    begin, problems = backend.begin, [DatabaseError("restarts"), DatabaseError("restarts")]

    def begin_in_the_end(request):
        if problems:
            raise problems.pop()
        return begin(request)

    monkeypatch.setattr(backend, "begin", begin_in_the_end)
    run(result)
    result.refresh()
    assert (result.status, result.attempts) == ("SUCCESSFUL", 1)


def test_one_that_the_broker_does_not_take_has_failed(broker):
    broker.stop()
    with pytest.raises(OperationalError):
        news_tasks.add.enqueue(1)
    assert EnqueuedTask.objects.get().status == "FAILED"


@pytest.mark.parametrize("unknown", [str(uuid.uuid4()), "x", ""])
def test_what_was_never_enqueued_has_no_result(unknown):
    with pytest.raises(news_tasks.TaskResultDoesNotExist):
        news_tasks.add.get_result(unknown)


def test_old_rows_are_removed_with_celerys_results(broker):
    old, new, never = (news_tasks.add.enqueue(1) for _ in range(3))
    now = timezone.now()
    EnqueuedTask.objects.filter(pk=old.id).update(finished_at=now - timedelta(days=2))
    EnqueuedTask.objects.filter(pk=new.id).update(finished_at=now)
    task_success.send(sender=app.tasks["celery.backend_cleanup"], result=None)
    left = EnqueuedTask.objects.values_list("pk", flat=True)
    assert sorted(map(str, left)) == sorted([new.id, never.id])
