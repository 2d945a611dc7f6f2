"""What schemathesis loads beside its settings."""

import re
import uuid
from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """Give each order a key of its own: else 409 would hide whether the rest of it is taken or refused."""
    key = case.body.get("idempotency_key") if isinstance(case.body, dict) else None
    if isinstance(key, str) and re.fullmatch("[!-~]{8,64}", key):
        case.body = {**case.body, "idempotency_key": uuid.uuid4().hex}
