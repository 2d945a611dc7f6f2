"""What the broker holds of each queue, in words: waiting, taken, parked (coldframe.worker.unknown), dead letters."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.errors import AnsibleFilterError

NAMES = 5  # of tasks that a line names

# One script, so that a message which moves meanwhile is counted once. A queue was bound to the default queue's exchange by
# whoever declared it, and stays so. Queue probes do not count: at most one waits in a queue.
SCRIPT = """
local queues, probe = {}, 'coldframe.probe'
local function name(message)
  local ok, decoded = pcall(cjson.decode, message)
  return ok and type(decoded.headers) == 'table' and decoded.headers.task or 'unknown'
end
local function queue(q)
  queues[q] = queues[q] or {waiting = redis.call('LLEN', q), taken = 0, parked = {}, dead = {}}
  return queues[q]
end
for _, q in ipairs(ARGV) do queue(q) end
for _, member in ipairs(redis.call('SMEMBERS', KEYS[1])) do queue(member:match('[^%c]*$')) end
for _, entry in ipairs(redis.call('HVALS', 'unacked')) do
  local message = cjson.decode(entry)
  if queues[message[3]] and not (type(message[1].headers) == 'table' and message[1].headers.task == probe) then
    queues[message[3]].taken = queues[message[3]].taken + 1
  end
end
for q, state in pairs(queues) do
  if state.waiting > 0 and state.waiting < 20 then
    for _, message in ipairs(redis.call('LRANGE', q, 0, -1)) do
      if name(message) == probe then state.waiting = state.waiting - 1 end
    end
  end
  for _, task in ipairs(redis.call('SMEMBERS', 'unknown:' .. q)) do
    local count = redis.call('LLEN', 'unknown:' .. q .. ':' .. task)
    if count > 0 then state.parked[task] = count end
  end
  state.letters = redis.call('LLEN', 'dead:' .. q)
  for _, entry in ipairs(redis.call('LRANGE', 'dead:' .. q, 0, 99)) do
    local task = name(entry:sub((entry:find(' ') or 0) + 1))
    state.dead[task] = (state.dead[task] or 0) + 1
  end
end
return cjson.encode(queues)
"""


# Both count, and change something only if the last argument is `do`. What a worker has taken is left alone.
PURGE = """
local count, gone = 0, 'coldframe.purged'
for at = 0, redis.call('LLEN', KEYS[1]) - 1, 1000 do
  for i, message in ipairs(redis.call('LRANGE', KEYS[1], at, at + 999)) do
    local found = message:find(ARGV[1], 1, true)
    local ok, decoded = pcall(cjson.decode, found and message or '0')
    if found and ok and type(decoded.headers) == 'table' and decoded.headers.task == ARGV[1] then
      count = count + 1
      if ARGV[2] == 'do' then redis.call('LSET', KEYS[1], at + i - 1, gone) end
    end
  end
end
local parked = redis.call('LLEN', KEYS[3])
if ARGV[2] == 'do' then
  redis.call('LREM', KEYS[1], 0, gone)
  redis.call('SREM', KEYS[2], ARGV[1])
  redis.call('DEL', KEYS[3])
end
return count + parked
"""
# The oldest one first, behind what waits already.
RETRY = """
local letters = redis.call('LRANGE', KEYS[1], 0, -1)
if ARGV[1] == 'do' then
  for i = #letters, 1, -1 do redis.call('LPUSH', KEYS[2], letters[i]:sub((letters[i]:find(' ') or 0) + 1)) end
  redis.call('DEL', KEYS[1])
end
return #letters
"""


def _evaluated(script: str, keys: list[str], arguments: list[str]) -> str:
    """Make a line of redis-cli's input that runs a script."""
    line = re.sub(r"\s+", " ", script)
    return f'EVAL "{line}" {len(keys)} {" ".join([*keys, *arguments])}\n'


def purge_commands(queues: list[str], task: str, login: str, index: int = 0, really: bool = False) -> str:
    """Make redis-cli's input that removes a task's waiting and parked messages from queues, and counts them for each queue.

    :param task: the name of the task.
    :param login: the line that logs in (`redis_login`).
    :param index: of the database that has the queues.
    :param really: whether they are removed, and not only counted.
    """
    lines = [
        _evaluated(PURGE, [queue, f"unknown:{queue}", f"unknown:{queue}:{task}"], [task, "do" if really else "count"])
        for queue in queues
    ]
    return f"{login}SELECT {index}\n{''.join(lines)}"


def retry_commands(queues: list[str], login: str, index: int = 0, really: bool = False) -> str:
    """Make redis-cli's input that puts the dead letters of queues back into them, and counts them for each queue.

    :param login: the line that logs in (`redis_login`).
    :param index: of the database that has the queues.
    :param really: whether they are put back, and not only counted.
    """
    lines = [_evaluated(RETRY, [f"dead:{queue}", queue], ["do" if really else "count"]) for queue in queues]
    return f"{login}SELECT {index}\n{''.join(lines)}"


def broker_counts(answer: str, queues: list[str]) -> dict[str, int]:
    """Read what redis-cli printed for `purge_commands` or `retry_commands`: queue to number. Raises AnsibleFilterError."""
    said = answer.strip().split("\n")
    if said[:2] != ["OK", "OK"] or len(said) != len(queues) + 2 or not all(each.isdigit() for each in said[2:]):
        raise AnsibleFilterError(f"the broker refuses: {[line for line in said if line != 'OK']}")
    return dict(zip(queues, map(int, said[2:]), strict=True))


def broker_queues(answer: str) -> list[str]:
    """List the queues that the broker knows; nothing when it does not answer.

    :param answer: what redis-cli printed for `broker_commands`.
    """
    try:
        return sorted(_state(answer))
    except ValueError:
        return []


def queue_lines(answer: str) -> list[str]:
    """Say what each queue holds.

    :param answer: what redis-cli printed for `broker_commands`.
    """
    try:
        states = _state(answer)
    except ValueError as error:
        return [f"the broker does not tell: {error}"]
    return [
        f"{queue:<20} {state['waiting']:>7} waiting {state['taken']:>5} taken {sum(state['parked'].values()):>5} parked "
        f"{state['letters']:>5} dead letters"
        for queue, state in sorted(states.items())
    ]


def broker_commands(queues: list[str], default_queue: str, login: str, index: int = 0) -> str:
    """Make redis-cli's input that asks for the state of these queues, and of all that were ever declared.

    :param default_queue: `celery_default_queue`, whose exchange all queues are bound to.
    :param login: the line that logs in (`redis_login`).
    :param index: of the database that has the queues.
    """
    script, names = re.sub(r"\s+", " ", SCRIPT), " ".join(queues)
    return f'{login}SELECT {index}\nEVAL "{script}" 1 _kombu.binding.{default_queue} {names}\n'


def _state(answer: str) -> dict[str, dict[str, Any]]:
    """Read what redis-cli printed for `broker_commands`. Raises ValueError with its words when it is no answer."""
    said = answer.strip().split("\n")
    if said[:2] != ["OK", "OK"] or len(said) != 3 or not said[2].startswith("{"):
        raise ValueError(next((line for line in said if line not in ("OK", "")), "no answer"))
    states: dict[str, dict[str, Any]] = json.loads(said[2])
    return states


def _names(tasks: dict[str, int]) -> str:
    """Name the tasks, the most frequent first."""
    names = [f"{name} ({count})" for name, count in sorted(tasks.items(), key=lambda item: (-item[1], item[0]))]
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")


def _left(state: dict[str, Any]) -> dict[str, int]:
    """Count what a queue holds that is still to be done."""
    counts = {"waiting": state["waiting"], "taken by a worker": state["taken"], "parked": sum(state["parked"].values())}
    return {words: count for words, count in counts.items() if count}


def broker_lines(answer: str, queues: list[str]) -> list[str]:
    """Say which queues hold parked tasks or dead letters, and which that are in no table hold anything.

    :param answer: what redis-cli printed for `broker_commands`; empty when it was not asked.
    :param queues: the names in `celery_queues`.
    """
    try:
        states = _state(answer)
    except ValueError as error:
        return [f"the broker does not tell: {error}"]
    lines = []
    for queue, state in sorted(states.items()):
        if queue not in queues and (left := _left(state)):
            counts = ", ".join(f"{count} {words}" for words, count in left.items())
            lines.append(
                f"{queue:<20} in no table and served by no worker: {counts}. Put it into celery_queues and deploy."
            )
        if state["parked"]:
            lines.append(f"{queue:<20} parked until a release has it: {_names(state['parked'])}")
        if state["letters"]:
            lines.append(
                f"{queue:<20} {state['letters']} dead letters of tasks that no release has: {_names(state['dead'])}"
            )
    return lines


def leaving_queue_problems(answer: str, leaving: list[str], allowed: list[str] | str, back_to: str = "") -> list[str]:
    """Refuse to leave messages in a queue that no worker will serve.

    :param answer: what redis-cli printed for `broker_commands`.
    :param leaving: queues of the running release that the next one has no workers for.
    :param allowed: `release_allow_queues`; from the command line one text with commas.
    :param back_to: the next release, where it is one from before: a rollback.
    """
    allowed = allowed.split(",") if isinstance(allowed, str) else allowed
    asked = [queue for queue in leaving if queue not in allowed]
    if not asked:
        return []
    try:
        states = _state(answer)
    except ValueError as error:
        return [
            f"Whether the queues that leave ({', '.join(asked)}) hold messages could not be asked: {error}. To leave what they "
            f"hold: make {'rollback' if back_to else 'deploy'} ALLOW_QUEUES={','.join(asked)}."
        ]
    if back_to:
        why = f"is not served by the workers of release {back_to}"
        way = "Wait until it is empty; or leave them until a release that serves it runs: make rollback"
    else:
        why = "is no longer in celery_queues"
        way = (
            "Keep its row, route its tasks to another queue (celery_task_routes), deploy, and take the row out when it is "
            "empty; or leave them: make deploy"
        )
    return [
        f"The queue {queue!r} {why} and holds messages: {', '.join(f'{count} {words}' for words, count in left.items())}. "
        f"No worker would serve them. {way} ALLOW_QUEUES={queue} (release_allow_queues: [{queue}])."
        for queue in asked
        if (left := _left(states[queue]))
    ]


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        changes = (purge_commands, retry_commands, broker_counts)
        told = (broker_commands, broker_lines, broker_queues, queue_lines, leaving_queue_problems)
        return {filter_.__name__: filter_ for filter_ in (*told, *changes)}
