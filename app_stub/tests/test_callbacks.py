"""The result of an order, sent to its client's address."""

import ipaddress
import json
from collections.abc import Iterator

import pytest
from django.conf import settings as django_settings
from receivers import Receiver, receiver

from orders import callbacks, dead_letters, outbox, tasks
from orders.models import Callback, DeadLetter, Intent, Order
from orders.signatures import sign

pytestmark = pytest.mark.django_db(transaction=True)

ORDER = {"sku": "tulip-7", "quantity": 3, "email": "a@example.org", "idempotency_key": "key-0001"}


@pytest.fixture
def client_server(settings) -> Iterator[Receiver]:
    with receiver("127.0.0.1") as server:
        settings.CALLBACK_SCHEMES = ["http"]
        settings.CALLBACK_PORTS = [server.port]
        settings.CALLBACK_NETWORKS = [ipaddress.ip_network("127.0.0.1/32")]
        yield server


@pytest.fixture
def url(client_server) -> str:
    return f"http://127.0.0.1:{client_server.port}/results"


@pytest.fixture
def order(url, client_server, broker) -> Order:
    order = Order.objects.create(**ORDER)
    Callback.objects.create(order=order, url=url)
    return order


@pytest.fixture
def intent(order) -> Intent:
    """What charging for the order leaves to be done."""
    tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    return Intent.objects.get(task="orders.tasks.tell_result")


def tell(intent: Intent):
    return tasks.tell_result.apply(intent.args, task_id=str(intent.pk))


def post(client, **more):
    return client.post("/orders/", json.dumps(ORDER | more), content_type="application/json")


def test_the_result_is_sent_signed_under_the_id_of_its_event(client_server, order, intent):
    assert tell(intent).state == "SUCCESS"
    [(path, headers, body)] = client_server.requests
    assert path == "/results"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Event-Id"] == str(intent.pk)
    assert json.loads(body) == {
        "id": str(intent.pk),
        "type": "order.charged",
        "order_id": str(order.pk),
        "amount_cents": 750,
        "at": order.charge.created_at.isoformat(),
    }
    at, *signatures = headers["X-Signature"].split(",")
    signed = at.removeprefix("t=").encode() + b"." + body
    before = django_settings.SECRET_KEY_FALLBACKS[0]
    keys = [callbacks.signing_key("127.0.0.1"), callbacks.signing_key("127.0.0.1", before)]
    assert signatures == ["v1=" + sign(signed, key) for key in keys]
    intent.refresh_from_db()
    order.callback.refresh_from_db()
    assert intent.done_at and order.callback.delivered_at


def test_each_receiver_has_a_key_of_its_own():
    assert callbacks.signing_key("a.example.org") != callbacks.signing_key("b.example.org")


def test_what_is_delivered_is_not_sent_again(client_server, intent):
    assert [tell(intent).state for _ in range(2)] == ["SUCCESS"] * 2
    assert len(client_server.requests) == 1


def test_a_receiver_that_fails_is_tried_again_with_the_same_event(client_server, intent):
    client_server.answers = [503, 429, 204]
    assert tell(intent).state == "SUCCESS"
    assert len(client_server.requests) == 3
    assert len({(headers["X-Event-Id"], body) for _, headers, body in client_server.requests}) == 1


def test_an_event_whose_mark_was_lost_is_sent_again_with_the_same_id(
    client_server, intent, monkeypatch
):
    """At least once: the receiver has it, but the worker died before it could say so."""
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "done", lambda _: 1 / 0)
        assert tell(intent).state == "FAILURE"
    Intent.objects.filter(pk=intent.pk).update(due_at=intent.created_at)
    outbox.sweep()
    assert tell(intent).state == "SUCCESS"
    ids = [headers["X-Event-Id"] for _, headers, _ in client_server.requests]
    assert ids == [str(intent.pk)] * 2


def test_after_the_last_try_it_is_a_dead_letter_which_can_be_sent_again(
    client_server, order, intent
):
    client_server.answers = [500]
    assert tell(intent).state == "FAILURE"
    assert len(client_server.requests) == 1 + tasks.RETRY["max_retries"]
    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.args) == (str(intent.pk), [str(order.pk)])
    assert letter.error == "NotDelivered: the receiver answered 500"
    assert Intent.objects.get(pk=intent.pk).due_at is None
    dead_letters.send_again(letter)
    client_server.answers = [200]
    assert tell(intent).state == "SUCCESS"
    assert Callback.objects.get().delivered_at


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_a_receiver_that_does_not_want_it_is_asked_once(client_server, intent, status):
    client_server.answers = [status]
    client_server.location = f"http://127.0.0.2:{client_server.port}/"
    assert tell(intent).state == "FAILURE"
    assert len(client_server.requests) == 1
    assert DeadLetter.objects.get().error == f"NotDeliverable: the receiver answered {status}"


def test_an_address_that_is_not_allowed_any_more_is_not_called(client_server, intent, settings):
    settings.CALLBACK_NETWORKS = []
    assert tell(intent).state == "FAILURE"
    assert not client_server.requests
    assert DeadLetter.objects.get().error == "NotDeliverable: 127.0.0.1 is no public address"


def test_waits_between_tries_grow_at_random_and_are_bounded():
    task = tasks.tell_result
    assert task.retry_jitter and task.retry_backoff and 0 < task.retry_backoff_max <= 600
    assert 0 < task.max_retries <= 20


def test_an_order_with_an_address_leads_to_its_delivery(client, broker, url):
    assert post(client, callback_url=url).status_code == 201
    assert post(client, callback_url=url).status_code == 200
    assert post(client, callback_url=url + "/other").status_code == 409
    assert post(client).status_code == 409
    order = Order.objects.get()
    assert order.callback_url == url
    tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    assert Intent.objects.filter(task="orders.tasks.tell_result", args=[str(order.pk)]).count() == 1


@pytest.mark.parametrize("nothing", ["", None])
def test_an_order_without_an_address_leads_to_none(client, broker, url, nothing):
    assert post(client, callback_url=nothing).status_code == 201
    order = Order.objects.get()
    tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    assert not Callback.objects.exists()
    assert not Intent.objects.filter(task="orders.tasks.tell_result").exists()


@pytest.mark.parametrize(
    "wrong", [7, ["x"], "x", "http://127.0.0.2/", "http://user@127.0.0.1/", "http://2130706433/"]
)
def test_an_address_that_could_never_be_called_is_named(client, broker, url, wrong):
    answer = post(client, callback_url=wrong)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["callback_url"]


def test_without_ports_nothing_is_sent_from_here(client, broker, url, settings):
    settings.CALLBACK_PORTS = []
    answer = post(client, callback_url=url)
    assert answer.json() == {"errors": {"callback_url": ["No results are sent from here."]}}
