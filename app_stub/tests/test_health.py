"""/healthz/ and /readyz/, while what they need is there and while it is not."""

import pytest

with_database = pytest.mark.django_db(transaction=True)


def test_alive_needs_nothing(client, broker):
    """No database: pytest-django would fail a test that asked one without saying so."""
    broker.stop()
    answer = client.get("/healthz/")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "release": "r1"}


@with_database
def test_ready(client, broker):
    answer = client.get("/readyz/")
    assert answer.status_code == 200
    assert answer.json() == {"database": "ok", "broker": "ok"}


@with_database
def test_not_ready_without_the_broker(client, broker):
    broker.stop()
    answer = client.get("/readyz/")
    assert answer.status_code == 503
    assert answer.json() == {"database": "ok", "broker": "error: OperationalError"}


@with_database
def test_not_ready_while_the_broker_hangs(client, broker):
    with broker.hanging():
        answer = client.get("/readyz/")
    assert answer.status_code == 503
    assert answer.json()["broker"].startswith("error: ")


@with_database
def test_not_ready_without_the_database(client, broker, no_database):
    with no_database():
        answer = client.get("/readyz/")
    assert answer.status_code == 503
    assert answer.json() == {"database": "error: OperationalError", "broker": "ok"}


@with_database
@pytest.mark.parametrize("path", ["/healthz/", "/readyz/"])
def test_probes_ask_without_tls_and_change_nothing(client, path):
    assert client.head(path, headers={"X-Forwarded-Proto": "http"}).status_code == 200
    assert client.post(path).status_code == 405


@with_database
@pytest.mark.parametrize("path", ["/healthz/", "/readyz/"])
def test_probes_answer_to_known_hosts_only(client, path):
    assert client.get(path, headers={"Host": "shop.example.org"}).status_code == 200
    assert client.get(path, headers={"Host": "stranger.example.org"}).status_code == 400
