"""Reports errors to Sentry, and spans by OpenTelemetry, if the deployment names where to (docs/tracing.md).

The overlay adds this package to INSTALLED_APPS if it does. The official SDKs do the work; here it is decided when they begin:

- `prepare` instruments Django and Celery, once, when Django is set up. No thread is started, and nothing is sent.
- `start` begins to report, in each process of its own: a thread does not survive a fork. In a web process that is after
  Gunicorn's fork, in a worker with processes in each of them, in the others at once.
- `stop` sends what is left, for some seconds at most.

An application that has set up an SDK itself keeps what it has. What goes wrong here is logged: it fails no process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldframe.overlay.deployment import Deployment
    from coldframe.overlay.record import Line

APP = "coldframe.tracing"  # in INSTALLED_APPS
SENTRY = "sentry_dsn"  # the secret in app_secrets
logger = logging.getLogger(__name__)


class Reports:
    """What this process reports, and when it begins to."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.deployment: Deployment | None = None  # once Django is set up, where reports go somewhere
        self.later = self.never = False

    @property
    def sentry(self) -> bool:
        """Whether errors go to Sentry."""
        return bool(self.deployment and self.deployment.tracing["sentry"])

    @property
    def spans(self) -> bool:
        """Whether spans go somewhere by OpenTelemetry."""
        return bool(self.deployment and self.deployment.tracing["otel_endpoint"])


reports = Reports()


def defer() -> None:
    """Leave it to the caller when reports begin, for this process may be forked before."""
    reports.later = True


def forbid() -> None:
    """Have this process report nothing: it looks at the application, and somebody reads what it says."""
    reports.never = True


def prepare() -> None:
    """Instrument Django and Celery, and start unless that is deferred. Django has read the settings.

    Raises ImportError when the SDKs are not there.
    """
    from coldframe.overlay.deployment import Deployment

    reports.deployment = Deployment.read()
    if reports.sentry:
        from coldframe.tracing import sentry  # noqa: F401  # imported before a fork, so that its memory is shared
    if reports.spans:
        from coldframe.tracing import spans

        spans.instrument()
    if not reports.later:
        start()


def start(spans: bool = True) -> None:
    """Begin to report, in this process. Raises nothing.

    :param spans: whether this process has some. The main process of a worker with processes has none.
    """
    deployment = reports.deployment
    if deployment is None or reports.never:
        return
    try:
        if reports.sentry:
            from coldframe.tracing import sentry

            sentry.start(deployment)
        if spans and reports.spans:
            from coldframe.tracing import spans as opentelemetry

            opentelemetry.start(deployment)
    except Exception:
        logger.exception("This process reports nothing to Sentry or by OpenTelemetry.")


def stop() -> None:
    """Send the spans that are left, for some seconds at most. Sentry's SDK does the same with its own. Raises nothing."""
    if reports.spans:
        from coldframe.tracing import spans

        spans.stop()


def publishing(request_id: str, app: Any, name: str, task_id: str) -> Any:
    """Return a context manager for the block that sends a task's message.

    :param request_id: of the message.
    :param app: the Celery application.
    :param name: of the task.
    :param task_id: its id.
    """
    if not reports.spans:
        return nullcontext()
    from coldframe.tracing import spans

    return spans.publishing(request_id, app, name, task_id)


def service() -> str:
    """Return the unit without its release, such as `shop-worker-mail`."""
    return os.environ.get("SYSLOG_IDENTIFIER", "")


def queue() -> str:
    """Return the queue of a worker; empty in other processes."""
    start = f"{reports.deployment.tracing['name']}-worker-" if reports.deployment else service()
    return service().removeprefix(start) if service().startswith(start) else ""


def lines(deployment: Deployment) -> Iterator[Line]:
    """List what the application has set up itself. All of it has been imported."""
    from coldframe.overlay.record import Line

    if deployment.tracing["sentry"]:
        from coldframe.tracing import sentry

        if sentry.own():
            yield Line("tracing", "sentry_sdk.init", "the application's own", "", f"{SENTRY} is not used")
    if deployment.tracing["otel_endpoint"]:
        from coldframe.tracing import spans

        if spans.own():
            yield Line("tracing", "TracerProvider", "the application's own", "", "app_otel_endpoint is not used")
