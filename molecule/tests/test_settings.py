"""What is laid over the application's settings, and what is refused before a release runs. Nothing is changed."""

import json

import pytest

pytestmark = [pytest.mark.one_host, pytest.mark.group("web")]
START = """
import json
from celery import current_app as app
from django.conf import settings
from django.core.management import CommandError
from coldframe import settings_check
def say(**said):
    # As the application's code would.
    for key, value in said.items():
        setattr(settings, f"{app.namespace or 'CELERY'}_{key.upper()}", value)
    app.conf.update(said)
def refusal():
    try:
        settings_check.refuse(name)
    except CommandError as error:
        return str(error)
    return ""
"""


@pytest.fixture
def ask(manage, deployment):
    """Run Python in the application, with what a prepared release asks; return what it prints."""
    return lambda code: json.loads(manage(f"name = {deployment.app_celery!r}{START}{code}"))


def test_the_deployed_settings_are_the_applications(ask):
    assert ask("print(json.dumps(refusal()))") == ""


def test_what_is_laid_over_is_printed_without_secrets(deployment, shell):
    printed = shell(f"{deployment.app_name}-manage --module coldframe.settings")
    kept = ("app_secret_key", "app_database_password", "app_flower_password")
    secrets = [deployment.variables[name] for name in kept] + list(deployment.app_redis_passwords.values())
    assert "celery" in printed.splitlines() and not any(secret in printed for secret in secrets)


def test_secrets_of_the_deployment_are_in_no_environment(ask, deployment):
    """Settings that read DATABASE_URL and the like have got them, and processes that they start later do not."""
    variables = ask("import os\nprint(json.dumps(dict(os.environ)))")
    text = json.dumps(variables)
    assert not any(deployment.variables[name] in text for name in ("app_secret_key", "app_database_password"))
    assert not any(password in text for password in deployment.app_redis_passwords.values())
    assert variables["DJANGO_SETTINGS_MODULE"] == "coldframe.settings" and variables["DATABASE_URL"]


def test_addresses_where_nothing_answers_are_refused_together(ask):
    """A cache whose client hides errors is asked too; passwords are not shown."""
    said = ask("""
say(result_backend="redis://me:hidden1@results.example.invalid:6399/0")  # pragma: allowlist secret
settings.CACHES |= {"pages": {"BACKEND": settings.CACHES["default"]["BACKEND"], "LOCATION": "redis://localhost:6398/1"}}
print(json.dumps(refusal()))
""")
    assert "CELERY_RESULT_BACKEND is 'redis://***@results.example.invalid:6399/0', which cannot be used" in said
    assert 'another CELERY_RESULT_BACKEND: "django-db"' in said and "broker_url of CELERY_SETTINGS_FILE" in said
    assert "CACHES['pages']['LOCATION'] is 'redis://localhost:6398/1', and nothing answers there" in said
    assert "hidden1" not in said and "CACHES['default']" not in said


def test_uploads_into_a_release_are_refused_by_the_field(ask):
    said = ask("""
import os
from pathlib import Path
from django.apps import apps
from django.core.files.storage import FileSystemStorage
from django.db.models import FileField
shared, model = Path(os.environ["MEDIA_ROOT"]), next(iter(apps.get_models()))
for field, place in (("scan", shared.parents[1] / "releases/trial/media"), ("kept", shared / "kept")):
    FileField(storage=FileSystemStorage(str(place))).contribute_to_class(model, field)
print(json.dumps(refusal()))
""")
    assert ".scan would be kept in " in said and "/releases/trial/media" in said and ".kept" not in said
    assert "Use settings.MEDIA_ROOT or a folder below it" in said


@pytest.mark.parametrize("backend", ["'django-db'", "app.conf.broker_url"])
def test_a_result_backend_that_the_documentation_names_is_taken(ask, backend):
    installed = "from django.apps import apps\nprint(json.dumps(apps.is_installed('django_celery_results')))"
    if "django-db" in backend and not ask(installed):
        pytest.skip("the application has no django-celery-results")
    assert ask(f"say(result_backend={backend})\nprint(json.dumps(refusal()))") == ""


def test_code_cannot_change_what_the_deployment_decides(ask):
    said = ask("""
say(task_acks_late=False, broker_url="redis://localhost:6379/0", task_queues={"emails": {}})
print(json.dumps([refusal(), app.conf.task_acks_late, app.conf.broker_url == settings_check.given()["broker_url"]]))
""")
    assert said == ["", True, True]


def test_a_serializer_that_runs_code_is_not_taken(ask):
    said = ask("say(task_serializer='pickle')\nprint(json.dumps([refusal(), app.conf.task_serializer]))")
    assert said == ["", "json"]


def test_tasks_without_a_queue_and_limits_beyond_their_queue_are_refused(ask, deployment):
    said = ask("""
def nothing(): pass
app.task(nothing, name="trial.emails", queue="emails")
app.task(nothing, name="trial.routed")
app.task(nothing, name="trial.long", time_limit=10**6, queue=app.conf.task_default_queue)
say(task_routes=[{"trial.routed": {"queue": "nowhere"}}])
print(json.dumps(refusal()))
""")
    assert "the task trial.emails to the queue 'emails', which is not in celery_queues" in said
    assert "the task trial.routed to the queue 'nowhere'" in said
    assert "trial.long has time_limit=1000000" in said and "{time_limit: 1000000}" in said


def test_the_inventorys_routes_come_before_the_applications_and_leave_the_others(ask):
    routed = ask("""
first = settings_check.given()["coldframe"]["routes"]
name, queue = next(((n, r["queue"]) for n, r in first.items() if "*" not in n), (None, None))
another = next((q for q in app.amqp.queues if q != queue), None)
say(task_routes=[lambda sent, *_, **__: {"queue": another} if sent in (name, "trial.own") else None])
app.amqp.flush_routes()
app.amqp.router = app.amqp.Router()
routed = name and another and [app.amqp.router.route({}, task, (), {})["queue"].name for task in (name, "trial.own")]
print(json.dumps(routed and [routed[0] == queue, routed[1] == another]))
""")
    if routed is None:
        pytest.skip("celery_task_routes names no task, or there is one queue")
    assert routed == [True, True]


def test_a_task_with_a_long_delay_is_stored_by_manage_too(ask):
    """In the caller's transaction, which is rolled back here."""
    stored = ask("""
from django.db import transaction
from coldframe.delayed import installed
from coldframe.delayed.store import rows
queues = lambda: list(rows().filter(name="trial.own").values_list("queue", flat=True))
if installed():
    with transaction.atomic():
        app.send_task("trial.own", queue=min(app.amqp.queues), countdown=10**7)
        said = [queues(), [min(app.amqp.queues)]]
        transaction.set_rollback(True)
print(json.dumps([*said, queues()] if installed() else None))
""")
    if stored is None:
        pytest.skip("app_own_settings has apps")
    assert stored[0] == stored[1] and stored[2] == []


def test_the_time_zone_is_the_applications(ask):
    """Entries of CELERY_BEAT_SCHEDULE are stored with it."""
    zone = ask("""
say(timezone="Asia/Tokyo")
from celery.schedules import crontab
from django_celery_beat.models import CrontabSchedule
print(json.dumps([refusal(), str(CrontabSchedule.from_schedule(crontab(hour=7, app=app)).timezone)]))
""")
    assert zone == ["", "Asia/Tokyo"]
