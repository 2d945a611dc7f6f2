#!/usr/bin/python
"""Ansible module: what the messages of the broker ask for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: broker_messages
short_description: Reads which tasks wait in the broker, and with how many arguments
description:
  - "Reads the queues, what workers have taken and not acknowledged, and what is parked. It takes nothing out: LRANGE, HSCAN, LLEN,
    HLEN and SMEMBERS are its only commands beside the login."
  - Of each list at most O(most) messages are read, the half of them that is next and the half that came last.
  - Values of arguments are not returned, only how many there are and the names of those that are given by name.
options:
  server: {description: As for M(redis_commands)., type: dict, required: true}
  login: {description: "The line that logs in, as P(redis_login#filter) writes it.", type: str, required: true}
  index: {description: Of the database that has the queues., type: int, default: 0}
  queues: {description: Queues to read., type: list, elements: str, required: true}
  default_queue: {description: "The queue whose exchange all queues are bound to: the others that were ever declared are read too.", type: str, required: true}
  most: {description: How many messages of each list are read., type: int, default: 1000}
author: Coldframe
"""

EXAMPLES = r"""
- broker_messages:
    server: {socket: /run/redis-broker/redis-server.sock}
    login: "{{ app_broker_login }}"
    queues: [default, bulk]
    default_queue: default
  no_log: true
"""

RETURN = r"""
messages:
  description:
    - What the messages ask for, equal ones with their C(count). Each has C(task), C(args), how many positional arguments, C(kwargs),
      names, C(further), the tasks that follow, C(unread), what the body is if arguments are not known, C(queue), and C(place), which is C(waiting),
      C(taken) or C(parked).
  type: list
  returned: always
unknown: {description: "Messages whose task cannot be told, each with C(queue), C(place), C(why) and C(count).", type: list, returned: always}
sampled: {description: "Lists that have more than C(most) messages, each with C(queue), C(place), C(held) and C(read).", type: list, returned: always}
"""

import json
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_servers import Failed, Redis, Refused, logged_in
from ansible.module_utils.coldframe_shapes import counted, of_message, of_queue

CHUNK = 100  # messages in one answer


def some(redis: Redis, key: str, held: int, most: int) -> Iterator[str]:
    """Read messages of a list: all, or those at both ends. Raises Failed and OSError."""
    # A queue is filled at the left and emptied at the right.
    spans = [(0, held)] if held <= most else [(0, most // 2), (held - (most - most // 2), held)]
    for start, end in spans:
        for at in range(start, end, CHUNK):
            yield from redis.ask("LRANGE", key, str(at), str(min(at + CHUNK, end) - 1))


def taken(redis: Redis, most: int) -> Iterator[str]:
    """Read what workers have taken and not acknowledged. Raises Failed and OSError."""
    cursor, left = "0", most
    while left > 0:
        cursor, found = redis.ask("HSCAN", "unacked", cursor, "COUNT", str(CHUNK))
        yield from found[1::2][:left]
        left -= len(found) // 2
        if cursor == "0":
            return


class Reader:
    """Reads the broker, and keeps what the messages ask for."""

    def __init__(self, redis: Redis, most: int) -> None:
        """Begin with nothing.

        :param redis: a connection that is logged in.
        :param most: messages of each list that are read.
        """
        self.redis, self.most = redis, most
        self.messages: list[dict[str, Any]] = []
        self.unknown: list[dict[str, Any]] = []
        self.sampled: list[dict[str, Any]] = []

    def read(self, queues: list[str], default_queue: str) -> None:
        """Read these queues, and those that are bound to the exchange of the default one. Raises Failed and OSError."""
        bound = self.redis.ask("SMEMBERS", f"_kombu.binding.{default_queue}")
        for queue in dict.fromkeys([*queues, *sorted(each.rpartition("\x16")[2] for each in bound)]):
            for text in self.list(queue, queue, "waiting"):
                self.note(text, queue, "waiting")
            for task in sorted(self.redis.ask("SMEMBERS", f"unknown:{queue}")):
                for text in self.list(f"unknown:{queue}:{task}", queue, "parked"):
                    self.note(text.partition(" ")[2], queue, "parked")
        held = self.redis.ask("HLEN", "unacked")
        self.tell(held, "", "taken")
        for text in taken(self.redis, self.most):
            self.note_taken(text)

    def list(self, key: str, queue: str, place: str) -> Iterator[str]:
        """Read a list, and note if it was not read as a whole."""
        held = self.redis.ask("LLEN", key)
        self.tell(held, queue, place)
        return some(self.redis, key, held, self.most)

    def tell(self, held: int, queue: str, place: str) -> None:
        """Note that of a list not all is read."""
        if held > self.most:
            self.sampled.append({"queue": queue, "place": place, "held": held, "read": self.most})

    def note(self, text: str, queue: str, place: str) -> None:
        """Keep what one message asks for."""
        try:
            self.messages.append(of_queue(text) | {"queue": queue, "place": place})
        except ValueError as error:
            self.unknown.append({"queue": queue, "place": place, "why": str(error)})

    def note_taken(self, text: str) -> None:
        """Keep what one that a worker has taken asks for: it is there with its exchange and its queue."""
        queue = "?"
        try:
            message, _, queue = json.loads(text)
            self.messages.append(of_message(message) | {"queue": queue, "place": "taken"})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            why = str(error) if type(error) is ValueError and queue != "?" else "is not as a worker keeps it"
            self.unknown.append({"queue": queue, "place": "taken", "why": why})

    def result(self) -> dict[str, Any]:
        """Return what was found, as the module does."""
        return {"messages": counted(self.messages), "unknown": counted(self.unknown), "sampled": self.sampled}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "dict", "required": True},
            "login": {"type": "str", "required": True, "no_log": True},
            "index": {"type": "int", "default": 0},
            "queues": {"type": "list", "elements": "str", "required": True},
            "default_queue": {"type": "str", "required": True},
            "most": {"type": "int", "default": 1000},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        reader = Reader(logged_in(parameters["server"], parameters["login"], parameters["index"]), parameters["most"])
        reader.read(parameters["queues"], parameters["default_queue"])
    except (Refused, Failed, OSError) as error:
        module.fail_json(msg=f"the broker does not answer: {error}")
        raise  # fail_json does not return
    module.exit_json(changed=False, **reader.result())


if __name__ == "__main__":
    main()
