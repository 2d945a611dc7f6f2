"""Settings for a developer's machine, which needs no variable, no Redis and no PostgreSQL.

`manage.py` takes them where DJANGO_SETTINGS_MODULE names none; a deployment always names some.
What shop/settings.py asks a deployment for is in the folder .development, which git ignores.
"""

import json
import os
import secrets
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".development"
CREDENTIALS = FOLDER / "credentials"
CELERY = {
    "broker_url": "memory://",
    "task_always_eager": True,  # a task runs where it is sent
    "task_default_queue": "default",
    "task_queues": {"critical": {}, "default": {}, "bulk": {}},
    "task_longest_time_limit": 300,
    "accept_content": ["json"],
}


def provide() -> None:
    """Set what a deployment would set. The secret key is random, and stays."""
    CREDENTIALS.mkdir(parents=True, exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    (FOLDER / "celery.json").write_text(json.dumps(CELERY))
    for name in ("secret_key", "secret_key_fallbacks", "database_password"):
        if not (file := CREDENTIALS / name).exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(50) if name != "secret_key_fallbacks" else "")
    os.environ |= {
        "DEBUG": "1",
        "DATABASE_URL": "sqlite:///",
        "CREDENTIALS_DIRECTORY": str(CREDENTIALS),
        "CELERY_SETTINGS_FILE": str(FOLDER / "celery.json"),
        "MEDIA_ROOT": str(FOLDER / "media"),
        "STATIC_ROOT": str(FOLDER / "static"),
    }
    for name in ("CACHE_URL", "LOCKS_URL"):  # the cache is in memory
        os.environ.pop(name, None)


provide()
from shop.settings import *  # noqa: E402, F403

ALLOWED_HOSTS = []  # with DEBUG: this machine's names
SECURE_HSTS_SECONDS = 0
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "database.sqlite3"}
}
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
