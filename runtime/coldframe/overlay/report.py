"""Reports what is laid over the application's settings, and what stays: one line for each setting, grouped by section."""

from __future__ import annotations

import os
from collections.abc import Iterable

from coldframe import overlay, tracing
from coldframe.overlay import record
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Line


def lines(name: str) -> list[Line]:
    """Return the lines of a process that has set up Django.

    :param name: the Celery application, as `module:name`. It is loaded with all of its tasks.
    """
    from celery.app.utils import find_app

    from coldframe.overlay import celery

    app = find_app(name)
    app.loader.import_default_modules()
    app.finalize()
    return [*record.LINES, *tracing.lines(Deployment.read()), *celery.lines(app)]


def text(found: Iterable[Line], own: Iterable[str] = ()) -> str:
    """Return lines as they are printed: a heading for each section, and its lines below.

    :param own: sections that are left to the application.
    """
    listed = list(found)
    printed = []
    for section in overlay.SECTIONS:
        entries = [f"    {line}" for line in listed if line.section == section]
        if section in own:
            entries.append("    left to the application by app_own_settings")
        if entries:
            printed += [section, *entries]
    return "\n".join(printed)


def main() -> None:
    """Load the application as a release's processes do, and print the report."""
    os.environ["DJANGO_SETTINGS_MODULE"] = overlay.MODULE
    deployment = Deployment.read()
    tracing.forbid()
    import django

    django.setup()
    print(text(lines(deployment.celery), deployment.own))
