"""The way in for long tasks: the queue is the request's choice."""

import json

from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from holds.ledger import send
from holds.tasks import hold


@csrf_exempt
@require_POST
def place(request: HttpRequest) -> JsonResponse:
    """Send one."""
    wish = json.loads(request.body)
    task = hold.apply_async([wish["key"], wish["seconds"]], queue=wish["queue"])
    return JsonResponse({"task_id": task.id}, status=201)


urlpatterns = [path("", place), path("ledger/", send)]
