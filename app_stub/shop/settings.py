"""Django's settings, and the contract with whatever deploys this application.

Environment:
    ALLOWED_HOSTS          host names, comma-separated
    CSRF_TRUSTED_ORIGINS   origins such as https://shop.example.org, comma-separated
    DATABASE_URL           without the password: postgres://shop@10.0.0.2:5432/shop,
                           or by socket postgres://shop@/shop?host=/run/postgresql
    CACHE_URL              without user and password: redis://10.0.0.2:6380/0, or by socket
                           unix:///run/redis-cache/redis.sock?db=0 (unset: memory)
    LOCKS_URL              likewise, for locks (unset: tasks that need one fail)
    REDIS_USERNAME         who this process is to the broker and the locks
    CELERY_SETTINGS_FILE   JSON with Celery's lower-case settings; read below
    CREDENTIALS_DIRECTORY  the folder of secrets; systemd sets it
    STATIC_ROOT            where collectstatic writes and the web server reads
    MEDIA_ROOT             uploads; outlives a release
    EMAIL_HOST             the SMTP server, at port 25 (unset: nothing is mailed)
    CALLBACK_PORTS         ports to which results may be sent, such as 443 (unset: nothing is sent)
    CALLBACK_SCHEMES       https unless set; https,http to allow both
    CALLBACK_NETWORKS      networks that are allowed for it although they are not public
    RELEASE_ID             shown by /healthz/
    LOG_LEVEL              INFO unless set
    DEBUG                  1 on a developer's machine, unset everywhere else

Secrets, one file each in CREDENTIALS_DIRECTORY, for an environment is readable and inherited:
    secret_key             Django's, 50 characters or more
    secret_key_fallbacks   keys that still verify what they signed, with blanks between
    database_password      of the user in DATABASE_URL
    cache_password         of the Redis user `cache`; read only if CACHE_URL is set
    redis_password         of REDIS_USERNAME; for the locks, and read by the credential
                           provider in broker_url
"""

import ipaddress
import json
import os
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured


def required(name: str) -> str:
    """A variable without which nothing may start."""
    if not (value := os.environ.get(name)):
        raise ImproperlyConfigured(f"The environment variable {name} is not set.")
    return value


def comma_separated(name: str) -> list[str]:
    return [item.strip() for item in os.environ.get(name, "").split(",") if item.strip()]


def credential(name: str, *, may_be_empty: bool = False) -> str:
    """A secret. There is no default: a known password is worse than no start."""
    file = Path(required("CREDENTIALS_DIRECTORY"), name)
    try:
        secret = file.read_text().rstrip("\n")
    except OSError as error:
        message = f"The credential {name} is missing ({file}: {error.strerror})."
        raise ImproperlyConfigured(message) from None
    if not secret and not may_be_empty:
        raise ImproperlyConfigured(f"The credential {name} is empty ({file}).")
    return secret


RELEASE_ID = os.environ.get("RELEASE_ID", "unknown")

# --- Django -----------------------------------------------------------------------------

DEBUG = os.environ.get("DEBUG") == "1"
SECRET_KEY = credential("secret_key")
SECRET_KEY_FALLBACKS = credential("secret_key_fallbacks", may_be_empty=True).split()
ALLOWED_HOSTS = comma_separated("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = comma_separated("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "django_celery_results",
    "celery_tasks",
    "orders",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# --- Behind a proxy that speaks TLS --------------------------------------------------------

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = not DEBUG
SECURE_REDIRECT_EXEMPT = [r"^healthz/$", r"^readyz/$"]  # probes ask without TLS, past the proxy
SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
SESSION_ENGINE = "shop.sessions"
SESSION_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_SECURE = not DEBUG
# HSTS for every subdomain, and its preload list, bind the whole domain for years:
# the owner of the domain decides that, not one application in it.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# --- Mail: see orders/mail.py ----------------------------------------------------------------

EMAIL_HOST = os.environ.get("EMAIL_HOST", "")
EMAIL_TIMEOUT = 10  # seconds; without it a worker waits for as long as a server that hangs

# --- Callbacks: see shop/outgoing.py ---------------------------------------------------------

CALLBACK_PORTS = [int(port) for port in comma_separated("CALLBACK_PORTS")]
CALLBACK_SCHEMES = comma_separated("CALLBACK_SCHEMES") or ["https"]
CALLBACK_NETWORKS = [ipaddress.ip_network(each) for each in comma_separated("CALLBACK_NETWORKS")]

# --- Files ---------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT")
MEDIA_URL = "/media/"
MEDIA_ROOT = os.environ.get("MEDIA_ROOT", "")
FILE_UPLOAD_PERMISSIONS = 0o664  # what the web has stored a worker may change
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # A name with a hash in it: cached for ever, and two releases never mix their files.
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}

# --- Database and cache --------------------------------------------------------------------

DATABASE = dj_database_url.parse(required("DATABASE_URL"), conn_max_age=60, conn_health_checks=True)
DATABASE["PASSWORD"] = credential("database_password")
# No pool: Celery closes its connections around every task, so one would give nothing there.
DATABASE["OPTIONS"] = {
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 10_000,  # milliseconds; else a lost server holds a request for minutes
    **DATABASE.get("OPTIONS", {}),
}
DATABASES = {"default": DATABASE}

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if CACHE_URL := os.environ.get("CACHE_URL"):
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": "shop",
        "OPTIONS": {
            "username": "cache",
            "password": credential("cache_password"),
            "socket_connect_timeout": 1,  # a cache that is slow is worse than none
            "socket_timeout": 1,
        },
    }

LOCKS = None
if LOCKS_URL := os.environ.get("LOCKS_URL"):
    LOCKS = {
        "url": LOCKS_URL,
        "username": required("REDIS_USERNAME"),
        "password": credential("redis_password"),
        "socket_connect_timeout": 5,
        "socket_timeout": 5,
    }

# --- Celery: what belongs to the code; the deployment's part is in CELERY_SETTINGS_FILE -----

CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_IGNORE_RESULT = True  # a task whose result someone reads says ignore_result=False
# With results in the database this must stay off: while the database is down, a worker that
# cannot write "started" acknowledges the task without running it.
CELERY_TASK_TRACK_STARTED = False
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# Django's tasks go to Celery's workers: see celery_tasks/backend.py.
TASKS = {"default": {"BACKEND": "celery_tasks.backend.CeleryBackend", "QUEUES": []}}

# Broker, queues, limits, acknowledgement: these win, so they come last. In this form they do
# with every Celery; before 5.7, CELERY_* wins over what app.conf.update() sets.
CELERY = json.loads(Path(required("CELERY_SETTINGS_FILE")).read_text())
globals().update({f"CELERY_{name.upper()}": value for name, value in CELERY.items()})

# --- Logs: plain lines; the journal adds the time and the unit -------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": os.environ.get("LOG_LEVEL", "INFO")},
    # Django gives this one handlers of its own; without them every record goes to the root.
    "loggers": {"django": {"handlers": [], "propagate": True}},
}
