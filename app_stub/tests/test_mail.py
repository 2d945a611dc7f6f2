"""The mail that confirms an order: tried again, refused for good, and once in effect."""

import email
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection
from receivers import MailServer, serving

from orders import tasks
from orders.models import DeadLetter, Intent, Order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(settings) -> Iterator[MailServer]:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_TIMEOUT = 5
    settings.DEFAULT_FROM_EMAIL = "Shop <shop@example.com>"
    with serving(MailServer("127.0.0.1")) as server:
        settings.EMAIL_PORT = server.port
        yield server


@pytest.fixture
def order(broker) -> Order:
    return Order.objects.create(
        idempotency_key="key-0001", sku="tulip-7", quantity=3, email="a@example.org"
    )


@pytest.fixture
def intent(order) -> Intent:
    """What charging for the order leaves to be done."""
    tasks.charge_order.apply([str(order.pk)], task_id=str(order.task_id), throw=True)
    return Intent.objects.get(task="orders.tasks.send_confirmation")


def confirm(intent: Intent):
    return tasks.send_confirmation.apply(intent.args, task_id=str(intent.pk))


def test_an_order_is_confirmed_by_a_mail(server, order, intent):
    assert confirm(intent).state == "SUCCESS"
    [mail] = map(email.message_from_bytes, server.mails)
    assert (mail["From"], mail["To"]) == ("Shop <shop@example.com>", "a@example.org")
    assert mail["Message-ID"] == f"<order-{order.pk}@example.com>"
    assert "3 x tulip-7" in mail.get_payload()
    order.refresh_from_db()
    intent.refresh_from_db()
    assert order.confirmed_at and intent.done_at


def test_a_mail_is_sent_once_however_often_its_task_is_delivered(server, intent):
    assert [confirm(intent).state for _ in range(2)] == ["SUCCESS"] * 2
    assert len(server.mails) == 1


def test_a_mail_is_sent_once_by_deliveries_at_the_same_time(server, intent):
    def deliver(_: int):
        try:
            together.wait(timeout=5)
            return confirm(intent).state
        finally:
            connection.close()

    together = Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(deliver, range(4))) == ["SUCCESS"] * 4
    assert len(server.mails) == 1


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
def test_a_server_that_cannot_take_it_now_is_tried_again(server, intent, command):
    server.answers = {command: ["451 later", "421 later"]}
    assert confirm(intent).state == "SUCCESS"
    assert len(server.mails) == 1
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
def test_a_server_that_refuses_it_is_asked_once(server, order, intent, command):
    server.answers = {command: ["550 no a@example.org here"]}
    assert confirm(intent).state == "FAILURE"
    assert not server.mails
    letter = DeadLetter.objects.get()
    assert letter.error == "NotAccepted: the mail server answered 550"
    assert order.email not in letter.traceback
    order.refresh_from_db()
    assert not order.confirmed_at


def test_a_server_that_is_away_is_tried_again_to_the_last_try(server, intent, settings):
    settings.EMAIL_PORT = 1
    assert confirm(intent).state == "FAILURE"
    error = DeadLetter.objects.get().error
    assert error == "NotSent: the mail server is not reached: ConnectionRefusedError"
    settings.EMAIL_PORT = server.port
    assert confirm(intent).state == "SUCCESS"
    assert len(server.mails) == 1


def test_a_mail_whose_mark_was_lost_is_sent_again_under_its_id(server, intent, monkeypatch):
    """What remains: the server has it, and the worker died before the commit."""
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "done", lambda _: 1 / 0)
        assert confirm(intent).state == "FAILURE"
    assert confirm(intent).state == "SUCCESS"
    ids = [email.message_from_bytes(mail)["Message-ID"] for mail in server.mails]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_without_a_server_orders_are_confirmed_and_nothing_is_mailed(order, intent, settings):
    settings.EMAIL_HOST = ""
    settings.EMAIL_BACKEND = "no.such.Backend"
    assert confirm(intent).state == "SUCCESS"
    order.refresh_from_db()
    assert order.confirmed_at
