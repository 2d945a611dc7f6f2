"""Processes log in to Redis by the credential provider that an address names, with each version of kombu and Celery."""

from types import SimpleNamespace as Thing

import kombu
import pytest
from coldframe import credentials
from coldframe.sending import control, kombu55
from conftest import LOGIN, PASSWORD, USER
from waits import wait_for

NETWORK = f"rediss://10.0.0.1:6380/0?ssl_cert_reqs=required&{LOGIN}"


def users(server, before=()):
    """The Redis users of the connections, by their ids, without those that there were before."""
    return {each["id"]: each["user"] for each in server.client.client_list() if each["id"] not in before}


def test_every_connection_of_a_worker_logs_in(server, start, send):
    task = send("hold", 0)
    assert not task.ended()  # now this process has its connections
    before = users(server)
    start()
    wait_for(task.ended, 10, "its result is stored")
    found = users(server, before)
    assert len(found) > 1 and set(found.values()) == {USER}


@pytest.fixture
def here(login, monkeypatch):
    """Give this process the login of a unit."""
    for name, value in login.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("address", [NETWORK, f"redis+socket:///run/redis.sock?{LOGIN}&virtual_host=0"])
def test_copy_of_a_connection_logs_in_too(here, address):
    channel = object.__new__(control.Channel)
    for connection in (first := kombu55.Connection(address, transport_options={"a": 1}), first.clone()):
        channel.connection = Thing(client=connection, default_port=6379)
        options = channel._connparams()
        assert isinstance(options["credential_provider"], credentials.Redis)
        assert options["credential_provider"].get_credentials() == (USER, PASSWORD)
        assert not options.get("username") and not options.get("password")
        assert (options.get("host"), options.get("path")) in [("10.0.0.1", None), (None, "/run/redis.sock")]
        assert connection.transport_options["a"] == 1


def test_address_without_a_provider_is_as_before():
    channel = object.__new__(control.Channel)
    address = "redis://me:secret1@host:1/3"  # pragma: allowlist secret
    channel.connection = Thing(client=kombu55.Connection(address), default_port=6379)
    options = channel._connparams()
    assert [options[name] for name in ("username", "password", "host", "port", "db")] == ["me", "secret1", "host", 1, 3]
    assert not options.get("credential_provider")


@pytest.mark.needs("direct_connection")
def test_application_connects_without_celery(here, server, settings):
    before = users(server)
    with kombu.Connection(settings["broker_url"]) as connection:
        connection.connect()
        assert set(users(server, before).values()) == {USER}
