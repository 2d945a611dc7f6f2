"""Adds the Django application that reports errors and spans, if the deployment names where to."""

from __future__ import annotations

from coldframe import tracing
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import LINES, Line, Settings


def lay(settings: Settings, deployment: Deployment) -> None:
    """Add it. It begins when Django is set up: see coldframe.tracing."""
    names = {tracing.SENTRY: deployment.tracing["sentry"], "app_otel_endpoint": deployment.tracing["otel_endpoint"]}
    if given := [name for name, value in names.items() if value]:
        settings.laid["INSTALLED_APPS"] = [*(settings.get("INSTALLED_APPS") or []), tracing.APP]
        note = f"the inventory has {' and '.join(given)}"
        LINES.append(Line("tracing", "INSTALLED_APPS", f"without {tracing.APP}", f"with {tracing.APP}", note))
