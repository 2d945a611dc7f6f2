"""The application sees its clients, not the peers that pass them on, and the id that these give a request."""

import re

import pytest
from coldframe.logs import ids
from coldframe.web import client


@pytest.fixture
def seen(monkeypatch):
    """Ask an application that answers with the address of its client."""
    monkeypatch.setattr(client, "import_app", lambda path: lambda environ, start: [environ])

    def seen(peer, forwarded=None, edges="*"):
        asked = {"REMOTE_ADDR": peer, "REMOTE_PORT": "1"}
        if forwarded is not None:
            asked["HTTP_X_FORWARDED_FOR"] = forwarded
        return client.application("shop.wsgi:application", edges)(asked, None)[0]["REMOTE_ADDR"]

    return seen


def test_client_is_whom_the_edge_names(seen):
    assert seen("", "203.0.113.7") == "203.0.113.7"
    assert seen("", "2001:db8::1") == "2001:db8::1"
    assert seen("", "198.51.100.1, 203.0.113.7") == "203.0.113.7"
    assert seen("10.0.0.2", "203.0.113.7", edges="10.0.0.1,10.0.0.2") == "203.0.113.7"


def test_client_is_never_nobody_and_a_stranger_is_not_believed(seen):
    assert seen("") == seen("", "") == "127.0.0.1"
    assert seen("10.0.0.9", "203.0.113.7", edges="10.0.0.1,10.0.0.2") == "10.0.0.9"
    assert seen("10.0.0.1", edges="10.0.0.1,10.0.0.2") == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "given", "taken"),
    [("", "a-1", True), ("10.0.0.1", "a-1", True), ("10.0.0.9", "a-1", False), ("", "a b", False), ("", None, False)],
)
def test_id_is_that_of_the_edge_or_a_new_one(monkeypatch, peer, given, taken):
    monkeypatch.setattr(client, "import_app", lambda path: lambda environ, start: [ids.current().request_id])
    asked = {"REMOTE_ADDR": peer} | ({"HTTP_X_REQUEST_ID": given} if given else {})
    (found,) = client.application("shop.wsgi:application", "10.0.0.1,10.0.0.2")(asked, None)
    assert found == asked["HTTP_X_REQUEST_ID"] and (found == given) == taken
    assert taken or re.fullmatch("[0-9a-f]{32}", found)
