"""Adds applications to Django: the table of tasks with a long delay, and django-celery-beat where Beat keeps its schedule."""

from __future__ import annotations

from coldframe import settings_check
from coldframe.delayed import APP
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import LINES, Line, Settings

PACKAGE = "django_celery_beat"


def lay(settings: Settings, deployment: Deployment) -> None:
    """Add what is not there; django-celery-beat only if Beat's scheduler is its own. Tables come with the migrations."""
    scheduler = settings_check.given()[settings_check.OWN]["scheduler"]
    installed = list(settings.get("INSTALLED_APPS") or [])
    wanted = {} if APP in installed else {APP: "tasks with a long delay are stored in the database"}
    if scheduler.startswith(f"{PACKAGE}.") and not any(name.partition(".")[0] == PACKAGE for name in installed):
        wanted[PACKAGE] = "Beat keeps its schedule in the database"
    if wanted:
        settings.laid["INSTALLED_APPS"] = [*installed, *wanted]
    for name, note in wanted.items():
        LINES.append(Line("apps", "INSTALLED_APPS", f"without {name}", f"with {name}", note))
    if PACKAGE in wanted and not settings.get("USE_TZ"):
        settings.lay("apps", "DJANGO_CELERY_BEAT_TZ_AWARE", False, "USE_TZ is False")
