"""Reports errors to Sentry, by its SDK with the integrations for Django and Celery.

An event has the release, the environment, and as tags what the journal has as fields (coldframe.logs.journal). It has less
than the SDK would send by itself: no values of local variables, no body of a request, nothing that identifies a user. What
`app_log_redact` hides in log records is hidden in events too.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.integrations.logging import ignore_logger

from coldframe import tracing
from coldframe.logs import ids, journal
from coldframe.overlay.deployment import Deployment

FLUSH = 2.0  # seconds for which a process that stops sends what is left
logger = logging.getLogger(__name__)
_clients: list[Any] = []  # those that were made here, in this process and in those that it was forked from


def own() -> bool:
    """Whether the application has called sentry_sdk.init itself, with an address."""
    client = sentry_sdk.get_client()
    return client.is_active() and client not in _clients and bool(client.options.get("dsn"))


def start(deployment: Deployment) -> None:
    """Begin to report errors, in this process, unless the application does so itself. Raises what the SDK raises."""
    if own():
        logger.info("The application calls sentry_sdk.init itself: the secret %s is not used.", tracing.SENTRY)
        return
    sentry_sdk.init(
        dsn=deployment.secret(tracing.SENTRY),
        release=os.environ.get("RELEASE_ID"),
        environment=os.environ.get("SENTRY_ENVIRONMENT") or deployment.tracing["environment"],
        integrations=[DjangoIntegration(), CeleryIntegration(), AtexitIntegration(callback=lambda *_: None)],
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        before_send=completed,
        include_local_variables=False,
        max_request_body_size="never",
        shutdown_timeout=FLUSH,
        trace_propagation_targets=[],  # or each HTTP request that the application makes would tell others of it
    )
    _clients.append(sentry_sdk.get_client())
    ignore_logger("opentelemetry.*")


def completed(event: Any, hint: Any) -> Any:
    """Return an event with what this code works for, and without what the deployment hides."""
    found = {**ids.current()._asdict(), "service": tracing.service(), "queue": tracing.queue()}
    event["tags"] = {**dict(event.get("tags") or {}), **{name: value for name, value in found.items() if value}}
    if tracing.reports.spans:
        from coldframe.tracing import spans

        if ours := spans.current():
            contexts = event.setdefault("contexts", {})
            contexts["trace"] = {**(contexts.get("trace") or {}), **ours}
    return hidden(event, journal.patterns()) if journal.patterns() else event


def hidden(value: Any, patterns: tuple[re.Pattern[str], ...]) -> Any:
    """Return a value in which texts have `***` for what the patterns match, at any depth of mappings and lists."""
    if isinstance(value, str):
        for pattern in patterns:
            value = pattern.sub(journal.HIDDEN, value)
        return value
    if isinstance(value, dict):
        return {key: hidden(entry, patterns) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return [hidden(entry, patterns) for entry in value]
    return value
