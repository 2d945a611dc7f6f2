"""Liveness and readiness, for the supervisor and the load balancer.

They are two questions. A process that is alive but cannot reach its broker must get no
traffic, and restarting it would not help.
"""

from collections.abc import Callable

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from shop.celery import app


@csrf_exempt  # another method is answered 405, not taken for forgery
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. It touches nothing else, so that nothing else can fail it."""
    return JsonResponse({"status": "ok", "release": settings.RELEASE_ID})


@csrf_exempt
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The process can do its work: it reaches the database and the broker."""
    parts = {"database": outcome(ask_database), "broker": outcome(ask_broker)}
    ready = all(part == "ok" for part in parts.values())
    return JsonResponse(parts, status=200 if ready else 503)


def outcome(check: Callable[[], None]) -> str:
    """Only the class of an error is told: its message may hold addresses and names."""
    try:
        check()
    except Exception as error:
        return f"error: {type(error).__name__}"
    return "ok"


def ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def ask_broker() -> None:
    """Open a connection of our own: one from the pool may be long dead and not know it."""
    with app.connection_for_write() as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
