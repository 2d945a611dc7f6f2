"""`make check-app` on a project with faults of every kind, with the playbook and the packages of the example's lock file.

Its server does not exist: no host is asked.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import textwrap
from pathlib import Path

import pytest
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]
GROUPS = ("redis", "postgresql", "web", "workers", "beat", "flower", "edge")
SERVER = {"hosts": {"server1": {"ansible_host": "192.0.2.1"}}}
APP = """
app_name: desk
app_source: ../desk
app_settings_module: desk.settings
app_wsgi: desk.wsgi:application
app_celery: desk.celery:app
app_url: https://desk.example.com
celery_queues: {default: {}}
smoke_request: {path: /}
app_own_settings: [results, media]
app_secrets: {STRIPE_KEY: sk_live_51}  # pragma: allowlist secret
"""
PROJECT = {
    "manage.py": "",
    "desk/__init__.py": "from desk.celery import app\n",
    "desk/celery.py": """
        import os
        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "desk.settings")
        app = Celery("desk")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
    "desk/wsgi.py": "from django.core.wsgi import get_wsgi_application\n\napplication = get_wsgi_application()\n",
    "desk/urls.py": "urlpatterns = []\n",
    "desk/settings.py": """
        import os
        from pathlib import Path

        BASE_DIR = Path(__file__).parent.parent
        SECRET_KEY = "django-insecure-desk"  # pragma: allowlist secret
        STRIPE = os.environ["STRIPE_KEY"]
        INSTALLED_APPS = ["django.contrib.contenttypes", "letters"]
        MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                      "django.middleware.clickjacking.XFrameOptionsMiddleware"]
        ROOT_URLCONF, DEFAULT_AUTO_FIELD = "desk.urls", "django.db.models.BigAutoField"
        MEDIA_ROOT = os.environ["MEDIA_ROOT"]
    """,
    "letters/__init__.py": "",
    "letters/models.py": "from django.db import models\n",
    "letters/migrations/__init__.py": "",
    "letters/tasks.py": "from celery import shared_task\n\n\n@shared_task\ndef send():\n    return 1\n",
}
GERMAN = """
    msgid ""
    msgstr "Content-Type: text/plain; charset=UTF-8\\n"

    msgid "letter"
    msgstr "Brief"
"""
FAULTS = {
    "desk/settings.py": """
        MEDIA_ROOT = BASE_DIR / "media"
        CELERY_RESULT_BACKEND = "redis://localhost:6379/0"
    """,
    "letters/models.py": "\n\nclass Letter(models.Model):\n    text = models.TextField()\n",
    "letters/tasks.py": "\n\n@shared_task(queue='parcels')\ndef parcel():\n    return 1\n",
}


@pytest.fixture
def check(tmp_path):
    """Check the project with what is added to its files; return the exit code and what was printed."""
    for name, text in PROJECT.items():
        (tmp_path / "desk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "desk" / name).write_text(textwrap.dedent(text).lstrip("\n"))
    shutil.copy(ROOT / "app_stub/requirements.txt", tmp_path / "desk")
    (tmp_path / "ops/group_vars/all").mkdir(parents=True)
    (tmp_path / "ops/hosts.yml").write_text(json.dumps({"all": {"children": dict.fromkeys(GROUPS, SERVER)}}))
    (tmp_path / "ops/group_vars/all/app.yml").write_text(APP)

    def run(added, *arguments, playbook="check_app"):
        for name, text in added.items():
            with (tmp_path / "desk" / name).open("a") as file:
                file.write(textwrap.dedent(text))
        command = ["ansible-playbook", "-i", str(tmp_path / "ops"), f"playbooks/{playbook}.yml", *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | PLAIN | {"ANSIBLE_STRATEGY": "linear"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_project_without_faults_passes_and_its_settings_are_shown(check):
    code, said = check({}, "--check")
    assert code == 0, said
    assert "changed=0" in said and "Not checked on the controller" not in said
    assert "Warning: E-mail is sent to localhost:25" in said
    assert re.search(r"MIDDLEWARE|SECRET_KEY: \*\*\* -> \*\*\*", said) and "placeholder" not in said
    assert re.search(r"DATABASES\['default'\]: .*-> django.db.backends.postgresql desk at /run/postgresql", said), said


def test_passwords_at_other_servers_may_be_missing(check, tmp_path):
    provider = """
app_database_url: postgres://ann@db.example.net/desk
app_broker_url: rediss://ann@redis.example.net/0
app_email: {host: mx.example.net, user: ann}
"""
    (tmp_path / "ops/group_vars/all/app.yml").write_text(APP + provider)
    groups = [group for group in GROUPS if group not in ("redis", "postgresql")]
    (tmp_path / "ops/hosts.yml").write_text(json.dumps({"all": {"children": dict.fromkeys(groups, SERVER)}}))
    code, said = check({})
    assert code == 0 and "Not checked on the controller" not in said, said
    assert "postgresql desk at db.example.net" in said and "EMAIL_HOST: 'localhost' -> 'mx.example.net'" in said, said
    assert "Warning: E-mail" not in said, said


def test_all_faults_are_told_in_one_message_and_no_host_is_asked(check, tmp_path):
    lock = tmp_path / "desk/requirements.txt"
    lock.write_text(re.sub(r"^gunicorn==.*\n(    .*\n)+", "", lock.read_text(), flags=re.MULTILINE))
    code, said = check(FAULTS)
    assert code != 0 and said.count("FAILED!") == 1 and "changed=0" in said
    message = said.partition("FAILED!")[2]
    for wanted in (
        "requirements.txt does not lock 'gunicorn'",
        "desk/settings.py:13: MEDIA_ROOT in desk.settings is '/srv/desk/releases/",
        "desk/settings.py:14: CELERY_RESULT_BACKEND is 'redis://localhost:6379/0', and no Redis listens there on a server.",
        "letters/models.py:4: coldframe.E001: The models of letters were changed",
        "letters/tasks.py:9: The application sends the task letters.tasks.parcel to the queue 'parcels'",
    ):
        assert wanted in message, message


def test_missing_packages_are_told_with_the_lock_file(check):
    code, said = check({"letters/models.py": "import acme_money\n", "letters/tasks.py": "import acme_mail\n"})
    assert code != 0
    for place in ("letters/models.py:2: ModuleNotFoundError: No module named 'acme_money'", "letters/tasks.py:7: "):
        assert place in said, said
    assert said.count("add it to requirements.in and lock again, '.venv/bin/uv pip compile") == 2, said


def test_variable_switches_it_off(check):
    code, said = check(FAULTS, "-e", '{"release_check_on_controller": false}')
    assert code == 0 and "MEDIA_ROOT" not in said, said


def test_index_that_does_not_answer_leaves_it_to_the_hosts(check, tmp_path):
    with (tmp_path / "desk/requirements.txt").open("a") as lock:
        lock.write("acme==1.0 --hash=sha256:" + "0" * 64 + "\n")
    code, said = check(FAULTS, "-e", "release_index_url=http://127.0.0.1:9/simple")
    assert code == 0 and "Not checked on the controller, and left to the hosts: " in said, said


def test_what_app_build_writes_is_in_the_release_and_is_made_once(check, tmp_path):
    """Commands with the application's own packages; what they write is loaded and packed."""
    files = {"locale/de/LC_MESSAGES/django.po": GERMAN, "letters/models.py": "from letters import made\n"}
    (tmp_path / "desk/locale/de/LC_MESSAGES").mkdir(parents=True)
    (tmp_path / "desk/locale/de/LC_MESSAGES/django.po").touch()
    write = "python -c \"import django; open('letters/made.py', 'w').write(django.__name__)\""
    write = write.replace("django.__name__", "'# ' + django.__name__")
    variables = {
        "app_build": [write, "django-admin compilemessages"],
        "release_artifact_dir": str(tmp_path / "releases"),
    }
    code, said = check(files, "-e", json.dumps(variables))
    assert code == 0 and "changed=0" in said and "No module named 'letters.made'" not in said, said
    (packed,) = (tmp_path / "releases").glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"letters/made.py", "locale/de/LC_MESSAGES/django.mo", "desk/settings.py"} <= names
    assert not (tmp_path / "desk/letters/made.py").exists()
    code, said = check({}, "--check", "-e", json.dumps(variables))
    assert code == 0 and [*(tmp_path / "releases").iterdir()] == [packed], said


def test_failed_build_is_told_with_the_other_problems(check, tmp_path):
    lock = tmp_path / "desk/requirements.txt"
    lock.write_text(re.sub(r"^gunicorn==.*\n(    .*\n)+", "", lock.read_text(), flags=re.MULTILINE))
    commands = ["sh -c 'echo no such page; exit 4'"]
    code, said = check({}, "-e", json.dumps({"app_build": commands}))
    assert code != 0 and said.count("FAILED!") == 1, said
    message = said.partition("FAILED!")[2]
    assert "does not lock 'gunicorn'" in message and "ended with the status 4" in message and "no such page" in message
    code, said = check({}, "-e", json.dumps({"app_build": ["acme-build"]}))
    assert code != 0 and "there is no acme-build here, on the controller" in said, said
