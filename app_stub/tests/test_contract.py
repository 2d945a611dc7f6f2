"""The contract with the deployment: the docstring of shop/settings.py, line by line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery.app.utils import find_app
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command

from shop.celery import app

APP_STUB = Path(__file__).parent.parent
LOAD = ("-c", "import shop.settings")


def python(*arguments: str, **changes: str | None) -> subprocess.CompletedProcess:
    """Run Python in the tests' environment, some variables changed or, with None, unset."""
    environment = {k: v for k, v in {**os.environ, **changes}.items() if v is not None}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=APP_STUB, env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_django_finds_nothing_to_complain_of():
    done = python("manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


@pytest.mark.django_db
def test_the_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("secret_key", None, "is missing"),
        ("database_password", None, "is missing"),
        ("cache_password", None, "is missing"),
        ("redis_password", None, "is missing"),
        ("database_password", "\n", "is empty"),
    ],
)
def test_a_credential_that_is_not_there_is_named(tmp_path, name, content, said):
    for file in Path(os.environ["CREDENTIALS_DIRECTORY"]).iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    done = python(*LOAD, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert done.returncode != 0
    assert f"The credential {name} {said}" in done.stderr


@pytest.mark.parametrize("name", ["CREDENTIALS_DIRECTORY", "DATABASE_URL", "CELERY_SETTINGS_FILE"])
def test_a_variable_that_is_not_set_is_named(name):
    done = python(*LOAD, **{name: None})
    assert done.returncode != 0
    assert name in done.stderr.splitlines()[-1]


def test_without_a_cache_and_locks_their_passwords_are_not_needed(tmp_path):
    for name in ("secret_key", "secret_key_fallbacks", "database_password"):
        (tmp_path / name).write_text(settings.SECRET_KEY)
    unset = {"CACHE_URL": None, "LOCKS_URL": None}
    done = python(*LOAD, CREDENTIALS_DIRECTORY=str(tmp_path), **unset)
    assert done.returncode == 0, done.stderr


DATABASE_URLS = {
    "postgres://shop@%2Frun%2Fpostgresql/shop": ("/run/postgresql", "", None),
    "postgres://shop@/shop?host=/run/postgresql": ("", "", "/run/postgresql"),
    "postgres://shop@10.0.0.2:5432/shop?sslmode=require": ("10.0.0.2", "5432", None),
}


@pytest.mark.parametrize("url", DATABASE_URLS)
def test_the_database_is_named_by_address_or_socket(url):
    show = "print(*map(d.get, ['HOST', 'PORT', 'USER', 'NAME']), d['OPTIONS'].get('host'), sep='|')"
    done = python("-c", f"from shop.settings import DATABASE as d; {show}", DATABASE_URL=url)
    host, port, option = DATABASE_URLS[url]
    assert done.stdout.strip() == f"{host}|{port}|shop|shop|{option}", done.stderr


def test_the_cache_logs_in_as_its_own_user(broker):
    cache.set("flower", "tulip")
    assert cache.get("flower") == "tulip"
    assert "cache-password" not in settings.CACHES["default"]["LOCATION"]
    users = [c["user"] for c in broker.redis.client_list() if c["db"] == "1"]
    assert users == ["cache"]
    broker.redis.select(1)
    assert broker.redis.keys() == [b"shop:1:flower"]
    broker.redis.select(0)


def test_celery_finds_the_app_and_obeys_the_deployment():
    assert find_app("shop") is app
    assert app.conf.result_backend == "django-db"  # from the code
    assert app.conf.task_ignore_result is True
    assert app.conf.task_acks_late is True  # from the file
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_create_missing_queues is False
    routed = app.amqp.router.route({}, "orders.tasks.charge_order")
    assert routed["queue"].name == "critical"
    assert set(app.amqp.queues) == {"critical", "default", "bulk"}


def test_the_deployment_wins_over_the_code(tmp_path):
    file = tmp_path / "celery.json"
    file.write_text('{"broker_url": "redis://", "task_ignore_result": false}')
    show = "from shop import celery_app; print(celery_app.conf.task_ignore_result)"
    done = python("-c", show, CELERY_SETTINGS_FILE=str(file))
    assert done.stdout.strip() == "False", done.stderr


def test_no_queue_is_named_in_the_code():
    # development.py stands in for the contract where there is none.
    code = [
        file.read_text() for file in APP_STUB.glob("[so]*/*.py") if file.name != "development.py"
    ]
    assert code
    assert not any(f'"{queue}"' in text for queue in ("critical", "bulk") for text in code)


@pytest.mark.django_db
def test_requests_without_tls_are_sent_to_tls(client):
    answer = client.get("/orders/", headers={"X-Forwarded-Proto": "http"})
    assert answer.status_code == 301
    assert answer["Location"].startswith("https://")
    assert "max-age" in client.get("/healthz/")["Strict-Transport-Security"]
