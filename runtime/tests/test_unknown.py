"""Parked tasks: those that the release can execute are found among many, and the others are given up when they are old."""

import json
import time
from types import SimpleNamespace

import pytest
from celery import Celery
from coldframe.worker import unknown
from conftest import QUEUE
from kombu.transport.virtual import Message

NAME = "shop.sign"
KEY = f"unknown:{QUEUE}:{NAME}"
MANY = 2 * unknown.MOST + 50
app = Celery("shop", set_as_current=False)


@app.task(name=NAME)
def sign(name):
    """Take one argument."""


def entry(number, arguments, at):
    """What is parked: a message with so many arguments."""
    properties = {"delivery_tag": str(number), "delivery_info": {"exchange": "", "routing_key": QUEUE}}
    message = {"body": json.dumps([["a"] * arguments, {}, {}]), "headers": {"task": NAME, "id": str(number)}}
    message |= {"properties": properties, "content-type": "application/json", "content-encoding": "utf-8"}
    return f"{at:.0f} {json.dumps(message)}"


@pytest.fixture
def decide(server):
    """Look at the parked tasks some times; return the ids of those that are given up."""
    server.start()
    server.client.flushall()
    channel = SimpleNamespace(Message=Message, decode_body=lambda body, _: body)

    def look(times, known=True):
        given_up = []
        consumer = SimpleNamespace(
            app=SimpleNamespace(tasks=app.tasks, conf={"task_unknown_seconds": 600}),
            strategies={NAME: None} if known else {},
            give_up=lambda message, _: given_up.append(message.headers["id"]),
        )
        for _ in range(times):
            steps.decide(consumer, channel, server.client, QUEUE, NAME)
        return given_up

    steps = unknown.Unknown(None)
    return look


def park(server, *entries):
    """Park entries."""
    server.client.rpush(KEY, *entries)
    server.client.sadd(f"unknown:{QUEUE}", NAME)


def test_those_that_can_be_executed_are_found_behind_many_others(server, decide):
    park(server, *(entry(number, 2, time.time()) for number in range(MANY)))
    park(server, *(entry(MANY + number, 1, time.time()) for number in range(10)))
    assert decide(6) == []
    waiting = [json.loads(text)["headers"]["id"] for text in server.client.lrange(QUEUE, 0, -1)]
    assert sorted(waiting) == [str(MANY + number) for number in range(10)]
    assert server.client.llen(KEY) == MANY
    assert server.client.smembers(f"unknown:{QUEUE}") == {NAME}


def test_old_ones_are_given_up_but_for_those_that_can_be_executed(server, decide):
    park(server, *(entry(number, 1 if number == 3 else 2, time.time() - 700) for number in range(MANY)))
    given_up = decide(6)
    assert len(given_up) == MANY - 1 and "3" not in given_up
    assert [json.loads(text)["headers"]["id"] for text in server.client.lrange(QUEUE, 0, -1)] == ["3"]
    assert not server.client.exists(KEY, f"unknown:{QUEUE}") and server.client.llen(f"dead:{QUEUE}") == unknown.DEAD


def test_unknown_ones_are_given_up_when_they_are_old(server, decide):
    park(server, entry(1, 1, time.time() - 700), entry(2, 1, time.time()))
    assert decide(1, known=False) == ["1"] and server.client.llen(KEY) == 1
    assert decide(1) == [] and server.client.llen(QUEUE) == 1
