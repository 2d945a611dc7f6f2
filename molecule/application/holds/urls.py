"""The way in for long tasks: the queue is the request's choice. And a page with a static file."""

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.templatetags.static import static
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


def page(request: HttpRequest) -> HttpResponse:
    """Name a file whose name changes with its content."""
    return HttpResponse(f'<link rel="stylesheet" href="{static("holds/page.css")}">')


urlpatterns = [path("", place), path("ledger/", send), path("page/", page)]
