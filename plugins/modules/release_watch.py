#!/usr/bin/python
"""Ansible module: compares a new release with the one before by what their tasks come to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_watch
short_description: Watches the tasks of a new release for some time
description:
  - Workers count in Redis how the attempts at each task end, by release. So do they note how long the queue probes wait.
  - Ends as soon as the release breaks a budget, or after O(seconds). It does not fail for that, so that each host can be rolled back.
  - A task fails too often if at least 3 attempts of it have failed since the watch began, these are 10 of 100 more than with the
    release before, and by chance that would be improbable. Of a task that the release before attempted less than 10 times, more than half.
  - A task takes too long if at least 5 runs of it have ended well, took three times as long on average as with the release before,
    at least 0.2 s more, and by chance that would be improbable.
  - A queue is over its budget if a queue probe waits longer than C(wait_slo), unless the last one before the watch did too.
  - Changes nothing, also in check mode.
options:
  server: {description: As for M(redis_commands)., type: dict, required: true}
  login: {description: The line that logs in., type: str, required: true}
  index: {description: The index of the database with the counts., type: int, default: 1}
  release: {description: The release that runs now., type: str, required: true}
  before: {description: The release that ran before it., type: str, required: true}
  budgets: {description: "Queue to seconds: C(wait_slo) of those that have one.", type: dict, default: {}}
  seconds: {description: For how long to watch., type: int, required: true}
author: Coldframe
"""

EXAMPLES = r"""
- release_watch:
    server: {socket: /run/redis-broker/redis-server.sock}
    login: AUTH admin "{{ app_redis_passwords.admin }}"
    release: 3f2a9c1b7d04
    before: 5484a539902e
    budgets: {critical: 5}
    seconds: 120
  register: release_watched
"""

RETURN = r"""
problems: {description: "The budgets that the release breaks, a sentence each.", type: list, returned: always}
tasks:
  description: Each task that ran, with how often and how long. C(now) and C(before) have C(done), C(failed) and C(seconds), the average.
  type: list
  returned: always
watched: {description: For how many seconds it was watched., type: int, returned: always}
"""

import json
import math
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_servers import Failed, Redis, Refused, conversation

LOOK = 2.0  # seconds between two looks
FAILED, RATE = 3, 0.1  # attempts that must have failed; how many more than before, as a part of all
KNOWN, UNKNOWN = 10, 0.5  # attempts before from which its rate counts; the rate that is too high with fewer
DONE, TIMES, SLOWER = 5, 3.0, 0.2  # runs; times the average before; seconds more than that
IMPROBABLE = 4.0  # standard deviations
LEAST = 0.01  # the rate of failures that a task is taken to have at least, which never failed before


class Counts:
    """How the attempts at a task ended."""

    def __init__(self, done: float = 0, failed: float = 0, seconds: float = 0, squares: float = 0) -> None:
        """Take the sums (coldframe.worker.runs)."""
        self.done, self.failed, self.seconds, self.squares = done, failed, seconds, squares

    def __sub__(self, other: Counts) -> Counts:
        """Return what has been added since."""
        return Counts(
            self.done - other.done,
            self.failed - other.failed,
            self.seconds - other.seconds,
            self.squares - other.squares,
        )

    @property
    def attempts(self) -> float:
        """How many there were."""
        return self.done + self.failed

    @property
    def rate(self) -> float:
        """The part that failed."""
        return self.failed / self.attempts if self.attempts else 0.0

    @property
    def average(self) -> float:
        """The seconds of a successful one."""
        return self.seconds / self.done if self.done else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation of these seconds."""
        return math.sqrt(max(0.0, self.squares / self.done - self.average**2)) if self.done else 0.0

    def told(self) -> dict[str, Any]:
        """Return what a report says."""
        return {"done": int(self.done), "failed": int(self.failed), "seconds": round(self.average, 3)}


def read(fields: list[str]) -> dict[str, Counts]:
    """Return the counts of each task, from the fields of a hash and their values."""
    counts: dict[str, Counts] = {}
    for field, value in zip(fields[::2], fields[1::2], strict=True):
        kind, _, task = field.partition(" ")
        setattr(counts.setdefault(task, Counts()), kind, float(value))
    return counts


def task_problems(task: str, now: Counts, before: Counts, release: str) -> list[str]:
    """Say which budgets a task breaks.

    :param now: what it came to with the new release.
    :param before: what it came to with the one before.
    :param release: the one before.
    """
    problems = []
    likely = max(before.rate, LEAST)
    far = IMPROBABLE * math.sqrt(likely * (1 - likely) / now.attempts) if now.attempts else 0.0
    most = likely + max(RATE, far) if before.attempts >= KNOWN else UNKNOWN
    if now.failed >= FAILED and now.rate > most:
        than = f"with release {release} {before.failed:.0f} of {before.attempts:.0f} did"
        problems.append(f"{task} fails: {now.failed:.0f} of {now.attempts:.0f} attempts, and {than}.")
    far = IMPROBABLE * before.deviation / math.sqrt(now.done) if now.done else 0.0
    most = max(TIMES * before.average, before.average + SLOWER, before.average + far)
    if now.done >= DONE and before.done >= DONE and now.average > most:
        problems.append(
            f"{task} takes {now.average:.2f} s, the average of {now.done:.0f} runs, and with release {release} "
            f"{before.average:.2f} s, that of {before.done:.0f}."
        )
    return problems


class Watch:
    """A release that is watched."""

    def __init__(self, redis: Redis, release: str, before: str, budgets: dict[str, float]) -> None:
        """Remember how things are when it begins. Raises Failed and OSError."""
        self.redis, self.release, self.before, self.budgets = redis, release, before, budgets
        self.began, self.at_first = self.clock(), self.counts(release)
        self.budgets = {queue: most for queue, most in budgets.items() if self.wait(queue, 0) <= most}

    def clock(self) -> float:
        """Return Redis' time."""
        seconds, microseconds = self.redis.ask("TIME")
        return int(seconds) + int(microseconds) / 1e6

    def counts(self, release: str) -> dict[str, Counts]:
        """Return what is counted of a release."""
        return read(self.redis.ask("HGETALL", f"runs:{release}"))

    def wait(self, queue: str, since: float) -> float:
        """Return how long the last queue probe waited, or has waited until now; from that time on."""
        sent, noted = self.redis.ask("MGET", f"probe:sent:{queue}", f"probe:done:{queue}")
        note = json.loads(noted) if noted else {"sent": 0.0, "done": 0.0}
        if sent and note["sent"] < float(sent):
            return self.clock() - max(float(sent), since)
        return float(note["done"] - note["sent"]) if note["sent"] >= since else 0.0

    def look(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the problems, and each task that ran with the new release. Raises Failed and OSError."""
        problems, tasks = [], []
        known = self.counts(self.before)
        for task, counts in sorted(self.counts(self.release).items()):
            now, before = counts - self.at_first.get(task, Counts()), known.get(task, Counts())
            if now.attempts:
                problems += task_problems(task, now, before, self.before)
                tasks.append({"task": task, "now": now.told(), "before": before.told()})
        for queue, most in self.budgets.items():
            if (waited := self.wait(queue, self.began)) > most:
                problems.append(f"The queue {queue} waits {waited:.1f} s, and its wait_slo is {most:g} s.")
        return problems, tasks


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "dict", "required": True},
            "login": {"type": "str", "required": True, "no_log": True},
            "index": {"type": "int", "default": 1},
            "release": {"type": "str", "required": True},
            "before": {"type": "str", "required": True},
            "budgets": {"type": "dict", "default": {}},
            "seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    began = time.monotonic()
    try:
        redis = Redis.of(asked["server"])
        conversation(redis, f"{asked['login'].rstrip()}\nSELECT {asked['index']}\n")
        budgets = {queue: float(most) for queue, most in asked["budgets"].items()}
        watch = Watch(redis, asked["release"], asked["before"], budgets)
        problems, tasks = watch.look()
        while not problems and (left := began + asked["seconds"] - time.monotonic()) > 0:
            time.sleep(min(LOOK, left))
            problems, tasks = watch.look()
    except (Refused, Failed, OSError) as error:
        module.fail_json(msg=f"Redis does not answer: {error}")
        raise  # fail_json does not return
    module.exit_json(changed=False, problems=problems, tasks=tasks, watched=round(time.monotonic() - began))


if __name__ == "__main__":
    main()
