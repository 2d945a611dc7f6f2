"""A project of `projects.py` in a folder, with what the units of a release have."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

RUNTIME = os.environ.get("RUNTIME", Path(__file__).parents[1])  # or another copy of the package
CACHE_PASSWORD = "c@che:%2F?#&=+$"  # of the user `cache`  # noqa: S105  # pragma: allowlist secret
DATABASE_PASSWORD = "d@tabase:%2F?#"  # noqa: S105  # pragma: allowlist secret
SECRET_KEY = "a key that signs; with (50) characters & more %s {x}" + 30 * "y"  # pragma: allowlist secret
HOST = "shop.example.org"
MEDIA_ROOT, STATIC_ROOT = "/srv/shop/shared/media", "/srv/shop/releases/1/.release/static"
# What each process of a release does first, here in a file that manage.py of the deployment runs.
START = """
import json, os, sys
import django
django.setup()
from django.conf import settings
def say(value):
    print(json.dumps(value, default=str))
"""


class Site:
    """A project in a folder, with what the units of a release have."""

    def __init__(self, folder, files, environment, module, celery):
        """Write its files."""
        self.folder, self.module = folder, module
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text).lstrip("\n"))
        self.credentials = folder / "credentials"
        self.credentials.mkdir()
        secrets = {"secret_key": SECRET_KEY, "secret_key_fallbacks": "", "database_password": DATABASE_PASSWORD}
        secrets |= {"cache_password": CACHE_PASSWORD, "redis_password": environment["REDIS_PASSWORD"]}
        for name, value in secrets.items():
            (self.credentials / name).write_text(value)
        self.given = {
            "DATABASE_URL": "postgres://shop_a@/shop?host=%2Frun%2Fpostgresql",
            "CACHE_URL": f"unix://{environment['REDIS_SOCKET']}?db=0",
            "LOCKS_URL": f"unix://{environment['REDIS_SOCKET']}?db=1",
            "ALLOWED_HOSTS": HOST,
            "CSRF_TRUSTED_ORIGINS": f"https://{HOST}",
            "MEDIA_ROOT": MEDIA_ROOT,
        }
        self.own, self.email, self.email_logged, self.celery = [], {}, False, celery
        self.cache_user, self.cache_databases, self.pooled = "cache", 16, False
        self.redact, self.development, self.stored_tasks = [], {}, ""
        self.tracing = {"name": "shop", "environment": "desk", "sentry": False, "otel_endpoint": ""}
        self.media_url, self.private_url = "/media/", "/protected/"
        self.variables, self.path, self.environment = {}, folder, environment

    def unit(self):
        """Write what the deployment decides; return the environment of a unit."""
        file = self.folder / "overlay.json"
        values = {"own": self.own, "given": [*self.variables], "environment": self.given, "celery": self.celery}
        values |= {
            "media_url": self.media_url,
            "private_url": self.private_url,
            "email": self.email,
            "email_logged": self.email_logged,
        }
        values |= {
            "cache_user": self.cache_user,
            "cache_databases": self.cache_databases,
            "database_pooled": self.pooled,
            "log_redact": self.redact,
            "stored_tasks": self.stored_tasks,
            "tracing": self.tracing,
            "development": self.development,
        }
        file.write_text(json.dumps(values))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{RUNTIME}:{self.path}",
            "DJANGO_SETTINGS_MODULE": "coldframe.settings",
            "APP_SETTINGS_MODULE": self.module,
            "OVERLAY_FILE": str(file),
            "CELERY_SETTINGS_FILE": self.environment["CELERY_SETTINGS_FILE"],
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            "REDIS_USERNAME": "unit",
            "STATIC_ROOT": STATIC_ROOT,
            "CELERY_SKIP_CHECKS": "1",
        }
        return environment | self.given | self.variables

    def run(self, *command, unit=None, **options):
        """Run a command as a unit of the release does.

        :param unit: variables of it that are others.
        """
        environment = self.unit() | (unit or {})
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, **options
        )

    def manage(self, code, check=True, lines=False):
        """Run Python in the application, through what runs manage.py; return what it says last, or all of it, or its errors."""
        (self.folder / "asked.py").write_text(START + textwrap.dedent(code))
        done = self.run(sys.executable, "-m", "coldframe.manage", "asked.py")
        assert not check or done.returncode == 0, done.stderr
        if not check:
            return done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines()]
        return said if lines else said[-1]

    def settings(self, *names):
        """Return settings of Django; an absent one is None."""
        return self.manage(f"say([getattr(settings, name, None) for name in {names!r}])")

    def report(self):
        """Return the lines of the report, without their headings."""
        done = self.run(sys.executable, "-m", "coldframe.settings")
        assert done.returncode == 0, done.stderr
        for secret in (SECRET_KEY, DATABASE_PASSWORD, CACHE_PASSWORD, "hidden1"):
            assert secret not in done.stdout
        return [line.strip() for line in done.stdout.splitlines()]
