"""Tasks whose name is the release's own, sent in every way, with a note of each that was done."""

import json

from celery import chain, chord, shared_task
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from holds.tasks import note

NAMES = getattr(settings, "LEDGER", ["first"])  # the tasks that this release knows; its web sends the last one


def work(key: str, part: int) -> None:
    """Note that a part was done."""
    note(event="ledger", key=key, part=part)


TASKS = {name: shared_task(work, name=f"holds.ledger.{name}", ignore_result=False) for name in NAMES}


@csrf_exempt
@require_POST
def send(request: HttpRequest) -> JsonResponse:
    """Send the parts of one entry to a queue, in the way that is asked for."""
    wish = json.loads(request.body)
    key, queue = wish["key"], wish["queue"]
    part = [TASKS[NAMES[-1]].si(key, n).set(queue=queue) for n in range(3)]
    if wish["way"] == "chain":
        chain(part).apply_async()
    elif wish["way"] == "chord":
        chord(part[:2])(part[2])
    else:
        more = {"later": {"countdown": 4}, "expires": {"expires": 3000}}.get(wish["way"], {})
        for each in part:
            each.apply_async(**more)
    return JsonResponse({}, status=201)
