#!/usr/bin/python
"""Ansible module: compares a new release with the one before by what their tasks come to."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_watch
short_description: Watches the tasks of a new release for some time
description:
  - Workers count in Redis how the first attempts at each task end, by release, in hashes of ten minutes. So do queue probes note how
    long they waited.
  - Ends as soon as tasks fail too often or a queue waits too long, and otherwise after O(seconds). It does not fail for that, so that
    each host can be rolled back.
  - A task fails too often if at least 5 first attempts have failed since the watch began, if its failure rate is 10 percentage points
    higher than with the previous release, both in the day and in the ten to twenty minutes before the watch, and if so many failures are
    unlikely with the previous rate (less than 0.01 %, with the upper limit of that rate at 99 %, by the binomial distribution). A task with fewer than 10 attempts of the previous release is not judged.
  - A task takes too long if at least 20 runs of it were timed in the watch and with the previous release, if their typical time (the
    geometric mean, which a few long runs hardly change) is three times that of the previous release and 0.2 s more, and if the
    difference is more than four standard deviations. This is judged at the end of the watch.
  - A queue waits too long if two queue probes have waited longer than C(wait_slo), unless one did so in the ten minutes before the watch.
  - A message that the release cannot execute is parked, and no attempt. The tasks of which more are parked at the end than at the beginning
    are told as C(notes).
  - If Redis does not answer for a while, the watch goes on when it does. It fails if Redis does not answer at its end.
  - Changes nothing, also in check mode.
options:
  server: {description: As for M(redis_commands)., type: dict, required: true}
  login: {description: The line that logs in., type: str, required: true}
  index: {description: The index of the database with the counts., type: int, default: 1}
  broker_index: {description: The index of the database with the queues., type: int, default: 0}
  release: {description: The release that runs now., type: str, required: true}
  before: {description: The release that ran before it., type: str, required: true}
  budgets: {description: "Queue to seconds: C(wait_slo) of those that have one.", type: dict, default: {}}
  queues: {description: The queues in which messages may be parked., type: list, elements: str, default: []}
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
  description: Each task that ran, with how often and how long. C(now) and C(before) have C(done), C(failed) and C(seconds), the typical time.
  type: list
  returned: always
notes: {description: "What was seen and is no problem, a sentence each.", type: list, returned: always}
watched: {description: For how many seconds it was watched., type: int, returned: always}
"""

import json
import math
import time
from collections.abc import Iterable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coldframe_servers import Failed, Redis, Refused, logged_in

LOOK = 2.0  # seconds between two looks
FAILED, RATE = 5, 0.1  # attempts that must have failed; how many more than before, as a part of all
KNOWN = 10  # attempts before from which its rate counts
UNLIKELY = 0.01  # how likely the rate before was higher than is assumed
CHANCE = 1e-4  # how likely there are so many failures with that rate
TIMED, TIMES, SLOWER = 20, 3.0, 0.2  # runs that were timed; times the typical time before; seconds more than that
FAR = 4.0  # standard deviations
SPREAD = 0.3  # the deviation of the logarithms of times that a task is taken to have at least
SPAN, DAY, RECENT = 600, 86400, 600  # seconds of a hash (coldframe.worker.runs); and those that are looked back
PROBES = 30  # seconds from one queue probe to the next


def chance(failed: int, attempts: int, rate: float) -> float:
    """Return how likely so many failures or more are among such attempts, each of which fails with this chance, between 0 and 1."""
    if not 0 < failed <= attempts:
        return 1.0 if failed <= 0 else 0.0
    odds = math.log(rate / (1 - rate))
    first = math.lgamma(attempts + 1) - math.lgamma(failed + 1) - math.lgamma(attempts - failed + 1)
    term = first + failed * odds + attempts * math.log1p(-rate)  # the logarithm of the binomial probability of `failed`
    total = 0.0
    for number in range(failed, attempts + 1):
        total += math.exp(term)
        if number < attempts:
            term += odds + math.log((attempts - number) / (number + 1))
        if number > attempts * rate and math.exp(term) < total * 1e-9:
            break
    return min(total, 1.0)


class Counts:
    """How the first attempts at a task ended: sums of coldframe.worker.runs."""

    def __init__(
        self, done: float = 0, failed: float = 0, timed: float = 0, logs: float = 0, squares: float = 0
    ) -> None:
        """Begin with such sums."""
        self.done, self.failed, self.timed, self.logs, self.squares = done, failed, timed, logs, squares

    def __sub__(self, other: Counts) -> Counts:
        """Return what has been added since."""
        return Counts(**{kind: sum_ - vars(other)[kind] for kind, sum_ in vars(self).items()})

    @property
    def attempts(self) -> float:
        """How many there were."""
        return self.done + self.failed

    @property
    def rate(self) -> float:
        """The part that failed."""
        return self.failed / self.attempts if self.attempts else 0.0

    @property
    def most(self) -> float:
        """The highest rate of failures that is likely after these: the upper limit of Clopper and Pearson, at 99 %."""
        low, high = self.rate, 1.0
        for _ in range(40):
            rate = (low + high) / 2
            if 1 - chance(round(self.failed) + 1, round(self.attempts), rate) > UNLIKELY:
                low = rate
            else:
                high = rate
        return low

    @property
    def log(self) -> float:
        """The mean of the logarithms of the seconds."""
        return self.logs / self.timed if self.timed else 0.0

    @property
    def typical(self) -> float:
        """The geometric mean of the seconds; 0 if none was timed."""
        return math.exp(self.log) if self.timed else 0.0

    @property
    def spread(self) -> float:
        """The standard deviation of the logarithms."""
        return math.sqrt(max(0.0, self.squares / self.timed - self.log**2)) if self.timed else 0.0

    def told(self) -> dict[str, Any]:
        """Return what a report says."""
        return {"done": int(self.done), "failed": int(self.failed), "seconds": round(self.typical, 3)}


def failure_problem(task: str, now: Counts, before: Counts, lately: Counts, release: str) -> str:
    """Say that a task fails too often; an empty text if it does not.

    :param now: with the new release.
    :param before: with the previous one, in the day before.
    :param lately: with the previous one, in the minutes before.
    :param release: the previous one.
    """
    if now.failed < FAILED or before.attempts < KNOWN:
        return ""
    most = max(each.most for each in (before, lately) if each.attempts >= KNOWN)
    if now.rate <= most + RATE or chance(round(now.failed), round(now.attempts), most) >= CHANCE:
        return ""
    return (
        f"{task} fails: {now.failed:.0f} of {now.attempts:.0f} first attempts, and with release {release} "
        f"{before.failed:.0f} of {before.attempts:.0f} in a day."
    )


def time_problem(task: str, now: Counts, before: Counts, release: str) -> str:
    """Say that a task takes too long; an empty text if it does not. The parameters are those of `failure_problem`."""
    if min(now.timed, before.timed) < TIMED:
        return ""
    spread = max(now.spread, before.spread, SPREAD)
    far = FAR * spread * math.sqrt(1 / now.timed + 1 / before.timed)
    if now.log - before.log <= max(math.log(TIMES), far) or now.typical - before.typical <= SLOWER:
        return ""
    return (
        f"{task} takes too long: typically {now.typical:.2f} s in {now.timed:.0f} runs, and with release {release} "
        f"{before.typical:.2f} s in {before.timed:.0f}."
    )


class Watch:
    """A release that is watched."""

    def __init__(
        self,
        redis: Redis,
        release: str,
        before: str,
        budgets: dict[str, float],
        queues: Iterable[str] = (),
        indexes: tuple[int, int] = (1, 0),
    ) -> None:
        """Remember how things are when it begins. Raises Failed and OSError.

        :param queues: where messages may be parked.
        :param indexes: of the databases with the counts, and of the broker.
        """
        self.redis, self.release, self.before = redis, release, before
        self.queues, self.indexes = list(queues), indexes
        self.began = self.clock()
        self.at_first, self.parked_at_first = self.counts(release, self.began, self.began), self.parked()
        self.day = self.counts(before, self.began - DAY, self.began)
        self.lately = self.counts(before, self.began - RECENT, self.began)
        recent = self.began - RECENT
        self.budgets = {
            queue: most for queue, most in budgets.items() if all(wait <= most for wait in self.waits(queue, recent))
        }

    def clock(self) -> float:
        """Return Redis' time."""
        seconds, microseconds = self.redis.ask("TIME")
        return int(seconds) + int(microseconds) / 1e6

    def counts(self, release: str, since: float, until: float) -> dict[str, Counts]:
        """Return what is counted of a release in the hashes of a time."""
        counts: dict[str, Counts] = {}
        for number in range(int(since / SPAN), int(until / SPAN) + 1):
            fields = self.redis.ask("HGETALL", f"runs:{release}:{number}")
            for field, value in zip(fields[::2], fields[1::2], strict=True):
                kind, _, task = field.partition(" ")
                of_task = counts.setdefault(task, Counts())
                setattr(of_task, kind, getattr(of_task, kind) + float(value))
        return counts

    def waits(self, queue: str, since: float) -> list[float]:
        """Return how long queue probes waited that were done since then, and those that wait now or should have been sent meanwhile."""
        entries = self.redis.ask("XRANGE", f"probe:waits:{queue}", str(int(since * 1000)), "+")
        waits = [float(values[1]) for _, values in entries]
        sent, noted = self.redis.ask("MGET", f"probe:sent:{queue}", f"probe:done:{queue}")
        if sent and (json.loads(noted)["sent"] if noted else 0) < float(sent):
            waited = self.clock() - max(float(sent), since)
            waits += [waited - later for later in range(0, max(1, int(waited)), PROBES)]
        return waits

    def parked(self) -> dict[str, int]:
        """Return how many messages of each task are parked (coldframe.worker.unknown): in the broker's database."""
        index, broker = self.indexes
        found: dict[str, int] = {}
        for queue in self.queues:
            self.redis.ask("SELECT", str(broker))
            for task in self.redis.ask("SMEMBERS", f"unknown:{queue}"):
                found[task] = found.get(task, 0) + int(self.redis.ask("LLEN", f"unknown:{queue}:{task}"))
            self.redis.ask("SELECT", str(index))
        return found

    def notes(self) -> list[str]:
        """Name the tasks of which more messages are parked than when the watch began."""
        more = {task: count - self.parked_at_first.get(task, 0) for task, count in sorted(self.parked().items())}
        return [
            f"{count} message{'' if count == 1 else 's'} of {task} came that release {self.release} cannot execute: parked (make queues)."
            for task, count in more.items()
            if count > 0
        ]

    def look(self, last: bool) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the problems, and each task that ran with the new release. Raises Failed and OSError.

        :param last: whether the watch ends: then times are judged, too.
        """
        clock, problems, tasks = self.clock(), list[str](), list[dict[str, Any]]()
        for task, counts in sorted(self.counts(self.release, self.began, clock).items()):
            now, known = counts - self.at_first.get(task, Counts()), self.day.get(task, Counts())
            if now.attempts:
                problems.append(failure_problem(task, now, known, self.lately.get(task, Counts()), self.before))
                problems.append(time_problem(task, now, known, self.before) if last else "")
                tasks.append({"task": task, "now": now.told(), "before": known.told()})
        for queue, most in self.budgets.items():
            above = [wait for wait in self.waits(queue, self.began) if wait > most]
            if len(above) > 1:
                problems.append(f"The queue {queue} waits {max(above):.1f} s, and its wait_slo is {most:g} s.")
        return list(filter(None, problems)), tasks


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "dict", "required": True},
            "login": {"type": "str", "required": True, "no_log": True},
            "index": {"type": "int", "default": 1},
            "broker_index": {"type": "int", "default": 0},
            "release": {"type": "str", "required": True},
            "before": {"type": "str", "required": True},
            "budgets": {"type": "dict", "default": {}},
            "queues": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    began = time.monotonic()
    budgets = {queue: float(most) for queue, most in asked["budgets"].items()}
    connection = asked["server"], asked["login"], asked["index"]
    problems, tasks, notes = list[str](), list[dict[str, Any]](), list[str]()
    watch, lost, last = None, False, False
    while not problems and not last:
        left = began + asked["seconds"] - time.monotonic()
        last = left <= LOOK
        try:
            if not watch:
                indexes = asked["index"], asked["broker_index"]
                watch = Watch(
                    logged_in(*connection), asked["release"], asked["before"], budgets, asked["queues"], indexes
                )
            time.sleep(max(0.0, min(LOOK, left)))
            if lost:
                watch.redis, lost = logged_in(*connection), False
            problems, tasks = watch.look(last)
            notes = watch.notes() if problems or last else []
        except (Refused, Failed, OSError) as error:
            if last or not watch:
                module.fail_json(msg=f"Redis does not answer: {error}")
            lost = True
    module.exit_json(
        changed=False, problems=problems, tasks=tasks, notes=notes, watched=round(time.monotonic() - began)
    )


if __name__ == "__main__":
    main()
