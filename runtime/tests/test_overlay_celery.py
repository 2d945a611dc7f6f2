"""What Celery's settings are when the deployment's are laid over those of ordinary projects, with each version of Celery."""

import json
import pickle
import re
import sys

import projects
import pytest
from coldframe.overlay import celery as overlaid
from coldframe.overlay.deployment import Deployment
from conftest import QUEUE
from sites import SECRET_KEY
from waits import wait_for

# Project to its module, its Celery application, where results go, and what stays of its own.
STYLES = {
    "startproject": (projects.CELERY_OF_THE_DOCUMENTATION, "mysite.settings", "mysite.celery:app", None, {}),
    "django-environ": (
        projects.ENVIRON | {".env": "SECRET_KEY=x\n"},
        "notes.settings",
        "notes.celery:app",
        "django-db",
        {"timezone": "Asia/Tokyo", "task_routes": {"notes.*": {"queue": "mail"}}},
    ),
    "cookiecutter": (
        projects.COOKIECUTTER,
        "config.settings.production",
        "config.celery_app",
        "broker",
        {"task_time_limit": 5, "task_soft_time_limit": 3, "timezone": "Europe/Berlin", "result_extended": True},
    ),
    "plain": (projects.PLAIN, "bakery.conf", "bakery.queue:ovens", "broker", {"timezone": "Europe/Paris"}),
    "several": (
        projects.SEVERAL,
        "several.settings",
        "several.tasks:app",
        "file:///tmp",
        {"task_annotations": {"several.*": {"rate_limit": "10/s"}}},
    ),
    "contract": (projects.CONTRACT, "shop.settings", "shop", "django-db", {"task_ignore_result": True}),
    "old names": (
        projects.OLD_NAMES,
        "old.settings",
        "old.celery",
        "broker",
        {"result_expires": 3600, "task_soft_time_limit": 3},
    ),
}
VARIABLES = {"DJANGO_ADMIN_URL": "admin/", "STRIPE_KEY": "s"}
COMPLETE = """
from celery.app.utils import find_app
from coldframe import settings_check
app = find_app({celery!r})
app.loader.import_default_modules()
app.finalize()
"""


def made(site, style):
    """Make a project of a style."""
    files, module, celery, _, _ = STYLES[style]
    own = site(files, module, celery, start="mysite" if style == "startproject" else "")
    own.variables, own.path = dict(VARIABLES), own.folder / "src" if style == "plain" else own.folder
    return own


def ask(own, code, **options):
    """Run Python in a project, with its whole Celery application as `app`."""
    return own.manage(COMPLETE.format(celery=own.celery) + code, **options)


@pytest.mark.parametrize("style", STYLES)
def test_whatever_a_project_writes_celery_has_what_the_deployment_decides(site, server, settings, style):
    *_, backend, kept = STYLES[style]
    own = made(site, style)
    code = """
for _ in range(2):
    say([settings_check.differences(app), [app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url],
         app.conf.result_backend, {name: app.conf[name] for name in KEPT}, app.conf.task_always_eager,
         [app.conf.task_serializer, list(app.conf.accept_content)], app.conf.broker_transport_options,
         app.conf.get(f"{app.namespace}_BROKER_URL", app.conf["broker_url"]), app.conf.BROKER_URL])
    app.conf.update(broker_url="redis://later", task_acks_late=False, task_send_sent_event=True)
    app.conf.task_queues = {"x": {}}
    app.conf[f"{app.namespace}_BROKER_URL" if app.namespace else "broker_url"] = app.conf.BROKER_URL = "redis://last"
    app.conf.setdefault("broker_transport_options", {})
    app.conf.changes.pop("broker_url")
    app.conf.result_backend_max_retries = 7
app.conf.result_backend_max_retries + app.conf.task_send_sent_event == 8 or exit(1)
app.send_task("any", (style,))
app.connection_for_read().ensure_connection(max_retries=1)
""".replace("KEPT", repr(list(kept))).replace("style", repr(style))
    said = ask(own, code, lines=True)
    broker = settings["broker_url"]
    for differences, urls, results, own_settings, eager, serializers, transport, prefixed, old in said:
        assert differences == [] and urls == [broker] * 3 and prefixed == old == broker
        assert results == (broker if backend == "broker" else backend)
        assert own_settings == kept and eager is False and serializers == ["json", ["json"]]
        assert transport == settings["broker_transport_options"]
    assert server.client.llen(QUEUE) == 1, "it is sent, by each name that the setting has"
    lines = own.report()
    assert f"broker_url: 'redis+socket://{server.path}" not in lines
    for name in kept:
        assert any(line.startswith(f"{name} stays: ") for line in lines) or style == "old names", (name, lines)
    silent = [line for line in lines if line.endswith(" (the application does not set it)")]
    assert (len(silent) > 5 or style == "contract") and all(re.match(r"\w+: .+ -> .+ \(", line) for line in silent), (
        "a setting a line"
    )
    assert all(len(line) < 320 for line in lines), "each value is shortened"


def test_further_application_keeps_its_own_broker(site):
    own = made(site, "several")
    legacy, ours, left = ask(
        own,
        """
from several.tasks import legacy
say([[legacy.conf.broker_url, legacy.conf.broker_read_url, legacy.conf.task_acks_late], app.conf.broker_url,
     os.environ.get("CELERY_BROKER_URL")])
""",
    )
    assert legacy == ["amqp://me:hidden1@rabbit.example.com//"] * 2 + [False]  # pragma: allowlist secret
    assert "credential_provider=coldframe" in ours and left is None


def test_application_that_is_not_imported_sends_to_the_same_broker(site, server):
    """A project that forgot to import its Celery application: tasks use Celery's default one."""
    own = made(site, "old names")
    assert own.manage("from celery import current_app as app\napp.send_task('any')\nsay(app.main)") == "default"
    assert server.client.llen(QUEUE) == 1


def test_process_that_the_application_starts_has_the_same_settings(site, server):
    own = made(site, "startproject")
    command = own.folder / "mysite/management/commands/send.py"
    command.parent.mkdir(parents=True)
    command.write_text(
        "from django.core.management import BaseCommand\nfrom mysite.celery import app\n\n"
        "class Command(BaseCommand):\n    def handle(self, **options):\n        app.send_task('any')\n"
    )
    with (own.folder / "mysite/settings.py").open("a") as settings:
        settings.write("INSTALLED_APPS += ['mysite']\n")
    code = "import subprocess\nsay(subprocess.run([sys.executable, 'manage.py', 'send']).returncode)"
    assert own.manage(code) == 0 and server.client.llen(QUEUE) == 1


def test_celerys_own_variables_do_not_win(site, settings):
    own = made(site, "startproject")
    own.variables |= {
        "CELERY_BROKER_URL": "redis://localhost:6379/0",
        "CELERY_BROKER_READ_URL": "redis://localhost:6379/1",
        "CELERY_RESULT_BACKEND": "redis://localhost:6379/2",
    }
    said = "say([app.conf.broker_url, app.conf.broker_read_url, app.conf.result_backend])"
    assert ask(own, said) == [settings["broker_url"]] * 3
    own.variables["CELERY_RESULT_BACKEND"] = "rediss://results.example.com/0"
    assert ask(own, said)[2] == "rediss://results.example.com/0"
    own.own = ["celery", "results"]
    assert ask(own, said)[1] == "redis://localhost:6379/1"


def test_results_at_a_broker_with_tls_have_its_certificates(site, settings):
    own = made(site, "plain")
    tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": "/etc/ssl/shop-ca.pem"}
    url = "rediss://10.0.0.41:6379/0?credential_provider=coldframe.credentials.Redis"
    file = own.environment["CELERY_SETTINGS_FILE"]
    with open(file) as given:
        changed = json.load(given) | {"broker_url": url, "broker_use_ssl": tls}
    with open(file, "w") as given:
        json.dump(changed, given)
    address, options = ask(own, "say([app.conf.result_backend, app.backend.connparams])")
    assert address == url and options["ssl_ca_certs"] == "/etc/ssl/shop-ca.pem" and options["host"] == "10.0.0.41"


def test_class_that_takes_no_settings_is_refused(site):
    own = made(site, "plain")
    text = (own.folder / "src/bakery/queue.py").read_text()
    ours = "class Ovens(Celery):\n    def on_init(self):\n        pass\n\novens = Ovens("
    (own.folder / "src/bakery/queue.py").write_text(text.replace("ovens = Celery(", ours))
    said = ask(own, "settings_check.require(app)", check=False)
    assert "broker_url is " in said and "have no effect on this Celery application" in said and "on_init" in said


def test_worker_of_a_plain_application_executes_its_tasks(site, server, run):
    own = made(site, "plain")
    run(own, "worker", f"--queues={QUEUE}", "--concurrency=1", "--hostname=ovens@test", "--without-gossip")
    result = ask(own, "from bakery.queue import bake\nsay([bake.delay(3).get(timeout=20), app.conf.result_backend])")
    assert result[0] == 3 and "redis.sock" in result[1]


def test_beat_of_a_project_without_a_schedule_in_the_database_gets_one(site, server, run, tmp_path):
    own = site(projects.CELERY_OF_THE_DOCUMENTATION, "mysite.settings", "mysite.celery:app", start="mysite")
    own.own = ["database"]  # a file here
    (own.folder / "mysite/celery.py").open("a").write(
        f'app.conf.beat_schedule = {{"ping": {{"task": "any", "schedule": 1.0, "options": {{"queue": "{QUEUE}"}}}}}}\n'
    )
    migrated = own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "migrate")
    assert "django_celery_beat.0001_initial... OK" in migrated.stdout, migrated.stderr
    (tmp_path / "run").mkdir()
    own.given["LOCKS_URL"] = f"unix://{server.path}?db=1"
    scheduler = "--scheduler=django_celery_beat.schedulers:DatabaseScheduler"
    run(own, "beat", scheduler, "--pidfile=", RUNTIME_DIRECTORY=str(tmp_path / "run"))
    wait_for(lambda: b'"task": "any"' in b"".join(server.raw.lrange(QUEUE, 0, -1)), 20, "its schedule is followed")


def prepared(own, **order):
    """Return what the preparation of a release reports."""
    order = {"celery": own.celery, "wsgi": "", "check": False, "static": False, "migrate": False} | order
    command = [sys.executable, "-m", "coldframe.release.prepare"]
    done = own.run(*command, input=json.dumps(order | {"load_timeout": 60}))
    return json.loads(done.stdout)


def test_preparation_returns_what_is_laid_over_and_what_stays(site):
    own = made(site, "plain")
    result = prepared(own, wsgi="bakery.wsgi:application")
    lines = {line["name"]: line for line in result["settings"]}
    assert lines["DATABASES['default']"]["value"].endswith("shop at /run/postgresql as shop_a")
    assert lines["task_acks_late"] | {"note": ""} == {
        "section": "celery",
        "name": "task_acks_late",
        "own": "False",
        "value": "True",
        "note": "",
    }
    assert lines["timezone"]["value"] == "" and lines["timezone"]["own"] == "'Europe/Paris'"
    assert SECRET_KEY not in json.dumps(result)
    assert result["error"] is None, result["error"]["text"]


def test_project_that_configures_django_itself_is_refused(site):
    own = made(site, "plain")
    (own.folder / "src/bakery/wsgi.py").write_text("from django.conf import settings\nsettings.configure()\n")
    error = prepared(own, wsgi="bakery.wsgi:application")["error"]
    assert "RuntimeError: Settings already configured." in error["text"] and "bakery/wsgi.py" in error["text"]


def test_engine_that_turns_out_to_be_another_database_is_refused(site):
    own = made(site, "plain")
    (own.folder / "src/bakery/engine").mkdir()
    (own.folder / "src/bakery/engine/base.py").write_text("from django.db.backends.sqlite3.base import *\n")
    own.variables["SQL_ENGINE"] = "bakery.engine"
    said = prepared(own)["error"]["text"]
    assert (
        "The ENGINE of DATABASES['default'] in bakery.conf is 'bakery.engine', which is no engine of PostgreSQL" in said
    )


def test_gunicorn_loads_the_deployments_settings_before_the_application(site):
    own = made(site, "plain")
    code = """
from coldframe.web import client, hooks
hooks.install()
client.application("bakery.wsgi:application", "")
from django.conf import settings
hooks.load("bakery.queue:ovens")
print(settings.SETTINGS_MODULE, settings.DEBUG)
"""
    done = own.run(sys.executable, "-c", code)
    assert done.stdout == "coldframe.settings False\n", done.stderr


DEPLOYMENT = Deployment(
    own=frozenset(),
    given=frozenset(),
    environment={"CACHE_URL": "rediss://10.0.0.41:6380/0"},
    celery="a:b",
    media_url="",
    private_url="",
    email={},
    email_logged=False,
    cache_user="cache",
    cache_databases=16,
    database_pooled=False,
    log_redact=(),
    stored_tasks="",
    tracing={"name": "shop", "environment": "desk", "sentry": False, "otel_endpoint": ""},
    development={},
)
BROKER = "rediss://10.0.0.41:6379/0?credential_provider=coldframe.credentials.Redis"


@pytest.mark.parametrize(
    ("address", "nowhere"),
    {
        "rpc://": True,
        "rpc": True,
        "amqp://guest@localhost//": True,
        "redis://127.0.0.1:6379/0": True,
        "redis://:pw@redis:6379/1": True,
        "redis://[::1]/0": True,
        "redis+socket:///tmp/redis.sock": True,
        "rediss://cache:pw@10.0.0.41:6380/0": True,  # pragma: allowlist secret
        "sentinel://host.docker.internal:26379;sentinel://b:26379": True,
        "db+sqlite:///results.sqlite3": True,
        "db+postgresql://u:p@localhost/results": True,
        "cache+memory://": True,
        "mongodb://mongo:27017": True,
        "redis://redis.example.com:6379/0": False,
        "rediss://10.0.0.99:6379/0": False,
        "rediss://10.0.0.41:6379/0": False,
        "db+mysql://u:p@db.example.com/results": False,
        "django-db": False,
        "django-cache": False,
        "file:///srv/shop/shared/results": False,
        "my.module:Backend": False,
        "disabled://": False,
        BROKER: False,
        "": False,
        None: False,
    }.items(),
)
def test_results_are_kept_where_they_can_be(address, nowhere):
    assert overlaid.leads_nowhere(address, DEPLOYMENT, BROKER) is nowhere


def test_what_is_laid_over_stays_and_the_rest_can_be_changed():
    changes = overlaid.Changes({"a": 1, "b": 2}, {"b": 9, "B": 9})
    changes.update({"a": 3, "b": 4}, c=5)
    del changes["b"]
    changes.setdefault("d", 6)
    assert changes == {"a": 3, "b": 9, "B": 9, "c": 5, "d": 6} and changes.pop("c") == 5 and changes.pop("b") == 9
    assert pickle.loads(pickle.dumps(changes)) == dict(changes)  # noqa: S301
    changes.clear()
    assert changes == {"b": 9, "B": 9} and changes.own == {}
