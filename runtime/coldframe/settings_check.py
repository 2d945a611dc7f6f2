"""Checks what the application's settings lead to, before anything runs.

What the deployment decides is laid over them (coldframe.overlay). Checked is what it does not decide: tasks without a
queue, time limits that are longer than those of the queues, addresses that do not answer. And that the deployment's
settings have their effect in Celery: broker, queues, limits and acknowledgement depend on each other, and with only some of
them, tasks are lost. They may lack it where an application keeps its own (`app_own_settings`).
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coldframe.places import Finding

REMEDY = """Take celery out of app_own_settings, and the deployment's settings are laid over. Or write this behind the last CELERY_
line of {module}, which works with every Celery (docs/settings.md):
    CELERY = json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text())
    globals().update({{f"CELERY_{{name.upper()}}": value for name, value in CELERY.items()}})
and app.config_from_object("django.conf:settings", namespace="CELERY") in the module of the Celery application."""
WITHOUT_EFFECT = """The deployment's settings have no effect on this Celery application. app_celery must name an instance of celery.Celery
that was made when the application was imported, and its class must not define on_init."""
RESULTS = """Take results out of app_own_settings, or set another CELERY_RESULT_BACKEND: "django-db" (with django-celery-results in
the requirements and django_celery_results in INSTALLED_APPS), or the address in broker_url of CELERY_SETTINGS_FILE."""
CACHES = """Caches in Redis are laid over unless app_own_settings has cache. One of your own is at CACHE_URL, with the user `cache`
(at a provider's Redis the one that make preflight names) and the credential cache_password."""
OWN = "coldframe"  # the part of the file that is for this package, and not for Celery
# The application may choose these, except for formats that run code when they are read. Flower and Beat use JSON.
SERIALIZERS = {"accept_content", "result_accept_content", "task_serializer", "result_serializer"}
UNSAFE = {"pickle", "yaml", "application/x-python-serialize", "application/x-yaml"}
PATIENCE = 2.0  # seconds to wait for a connection
REDIS = (
    "redis",
    "rediss",
)  # schemes of addresses where nothing answers on a server's loopback: the deployment's has a socket
SMTP = "django.core.mail.backends.smtp.EmailBackend"  # Django's default
# Django's backends that send nothing, and where the mail goes instead.
UNSENT = {
    "django.core.mail.backends.console.EmailBackend": "it is only written to the journal",
    "django.core.mail.backends.dummy.EmailBackend": "it is dropped",
    "django.core.mail.backends.filebased.EmailBackend": "it is only written to files",
    "django.core.mail.backends.locmem.EmailBackend": "it is kept in the memory of the process, and lost",
}
LOOPBACK = re.compile(r"localhost|127\.[\d.]+|::1|0\.0\.0\.0")


def given() -> dict[str, Any]:
    """Read the deployment's settings."""
    settings: dict[str, Any] = json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text())
    return settings


def shown(value: Any) -> str:
    """Return a value as text, without the passwords in addresses."""
    text = re.sub(r"(://)[^\s'\"]*@", r"\1***@", repr(value))
    text = re.sub(r"(?i)([?&]\w*pass\w*=)[^&\s'\"]+", r"\1***", text)
    return text if len(text) <= 120 else text[:117] + "..."


def names(queues: Any) -> set[str]:
    """Return the names of the queues in `task_queues`, a mapping or a list."""
    return set(queues) if isinstance(queues, dict) else {queue.name for queue in queues or ()}


def same(key: str, wanted: Any, found: Any) -> bool:
    """Whether a setting contains what the deployment sets."""
    if key == "task_queues":
        return names(found) == names(wanted)
    if key in SERIALIZERS:
        chosen = {found} if isinstance(found, str) else set(found or ())
        return not chosen & UNSAFE and (key != "accept_content" or bool(chosen & {"json", "application/json"}))
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(found.get(name) == value for name, value in wanted.items())
    return bool((list(found) if isinstance(found, tuple) else found) == wanted)


def own(key: str, app: Any) -> Any:
    """Return the value of a Celery setting in Django's settings, or None."""
    from django.conf import settings

    return getattr(settings, setting(key, app), None)


def setting(key: str, app: Any) -> str:
    """Return the name that a Celery setting has in Django's settings."""
    return f"{app.namespace or 'CELERY'}_{key.upper()}"


def origin(key: str, app: Any) -> str:
    """Describe where a setting comes from."""
    if own(key, app) is not None:
        return f"{setting(key, app)} in {module()}"
    return "Celery's default or the application's code"


def module() -> str:
    """Return the name of the application's settings module."""
    return os.environ.get("APP_SETTINGS_MODULE") or os.environ.get("DJANGO_SETTINGS_MODULE", "the settings module")


def left_to_application(section: str) -> bool:
    """Whether a section of the settings is not laid over: by `app_own_settings`, or because there is no overlay here."""
    file = os.environ.get("OVERLAY_FILE")
    return not file or section in json.loads(Path(file).read_text())["own"]


def remedy() -> str:
    """Say what to write when Celery does not have the deployment's settings."""
    return REMEDY.format(module=module()) if left_to_application("celery") else WITHOUT_EFFECT


def differences(app: Any) -> list[Finding]:
    """List the settings of the deployment that the application does not have."""
    wrong = []
    for key, wanted in given().items():
        if key != OWN and not same(key, wanted, found := app.conf.get(key)):
            text = f"{key} is {shown(found)} ({origin(key, app)}), and the deployment gives {shown(wanted)}."
            wrong.append(Finding(text, setting=setting(key, app) if own(key, app) is not None else ""))
    return wrong


def require(app: Any) -> None:
    """Exit when the application's Celery settings differ from those of the deployment."""
    if wrong := differences(app):
        raise SystemExit("\n".join([*wrong, remedy()]))


def queue_of(app: Any, name: str, task: Any) -> str:
    """Return the queue that a task is sent to; an empty text when that depends on its arguments."""
    queue = getattr(task, "queue", None)
    if not queue:
        try:
            queue = app.amqp.router.route({}, name, (), {}, task_type=task).get("queue")
        except KeyError as error:  # celery.exceptions.QueueNotFound is one
            missing = re.search(r"'([^']+)'", str(error))
            queue = missing[1] if missing else str(error)
        except Exception:  # the application's router needs arguments
            return ""
    return getattr(queue, "name", queue) or app.conf.task_default_queue


def tasks(app: Any) -> Iterator[Finding]:
    """List tasks whose queue does not exist, or whose time limit is longer than that of their queue."""
    limits, queues = given()[OWN]["limits"], names(given()["task_queues"])
    for name, task in sorted(app.tasks.items()):
        queue = "" if name.startswith(("celery.", "coldframe.")) else queue_of(app, name, task)
        if queue and queue not in queues:
            yield Finding(
                f"The application sends the task {name} to the queue {queue!r}, which is not in celery_queues "
                f"({', '.join(sorted(queues))}). Add it there, or write celery_task_routes: {{{name}: {min(queues)}}}.",
                code=task,
            )
        if getattr(task, "serializer", None) in UNSAFE:
            yield Finding(
                f"The task {name} has serializer={task.serializer!r}, and no worker accepts a format that runs code when it is "
                "read. Send what JSON has, such as the id of an object.",
                code=task,
            )
        for option in ("time_limit", "soft_time_limit") if queue in queues else ():
            longest, asked = limits[queue]["time_limit"], getattr(task, option, None)
            if asked and asked > longest and asked != app.conf.get(f"task_{option}"):
                yield Finding(
                    f"The task {name} has {option}={asked}, and its queue {queue} ends each task after {longest} s. "
                    f"Write celery_queues: {{{queue}: {{time_limit: {asked}}}}}, or route it to a queue that allows that.",
                    code=task,
                )


def limits(app: Any) -> Iterator[Finding]:
    """List time limits for all tasks that are longer than that of their queue."""
    default = app.conf.task_default_queue
    longest = given()[OWN]["limits"][default]["time_limit"]
    for option in ("time_limit", "soft_time_limit"):
        asked = app.conf.get(f"task_{option}")
        if asked and asked > longest:
            yield Finding(
                f"task_{option} is {asked} ({origin(f'task_{option}', app)}), and the queue {default} ends each task after "
                f"{longest} s. Write celery_queues: {{{default}: {{time_limit: {asked}}}}}, or take the setting out.",
                setting=setting(f"task_{option}", app),
            )


def scheduler(app: Any) -> Iterator[Finding]:
    """List a scheduler that is not the one of Beat's unit."""
    runs, asked = given()[OWN]["scheduler"], app.conf.beat_scheduler
    if str(asked).replace(":", ".") not in (runs.replace(":", "."), "celery.beat.PersistentScheduler"):
        yield Finding(
            f"CELERY_BEAT_SCHEDULER is {asked!r} in {module()}, and Beat runs {runs!r}. "
            f"Write celery_beat_scheduler: {asked}, or take the setting out.",
            setting=setting("beat_scheduler", app),
        )


def results(app: Any, reach: bool = True) -> Iterator[Finding]:
    """List a result backend that does not answer. Every `.delay()` would wait for it for seconds, and fail.

    :param reach: whether what it needs can be reached from here. Otherwise only the address is read.
    """
    address, name = app.conf.result_backend, setting("result_backend", app)
    if str(address).partition(":")[0] in ("rpc", "celery.backends.rpc"):
        yield Finding(
            f"CELERY_RESULT_BACKEND is {shown(address)}, by which a result reaches only the process that sent the task, and no "
            f"process of the web may read from the broker. {RESULTS}",
            setting=name,
        )
        return
    if not reach and is_nowhere(address):
        yield Finding(
            f"CELERY_RESULT_BACKEND is {shown(address)}, and no Redis listens there on a server. {RESULTS}",
            setting=name,
        )
        return
    app.conf.update(redis_socket_connect_timeout=PATIENCE, redis_socket_timeout=PATIENCE)
    try:
        backend = app.backend
        if reach and any(kind.__module__.startswith("celery.backends.redis") for kind in type(backend).__mro__):
            backend.client.ping()
    except Exception as error:
        if reach or not isinstance(error, OSError):
            yield Finding(
                f"CELERY_RESULT_BACKEND is {shown(address)}, which cannot be used: {shown(error)}. {RESULTS}",
                setting=name,
            )


def is_nowhere(address: Any) -> bool:
    """Whether an address is that of a Redis at the server's own loopback, where the deployment has none."""
    url = urlsplit(str(address).split(";")[0])
    return url.scheme in REDIS and bool(LOOPBACK.fullmatch(url.hostname or "localhost"))


def caches(reach: bool = True) -> Iterator[Finding]:
    """List the entries of CACHES that do not answer.

    :param reach: whether they can be reached from here. Otherwise only the addresses are read.
    """
    from django.conf import settings
    from django.core.cache import caches as known

    for alias, options in settings.CACHES.items():
        places = options.get("LOCATION") or ()
        places = re.split(r"[;,]", places) if isinstance(places, str) else places
        if not reach:
            yield from (
                Finding(
                    f"CACHES[{alias!r}]['LOCATION'] is {shown(place)}, and no Redis listens there on a server. {CACHES}",
                    setting="CACHES",
                )
                for place in places
                if is_nowhere(place)
            )
            continue
        for place in places:
            what = f"CACHES[{alias!r}]['LOCATION'] is {shown(place)}"
            try:
                connect(str(place))
            except OSError as error:
                yield Finding(f"{what}, and nothing answers there: {error}. {CACHES}", setting="CACHES")
                break
        else:
            try:
                read(known[alias])
            except Exception as error:
                if any(word in type(error).__name__ for word in ("Connection", "Timeout", "Authentication")):
                    yield Finding(
                        f"CACHES[{alias!r}] cannot be used: {type(error).__name__}: {shown(str(error))}. {CACHES}",
                        setting="CACHES",
                    )


def hosts() -> Iterator[Finding]:
    """List host names of the deployment for which the application would answer each request with 400."""
    from django.conf import settings
    from django.http.request import validate_host

    if missing := [
        n for n in os.environ.get("ALLOWED_HOSTS", "").split(",") if n and not validate_host(n, settings.ALLOWED_HOSTS)
    ]:
        yield Finding(
            f"ALLOWED_HOSTS in {module()} is {shown(settings.ALLOWED_HOSTS)}, and requests come for {', '.join(missing)}. "
            'Take hosts out of app_own_settings, or write ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",").',
            setting="ALLOWED_HOSTS",
        )


def database() -> Iterator[Finding]:
    """List a default database that is not PostgreSQL, although the deployment's is laid over."""
    from django.db import connection

    if connection.vendor != "postgresql" and not left_to_application("database"):
        yield Finding(
            f"The ENGINE of DATABASES['default'] in {module()} is {connection.settings_dict['ENGINE']!r}, which is no engine of "
            "PostgreSQL. Take one that is, or keep the database, at a server of yours, with app_own_settings: [database].",
            setting="DATABASES",
        )


def folders() -> Iterator[Finding]:
    """List MEDIA_ROOT and STATIC_ROOT where they are left to the application, and are in the folder of the release."""
    from django.apps import apps
    from django.conf import settings

    static = apps.is_installed("django.contrib.staticfiles") and os.environ["STATIC_ROOT"]
    for name, section, what, wanted in (
        ("MEDIA_ROOT", "media", "each upload", os.environ["MEDIA_ROOT"]),
        ("STATIC_ROOT", "static", "collectstatic", static),
    ):
        root = getattr(settings, name, None)
        if wanted and root and left_to_application(section) and is_read_only(root, wanted):
            yield Finding(
                f"{name} in {module()} is {str(root)!r}, in the folder of the release, which is read-only: {what} would fail. "
                f'Take {section} out of app_own_settings, or write {name} = os.environ["{name}"].',
                setting=name,
            )


def is_read_only(folder: Any, writable: str) -> bool:
    """Whether a folder is in one of a release, and not the one there that is written to."""
    path, releases = Path(folder).resolve(), Path(os.environ["MEDIA_ROOT"]).resolve().parents[1] / "releases"
    return path.is_relative_to(releases) and not path.is_relative_to(Path(writable).resolve())


def uploads() -> Iterator[Finding]:
    """List fields that store files in the folder of the release, elsewhere than in MEDIA_ROOT. Each upload would fail."""
    from django.apps import apps
    from django.conf import settings
    from django.core.files.storage import FileSystemStorage
    from django.db.models import FileField

    found: dict[str, list[Any]] = {}
    for model in apps.get_models():
        for field in model._meta.local_fields:
            storage = getattr(field, "storage", None) if isinstance(field, FileField) else None
            if (
                isinstance(storage, FileSystemStorage)
                and is_read_only(storage.location, os.environ["MEDIA_ROOT"])
                and Path(storage.location) != Path(settings.MEDIA_ROOT or "/").absolute()
            ):
                found.setdefault(str(storage.location), []).append(field)
    for location, fields in found.items():
        shown = ", ".join(f"{field.model._meta.label}.{field.name}" for field in fields[:3])
        shown += f" and {len(fields) - 3} more" if len(fields) > 3 else ""
        yield Finding(
            f"The files of {shown} would be kept in {location}, and a release's folder is read-only. "
            "Use settings.MEDIA_ROOT or a folder below it, and leave media out of app_own_settings.",
            code=fields[0].model,
        )


def read(cache: Any) -> None:
    """Read from a cache. Raises its errors, even if django-redis is configured to hide them (IGNORE_EXCEPTIONS)."""
    hides = getattr(cache, "_ignore_exceptions", False)
    try:
        if hides:
            cache._ignore_exceptions = False
        cache.get("coldframe")
    finally:
        if hides:
            cache._ignore_exceptions = hides


def connect(address: str) -> None:
    """Open a connection to the address of a cache, and close it. Does nothing if it is no address. Raises OSError."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme in ("unix", "redis+socket"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(parts.path)
        return
    port = {"redis": 6379, "rediss": 6379}.get(parts.scheme)
    with suppress(ValueError):
        port = parts.port or port
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), PATIENCE).close()


def problems(name: str, reach: bool = True) -> list[Finding]:
    """List everything that is wrong with the settings, and what to write.

    :param name: the Celery application, as `module:name`.
    :param reach: whether the addresses in the settings can be reached from here.

    Raises what the import of the application raises.
    """
    from celery.app.utils import find_app

    app = find_app(name)
    app.loader.import_default_modules()
    app.finalize()
    if wrong := differences(app):
        wrong.append(Finding(remedy()))
    else:
        wrong = [*tasks(app), *limits(app), *scheduler(app)]
    return [*wrong, *results(app, reach), *caches(reach), *database(), *hosts(), *folders(), *uploads()]


def warnings() -> list[Finding]:
    """List what may fail on a server with the settings, and what to write."""
    from django.conf import settings

    file = os.environ.get("OVERLAY_FILE")
    given = json.loads(Path(file).read_text()) if file else {}
    if given.get("email"):
        return []
    if (backend := settings.EMAIL_BACKEND) in UNSENT:
        text = (
            f"No e-mail is sent: EMAIL_BACKEND is {backend!r}, so {UNSENT[backend]}. Name a server with app_email, or set "
            "EMAIL_BACKEND to one that sends."
        )
        return [] if given.get("email_logged") else [Finding(text, setting="EMAIL_BACKEND")]
    host = settings.EMAIL_HOST or "localhost"
    if backend != SMTP or not LOOPBACK.fullmatch(host):
        return []
    text = (
        f"E-mail is sent to {host}:{settings.EMAIL_PORT}, and no server listens there unless you install one: a page "
        "that sends mail would fail. Name a server with app_email, or set EMAIL_BACKEND."
    )
    return [Finding(text, setting="EMAIL_HOST")]


def refuse(name: str) -> None:
    """Raise CommandError with everything that is wrong with the settings, and what to write.

    :param name: the Celery application, as `module:name`.

    Also raises what the import of the application raises.
    """
    from django.core.management import CommandError

    if wrong := problems(name):
        raise CommandError("\n".join(finding.text for finding in wrong))
