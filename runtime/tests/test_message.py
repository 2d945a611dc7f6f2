"""Which messages are tasks."""

import json

import pytest
from coldframe.worker.message import flaw, is_message
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.message import Message

PROPERTIES = {"delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "mail"}}
RAW = {"properties": PROPERTIES, "headers": {}, "body": "e30=", "content-type": "a", "content-encoding": "utf-8"}
HEADERS = {"task": "a.b", "id": "1", "eta": None, "retries": 0, "timelimit": [None, None], "stamps": {}}


def test_what_kombu_sends_is_a_message():
    assert is_message(RAW) and is_message(RAW | {"headers": None, "body": None})
    assert is_message(RAW | {"properties": PROPERTIES | {"body_encoding": "base64", "reply_to": "q"}})


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        *(dict(item for item in RAW.items() if item[0] != name) for name in RAW),
        *(RAW | {name: 1} for name in RAW),
        *(RAW | {"properties": PROPERTIES | {name: 1}} for name in ("delivery_tag", "delivery_info", "reply_to")),
        RAW | {"properties": PROPERTIES | {"body_encoding": "gzip"}},
        RAW | {"properties": PROPERTIES | {"body_encoding": "base64"}, "body": "é"},
    ],
)
def test_anything_else_is_none(raw):
    assert not is_message(raw)


def message(body, **headers):
    """A message with a body in JSON."""
    return Message(
        json.dumps(body), content_type="application/json", content_encoding="utf-8", headers=HEADERS | headers
    )


@pytest.mark.parametrize("body", [[[], {}, None], [[1], {"a": 1}, {"callbacks": [{}], "chain": None, "chord": {}}]])
def test_what_celery_sends_is_a_task(body):
    assert flaw(message(body, timelimit=[60, 50.5], eta="2030-01-01T00:00:00")) == ""


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ([[], {}, {}], {"task": None}, "no task and id"),
        ([[], {}, {}], {"id": 5}, "no task and id"),
        ([[], {}, {}], {"retries": "x"}, "the header retries is 'x'"),
        ([[], {}, {}], {"eta": 5}, "the header eta is 5"),
        ([[], {}, {}], {"timelimit": [1]}, "the header timelimit is [1]"),
        ([[], {}, {}], {"timelimit": ["1", 2]}, "the header timelimit is"),
        ([[], {}], {}, "not a list of arguments"),
        ({"args": []}, {}, "not a list of arguments"),
        ([[], {}, {"chain": [1]}], {}, "what is to follow"),
        ([[], {}, {"chord": 1}], {}, "what is to follow"),
    ],
)
def test_what_is_wrong_with_another_is_named(body, headers, said):
    assert said in flaw(message(body, **headers))


@pytest.mark.parametrize(
    ("kind", "error"), [("application/json", DecodeError), ("application/x-yaml", ContentDisallowed)]
)
def test_body_that_cannot_be_read_is_for_celery_to_refuse(kind, error):
    unreadable = Message("{", content_type=kind, content_encoding="utf-8", headers=HEADERS, accept={"application/json"})
    with pytest.raises(error):
        flaw(unreadable)
