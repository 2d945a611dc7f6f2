"""What Django's settings are when the deployment's are laid over those of ordinary projects."""

import json
import re
import sys
from pathlib import Path

import django
import projects
import pytest
from coldframe import overlay
from sites import CACHE_PASSWORD, DATABASE_PASSWORD, HOST, MEDIA_ROOT, SECRET_KEY, STATIC_ROOT

pytestmark = pytest.mark.any_celery


def test_project_that_was_just_started_has_all_that_a_deployment_asks_for(site):
    own = site(projects.CELERY_OF_THE_DOCUMENTATION, "mysite.settings", "mysite.celery:app", start="mysite")
    database, hosts, debug, key, installed = own.settings(
        "DATABASES", "ALLOWED_HOSTS", "DEBUG", "SECRET_KEY", "INSTALLED_APPS"
    )
    assert database["default"]["ENGINE"] == "django.db.backends.postgresql"
    assert [database["default"][name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")] == [
        "shop",
        "shop_a",
        DATABASE_PASSWORD,
        "/run/postgresql",
        "",
    ]
    assert (hosts, debug, key, installed[-1]) == ([HOST], False, SECRET_KEY, "django_celery_beat")
    assert own.settings("STATIC_ROOT", "STATIC_URL", "MEDIA_ROOT", "MEDIA_URL", "SECURE_PROXY_SSL_HEADER") == [
        STATIC_ROOT,
        "/static/",
        MEDIA_ROOT,
        "/media/",
        ["HTTP_X_FORWARDED_PROTO", "https"],
    ]
    # `check --deploy` has nothing to say, except what only the database could answer.
    code = """
        from django.core.checks import run_checks
        from django.core.cache import cache
        cache.set("a", {"b": 1})
        say([[m.id for m in run_checks(include_deployment_checks=True) if not m.is_silenced()], cache.get("a")])
    """
    assert own.manage(code) == [[], {"b": 1}]
    lines = own.report()
    assert f"ALLOWED_HOSTS: [] -> ['{HOST}']" in lines and "DEBUG: True -> False" in lines
    (line,) = [line for line in lines if line.startswith("DATABASES")]
    assert "db.sqlite3 -> django.db.backends.postgresql shop at /run/postgresql as shop_a" in line
    assert (
        own.run(sys.executable, "manage.py", "check", unit={"DJANGO_SETTINGS_MODULE": "mysite.settings"}).returncode
        == 0
    )


def test_project_that_reads_variables_gets_them_and_no_secret_stays_in_the_environment(site):
    own = site(projects.ENVIRON, "notes.settings", "notes.celery:app")
    (own.credentials / "STRIPE_KEY").write_text("stripe1")
    (own.credentials / "api_key").write_text("api1")
    code = """
        say([settings.SECRET_KEY, settings.SIMPLE_JWT["SIGNING_KEY"], settings.STRIPE_KEY, settings.ALLOWED_HOSTS,
             settings.DATABASES["default"]["PASSWORD"], settings.DATABASES["hidden"]["NAME"], settings.CACHES["default"],
             str(settings.MEDIA_ROOT / "x"), settings.MEDIA_URL, dict(os.environ)])
    """
    key, signing, stripe, hosts, password, hidden, cache, media, media_url, variables = own.manage(code)
    assert key == signing == SECRET_KEY and stripe == "stripe1" and hosts == [HOST]
    assert password == DATABASE_PASSWORD and hidden == "/tmp/legacy.db"  # noqa: S108
    assert cache["BACKEND"].endswith("RedisCache") and "redis.sock" in cache["LOCATION"]
    assert media == f"{MEDIA_ROOT}/x" and media_url == "/media/"
    text = json.dumps(variables)
    assert not any(secret in text for secret in (SECRET_KEY, json.dumps(DATABASE_PASSWORD)[1:-1], "api1", "c%40che"))
    assert CACHE_PASSWORD not in text and variables["DATABASE_URL"] == own.given["DATABASE_URL"]
    assert variables["REDIS_URL"] == own.given["CACHE_URL"] and variables["STRIPE_KEY"] == "stripe1"
    assert variables["DJANGO_SETTINGS_MODULE"] == "coldframe.settings" and "PGHOST" not in variables
    lines = own.report()
    assert "DATABASES['hidden'] stays: django.db.backends.sqlite3 /tmp/legacy.db (it is another database)" in lines


def test_values_that_only_let_the_settings_be_loaded_are_replaced(site, settings):
    """They are what `make new` writes into app_environment (bin/newinventory.py, DECIDED)."""
    own = site(projects.PARTS, "parts.settings", "parts.celery:app")
    own.variables = {
        "BROKER_URL": "redis://localhost:6379/0",
        "CELERY_RESULT_BACKEND": "redis://localhost:6379/1",
        "REDIS_HOST": "localhost",
        "REDIS_PORT": "6379",
        "REDIS_PASSWORD": "",
        "DB_ENGINE": "django.db.backends.postgresql",
    }
    code = """
        from django.core.cache import cache
        from parts.celery import app
        cache.set("a", 7)
        say([cache.get("a"), app.conf.broker_url, app.conf.result_backend, settings.DATABASES["default"]])
    """
    cached, broker, results, database = own.manage(code)
    assert cached == 7 and broker == results == settings["broker_url"]
    assert (database["HOST"], database["PASSWORD"]) == ("/run/postgresql", DATABASE_PASSWORD)


def test_what_the_inventory_sets_is_not_replaced(site):
    own = site(projects.ENVIRON, "notes.settings", "notes.celery:app")
    own.variables = {
        "SECRET_KEY": "its own",  # pragma: allowlist secret
        "LEGACY_URL": "postgres://a@legacy/b",
        "STRIPE_KEY": "s",
        "DEBUG": "yes",
    }
    (own.credentials / "STRIPE_KEY").write_text("not this one")
    own.own = ["secret_key", "debug", "database"]
    key, signing, databases, stripe, debug = own.settings(
        "SECRET_KEY", "SIMPLE_JWT", "DATABASES", "STRIPE_KEY", "DEBUG"
    )
    assert key == signing["SIGNING_KEY"] == "its own" and stripe == "s" and debug is True
    assert databases["hidden"]["HOST"] == "legacy" and databases["default"]["PASSWORD"] == DATABASE_PASSWORD
    own.own = ["environment"]
    assert "Set the CELERY_BROKER_URL environment variable" not in own.manage("", check=False)
    del own.variables["SECRET_KEY"]
    assert "Set the SECRET_KEY environment variable" in own.manage("", check=False)


def test_settings_package_with_django_redis_keeps_what_is_its_own(site):
    own = site(projects.COOKIECUTTER, "config.settings.production", "config.celery_app:app")
    own.variables = {"DJANGO_ADMIN_URL": "admin/"}
    code = """
        from django.core.cache import cache
        from config.settings import production
        cache.set("a", "b")
        with cache.lock("l"):
            cache.incr("n", 2, default=1) if hasattr(cache, "x") else cache.set("n", 3)
        say([settings.DATABASES["default"], settings.CACHES["default"], settings.STATIC_URL, settings.MEDIA_ROOT,
             settings.STORAGES["default"], settings.SECURE_HSTS_SECONDS, settings.SILENCED_SYSTEM_CHECKS,
             [cache.get("a"), cache.get("n"), cache.ttl("a") > 0, cache.delete_pattern("*")],
             production.STATIC_ROOT, production.SECRET_KEY == settings.SECRET_KEY, settings.INSTALLED_APPS[-2:]])
    """
    database, cache, static, media, storage, hsts, silenced, answers, module_root, same, last = own.manage(code)
    assert (database["ATOMIC_REQUESTS"], database["CONN_MAX_AGE"], database["HOST"]) == (True, 60, "/run/postgresql")
    assert cache["OPTIONS"]["IGNORE_EXCEPTIONS"] is True and "PASSWORD" not in cache["OPTIONS"]
    assert cache["OPTIONS"]["CONNECTION_POOL_KWARGS"] == {"username": "cache", "password": CACHE_PASSWORD}
    assert answers == ["b", 3, True, 2], "without IGNORE_EXCEPTIONS hiding a refusal"
    assert static == "/assets/" and media.endswith("/site/media") and storage["OPTIONS"] == {"location": "media"}
    assert (
        hsts == 60
        and {"security.W005", "security.W021"} <= set(silenced)
        and last == ["django_celery_beat", "coldframe.delayed"]
    )
    assert module_root == STATIC_ROOT and same
    lines = own.report()
    assert "STATIC_URL stays: /assets/ (WhiteNoise serves it)" in lines
    assert "STORAGES['default'] stays: storages.backends.s3.S3Storage (uploads are kept elsewhere)" in lines
    assert any(line.startswith("EMAIL_BACKEND stays: django.core.mail.backends.smtp") for line in lines)


def test_several_databases_and_caches_are_told_apart(site):
    own = site(projects.SEVERAL, "several.settings", "several.tasks:app")
    code = """
        from django.core.cache import caches
        for alias in ("sessions", "twin", "default"):
            caches[alias].set("k", alias)
        caches["default"].clear()
        say([settings.DATABASES, settings.CACHES, settings.ALLOWED_HOSTS, settings.SIGNING, settings.LOGGING,
             [caches[alias].get("k") for alias in ("sessions", "twin", "default")], settings.DJANGO_CELERY_BEAT_TZ_AWARE,
             settings.STATIC_URL, settings.MEDIA_URL])
    """
    databases, caches, hosts, signing, logging, kept, aware, static, media = own.manage(code)
    for alias in ("default", "replica", "reports"):
        assert databases[alias]["NAME"] == "shop" and databases[alias]["HOST"] == "/run/postgresql"
        assert databases[alias]["ENGINE"] == "several.postgresql"
    assert databases["default"]["OPTIONS"] == {"application_name": "several", "connect_timeout": 3}
    assert databases["default"]["DISABLE_SERVER_SIDE_CURSORS"] is True and databases["reports"]["CONN_MAX_AGE"] == 5
    assert databases["crm"]["HOST"] == "crm.example.com" and databases["crm"]["ENGINE"] == "django.db.backends.mysql"
    assert [caches[alias]["LOCATION"][-4:] for alias in ("default", "sessions", "twin", "plain")] == [
        "db=1",
        "db=2",
        "db=2",
        "db=3",
    ]
    assert (caches["sessions"]["KEY_PREFIX"], caches["twin"]["KEY_PREFIX"]) == ("s", "s-twin")
    assert "KEY_PREFIX" not in caches["default"] and caches["plain"]["KEY_PREFIX"] == "plain"
    assert caches["default"]["TIMEOUT"] == 77 and set(caches["default"]["OPTIONS"]) == {
        "CONNECTION_POOL_KWARGS",
        "CONNECTION_FACTORY",
    }
    assert caches["sessions"]["OPTIONS"]["CONNECTION_POOL_KWARGS"]["max_connections"] == 9
    assert caches["plain"]["OPTIONS"] == {"health_check_interval": 10, "username": "cache", "password": CACHE_PASSWORD}
    assert caches["local"]["BACKEND"].endswith("LocMemCache") and caches["files"]["LOCATION"] == "/tmp/several"  # noqa: S108
    assert kept == ["sessions", "twin", None], "what one alias clears, others keep"
    assert hosts == [HOST, ".several.example", "intern"]
    assert signing == {"keys": [SECRET_KEY], "issuer": "several"} and logging["loggers"]
    assert aware is False and static == "https://cdn.example.com/" and media == "https://media.example.com/"
    lines = own.report()
    assert (
        "DATABASES['crm'] stays: django.db.backends.mysql several at crm.example.com (it is another database)" in lines
    )
    assert "SIGNING: *** -> *** (it has the value of SECRET_KEY in it)" in lines
    assert f"ALLOWED_HOSTS: ['*', '.several.example', 'intern'] -> ['{HOST}', '.several.example', 'intern']" in lines


def test_provider_gives_the_caches_one_database_and_a_login(site):
    own = site(projects.SEVERAL, "several.settings", "several.tasks:app")
    own.cache_databases = 1
    own.cache_user = "pro/vider"
    own.given["CACHE_URL"] = "rediss://redis.example.net:25061/3?ssl_cert_reqs=required"
    code = "say([settings.CACHES, __import__('os').environ['REDIS_URL'], settings.DATABASES['reports']])"
    caches, url, reports = own.manage(code)
    redis = ("default", "sessions", "twin", "plain")
    assert {caches[alias]["LOCATION"] for alias in redis} == {own.given["CACHE_URL"]}
    prefixes = [caches[alias].get("KEY_PREFIX", "") for alias in redis]
    assert len(set(prefixes)) == len(redis), "keys are told apart"
    assert caches["plain"]["OPTIONS"]["username"] == "pro/vider"
    assert url == own.given["CACHE_URL"], "without the login, once the settings are imported"
    assert "DISABLE_SERVER_SIDE_CURSORS" not in reports


def test_pooler_has_no_server_side_cursors(site):
    own = site(projects.SEVERAL, "several.settings", "several.tasks:app")
    own.pooled = True
    databases = own.manage("say(settings.DATABASES)")
    for alias in ("default", "replica", "reports"):
        assert databases[alias]["DISABLE_SERVER_SIDE_CURSORS"] is True
    assert "DISABLE_SERVER_SIDE_CURSORS" not in databases["crm"]


def test_modules_that_name_their_settings_hard_get_the_deployments_all_the_same(site):
    own = site(projects.PLAIN, "bakery.conf", "bakery.queue:ovens")
    own.path = own.folder / "src"
    own.media_url = ""
    values = own.manage("""
        import bakery.wsgi, bakery.queue
        from bakery import conf
        say([settings.DATABASES["default"], settings.ALLOWED_HOSTS, conf.SESSION_COOKIE_DOMAIN, settings.SESSION_COOKIE_DOMAIN,
             settings.DEBUG, settings.MEDIA_URL, os.environ["POSTGRES_HOST"], "POSTGRES_PASSWORD" in os.environ])
    """)
    database, hosts, of_module, domain, debug, media_url, host, left = values
    assert database["PASSWORD"] == DATABASE_PASSWORD and database["PORT"] == "" and hosts == [HOST]
    assert (
        domain is None
        and of_module is None
        and debug is False
        and media_url in ("", "/")
        and host == "/run/postgresql"
        and not left
    )
    done = own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "diffsettings", "--output=unified")
    assert "+ ROOT_URLCONF = 'bakery.urls'" in done.stdout and f"'{HOST}'" in done.stdout, done.stderr
    assert "SESSION_COOKIE_DOMAIN: '.bakery.test' -> None" in "\n".join(own.report())


@pytest.mark.parametrize(
    ("said", "laid"),
    [
        ('"nginx", MEDIA_ROOT, "/files"', ["nginx", MEDIA_ROOT, "/protected"]),
        ('"simple", MEDIA_ROOT / "a/b", None', ["nginx", f"{MEDIA_ROOT}/a/b", "/protected/a/b"]),
        ('"xsendfile", f"{MEDIA_ROOT}/a/", "/x"', ["nginx", f"{MEDIA_ROOT}/a", "/protected/a"]),
        ('"nginx", "/srv/own", "/files"', ["nginx", "/srv/own", "/files"]),
    ],
)
def test_private_uploads_of_django_sendfile_are_sent_by_the_edge(site, said, laid):
    files = dict(projects.ENVIRON)
    files["notes/settings.py"] += f"""
        SENDFILE_BACKEND, SENDFILE_ROOT, SENDFILE_URL = {said}
        SENDFILE_BACKEND = "django_sendfile.backends." + SENDFILE_BACKEND
    """
    own = site(files, "notes.settings", "notes.celery:app")
    own.variables = {"STRIPE_KEY": "s"}
    backend, *rest = own.settings("SENDFILE_BACKEND", "SENDFILE_ROOT", "SENDFILE_URL")
    assert [backend.removeprefix("django_sendfile.backends."), *rest] == laid
    own.private_url = ""
    assert "SENDFILE" not in "\n".join(own.report())


def test_application_that_knows_the_deployment_has_what_it_had(site):
    own = site(projects.CONTRACT, "shop.settings", "shop.celery:app")
    code = """
        from django.core.cache import cache
        cache.set("a", "b", 60)
        say([settings.DATABASES["default"], settings.CACHES["default"], settings.SECRET_KEY, cache.get("a"),
             settings.CELERY_RESULT_BACKEND, settings.INSTALLED_APPS])
    """
    database, cache, key, answer, backend, installed = own.manage(code)
    assert database["CONN_MAX_AGE"] == 60 and database["OPTIONS"] == {"connect_timeout": 5}
    assert (database["HOST"], database["PASSWORD"]) == ("/run/postgresql", DATABASE_PASSWORD)
    assert (cache["KEY_PREFIX"], cache["OPTIONS"]["socket_timeout"], cache["LOCATION"]) == (
        "shop",
        1,
        own.given["CACHE_URL"],
    )
    assert (key, answer, backend) == (SECRET_KEY, "b", "django-db") and installed.count("django_celery_beat") == 1
    changed = [line.partition(" (")[0] for line in own.report() if " -> " in line]
    assert changed == [
        "LOGGING: not set -> INFO and above to the journal",
        "INSTALLED_APPS: without coldframe.delayed -> with coldframe.delayed",
    ]
    own.own = sorted(overlay.SECTIONS)
    by_itself = own.manage(code)
    assert by_itself[1:5] == [cache, key, answer, backend], "the same by itself"
    assert by_itself[0]["OPTIONS"].pop("host", "/run/postgresql") == "/run/postgresql"
    assert by_itself[0] | {"HOST": "/run/postgresql"} == database


def test_addresses_of_several_hosts_are_laid_over_with_their_certificates(site):
    own = site(projects.COOKIECUTTER, "config.settings.production", "config.celery_app:app")
    ca = "ssl_cert_reqs=required&ssl_check_hostname=true&ssl_ca_certs=/etc/ssl/shop-ca.pem"
    own.given |= {
        "DATABASE_URL": "postgres://shop_b@[fd00::41]:5432/shop?sslmode=verify-full&sslrootcert=/etc/ssl/shop-ca.pem",
        "CACHE_URL": f"rediss://10.0.0.41:6380/0?{ca}",
    }
    own.variables = {"DJANGO_ADMIN_URL": "admin/"}
    database, caches, redis_url = own.settings("DATABASES", "CACHES", "REDIS_URL")
    place = {name: database["default"][name] for name in ("USER", "HOST", "PORT", "OPTIONS")}
    assert place == {
        "USER": "shop_b",
        "HOST": "fd00::41",
        "PORT": "5432",
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/etc/ssl/shop-ca.pem"},
    }
    assert caches["default"]["LOCATION"] == f"rediss://10.0.0.41:6380/0?{ca}"
    assert redis_url.startswith("rediss://cache:c%40che%3A") and redis_url.endswith(f"@10.0.0.41:6380/0?{ca}")


def test_class_of_django_configurations_is_read(site):
    own = site(projects.CONFIGURATIONS, "classy.settings", "classy.celery:app")
    assert "django-configurations settings importer wasn't correctly installed" in own.manage("", check=False)
    own.variables = {"DJANGO_CONFIGURATION": "Production"}
    databases, debug, ovens, key = own.settings("DATABASES", "DEBUG", "OVENS", "SECRET_KEY")
    assert databases["default"]["NAME"] == "shop" and (debug, ovens, key) == (False, 3, SECRET_KEY)
    done = own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "diffsettings")
    assert "OVENS = 3" in done.stdout and done.returncode == 0, done.stderr


def test_server_for_email_is_laid_over_where_the_inventory_names_one(site):
    own = site(projects.SEVERAL, "several.settings", "several.tasks:app")
    own.email = {
        "host": "mx.example.org",
        "port": 587,
        "encryption": "starttls",
        "user": "shop",
        "sender": "a@b.example",
    }
    (own.credentials / "EMAIL_HOST_PASSWORD").write_text("hidden1")
    names = ("EMAIL_HOST", "EMAIL_PORT", "EMAIL_USE_TLS", "EMAIL_USE_SSL", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD")
    assert own.settings(*names, "DEFAULT_FROM_EMAIL", "SERVER_EMAIL") == [
        "mx.example.org",
        587,
        True,
        False,
        "shop",
        "hidden1",
        "a@b.example",
        "a@b.example",
    ]
    assert "EMAIL_HOST_PASSWORD: '' -> ***" in own.report()


@pytest.mark.parametrize(
    ("given", "own", "backend", "wanted"),
    [
        ({}, [], "smtp", "console"),
        ({}, [], "locmem", "locmem"),
        ({}, ["email"], "smtp", "smtp"),
        ({"host": "mx.example.org", "port": 25, "encryption": "none", "user": "", "sender": ""}, [], "smtp", "smtp"),
    ],
)
def test_mail_of_a_sandbox_host_goes_to_the_journal(site, given, own, backend, wanted):
    name = "django.core.mail.backends.{}.EmailBackend"
    settings = (
        projects.SEVERAL["several/settings.py"].rstrip() + f"\n        EMAIL_BACKEND = {name.format(backend)!r}\n"
    )
    deployed = site(projects.SEVERAL | {"several/settings.py": settings}, "several.settings", "several.tasks:app")
    deployed.email, deployed.email_logged, deployed.own = given, True, own
    assert deployed.settings("EMAIL_BACKEND") == [name.format(wanted)]
    logged = f"EMAIL_BACKEND: {name.format('smtp')!r} -> {name.format('console')!r} (a sandbox host sends no mail, and the journal has it)"
    assert (logged in deployed.report()) == (wanted == "console")


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ("EMAIL_BACKEND, EMAIL_HOST = 'django.core.mail.backends.console.EmailBackend', 'mx.example.net'",
         "django.core.mail.backends.console.EmailBackend"),
        ("EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT = 'several.mail.Own', None, None", "several.mail.Own"),
        ("EMAIL_HOST, EMAIL_PORT = 'mx.example.net', 2525",
         "django.core.mail.backends.smtp.EmailBackend with mx.example.net:2525"),
        ("EMAIL_HOST, EMAIL_PORT = 'mx.example.net', None", "django.core.mail.backends.smtp.EmailBackend with mx.example.net"),
    ],
)  # fmt: skip
def test_backend_for_email_is_shown_with_the_server_that_it_has(site, added, line):
    settings = projects.SEVERAL["several/settings.py"].rstrip() + f"\n        {added}\n"
    own = site(projects.SEVERAL | {"several/settings.py": settings}, "several.settings", "several.tasks:app")
    assert f"EMAIL_BACKEND stays: {line} (app_email names no server)" in own.report()


MEMORY = "django.core.cache.backends.locmem.LocMemCache"
OF_DJANGO = "django.core.cache.backends.redis.RedisCache"


@pytest.mark.parametrize(
    ("cache", "before", "note"),
    [
        (f"{{'BACKEND': '{MEMORY}', 'LOCATION': 'mine'}}", f"{MEMORY} 'mine'", False),
        ("environ.Env().cache('CACHE_URL', default='locmemcache://')", "django_redis.cache.RedisCache without an address", True),
        (f"{{'BACKEND': '{OF_DJANGO}', 'LOCATION': os.environ['REDIS_URL']}}", f"{OF_DJANGO} 'unix://***@", True),
        (f"{{'BACKEND': '{OF_DJANGO}', 'LOCATION': 'redis://cache.example.net:6380/3'}}",
         f"{OF_DJANGO} 'redis://cache.example.net:6380/3'", False),
    ],
    ids=["memory", "django-environ", "variable", "server"],
)  # fmt: skip
def test_cache_is_shown_as_it_was_and_why_it_was_so(site, cache, before, note):
    settings = projects.SEVERAL["several/settings.py"].rstrip()
    settings += f"\n        import os, environ\n        CACHES = {{'default': {cache}}}\n"
    own = site(projects.SEVERAL | {"several/settings.py": settings}, "several.settings", "several.tasks:app")
    (line,) = (line for line in own.report() if line.startswith("CACHES['default']"))
    assert (
        line.startswith(f"CACHES['default']: {before}") and " -> " in line and "'unix:///" in line.partition(" -> ")[2]
    )
    assert line.endswith("(the settings read it from CACHE_URL or REDIS_URL, which the deployment sets)") == note, line


REFUSED = {
    "another database": (
        'DATABASES = {"default": {"ENGINE": "django.db.backends.mysql", "NAME": "a", "HOST": "db", "PASSWORD": "hidden1"}}',  # pragma: allowlist secret
        "DATABASES['default'] in refused.settings is django.db.backends.mysql a at db, and the deployment has PostgreSQL.",
    ),
    "a module of something else": ("answer = 42", "refused.settings has no settings, which are names in upper case."),
    "settings.configure": (
        "from django.conf import settings\nsettings.configure(DEBUG=False)",
        "refused.settings calls settings.configure(), and nothing can be laid over that.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_deployed_is_refused_in_a_sentence(site, case):
    text, said = REFUSED[case]
    own = site({"refused/__init__.py": "", "refused/settings.py": text}, "refused.settings", "refused.celery:app")
    errors = own.manage("", check=False)
    assert said in errors and "hidden1" not in errors


def test_channel_layers_are_in_the_deployments_redis_where_their_user_may_do_what_they_do(site, server):
    own = site(projects.CHANNELS, "rooms.settings", "rooms.celery:app")
    table = (Path(__file__).parents[2] / "roles/redis/vars/main.yml").read_text()
    rules = table.partition("channels: &channels\n")[2].partition("\n#")[0]
    assert "keys: [channels.*]\n    channels: [channels.*]\n" in rules
    may = ["~channels.*", "&channels.*", *re.findall(r"- (\+\S+)$", rules, re.MULTILINE)]
    words = [
        "on",
        f">{server_password(own)}",
        "resetchannels",
        "+ping",
        "+select",
        "+multi",
        "+exec",
    ]
    server.client.execute_command("ACL", "SETUSER", "limited", "reset", *words, f"(-@all {' '.join(may)})")
    own.variables = {"REDIS_USERNAME": "limited"}
    code = """
        import asyncio
        from channels.layers import get_channel_layer
        async def told(alias):
            layer = get_channel_layer(alias)
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "said", "text": alias})
            got = await asyncio.wait_for(layer.receive(channel), 10)
            await layer.group_discard("room", channel)
            if alias == "default":
                await layer.send("jobs", {"type": "job"})
            return got["text"]
        say([asyncio.run(told(alias)) for alias in ("default", "events", "memory")])
        layers = settings.CHANNEL_LAYERS
        say([layers[alias].get("CONFIG", {}).get("prefix") for alias in layers])
        say([layers[alias]["BACKEND"] for alias in layers])
        say(layers["default"]["CONFIG"]["capacity"])
        async def waits():
            layer = get_channel_layer()
            try:
                await asyncio.wait_for(layer.receive(await layer.new_channel()), 6.5)
            except asyncio.TimeoutError:
                return "nothing came"
        say(asyncio.run(waits()))
    """
    said = own.manage(code, lines=True)
    assert said[0] == ["default", "events", "memory"]
    assert said[1] == ["channels.asgi", "channels.own", "channels.memory", None]
    assert said[2][2:] == ["channels_redis.core.RedisChannelLayer", "rooms.layers.Own"] and said[3] == 7
    assert said[4] == "nothing came", "longer than redis-py waits by itself"
    assert {key.partition(".")[0] for key in server.client.execute_command("KEYS", "*")} <= {"channels"}
    assert [line for line in own.report() if line.startswith("CHANNEL_LAYERS['other']")] == [
        "CHANNEL_LAYERS['other'] stays: rooms.layers.Own"
    ]


def server_password(own):
    """The password of the Redis user of a unit."""
    return (own.credentials / "redis_password").read_text().strip()


@pytest.mark.skipif(django.VERSION >= (5, 1), reason="STORAGES alone says so since 5.1")
def test_older_names_of_storages_are_known(site):
    text = 'SECRET_KEY, DEFAULT_FILE_STORAGE = "x", "storages.backends.gcloud.GoogleCloudStorage"'
    own = site({"a/__init__.py": "", "a/settings.py": text}, "a.settings", "a.celery:app")
    assert own.settings("MEDIA_ROOT") == [""]


def test_every_part_can_be_left_to_the_application(site):
    own = site(projects.SEVERAL, "several.settings", "several.tasks:app")
    own.own = [section for section in overlay.SECTIONS if section != "debug"]
    printed = own.report()
    left = [printed[number - 1] for number, line in enumerate(printed) if line.startswith("left to the application")]
    assert left == own.own and [line for line in printed if " -> " in line] == ["DEBUG: True -> False"]


def test_developers_machine_has_no_tls_sends_no_mail_and_shows_errors(site):
    """Settings that are for servers work by HTTP, and mail is printed even if a service of the application's would send it."""
    files = projects.COOKIECUTTER | {
        "config/settings/dev.py": """
            from .production import *

            EMAIL_BACKEND = "anymail.backends.mailgun.EmailBackend"
            SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
            SECURE_HSTS_SECONDS = 600
            SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Secure-sessionid", "__Host-csrf"
            SESSION_COOKIE_DOMAIN = ".shop.example.net"
            LOGGING = {"version": 1, "handlers": {"console": {"class": "logging.StreamHandler"}}}
        """
    }
    own = site(files, "config.settings.dev", "config.celery_app:app")
    own.variables = {"DJANGO_ADMIN_URL": "admin/"}
    names = ("DEBUG", "EMAIL_BACKEND", "SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE")
    names += ("SECURE_HSTS_SECONDS", "SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME", "SESSION_COOKIE_DOMAIN", "LOGGING")
    own.development = {"eager": False}
    debug, backend, *rest, logging = own.settings(*names)
    assert (debug, backend) == (True, "django.core.mail.backends.console.EmailBackend")
    assert rest == [False, False, False, 0, "sessionid", "csrf", None]
    assert logging["handlers"]["console"]["class"] == "logging.StreamHandler"
    own.development = {}
    debug, _, *rest, logging = own.settings(*names)
    assert debug is False and rest[:3] == [True, True, True] and rest[3:6] == [600, "__Secure-sessionid", "__Host-csrf"]
    assert logging["handlers"]["console"]["class"] == "coldframe.logs.journal.Handler"


@pytest.mark.parametrize(("eager", "asked", "found"), [(True, False, True), (False, True, False), (None, True, True)])
def test_developers_machine_runs_tasks_where_they_are_sent_if_that_is_asked_for(site, eager, asked, found):
    """None, for tests, leaves it to the application."""
    files = projects.ENVIRON | {"notes/dev.py": f"from notes.settings import *\n\nCELERY_TASK_ALWAYS_EAGER = {asked}\n"}
    own = site(files, "notes.dev", "notes.celery:app")
    own.variables = {"STRIPE_KEY": "s"}
    own.development = {"eager": eager}
    assert own.manage("from notes.celery import app; say(app.conf.task_always_eager)") is found


def test_caches_are_counted_from_the_database_that_is_given(site):
    """Also where the settings read the address."""
    own = site(projects.ENVIRON, "notes.settings", "notes.celery:app")
    own.variables = {"STRIPE_KEY": "s"}
    first = own.settings("CACHES")[0]["default"]["LOCATION"]
    own.given["CACHE_URL"] = own.given["CACHE_URL"].replace("db=0", "db=16")
    assert own.settings("CACHES")[0]["default"]["LOCATION"] == first.replace("db=0", "db=16") != first
