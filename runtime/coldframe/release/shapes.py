"""Reads from a task's message what it asks for, and says whether a task's parameters accept that.

It imports nothing but Python's own modules. The modules and filters of the controller have it as a link in module_utils.
No value of an argument leaves it: only how many there are, and the names of those that are given by name.
"""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Iterable
from typing import Any

INTERNAL = ("celery.", "coldframe.")  # tasks that are not the application's
STRATEGY = "celery.worker.strategy:default"
JSON = "application/json"
KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)
FURTHER = ("callbacks", "errbacks", "chain")  # of a message: tasks that are sent when this one is done


def signature(task: Any) -> inspect.Signature | None:
    """Return which arguments a task accepts, as Celery checks them when the task is sent: a decorator may add some, or take some away.

    None if that cannot be told: the task says so (`typing`), is called or started in a way of its own, or has a function of which
    Python cannot tell it. `self` of a bound task is no argument.
    """
    own = any("__call__" in vars(kind) for kind in type(task).__mro__ if not kind.__module__.startswith("celery.app."))
    if own or not getattr(task, "typing", True) or getattr(task, "Strategy", STRATEGY) != STRATEGY:
        return None
    try:
        own_run = getattr(task, "_orig_run", task.run)  # with autoretry_for, `run` is another function that calls it
        return inspect.signature(own_run, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def parameters(task: Any) -> list[list[Any]] | None:
    """Return the parameters of `signature`, each with its name, its kind (an index of KINDS) and whether it has a default."""
    accepted = signature(task)
    if accepted is None:
        return None
    found = accepted.parameters.values()
    return [[each.name, KINDS.index(each.kind), each.default is not inspect.Parameter.empty] for each in found]


def misfit(accepted: list[list[Any]] | None, args: int | None, kwargs: Iterable[str]) -> str:
    """Say why a call does not fit; an empty text if it does, or if that is not known.

    :param accepted: of `parameters`.
    :param args: how many positional arguments; None if that is not known.
    :param kwargs: the names of the others.
    """
    if accepted is None or args is None:
        return ""
    return unbound(
        inspect.Signature(
            [
                inspect.Parameter(name, KINDS[kind], default=None if default else inspect.Parameter.empty)
                for name, kind, default in accepted
            ]
        ),
        args,
        kwargs,
    )


def unbound(accepted: inspect.Signature, args: int, kwargs: Iterable[str]) -> str:
    """Say why a signature does not accept so many arguments and those names; an empty text if it does."""
    try:
        accepted.bind(*[None] * args, **dict.fromkeys(kwargs))
    except TypeError as error:
        return str(error)
    return ""


def shape(headers: Any, body: Any, content_type: str) -> dict[str, Any]:
    """Return what a message asks for.

    :param headers: of the message.
    :param body: as it was serialized, a text or bytes.
    :returns: `task`, a name; `args`, `kwargs` as for `misfit`; `further`, names of the tasks that follow it; `unread`, what
        the body is if the arguments are not known, or empty.

    Raises ValueError, with the reason, for a message whose task is not known.
    """
    name = headers.get("task") if isinstance(headers, dict) else None
    if not isinstance(name, str):
        raise ValueError("is of Celery's message protocol 1, or no task")
    found: dict[str, Any] = {"task": name, "args": None, "kwargs": [], "further": [], "unread": ""}
    if content_type != JSON or headers.get("compression"):
        return found | {"unread": f"is {headers.get('compression') or content_type}, and not JSON"}
    try:
        args, kwargs, embed = json.loads(body)
        found |= {"args": len(args), "kwargs": sorted(kwargs)}
    except (ValueError, TypeError):
        return found | {"unread": "is not as Celery writes it"}
    embed = embed if isinstance(embed, dict) else {}
    further = [each for part in FURTHER for each in embed.get(part) or []] + [embed.get("chord")]
    names = {each["task"] for each in further if isinstance(each, dict) and isinstance(each.get("task"), str)}
    return found | {"further": sorted(names)}


def of_queue(text: str) -> dict[str, Any]:
    """Return what a message asks for, as kombu keeps it in a queue of Redis. Raises ValueError like `shape`."""
    try:
        return of_message(json.loads(text))
    except (TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError("is not JSON, so no message of Celery") from error


def of_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message of `of_queue` asks for when it is read already."""
    body, properties = message.get("body", ""), message.get("properties") or {}
    if properties.get("body_encoding") == "base64":
        try:
            body = base64.b64decode(body)
        except (ValueError, TypeError):
            body = ""
    return shape(message.get("headers"), body, str(message.get("content-type")))


def counted(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return equal entries as one, with their number as `count`: added up if they have one, else each counts 1."""
    numbers: dict[str, int] = {}
    for each in found:
        number = each.get("count", 1)
        text = json.dumps({name: value for name, value in each.items() if name != "count"}, sort_keys=True)
        numbers[text] = numbers.get(text, 0) + number
    return [json.loads(text) | {"count": number} for text, number in numbers.items()]
