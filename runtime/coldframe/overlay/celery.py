"""Lays the deployment's settings over those of a Celery application, wherever it reads them from.

An application configures itself when a setting is first read. Then what the deployment decides becomes a part of its
configuration that later changes do not reach: `app.conf.update(...)` changes the rest. In Celery 5.6, names with the
application's prefix (CELERY_BROKER_URL) take precedence over names without one; in 5.7 not. So both are laid over, and the
names of Celery 3.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from celery.app.defaults import DEFAULTS
from celery.app.utils import Settings, find_app
from celery.local import Proxy

from coldframe import seams, settings_check
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import Line, shown
from coldframe.sending import amqp

# What would lead messages elsewhere, or change their form; here at Celery's defaults.
NEUTRAL = {
    "broker_read_url": None,
    "broker_write_url": None,
    "broker_transport": None,
    "broker_user": None,
    "broker_password": None,
    "broker_vhost": None,
    "broker_port": None,
    "broker_use_ssl": False,
    "broker_login_method": None,
    "broker_failover_strategy": None,
    "task_default_exchange": None,
    "task_default_exchange_type": "direct",
    "task_default_routing_key": None,
    "task_default_queue_type": "classic",
    "task_queue_max_priority": None,
}
EAGER = "task_always_eager"
# With results in the deployment's Redis, whose address has the rest.
RESULTS: dict[str, Any] = {"redis_username": None, "redis_password": None, "result_backend_transport_options": {}}
REDIS = ("redis", "rediss", "redis+socket", "rediss+socket", "socket", "unix", "sentinel")
# Results that reach only the process that sent the task, or that one process keeps in its memory.
NOWHERE = ("rpc", "amqp", "pyamqp", "cache+memory", "celery.backends.rpc")
BACKEND = "CELERY_RESULT_BACKEND"
VARIABLE: dict[str, str] = {}  # that one as it was, before it was removed
RESULTS_APP = "django_celery_results"
LOOPBACK = re.compile(r"127\.[\d.]+|::1|0\.0\.0\.0|::|host\.docker\.internal")


class Changes(dict[str, Any]):
    """What code sets in a configuration, with what the deployment decides, which it cannot change."""

    def __init__(self, own: dict[str, Any], laid: dict[str, Any]) -> None:
        """Begin with what the application has set.

        :param own: receives later changes too, also those that have no effect.
        :param laid: what the deployment decides, by each name that Celery looks up.
        """
        super().__init__(own | laid)
        self.own, self.laid = own, laid

    def __setitem__(self, key: str, value: Any) -> None:
        """Set what is the application's."""
        self.own[key] = value
        if key not in self.laid:
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove what is the application's."""
        self.pop(key)

    def update(self, *arguments: Any, **options: Any) -> None:
        """Set several."""
        for key, value in dict(*arguments, **options).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set one that is not set."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Remove what is the application's."""
        self.own.pop(key, None)
        return self[key] if key in self.laid else super().pop(key, *default)

    def clear(self) -> None:
        """Remove all that is the application's."""
        self.own.clear()
        super().clear()
        super().update(self.laid)

    def __reduce__(self) -> Any:
        """Be pickled as a plain mapping: another process lays over what it is given."""
        return dict, (dict(self),)


def install() -> None:
    """Have each application that is made from now on take the deployment's settings, and send tasks as the deployment does."""
    amqp.install()  # a process that the application starts, such as manage.py, has not done so
    seams.put(Celery, "on_init", on_init)


def on_init(app: Any) -> None:
    """Lay over when the application has configured itself; and again when it is complete, and it is known which one it is."""
    app.on_after_configure.connect(lay, weak=False)
    app.on_after_finalize.connect(lay, weak=False)


def lay(sender: Any, **_: Any) -> None:
    """Lay the deployment's settings over those of an application."""
    deployment = Deployment.read()
    if not sender.configured or {"celery", "results"} <= deployment.own:
        return  # it is called again when it is configured
    conf, found = sender.conf, deployed(deployment)
    own = conf.changes.own if isinstance(conf.changes, Changes) else conf.changes
    view = as_set(conf, own)
    if sender is found or found is None or not is_elsewhere(view.first("broker_url", "broker_host")):
        own = Changes(own, {name: value for key, value in values(view, deployment) for name in names(view, key)})
    conf.swap_with(as_set(conf, own))
    if sender is found and sender.finalized and "celery" not in deployment.own:
        os.environ.pop("CELERY_BROKER_URL", None)  # it would be that of any further application too


def as_set(conf: Any, changes: dict[str, Any]) -> Any:
    """Return a configuration with other changes.

    :param conf: of an application.
    :param changes: take the place of what code has set in it.
    """
    return Settings(changes, conf.defaults, conf._keys, prefix=conf.prefix)


def names(conf: Any, key: str) -> set[str]:
    """Return all names by which Celery looks a setting up: itself, with the application's prefix, that of Celery 3."""
    found = {key, *(rename(key) for rename in conf._keys or ())}
    if conf.prefix:
        found.add(conf.prefix + key.upper() if conf.prefix.isupper() else conf.prefix + key)
    return found


def deployed(deployment: Deployment) -> Any:
    """Return the application that the deployment runs; None while its module is not imported as a whole."""
    if deployment.celery.partition(":")[0] not in sys.modules:
        return None
    try:
        app = find_app(deployment.celery)
    except (AttributeError, ImportError):
        return None
    return app._get_current_object() if isinstance(app, Proxy) else app


def values(conf: Any, deployment: Deployment) -> Iterator[tuple[str, Any]]:
    """List what the deployment decides for an application.

    :param conf: the application's own settings.
    """
    given = settings_check.given()
    if "celery" not in deployment.own:
        eager = deployment.development.get("eager", False)
        for key, value in {**NEUTRAL, **given, EAGER: eager}.items():
            own = (key in settings_check.SERIALIZERS and is_safe(conf, key)) or (key == EAGER and value is None)
            if key != settings_check.OWN and not own:
                yield key, value
    if "results" not in deployment.own:
        yield from results(conf, deployment, given)


def is_safe(conf: Any, key: str) -> bool:
    """Whether the application's serializers may stay: they run no code, and those of Flower and Beat are accepted."""
    return settings_check.same(key, None, conf.get(key))


def results(conf: Any, deployment: Deployment, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """List the settings of results, if those of the application cannot work or lead to the deployment's Redis."""
    from django.conf import settings

    address = own_backend(conf)
    if leads_nowhere(address, deployment, given["broker_url"]):
        installed = {name.partition(".")[0] for name in settings.INSTALLED_APPS}
        address = "django-db" if RESULTS_APP in installed else given["broker_url"]
        os.environ.pop(BACKEND, None)
        yield "result_backend", address
    if address == given["broker_url"]:
        yield from {**RESULTS, "redis_backend_use_ssl": given.get("broker_use_ssl")}.items()


def own_backend(conf: Any) -> Any:
    """Return the result backend of the application: of Celery's variable, which it prefers, or of its settings."""
    if value := os.environ.get(BACKEND):
        VARIABLE[BACKEND] = value
    return VARIABLE.get(BACKEND) or conf.result_backend


def forget_backend(deployment: Deployment) -> None:
    """Remove Celery's variable of the result backend if that leads nowhere: an application that is not configured yet would use it."""
    if "results" in deployment.own:
        return
    if leads_nowhere(os.environ.get(BACKEND), deployment, settings_check.given()["broker_url"]):
        VARIABLE[BACKEND] = os.environ.pop(BACKEND)


def leads_nowhere(address: Any, deployment: Deployment, broker: str) -> bool:
    """Whether results would be lost: kept in one process, at an address of a developer's machine, or in the cache.

    :param address: the result backend of the application.
    :param broker: the deployment's broker, where results may be kept too.
    """
    if not isinstance(address, str) or not address or address == broker:
        return False
    scheme, separator, _ = address.partition("://")
    if scheme.partition(":")[0] in NOWHERE or address.startswith("db+sqlite"):
        return True
    if not separator or scheme in ("file", "disabled"):
        return False
    here = urlsplit(deployment.environment["CACHE_URL"])
    place = urlsplit(address.split(";")[0])
    at_cache = scheme in REDIS and (place.hostname, place.port) == (here.hostname, here.port)
    return at_cache or not is_elsewhere(address)


def is_elsewhere(address: Any) -> bool:
    """Whether an address is that of another machine by its full name or number.

    A name without a dot, such as `redis`, is taken for that of a container on a developer's machine.
    """
    first = address[0] if isinstance(address, (list, tuple)) and address else address
    host = urlsplit(str(first or "").split(";")[0]).hostname or ""
    return bool(re.search(r"[.:]", host)) and not LOOPBACK.fullmatch(host)


def lines(app: Any) -> Iterator[Line]:
    """List what is laid over the settings of an application, and which of its own stay."""
    _ = app.conf.broker_url  # configures it
    changes = app.conf.changes
    if not isinstance(changes, Changes):
        return
    own = as_set(app.conf, changes.own)
    sources = [changes.own, *app.conf.defaults[:-1]]  # the last are Celery's defaults
    silent = []
    for key in sorted({*DEFAULTS, *settings_check.given()} - {settings_check.OWN}):
        said = any(name in source for source in sources for name in names(own, key))
        said = said or (key == "result_backend" and BACKEND in VARIABLE)
        value, section = app.conf.get(key), "results" if "result" in key or key in RESULTS else "celery"
        before = own_backend(own) if key == "result_backend" else own.get(key)
        if key in changes.laid and said and before != value:
            yield Line(section, key, shown(before, key), shown(value, key), "")
        elif key in changes.laid and before != value:
            silent.append(Line(section, key, shown(before, key), shown(value, key), "the application does not set it"))
        elif said and key not in changes.laid:
            note = "behind celery_task_routes" if key == "task_routes" else ""
            yield Line(section, key, shown(before, key), "", note)
    yield from silent
