"""Django projects as people write them, each with another layout. None of them can be imported: there is no Django here."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

MANAGE = """
    #!/usr/bin/env python
    import os
    import sys

    def main():
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)

    if __name__ == "__main__":
        main()
"""
SERVED = """
    import os
    from django.core.{kind} import get_{kind}_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")

    application = get_{kind}_application()
"""
SETTINGS = """
    from pathlib import Path

    BASE_DIR = Path(__file__).resolve().parent.parent
    SECRET_KEY = "django-insecure-%(rest)s"  # pragma: allowlist secret
    DEBUG = True
    INSTALLED_APPS = ["django.contrib.admin", "django.contrib.staticfiles", %(apps)s]
    ROOT_URLCONF = "%(package)s.urls"
    WSGI_APPLICATION = "%(package)s.wsgi.application"
    STATIC_URL = "static/"
"""
CELERY = """
    import os
    from celery import Celery

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")

    app = Celery("{package}")
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.autodiscover_tasks()
"""


def write(root: Path, **files: str) -> Path:
    """Write files; a name has __ for / and the dot before its last part is as it is."""
    for name, text in files.items():
        put(root / name, text)
    return root


def put(path: Path, text: str) -> None:
    """Write one file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text).lstrip("\n"))


def package(root: Path, name: str, settings: str = "", apps: str = "", namespace: bool = True) -> None:
    """Write what `django-admin startproject` does, with Celery as its guide has it."""
    settings = settings or f"{name}.settings"
    put(root / name / "wsgi.py", SERVED.format(kind="wsgi", settings=settings))
    put(root / name / "asgi.py", SERVED.format(kind="asgi", settings=settings))
    put(
        root / name / "urls.py",
        """
        from django.contrib import admin
        from django.urls import path

        urlpatterns = [path("admin/", admin.site.urls)]
        """,
    )
    if namespace:
        put(root / name / "celery.py", CELERY.format(settings=settings, package=name))
        put(root / name / "__init__.py", 'from .celery import app as celery_app\n\n__all__ = ("celery_app",)\n')
    else:
        put(root / name / "__init__.py", "")
    if settings == f"{name}.settings":
        put(root / name / "settings.py", SETTINGS % {"rest": "x" * 30, "apps": apps, "package": name})


def startproject(root: Path) -> Path:
    """`startproject`, an app with tasks, and a requirements.txt without versions."""
    put(root / "manage.py", MANAGE.format(settings="bakery.settings"))
    package(root, "bakery", apps='"orders"')
    put(
        root / "orders/tasks.py",
        """
        from celery import shared_task

        @shared_task
        def bake(order):
            return order

        @shared_task(queue="labels", time_limit=2 * 60 * 60)
        def print_labels():
            bake.apply_async((1,), queue="ovens", countdown=900)
        """,
    )
    put(root / "orders/__init__.py", "")
    put(root / "requirements.txt", "Django>=5.2,<6\ncelery\npsycopg2==2.9.9  # as always\n")
    return root


def environ(root: Path) -> Path:
    """django-environ, settings that are one module, routes in them, a page for health."""
    put(root / "manage.py", MANAGE.format(settings="clinic.settings"))
    package(root, "clinic")
    put(
        root / "clinic/settings.py",
        """
        import environ

        env = environ.Env(DEBUG=(bool, False))
        DEBUG = env("DEBUG")
        SECRET_KEY = env("SECRET_KEY")
        SMS_TOKEN = env.str("SMS_GATEWAY_TOKEN")
        REGION = env("REGION", default="north")
        DATABASES = {"default": env.db("DATABASE_URL")}
        INSTALLED_APPS = ["django.contrib.admin", "django_celery_beat", "patients"]
        ROOT_URLCONF = "clinic.urls"
        WSGI_APPLICATION = "clinic.wsgi.application"
        MEDIA_URL = "/scans/"
        CELERY_TASK_DEFAULT_QUEUE = "desk"
        CELERY_TASK_ROUTES = {
            "patients.tasks.remind": {"queue": "mail"},
            "patients.tasks.export_*": "exports",
        }
        CELERY_TASK_TIME_LIMIT = 30 * 60
        CELERY_BEAT_SCHEDULE = {"nightly": {"task": "patients.tasks.tidy", "schedule": 60, "options": {"queue": "night"}}}
        """,
    )
    put(
        root / "clinic/urls.py",
        """
        from django.contrib import admin
        from django.urls import include, path, re_path

        urlpatterns = [
            path("admin/", admin.site.urls),
            path("", lambda request: None),
            path("internal/", include("clinic.internal")),
            re_path(r"^ping/?$", lambda request: None),
        ]
        """,
    )
    put(
        root / "clinic/internal.py",
        """
        from django.urls import path

        urlpatterns = [path("<int:pk>/health/", print), path("health/", print), path("metrics/", print)]
        """,
    )
    put(root / "patients/__init__.py", "")
    put(root / "requirements.in", "django\ncelery[redis]\n")
    put(
        root / "requirements.txt",
        """
        #
        # This file is autogenerated by pip-compile with Python 3.12
        #
        celery==5.6.3
            # via -r requirements.in
        django==5.2.19
        django-environ==0.13.0
        python-magic==0.4.27
        gunicorn==27.0.1
        """,
    )
    return root


def cookiecutter(root: Path) -> Path:
    """A settings package, requirements in a folder, an app folder on sys.path, as the well-known template has it."""
    put(
        root / "manage.py",
        """
        import os
        import sys
        from pathlib import Path

        if __name__ == "__main__":
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")
            from django.core.management import execute_from_command_line

            sys.path.append(str(Path(__file__).parent.resolve() / "field_notes"))
            execute_from_command_line(sys.argv)
        """,
    )
    package(root, "config", settings="config.settings.production", namespace=False)
    put(root / "config/__init__.py", 'from .celery_app import app as celery_app\n\n__all__ = ("celery_app",)\n')
    put(root / "config/celery_app.py", CELERY.format(settings="config.settings.local", package="field_notes"))
    put(
        root / "config/urls.py",
        """
        from django.conf import settings
        from django.contrib import admin
        from django.urls import include, path

        urlpatterns = [
            path("", print, name="home"),
            path(settings.ADMIN_URL, admin.site.urls),
            path("users/", include("field_notes.users.urls", namespace="users")),
        ]
        """,
    )
    put(root / "package.json", '{"scripts": {"dev": "webpack serve", "build": "webpack"}}\n')
    put(root / "package-lock.json", "{}\n")
    put(root / "locale/fr/LC_MESSAGES/django.po", "")
    put(root / "config/settings/__init__.py", "")
    put(
        root / "config/settings/base.py",
        """
        import environ

        env = environ.Env()
        ROOT_URLCONF = "config.urls"
        WSGI_APPLICATION = "config.wsgi.application"
        DJANGO_APPS = ["django.contrib.admin"]
        LOCAL_APPS = ["field_notes.users"]
        INSTALLED_APPS = DJANGO_APPS + ["django_celery_beat"] + LOCAL_APPS
        MEDIA_URL = "/media/"
        CELERY_TASK_TIME_LIMIT = 5 * 60
        CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
        """,
    )
    put(root / "config/settings/local.py", "from .base import *\n\nSECRET_KEY = 'x'\nDEBUG = True\n")
    put(root / "config/settings/test.py", "from .base import *\n")
    put(
        root / "config/settings/production.py",
        """
        from .base import *  # noqa
        from .base import INSTALLED_APPS, env

        SECRET_KEY = env("DJANGO_SECRET_KEY")
        ADMIN_URL = env("DJANGO_ADMIN_URL")
        INSTALLED_APPS += ["anymail"]
        """,
    )
    put(root / "field_notes/__init__.py", "")
    put(root / "field_notes/config.py", "")  # of the name that a package at the top has
    put(root / "field_notes/users/__init__.py", "")
    put(
        root / "field_notes/users/tasks.py",
        """
        from celery import shared_task

        @shared_task()
        def get_users_count():
            return 0
        """,
    )
    put(
        root / "requirements/base.txt",
        "django==5.2.19\ncelery==5.6.3  # https://github.com/celery/celery\ndjango-celery-beat==2.9.0\n",
    )
    put(root / "requirements/local.txt", "-r base.txt\npsycopg[c]==3.3.4\nwatchdog==6.0.0\n")
    put(root / "requirements/production.txt", "# the server's\n-r base.txt\n\ngunicorn==27.0.1\npsycopg[c]==3.3.4\n")
    put(root / "pyproject.toml", '[project]\nname = "field_notes"\nversion = "0"\nrequires-python = "==3.14.*"\n')
    put(root / ".envs/.production/.django", "DJANGO_ADMIN_URL=secret/\n")
    return root


def src(root: Path) -> Path:
    """A package in src, uv with groups, Celery's settings without a namespace."""
    put(root / "manage.py", MANAGE.format(settings="ledger.conf.settings"))
    package(root / "src", "ledger", settings="ledger.conf.settings", namespace=False)
    put(root / "src/ledger/conf/__init__.py", "")
    put(
        root / "src/ledger/conf/settings.py",
        SETTINGS % {"rest": "y" * 30, "apps": '"ledger.books"', "package": "ledger"},
    )
    put(
        root / "src/ledger/queue.py",
        """
        import celery

        class Ledger(celery.Celery):
            pass

        worker: Ledger = Ledger("ledger")
        worker.config_from_object("django.conf:settings")
        worker.conf.update(task_routes=([("ledger.books.*", {"queue": "books"})],), task_default_queue="front")
        """,
    )
    put(root / "src/ledger/books/__init__.py", "")
    put(
        root / "pyproject.toml",
        """
        [project]
        name = "ledger"
        version = "1"
        requires-python = ">=3.12"
        dependencies = ["django>=5.2,<6", "celery[redis]>=5.6"]

        [dependency-groups]
        dev = ["pytest"]
        production = ["gunicorn"]

        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        """,
    )
    locked = {
        "django": "5.2.18",
        "celery": "5.6.3",
        "kombu": "5.6.2",
        "redis": "6.4.0",
        "gunicorn": "27.0.1",
        "pytest": "9.0.0",
    }
    put(
        root / "uv.lock",
        'version = 1\nrevision = 3\nrequires-python = ">=3.12"\n\n' + "".join(map(uv_package, locked.items())),
    )
    with (root / "uv.lock").open("a") as lock:
        lock.write(UV_PROJECT)
    return root


UV_PROJECT = """[[package]]
name = "ledger"
version = "1"
source = { editable = "." }
dependencies = [{ name = "celery", extra = ["redis"] }, { name = "django" }]

[package.dev-dependencies]
dev = [{ name = "pytest" }]
production = [{ name = "gunicorn" }]
"""


def uv_package(package: tuple[str, str]) -> str:
    """A package of uv.lock."""
    name, version = package
    needs = {"celery": 'dependencies = [{ name = "kombu", extra = ["redis"] }]\n'}.get(name, "")
    extra = {
        "kombu": '\n[package.optional-dependencies]\nredis = [{ name = "redis" }]\n',
        "celery": '\n[package.optional-dependencies]\nredis = [{ name = "redis" }]\n',
    }.get(name, "")
    sdist = f'sdist = {{ url = "https://index.example.org/{name}-{version}.tar.gz", hash = "sha256:{"0" * 64}", size = 1 }}\n'
    index = 'source = { registry = "https://index.example.org/simple" }\n'
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\n{index}{needs}{sdist}{extra}\n'


def poetry(root: Path) -> Path:
    """Poetry with its own tables and lock file."""
    put(root / "manage.py", MANAGE.format(settings="museum.settings"))
    package(root, "museum")
    put(
        root / "pyproject.toml",
        """
        [tool.poetry]
        name = "museum"
        version = "0.1.0"
        description = ""
        authors = []
        package-mode = false

        [tool.poetry.dependencies]
        python = "^3.11"
        django = "^5.2"
        celery = {version = "~5.6", extras = ["redis"]}
        sentry-sdk = {version = "^2", optional = true}

        [tool.poetry.group.dev.dependencies]
        pytest = "*"

        [tool.poetry.group.production.dependencies]
        whitenoise = "*"
        """,
    )
    locked = {
        "django": "5.2.18",
        "celery": "5.6.3",
        "kombu": "5.6.1",
        "redis": "6.4.0",
        "whitenoise": "6.9.0",
        "pytest": "9.0.0",
    }
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\noptional = false\n\n' for name, version in locked.items()
    )
    put(root / "poetry.lock", f'{lock}[metadata]\nlock-version = "2.0"\n')
    return root


def pipenv(root: Path) -> Path:
    """Pipenv, and `celery` in a module of its own name elsewhere."""
    put(root / "manage.py", MANAGE.format(settings="radio.settings"))
    package(root, "radio", namespace=False)
    put(
        root / "radio/jobs/main.py",
        """
        from celery import Celery as Application
        from django.conf import settings

        def make():
            made = Application("radio")
            made.config_from_object(settings, namespace="JOBS")
            return made

        celery_app = make()
        """,
    )
    put(root / "radio/jobs/__init__.py", "")
    put(
        root / "radio/settings.py",
        (SETTINGS % {"rest": "z" * 30, "apps": "", "package": "radio"})
        + '    JOBS_TASK_QUEUES = {"air": {}, "archive": {}}\n',
    )
    put(
        root / "Pipfile",
        """
        [packages]
        django = "*"
        celery = {extras = ["redis"], version = ">=5.6"}

        [dev-packages]
        pytest = "*"

        [requires]
        python_version = "3.12"
        """,
    )
    put(
        root / "Pipfile.lock",
        """
        {"_meta": {}, "default": {"django": {"version": "==5.2.18", "markers": "python_version >= '3.10'"},
         "celery": {"version": "==5.6.3", "extras": ["redis"]}}, "develop": {"pytest": {"version": "==9.0.0"}}}
        """,
    )
    return root


def monorepo(root: Path) -> Path:
    """The project is one folder of several, and the requirements are beside it."""
    put(root / "frontend/package.json", "{}")
    put(root / "frontend/node_modules/x/manage.py", MANAGE.format(settings="nobodys"))
    put(root / "backend/manage.py", MANAGE.format(settings="core.settings"))
    package(root / "backend", "core")
    put(root / "backend/requirements.txt", "-r ../requirements/shared.txt\nDjango==5.2.19\n")
    put(root / "requirements/shared.txt", "celery==5.7.0\nredis\n")
    put(root / "examples/small/manage.py", MANAGE.format(settings="small"))
    return root


def split(root: Path) -> Path:
    """Settings named after where they are for, by a word in the module's name, and two Celery applications."""
    put(root / "manage.py", MANAGE.format(settings="press.settings_dev"))
    package(root, "press", settings="press.settings_dev")
    put(root / "press/settings.py", SETTINGS % {"rest": "w" * 30, "apps": "", "package": "press"})
    put(root / "press/settings_dev.py", "from .settings import *\n")
    put(root / "press/settings_prod.py", "from .settings import *\n\nCELERY_TASK_ROUTES = ('press.routers.Router',)\n")
    put(root / "tools/legacy.py", 'from celery import Celery\n\nold = Celery("old", broker="redis://other/0")\n')
    put(root / "requirements-prod.txt", "-r requirements.txt\ngunicorn\n")
    put(root / "requirements.txt", "Django==5.2.19\ncelery==5.6.3\n")
    return root


def channels(root: Path) -> Path:
    """`startproject` with Django Channels: WebSockets, daphne for the development server."""
    put(root / "manage.py", MANAGE.format(settings="rooms.settings"))
    package(root, "rooms", apps='"daphne", "channels", "talk"')
    with (root / "rooms/settings.py").open("a") as settings:
        settings.write('ASGI_APPLICATION = "rooms.asgi.application"\n')
    put(root / "talk/__init__.py", "")
    put(root / "requirements.txt", "django>=5.2,<6\ncelery\nchannels[daphne]\nchannels-redis\npsycopg[binary]\n")
    return root


LAYOUTS = {
    each.__name__: each
    for each in (startproject, environ, cookiecutter, src, poetry, pipenv, monorepo, split, channels)
}
