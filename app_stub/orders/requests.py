"""How JSON is read from a request, and how a request is refused."""

import json
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, JsonResponse

MAX_BODY_BYTES = 16 * 1024


def refuse(status: int, message: str, field: str = "__all__") -> JsonResponse:
    return JsonResponse({"errors": {field: [message]}}, status=status)


class Refused(Exception):
    """A request that is not read any further, with its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = refuse(status, message)


def read_json(
    request: HttpRequest, is_trusted: Callable[[bytes], bool] = lambda body: True
) -> dict[str, Any]:
    """Read a JSON object that is no longer than it may be, once its bytes are trusted."""
    if request.content_type != "application/json":
        raise Refused(415, "Send application/json.")
    if int(request.headers.get("Content-Length") or 0) > MAX_BODY_BYTES:
        raise Refused(413, f"Send at most {MAX_BODY_BYTES} bytes.")
    if not is_trusted(request.body):
        raise Refused(403, "The signature is not right.")
    try:
        body = json.loads(request.body.decode(), parse_constant=no_constant)
    except (ValueError, RecursionError):  # neither UTF-8 nor JSON, or nested without end
        raise Refused(400, "Send valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "Send a JSON object.")
    return body


def no_constant(name: str) -> None:
    """NaN and Infinity are Python's, not JSON."""
    raise ValueError(name)
