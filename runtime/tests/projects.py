"""Django projects as people write them, path to text. None of them knows of the deployment, except `CONTRACT`."""

# `django-admin startproject` makes the rest.
CELERY_OF_THE_DOCUMENTATION = {
    "mysite/__init__.py": """
        from .celery import app as celery_app

        __all__ = ("celery_app",)
    """,
    "mysite/celery.py": """
        import os
        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
        app = Celery("mysite")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
}

ENVIRON = {
    "manage.py": "",
    "notes/__init__.py": "",
    "notes/settings.py": """
        from pathlib import Path
        import environ

        BASE_DIR = Path(__file__).parent.parent
        env = environ.Env(DEBUG=(bool, False))
        environ.Env.read_env(BASE_DIR / ".env")
        SECRET_KEY = env("SECRET_KEY")
        SIMPLE_JWT = {"SIGNING_KEY": SECRET_KEY, "ALGORITHM": "HS256"}
        DEBUG = env("DEBUG")
        ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
        DATABASES = {"default": env.db("DATABASE_URL"), "hidden": env.db("LEGACY_URL", default="sqlite:////tmp/legacy.db")}
        CACHES = {"default": env.cache("CACHE_URL", default="locmemcache://")}
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_celery_results", "notes"]
        MEDIA_URL, MEDIA_ROOT = "/uploads/", BASE_DIR / "media"
        STATIC_URL, STATIC_ROOT = "static/", BASE_DIR / "staticfiles"
        ROOT_URLCONF = "notes.urls"
        CELERY_BROKER_URL = env("CELERY_BROKER_URL")
        CELERY_RESULT_BACKEND = env("CELERY_RESULT", default="redis://127.0.0.1:6379/0")
        CELERY_TIMEZONE, CELERY_TASK_ROUTES = "Asia/Tokyo", {"notes.*": {"queue": "mail"}}
        STRIPE_KEY = env("STRIPE_KEY")
    """,
    "notes/urls.py": "urlpatterns = []",
    "notes/celery.py": CELERY_OF_THE_DOCUMENTATION["mysite/celery.py"].replace("mysite", "notes"),
    "notes/wsgi.py": """
        import os
        from django.core.wsgi import get_wsgi_application

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notes.settings")
        application = get_wsgi_application()
    """,
}

# With a variable for each part of an address, and none with a default.
PARTS = {
    "manage.py": "",
    "parts/__init__.py": "",
    "parts/settings.py": """
        import os

        REDIS = "redis://:{REDIS_PASSWORD}@{REDIS_HOST}:{REDIS_PORT}".format(**os.environ)
        SECRET_KEY = os.environ["SECRET_KEY"]
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "parts"]
        DATABASES = {"default": {"ENGINE": os.environ["DB_ENGINE"], "NAME": os.environ["DB_NAME"], "USER": os.environ["DB_USER"],
                                 "PASSWORD": os.environ["DB_PASSWORD"], "HOST": os.environ["DB_HOST"], "PORT": os.environ["DB_PORT"]}}
        CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS + "/2"}}
        STATIC_URL, STATIC_ROOT = "static/", "/nowhere/static"
        ROOT_URLCONF = "parts.urls"
        CELERY_BROKER_URL, CELERY_RESULT_BACKEND = os.environ["BROKER_URL"], os.environ["CELERY_RESULT_BACKEND"]
    """,
    "parts/urls.py": "urlpatterns = []",
    "parts/celery.py": CELERY_OF_THE_DOCUMENTATION["mysite/celery.py"].replace("mysite", "parts"),
}

# The layout of cookiecutter-django, with what its settings of production read.
COOKIECUTTER = {
    "manage.py": "",
    "config/__init__.py": "from .celery_app import app as celery_app",
    "config/celery_app.py": """
        import os
        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")
        app = Celery("field_notes")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
    "config/urls.py": "urlpatterns = []",
    "config/wsgi.py": """
        import os
        import sys
        from pathlib import Path
        from django.core.wsgi import get_wsgi_application

        sys.path.append(str(Path(__file__).resolve().parent.parent / "field_notes"))
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")
        application = get_wsgi_application()
    """,
    "config/settings/__init__.py": "",
    "config/settings/base.py": """
        import ssl
        from pathlib import Path
        import environ

        BASE_DIR = Path(__file__).resolve(strict=True).parent.parent.parent
        env = environ.Env()
        DEBUG = env.bool("DJANGO_DEBUG", False)
        TIME_ZONE, USE_TZ = "Europe/Berlin", True
        DATABASES = {"default": env.db("DATABASE_URL")}
        DATABASES["default"]["ATOMIC_REQUESTS"] = True
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        ROOT_URLCONF, WSGI_APPLICATION = "config.urls", "config.wsgi.application"
        INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
                          "django.contrib.staticfiles", "django_celery_beat"]
        MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "whitenoise.middleware.WhiteNoiseMiddleware",
                      "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                      "django.middleware.clickjacking.XFrameOptionsMiddleware"]
        STATIC_ROOT, STATIC_URL = str(BASE_DIR / "staticfiles"), "/assets/"
        MEDIA_ROOT, MEDIA_URL = str(BASE_DIR / "media"), "/media/"
        EMAIL_BACKEND = env("DJANGO_EMAIL_BACKEND", default="django.core.mail.backends.smtp.EmailBackend")
        REDIS_URL = env("REDIS_URL")
        REDIS_SSL = REDIS_URL.startswith("rediss://")
        CELERY_TIMEZONE = TIME_ZONE
        CELERY_BROKER_URL = CELERY_RESULT_BACKEND = REDIS_URL
        CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": ssl.CERT_NONE} if REDIS_SSL else None
        CELERY_REDIS_BACKEND_USE_SSL = CELERY_BROKER_USE_SSL
        CELERY_RESULT_EXTENDED = CELERY_RESULT_BACKEND_ALWAYS_RETRY = True
        CELERY_ACCEPT_CONTENT, CELERY_TASK_SERIALIZER, CELERY_RESULT_SERIALIZER = ["json"], "json", "json"
        CELERY_TASK_TIME_LIMIT, CELERY_TASK_SOFT_TIME_LIMIT = 5, 3
        CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers.DatabaseScheduler"
        CELERY_TASK_SEND_SENT_EVENT = CELERY_WORKER_SEND_TASK_EVENTS = True
    """,
    "config/settings/production.py": """
        from .base import *

        SECRET_KEY = env("DJANGO_SECRET_KEY")
        ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["example.com"])
        DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=60)
        CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": REDIS_URL,
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient", "IGNORE_EXCEPTIONS": True},
            },
        }
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        SECURE_SSL_REDIRECT = env.bool("DJANGO_SECURE_SSL_REDIRECT", default=True)
        SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
        SECURE_HSTS_SECONDS = 60
        STORAGES = {
            "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"location": "media"}},
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        }
        ADMIN_URL = env("DJANGO_ADMIN_URL")
    """,
}

# No namespace, an application of another name that says all itself, settings of single variables, modules below src/.
PLAIN = {
    "manage.py": """
        import os
        import sys

        os.environ["DJANGO_SETTINGS_MODULE"] = "bakery.conf"
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    """,
    "src/bakery/__init__.py": "",
    "src/bakery/conf.py": """
        import os

        SECRET_KEY = os.environ["SECRET_KEY"]
        DEBUG = bool(int(os.environ.get("DEBUG", "1")))
        ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost 127.0.0.1").split(" ")
        DATABASES = {
            "default": {
                "ENGINE": os.environ.get("SQL_ENGINE", "django.db.backends.postgresql"),
                "NAME": os.environ["POSTGRES_DB"],
                "USER": os.environ["POSTGRES_USER"],
                "PASSWORD": os.environ["POSTGRES_PASSWORD"],
                "HOST": os.environ["POSTGRES_HOST"],
                "PORT": int(os.environ["POSTGRES_PORT"]),
            }
        }
        INSTALLED_APPS, ROOT_URLCONF = ["django.contrib.contenttypes", "bakery"], "bakery.urls"
        SESSION_COOKIE_DOMAIN, MEDIA_URL = ".bakery.test", ""
    """,
    "src/bakery/urls.py": "urlpatterns = []",
    "src/bakery/queue.py": """
        import os
        from celery import Celery

        os.environ["DJANGO_SETTINGS_MODULE"] = "bakery.conf"
        ovens = Celery("bakery", broker="redis://localhost:6379/3", backend="rpc://")
        ovens.conf.update(task_acks_late=False, task_serializer="pickle", accept_content=["pickle", "json"],
                          task_default_exchange="bakery", task_default_exchange_type="topic", timezone="Europe/Paris")
        ovens.conf.broker_transport_options = {"visibility_timeout": 43200, "global_keyprefix": "bakery"}
        ovens.conf.task_always_eager = True

        @ovens.task(name="bakery.bake")
        def bake(loaves):
            return loaves
    """,
    "src/bakery/wsgi.py": """
        import os
        from django.core.wsgi import get_wsgi_application

        os.environ["DJANGO_SETTINGS_MODULE"] = "bakery.conf"
        application = get_wsgi_application()
    """,
}

# Several databases and caches, and a plain module of Celery's settings.
SEVERAL = {
    "manage.py": "",
    "celeryconfig.py": """
        broker_url = ["redis://redis:6379/0", "redis://redis2:6379/0"]
        result_backend = "file:///tmp"
        task_queues = {"celery": {"exchange": "celery"}}
        task_annotations = {"several.*": {"rate_limit": "10/s"}}
        beat_schedule = {"nightly": {"task": "several.nightly", "schedule": 86400.0}}
    """,
    "several/__init__.py": "",
    "several/settings.py": """
        SECRET_KEY = "django-insecure-several-" + 40 * "x"  # pragma: allowlist secret
        ALLOWED_HOSTS, DEBUG = ["*", ".several.example", "intern"], True
        POSTGRESQL = {"ENGINE": "several.postgresql", "NAME": "several", "HOST": "db", "USER": "me"}
        DATABASES = {
            "default": POSTGRESQL | {"CONN_MAX_AGE": 60, "DISABLE_SERVER_SIDE_CURSORS": True,
                                     "OPTIONS": {"application_name": "several", "sslmode": "disable", "connect_timeout": 3}},
            "replica": POSTGRESQL | {"HOST": "replica", "TEST": {"MIRROR": "default"}},
            "reports": POSTGRESQL | {"HOST": "reports", "CONN_MAX_AGE": 5},
            "crm": {"ENGINE": "django.db.backends.mysql", "NAME": "several", "HOST": "crm.example.com", "PASSWORD": "hidden1"},  # pragma: allowlist secret
        }
        REDIS = {"BACKEND": "django_redis.cache.RedisCache"}
        SENTINELS = {"CLIENT_CLASS": "django_redis.client.SentinelClient", "SENTINELS": [("a", 26379)],
                     "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool", "PASSWORD": "hidden1"}  # pragma: allowlist secret
        DJANGO_REDIS_CONNECTION_FACTORY = "django_redis.pool.SentinelConnectionFactory"
        CACHES = {
            "default": REDIS | {"LOCATION": "redis://master/1", "OPTIONS": SENTINELS, "TIMEOUT": 77},
            "sessions": REDIS | {"LOCATION": "redis://:hidden1@redis:6379/2", "KEY_PREFIX": "s",
                                 "OPTIONS": {"CONNECTION_POOL_KWARGS": {"max_connections": 9, "password": "hidden1"}}},  # pragma: allowlist secret
            "twin": REDIS | {"LOCATION": "redis://redis2:6379/2", "KEY_PREFIX": "s"},
            "plain": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": ["redis://a", "redis://b"],
                      "OPTIONS": {"db": 3, "health_check_interval": 10}},
            "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "files": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "/tmp/several"},
        }
        SESSION_ENGINE, SESSION_CACHE_ALIAS = "django.contrib.sessions.backends.cache", "sessions"
        INSTALLED_APPS, ROOT_URLCONF, USE_TZ = ["django.contrib.contenttypes", "several"], "several.urls", False
        STATIC_URL, MEDIA_URL = "https://cdn.example.com/", "https://media.example.com/"
        SIGNING = {"keys": [SECRET_KEY], "issuer": "several"}
        LOGGING = {"version": 1, "loggers": {"several": {"level": "DEBUG"}}}
    """,
    "several/postgresql/base.py": """
        from django.db.backends.postgresql.base import DatabaseWrapper as Wrapper

        class DatabaseWrapper(Wrapper):
            display_name = "measured"
    """,
    "several/urls.py": "urlpatterns = []",
    "several/tasks.py": """
        from celery import Celery

        app = Celery("several")
        app.config_from_object("celeryconfig")
        legacy = Celery("legacy", broker="amqp://me:hidden1@rabbit.example.com//")
    """,
}

# As app_stub: it knows what the deployment gives.
CONTRACT = {
    "manage.py": "",
    "shop/__init__.py": "from shop.celery import app",
    "shop/celery.py": CELERY_OF_THE_DOCUMENTATION["mysite/celery.py"].replace("mysite", "shop"),
    "shop/settings.py": """
        import json
        import os
        from pathlib import Path
        import dj_database_url

        def credential(name):
            return Path(os.environ["CREDENTIALS_DIRECTORY"], name).read_text().strip()

        SECRET_KEY, SECRET_KEY_FALLBACKS = credential("secret_key"), credential("secret_key_fallbacks").split()
        ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
        CSRF_TRUSTED_ORIGINS = os.environ["CSRF_TRUSTED_ORIGINS"].split(",")
        DATABASES = {"default": dj_database_url.parse(os.environ["DATABASE_URL"], conn_max_age=60)}
        DATABASES["default"]["PASSWORD"] = credential("database_password")
        DATABASES["default"]["OPTIONS"] = {"connect_timeout": 5, **DATABASES["default"].get("OPTIONS", {})}
        CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": os.environ["CACHE_URL"],
                              "KEY_PREFIX": "shop",
                              "OPTIONS": {"username": "cache", "password": credential("cache_password"), "socket_timeout": 1}}}
        INSTALLED_APPS, ROOT_URLCONF = ["django.contrib.contenttypes", "django_celery_beat", "django_celery_results"], "shop.urls"
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
        SECURE_HSTS_SECONDS, SILENCED_SYSTEM_CHECKS = 60, ["security.W005", "security.W021"]
        STATIC_URL, STATIC_ROOT, MEDIA_URL = "/static/", os.environ["STATIC_ROOT"], "/media/"
        MEDIA_ROOT, FILE_UPLOAD_PERMISSIONS = os.environ["MEDIA_ROOT"], 0o664
        CELERY_RESULT_BACKEND, CELERY_TASK_IGNORE_RESULT = "django-db", True
        CELERY = json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text())
        globals().update({f"CELERY_{name.upper()}": value for name, value in CELERY.items()})
    """,
    "shop/urls.py": "urlpatterns = []",
}

# Celery 3's names, in Django's settings without a namespace.
OLD_NAMES = {
    "manage.py": "",
    "old/__init__.py": "",
    "old/settings.py": """
        SECRET_KEY, ROOT_URLCONF, INSTALLED_APPS = "x" * 60, "old.urls", ["django.contrib.contenttypes"]
        BROKER_URL, CELERY_RESULT_BACKEND = "redis://localhost:6379/0", "redis://localhost:6379/1"
        CELERY_ACKS_LATE, CELERYD_PREFETCH_MULTIPLIER, CELERY_DEFAULT_QUEUE = False, 4, "celery"
        CELERY_TASK_RESULT_EXPIRES, CELERYD_TASK_SOFT_TIME_LIMIT = 3600, 3
    """,
    "old/urls.py": "urlpatterns = []",
    "old/celery.py": """
        from celery import Celery

        celery = Celery("old")
        celery.config_from_object("django.conf:settings")
    """,
}

# django-configurations: the settings are a class.
CONFIGURATIONS = {
    "manage.py": """
        import os
        import sys

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "classy.settings")
        os.environ.setdefault("DJANGO_CONFIGURATION", "Development")
        from configurations.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    """,
    "classy/__init__.py": "",
    "classy/settings.py": """
        from configurations import Configuration, values

        class Development(Configuration):
            SECRET_KEY, DEBUG, ROOT_URLCONF = values.SecretValue(), True, "classy.urls"
            INSTALLED_APPS = ["django.contrib.contenttypes"]

        class Production(Development):
            DATABASES = values.DatabaseURLValue("sqlite:///classy.db")
            OVENS = 3
    """,
    "classy/urls.py": "urlpatterns = []",
    "classy/celery.py": CELERY_OF_THE_DOCUMENTATION["mysite/celery.py"].replace("mysite", "classy"),
}

# Django Channels, with a layer of each of channels_redis' classes, one in memory, and one of another backend.
CHANNELS = {
    "manage.py": "",
    "rooms/__init__.py": "",
    "rooms/settings.py": """
        SECRET_KEY, ROOT_URLCONF, INSTALLED_APPS = "x" * 60, "rooms.urls", ["django.contrib.contenttypes", "channels"]
        ASGI_APPLICATION = "rooms.asgi.application"
        HOSTS = {"hosts": [("127.0.0.1", 6379)]}
        CHANNEL_LAYERS = {
            "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {**HOSTS, "capacity": 7}},
            "events": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {**HOSTS, "prefix": "own"}},
            "memory": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"expiry": 5}},
            "other": {"BACKEND": "rooms.layers.Own"},
        }
    """,
    "rooms/urls.py": "urlpatterns = []",
    "rooms/celery.py": CELERY_OF_THE_DOCUMENTATION["mysite/celery.py"].replace("mysite", "rooms"),
}
