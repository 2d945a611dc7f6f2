"""The way in for tasks whose name and parameters are the release's own: they are sent in every way."""

import json

from celery import chain, chord
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from holds.tasks import NAMES, SIGNED, TASKS


@csrf_exempt
@require_POST
def send(request: HttpRequest) -> JsonResponse:
    """Send the parts of one entry to a queue, in the way that is asked for."""
    wish = json.loads(request.body)
    key, queue = wish["key"], wish["queue"]
    more = ["web"] if SIGNED else []
    part = [TASKS[NAMES[-1]].si(key, n, *more).set(queue=queue) for n in range(3)]
    if wish["way"] == "chain":
        chain(part).apply_async()
    elif wish["way"] == "chord":
        chord(part[:2])(part[2])
    else:
        options = {"later": {"countdown": 4}, "expires": {"expires": 3000}}.get(wish["way"], {})
        for each in part:
            each.apply_async(**options)
    return JsonResponse({}, status=201)
