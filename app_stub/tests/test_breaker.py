"""What cannot be reached is left alone for a while, by all processes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from orders import tasks
from orders.models import Callback, DeadLetter, Intent, Order
from shop import breaker as breakers
from shop import outgoing
from shop.breaker import FAILURES, OPEN, CircuitBreakerError, breaker


class Server:
    """Counts its calls; `away` says whether it is reached."""

    def __init__(self) -> None:
        self.calls, self.away = 0, True

    def __call__(self) -> str:
        self.calls += 1
        if self.away:
            raise TimeoutError
        return "answer"


@pytest.fixture
def server(broker) -> Server:
    return Server()


@pytest.fixture
def fail() -> Callable[[Server, int], None]:
    def calls(server: Server, times: int) -> None:
        for _ in range(times):
            with pytest.raises(TimeoutError):
                breaker("shop.example").call(server)

    return calls


def test_after_some_failures_it_is_not_called(server, fail):
    fail(server, FAILURES)
    server.away = False
    with pytest.raises(CircuitBreakerError):
        breaker("shop.example").call(server)
    assert server.calls == FAILURES
    assert breaker("other.example").call(server) == "answer"


def test_only_failures_in_a_row_count(server, fail):
    for _ in range(2):
        fail(server, FAILURES - 1)
        server.away = False
        breaker("shop.example").call(server)
        server.away = True


@pytest.mark.parametrize("away", [True, False])
def test_after_a_while_one_call_decides(server, fail, away):
    fail(server, FAILURES)
    server.away = away
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=OPEN + 1)):
        if away:
            fail(server, 1)
            with pytest.raises(CircuitBreakerError):
                breaker("shop.example").call(server)
            assert server.calls == FAILURES + 1
        else:
            assert [breaker("shop.example").call(server) for _ in range(3)] == ["answer"] * 3


def test_while_one_looks_the_others_fail_at_once(server, fail):
    fail(server, FAILURES)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=OPEN + 1)):

        def looks() -> str:
            with pytest.raises(CircuitBreakerError):
                breaker("shop.example").call(server)
            return "answer"

        assert breaker("shop.example").call(looks) == "answer"
        assert server.calls == FAILURES
        server.away = False
        assert breaker("shop.example").call(server) == "answer", "it is closed"


def test_what_says_nothing_against_the_server_is_not_counted(server):
    for _ in range(FAILURES + 1):
        with pytest.raises(TimeoutError):
            breaker("shop.example", TimeoutError).call(server)


def test_the_counts_are_in_redis_and_end(server, fail, broker):
    fail(server, FAILURES)
    broker.redis.select(1)
    keys = broker.redis.keys("*breaker:shop.example:*")
    assert keys and all(0 < broker.redis.ttl(key) <= breakers.KEPT for key in keys)
    broker.redis.flushdb()
    broker.redis.select(0)
    fail(server, 1)


def test_without_the_cache_every_call_is_made(server, fail, broker):
    broker.stop()
    fail(server, FAILURES + 1)
    server.away = False
    assert breaker("shop.example").call(server) == "answer"


@pytest.mark.django_db(transaction=True)
def test_a_callback_to_a_receiver_that_is_away_holds_few_workers(broker, settings, monkeypatch):
    def away(*_: object) -> int:
        calls.append(1)
        raise outgoing.Unreachable("no answer")

    calls: list[int] = []
    monkeypatch.setattr(outgoing, "post", away)
    settings.CALLBACK_PORTS = [443]
    order = Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )
    Callback.objects.create(order=order, url="https://client.example/")
    tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    intent = Intent.objects.get(task="orders.tasks.tell_result")
    tasks.tell_result.apply(intent.args, task_id=str(intent.pk))
    assert len(calls) == FAILURES < tasks.RETRY["max_retries"]
    assert "was not called" in DeadLetter.objects.get().error
