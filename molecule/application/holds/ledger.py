"""The way in for tasks whose name or parameters are the release's own: they are sent in every way."""

import itertools
import json

from celery import chain, chord
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from holds.tasks import NAMES, SIGNED, TASKS, signed

TURNS = itertools.cycle([True, False])


@csrf_exempt
@require_POST
def send(request: HttpRequest) -> JsonResponse:
    """Send the parts of one entry to a queue, in the way that is asked for."""
    wish = json.loads(request.body)
    key, queue = wish["key"], wish["queue"]
    turn = next(TURNS)
    part = []
    for n in range(3):
        named = (n != 1) == turn  # so each of the two tasks ends a chain or a chord
        task = TASKS[NAMES[-1]].si(key, n) if named else signed.si(key, n, *(["web"] if SIGNED else []))
        part.append(task.set(queue=queue))
    if wish["way"] == "chain":
        chain(part).apply_async()
    elif wish["way"] == "chord":
        chord(part[:2])(part[2])
    else:
        options = {
            "later": {"countdown": 15},
            "expires": {"expires": 3000},
            "retried": {"headers": {"retried": True}},
        }.get(wish["way"], {})
        for each in part:
            each.apply_async(**options)
    return JsonResponse({}, status=201)
