"""Adds django-celery-beat to the installed applications, where Beat keeps its schedule with it."""

from __future__ import annotations

from coldframe import settings_check
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import LINES, Line, Settings

PACKAGE = "django_celery_beat"


def lay(settings: Settings, deployment: Deployment) -> None:
    """Add it, unless it is there or Beat's scheduler is another one. Its tables come with its migrations."""
    scheduler = settings_check.given()[settings_check.OWN]["scheduler"]
    installed = list(settings.get("INSTALLED_APPS") or [])
    if not scheduler.startswith(f"{PACKAGE}.") or any(name.partition(".")[0] == PACKAGE for name in installed):
        return
    settings.laid["INSTALLED_APPS"] = [*installed, PACKAGE]
    note = "Beat keeps its schedule in the database"
    LINES.append(Line("apps", "INSTALLED_APPS", f"without {PACKAGE}", f"with {PACKAGE}", note))
    if not settings.get("USE_TZ"):
        settings.lay("apps", "DJANGO_CELERY_BEAT_TZ_AWARE", False, "USE_TZ is False")
