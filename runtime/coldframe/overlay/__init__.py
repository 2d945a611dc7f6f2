"""Lays the deployment's settings over those of the application, which needs no line for that.

DJANGO_SETTINGS_MODULE of a release's processes is `coldframe.settings`. That module

1. adds variables in the usual forms to `os.environ` (`environment.py`), for settings that read DATABASE_URL, SECRET_KEY
   and the like. Secrets are read from the unit's credentials, and are removed again after step 2;
2. imports the application's own settings module, which APP_SETTINGS_MODULE names;
3. lays over it what the deployment decides, section by section (`SECTIONS`), and records each change (`record.py`);
4. writes the changed values into the application's module too, for code that imports it directly.

Celery's settings are laid over when an application configures itself (`celery.py`), wherever it reads them from.

What the deployment decides is in the file that OVERLAY_FILE names, and in CELERY_SETTINGS_FILE. A section that
`app_own_settings` names is left to the application. docs/settings.md describes each section.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from coldframe.overlay import apps, cache, channels, database, environment, files, logs, mail, site, tracing
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Settings

MODULE = "coldframe.settings"
# The sections that `app_own_settings` may name, in the order of the report, with the function that lays one over Django's
# settings. Those without one are variables (`environment`) and Celery's settings.
SECTIONS: dict[str, Callable[[Settings, Deployment], None] | None] = {
    "environment": None,
    "database": database.lay,
    "cache": cache.lay,
    "channels": channels.lay,
    "secret_key": site.lay_secret_key,
    "hosts": site.lay_hosts,
    "debug": site.lay_debug,
    "security": site.lay_security,
    "static": files.lay_static,
    "media": files.lay_media,
    "email": mail.lay,
    "logging": logs.lay,
    "apps": apps.lay,
    "tracing": tracing.lay,
    "celery": None,
    "results": None,
}


def active() -> bool:
    """Whether this process has the settings of a release, and not those of an application by itself."""
    return os.environ.get("DJANGO_SETTINGS_MODULE") == MODULE


def load() -> None:
    """Load Django's settings now, before the application. If it sets DJANGO_SETTINGS_MODULE after this, nothing changes.

    Raises what the application's settings module raises.
    """
    if active():
        from django.conf import settings

        _ = settings.DEBUG


def django_settings() -> dict[str, Any]:
    """Return the settings of Django: the application's with the deployment's over them.

    Raises ImproperlyConfigured for an application that cannot be deployed, and what its settings module raises.
    """
    from coldframe.overlay import celery

    celery.install()  # the settings' own package may have the Celery application in it
    deployment = Deployment.read()
    name = os.environ["APP_SETTINGS_MODULE"]
    with environment.variables(deployment):
        module = imported(name)
    celery.forget_backend(deployment)
    settings = Settings({key: getattr(module, key) for key in dir(module) if key.isupper()}, name)
    for section, lay in SECTIONS.items():
        if lay and section not in deployment.own:
            lay(settings, deployment)
    for key, value in settings.laid.items():
        setattr(module, key, value)
    return settings.own | settings.laid


def imported(name: str) -> Any:
    """Import the application's settings module, as Django would.

    :param name: of the module.
    """
    from django.conf import UserSettingsHolder
    from django.conf import settings as django
    from django.core.exceptions import ImproperlyConfigured

    os.environ["DJANGO_SETTINGS_MODULE"] = name  # settings that ask for it, or for django.conf.settings, see themselves
    try:
        if os.environ.get("DJANGO_CONFIGURATION"):  # django-configurations: a class is turned into a module's names
            importlib.import_module("configurations.importer").install()
        module = importlib.import_module(name)
    finally:
        os.environ["DJANGO_SETTINGS_MODULE"] = MODULE
    if isinstance(django._wrapped, UserSettingsHolder):
        raise ImproperlyConfigured(
            f"{name} calls settings.configure(), and nothing can be laid over that. Name a module with the settings as "
            "names in upper case: app_settings_module."
        )
    if not any(key.isupper() for key in dir(module)):
        raise ImproperlyConfigured(
            f"{name} has no settings, which are names in upper case. Set app_settings_module to the module that has them."
        )
    return module
