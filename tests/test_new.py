"""`make new` reads projects of many kinds without running them, and writes an inventory that a deploy accepts."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import build_steps
import inventory
import locking
import newinventory
import projects
import pytest
import yaml
from lock import lock_problems
from project import RefusedError, read
from static import Files

ROOT = Path(__file__).parents[1]
SAID = {"HOST": "web.example.com", "DOMAIN": "www.example.com"}
# What is in each layout, as its author would say it.
EXPECTED = {
    "startproject": {
        "app_settings_module": "bakery.settings",
        "app_wsgi": "bakery.wsgi:application",
        "app_celery": "bakery.celery:app",
        "celery_queues": {"default": {}, "labels": {"time_limit": 7200}, "ovens": {}},
        "smoke_request": {"path": "/admin/login/"},
    },
    "environ": {
        "app_settings_module": "clinic.settings",
        "app_celery": "clinic.celery:app",
        "celery_default_queue": "desk",
        "celery_queues": {key: {"time_limit": 1800} for key in ("desk", "mail", "exports", "night")},
        "smoke_request": {"path": "/internal/health/"},
        "nginx_media_url": "/scans/",
        "base_packages": ["ca-certificates", "libmagic1t64"],
    },
    "cookiecutter": {
        "app_settings_module": "config.settings.production",
        "app_wsgi": "config.wsgi:application",
        "app_celery": "config.celery_app:app",
        "app_build": ["django-admin compilemessages", "npm ci", "npm run build"],
        "celery_queues": {"default": {}},
        "smoke_request": {"path": "/"},
    },
    "src": {
        "app_python_path": "src",
        "app_settings_module": "ledger.conf.settings",
        "app_wsgi": "ledger.wsgi:application",
        "app_celery": "ledger.queue:worker",
        "celery_default_queue": "front",
        "celery_queues": {"front": {}, "books": {}},
    },
    "poetry": {"app_settings_module": "museum.settings", "app_celery": "museum.celery:app"},
    "pipenv": {"app_celery": "radio.jobs.main:celery_app", "celery_queues": {"default": {}, "air": {}, "archive": {}}},
    "monorepo": {"app_settings_module": "core.settings", "app_wsgi": "core.wsgi:application"},
    "split": {"app_settings_module": "press.settings_prod", "app_celery": "press.celery:app"},
    "channels": {"app_asgi": "rooms.asgi:application", "app_wsgi": None, "app_celery": "rooms.celery:app"},
}
REQUIREMENTS = {
    "startproject": "requirements.txt",
    "environ": "requirements.txt",
    "cookiecutter": "requirements/production.txt",
    "src": "uv.lock",
    "poetry": "poetry.lock",
    "pipenv": "Pipfile.lock",
    "monorepo": "requirements.txt",
    "split": "requirements-prod.txt",
    "channels": "requirements.txt",
}


pytestmark = pytest.mark.usefixtures("own_packages")


def words(tmp_path, app, **said):
    return [f"{name}={value}" for name, value in ({"ENV": tmp_path / "ops", "APP": app} | SAID | said).items() if value]


def values_of(folder):
    return yaml.safe_load((folder / "group_vars/all/app.yml").read_text())


@pytest.mark.parametrize("layout", projects.LAYOUTS)
def test_what_a_project_has_is_found_and_may_be_deployed(tmp_path, layout):
    app = projects.LAYOUTS[layout](tmp_path / "mysite")
    told = newinventory.new(words(tmp_path, app), None)
    values = values_of(tmp_path / "ops")
    assert {name: values.get(name) for name in EXPECTED[layout]} == EXPECTED[layout]
    assert ("app_python_path" in values) == (layout == "src")
    assert f"packages               {REQUIREMENTS[layout]}\n" in told
    plain = {name: value for name, value in values.items() if "{{" not in str(value)}
    assert inventory.variable_problems(plain | {"app_lock_file": "x"}, str(ROOT)) == []
    folder = Path(values["app_source"])
    assert (folder / "manage.py").is_file()
    asgi = "app_asgi" in values
    assert lock_problems(str(folder), str(tmp_path / "ops/requirements.txt"), python="3.13.5", asgi=asgi) == []
    targets = ("secrets", "check-app", "doctor", "deploy")
    assert told.splitlines()[-4:] == [f"  make {target} ENV={tmp_path}/ops" for target in targets]
    questions = [line for line in told.splitlines() if re.match(r"  \d+\. ", line)]
    number = len(questions)
    asked = "question 1" if number == 1 else f"questions 1 to {number}"
    assert f"Next: answer {asked} above, in {tmp_path}/ops/group_vars/all/app.yml, then" in told
    written = (tmp_path / "ops/group_vars/all/app.yml").read_text()
    assert len(re.findall(r"^# \d+\. ", written, re.MULTILINE)) == number, "the file has the same questions"
    assert "Which certificate does the site have?" in questions[-1] and "\n# nginx_acme: true\n" in written


def test_what_the_files_of_a_project_do_not_have_is_found_in_its_package(tmp_path):
    """A site folder, as operators of a packaged application have it. The package is read, and not run."""
    site = tmp_path / "gallery"
    projects.put(site / "manage.py", projects.MANAGE.format(settings="site_settings"))
    projects.put(
        site / "site_settings.py",
        """
        from gallery.settings_example import *

        SITE_URL = os.environ["GALLERY_SITE_URL"]
        DATA_DIR = "/srv/gallery/shared/data"
        CACHE_DIR = f"{DATA_DIR}/cache"
        MEDIA_ROOT = "/srv/gallery/shared/media/pictures"
        """,
    )
    projects.put(site / "requirements.txt", "gallery==2.1\n")
    told = newinventory.new(words(tmp_path, site), None)
    values = values_of(tmp_path / "ops")
    assert {
        "app_settings_module": "site_settings",
        "app_wsgi": "gallery.wsgi:application",
        "app_celery": "gallery.jobs.app:app",
        "app_writable": ["data"],
        "celery_queues": {"default": {}, "frames": {}, "labels": {}},
        "smoke_request": {"path": "/healthz/"},
    }.items() <= values.items()
    assert "app_python_path" not in values
    assert "gallery.jobs.app:app             site-packages/gallery/jobs/app.py:4\n" in told
    written = (tmp_path / "ops/group_vars/all/app.yml").read_text()
    assert "#   GALLERY_SITE_URL: https://www.example.com   # site_settings.py:3" in written
    made = newinventory.plan({"APP": str(site)}, str(tmp_path / "sandbox"), sandbox=True)
    answer = yaml.safe_load(newinventory.app_yml(made))["app_environment"]
    assert answer == {"GALLERY_SITE_URL": "https://localhost:{{ sandbox_https_port }}"}


def test_package_that_cannot_be_had_leaves_the_question(tmp_path):
    site = projects.startproject(tmp_path / "mysite")
    (site / "bakery/celery.py").unlink()
    settings = site / "bakery/settings.py"
    settings.write_text(settings.read_text().replace('"orders"', '"orders", "pylibmc"'))
    (site / "requirements.txt").write_text("django\ncelery\npylibmc\n")
    with pytest.raises(RefusedError, match="set CELERY=module:name") as error:
        newinventory.new(words(tmp_path, site), None)
    assert "There is no wheel" in error.value.problems[-1]


@pytest.mark.parametrize("layout", projects.LAYOUTS)
def test_what_is_told_names_the_file_and_line_that_say_it(tmp_path, layout):
    app = projects.LAYOUTS[layout](tmp_path / "mysite")
    found = read(app, str(app), {})
    places = [each.where for each in found.found.values()] + [queue.where for queue in found.queues.values()]
    named = [re.match(r"(\S+\.py):(\d+)", place) for place in places]
    assert len([each for each in named if each]) >= 5
    for each in filter(None, named):
        lines = (found.folder / each[1]).read_text().splitlines()
        assert 1 <= int(each[2]) <= len(lines)
    line = re.match(r"(\S+):(\d+)", found.found["app_celery"].where)
    name = found.found["app_celery"].value.partition(":")[2]
    assert (found.folder / line[1]).read_text().splitlines()[int(line[2]) - 1].startswith(name)


def test_front_end_in_a_folder_is_built_there_and_one_without_a_lock_file_or_a_script_is_not(tmp_path):
    for folder, scripts, lock in (
        ("a", {"build": "vite build"}, ""),
        ("b", {"start": "vite"}, "yarn.lock"),
        ("c", {"build": "vite build"}, "pnpm-lock.yaml"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "package.json").write_text(json.dumps({"scripts": scripts}))
        if lock:
            (tmp_path / folder / lock).touch()
    commands = ["pnpm --dir c install --frozen-lockfile", "pnpm --dir c run build"]
    assert build_steps.steps(tmp_path) == [(command, "c/package.json") for command in commands]
    (tmp_path / "a/package.json").write_text("[")
    (tmp_path / "c/package.json").write_text("[]")
    assert build_steps.steps(tmp_path) == []


def test_translations_are_compiled_unless_the_repository_has_them(tmp_path):
    for suffix in (".po", ".mo"):
        (tmp_path / "shop/locale/de/LC_MESSAGES").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"shop/locale/de/LC_MESSAGES/django{suffix}").touch()
    assert build_steps.steps(tmp_path) == []
    (tmp_path / ".gitignore").write_text("*.mo\n")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert build_steps.steps(tmp_path) == [("django-admin compilemessages", "shop/locale/de/LC_MESSAGES/django.po")]
    subprocess.run(["git", "-C", tmp_path, "add", "--force", "."], check=True)
    assert build_steps.steps(tmp_path) == []


@pytest.mark.parametrize("root", ['BASE_DIR / "private"', 'env("PRIVATE_FILES")', "MEDIA_ROOT"])
def test_private_uploads_are_not_made_public(tmp_path, root):
    app = projects.environ(tmp_path / "mysite")
    with (app / "clinic/settings.py").open("a") as settings:
        settings.write(f'SENDFILE_BACKEND = "django_sendfile.backends.nginx"\nSENDFILE_ROOT = {root}\n')
    told = newinventory.new(words(tmp_path, app), None)
    assert values_of(tmp_path / "ops")["nginx_media_url"] == "" and "Are some uploads public?" in told


@pytest.mark.parametrize(
    "file, before, after",
    [
        ("manage.py", "", ""),
        ("requirements.txt", "celery\n", "celery\ndaphne\n"),
        ("bakery/settings.py", '"orders"', '"orders", "channels"'),
        ("bakery/settings.py", "WSGI_APPLICATION", "ASGI_APPLICATION = 'bakery.asgi.application'\nWSGI_APPLICATION"),
        ("bakery/wsgi.py", None, None),
    ],
    ids=["ordinary", "package", "installed", "setting", "nothing else"],
)
def test_asgi_is_served_where_the_project_shows_that_it_needs_it(tmp_path, file, before, after):
    app = projects.startproject(tmp_path / "mysite")
    if before is None:
        (app / file).unlink()
        settings = app / "bakery/settings.py"
        settings.write_text(re.sub("WSGI_APPLICATION.*", "", settings.read_text()))
    else:
        (app / file).write_text(
            (app / file).read_text().replace(before, after, 1) if before else (app / file).read_text()
        )
    newinventory.new(words(tmp_path, app), None)
    values = values_of(tmp_path / "ops")
    served = ("app_asgi", "bakery.asgi:application") if before != "" else ("app_wsgi", "bakery.wsgi:application")
    assert [(name, values[name]) for name in ("app_wsgi", "app_asgi") if name in values] == [served]
    locked = (tmp_path / "ops/requirements.txt").read_text()
    assert all((f"\n{name}==" in locked) == (before != "") for name in ("uvicorn", "uvicorn-worker", "websockets"))


def test_folders_that_hold_no_source_are_passed_over(tmp_path):
    for name in (
        ".copy/a.py",
        "venv/pyvenv.cfg",
        "venv/b.py",
        "node_modules/x/c.py",
        "{{ name }}/d.py",
        "shop/tests/e.py",
        "shop/f.py",
    ):
        projects.put(tmp_path / name, "")
    assert Files(tmp_path).paths == [Path("shop/f.py")]


def test_nothing_of_the_project_is_run(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    for path in app.rglob("*.py"):
        path.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{path.read_text()}")
    (app / "setup.py").write_text("raise SystemExit('no')\n")
    newinventory.new(words(tmp_path, app), None)
    assert not (tmp_path / "ran").exists()


def test_ansible_reads_the_inventory_and_the_playbook_with_it(tmp_path):
    app = projects.src(tmp_path / "mysite")
    newinventory.new(
        words(tmp_path, app, ENV=app / "deploy", HOST="a.example.com=10.0.0.1 10.9.9.9=10.0.0.2", USER="ops"), None
    )

    def run(*command):
        around = os.environ | {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
        return done.stdout

    listed = json.loads(run("ansible-inventory", "-i", app / "deploy", "--list"))
    assert {group: listed[group]["hosts"] for group in newinventory.GROUPS} == {
        **{key: ["a"] for key in ("redis", "postgresql", "flower")},
        **{key: ["a", "server2"] for key in ("web", "workers", "beat", "edge")},
    }
    hosts = listed["_meta"]["hostvars"]
    assert hosts["server2"]["ansible_host"] == "10.9.9.9" and hosts["server2"]["app_private_address"] == "10.0.0.2"
    asked = run("ansible", "a", "-i", app / "deploy", "-m", "debug", "-a", "msg='{{ app_source }} {{ app_lock_file }}'")
    assert f".. {app}/deploy/requirements.txt" in asked
    assert values_of(app / "deploy")["app_exclude"] == ["deploy"]
    run("ansible-playbook", "-i", app / "deploy", "playbooks/deploy.yml", "--syntax-check")


def test_files_that_are_there_are_kept_and_what_they_lack_is_told(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    newinventory.new(words(tmp_path, app), None)
    (tmp_path / "ops/hosts.yml").write_text("# mine\n")
    path = tmp_path / "ops/group_vars/all/app.yml"
    path.write_text(path.read_text().replace("bakery.celery:app", "bakery.tasks:mine"))
    before = path.read_text()
    (app / "orders/more.py").write_text(
        "from celery import shared_task\n\n@shared_task(queue='crumbs')\ndef sweep(): ...\n"
    )
    told = newinventory.new(words(tmp_path, app, HOST="", DOMAIN=""), None)
    assert path.read_text() == before and (tmp_path / "ops/hosts.yml").read_text() == "# mine\n"
    assert "Kept in " in told and "celery_queues there does not have 'crumbs' (orders/more.py:3)." in told
    assert "app_celery is 'bakery.tasks:mine' there, and 'bakery.celery:app' in bakery/celery.py:6." in told


def test_a_lock_file_of_the_projects_own_that_has_everything_is_used_as_it_is(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    source = locking.find(app, app)
    locked = locking.Maker(source, locking.Target("13", "x86_64")).run()
    (app / "requirements.txt").write_text(re.sub(r"^#.*\n", "", locked.text, flags=re.MULTILINE))
    newinventory.new(words(tmp_path, app), None)
    assert values_of(tmp_path / "ops")["app_lock_file"] == "requirements.txt"
    assert not (tmp_path / "ops/requirements.txt").exists()


CHECK = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.import_tasks: tasks/variables.yml
"""


@pytest.mark.parametrize("change, problem", [("", ""), ("app_web: {workers: none}\n", "app_web.workers is 'none'")])
def test_variables_are_those_that_a_deploy_accepts(tmp_path, change, problem):
    """By the task that a deploy begins with."""
    newinventory.new(words(tmp_path, projects.environ(tmp_path / "mysite")), None)
    with (tmp_path / "ops/group_vars/all/app.yml").open("a") as file:
        file.write(change)
    (tmp_path / "project/playbooks").mkdir(parents=True)
    (tmp_path / "project/roles").symlink_to(ROOT / "roles")
    for path in (ROOT / "playbooks").iterdir():
        (tmp_path / "project/playbooks" / path.name).symlink_to(path)
    (tmp_path / "project/playbooks/check.yml").write_text(CHECK)
    around = os.environ | {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", tmp_path / "ops", tmp_path / "project/playbooks/check.yml"]
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if problem else 0) and problem in done.stdout + done.stderr, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


def test_next_command_builds_what_has_no_wheel(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    (app / "requirements.txt").write_text("django\ncelery\npylibmc==1.6.3\n")
    told = newinventory.new(words(tmp_path, app, DEBIAN="12"), None)
    assert told.splitlines()[-1] == f"Next: make wheels ENV={tmp_path}/ops DEBIAN=12"
    assert not (tmp_path / "ops/requirements.txt").exists(), "it would not be whole"
    assert "There is no wheel for Debian 12 (Python 3.11, x86_64) of pylibmc==1.6.3." in told
    assert values_of(tmp_path / "ops")["app_packages_from"] == "controller"
    path = tmp_path / "ops/group_vars/all/app.yml"
    path.write_text(re.sub("app_packages_from.*", "", path.read_text()))
    again = newinventory.new(words(tmp_path, app, DEBIAN="12"), None)
    assert "app_packages_from is not 'controller' there, and pylibmc has no wheel in a package index." in again


def refused(tmp_path, app, **said):
    with pytest.raises(RefusedError) as error:
        newinventory.new(words(tmp_path, app, **said), None)
    assert not (tmp_path / "ops").exists()
    return error.value.problems


def test_everything_that_is_missing_is_told_at_once(tmp_path):
    missing = projects.poetry(tmp_path / "other")
    (missing / "requirements.txt").write_text("django\ncelery\ndocopt\n")
    (missing / "poetry.lock").unlink()
    app = projects.startproject(tmp_path / "mysite")
    shutil.rmtree(app / "orders")
    (app / "bakery/celery.py").unlink()
    for name in ("wsgi", "asgi"):
        (app / f"bakery/{name}.py").unlink()
    (app / "bakery/settings.py").write_text("INSTALLED_APPS = []\n")
    (app / "requirements.txt").unlink()
    assert "There is no wheel" in refused(tmp_path, missing, NAME="My-Site")[-1]
    problems = refused(tmp_path, app, HOST="", DOMAIN="", DEBIAN="11", USER="an ops")
    for text in (
        "DEBIAN is '11'; it must be 12 or 13.",
        "set WSGI=module:name",
        "set CELERY=module:name",
        "set REQUIREMENTS to the file",
        "HOST is missing",
        "DOMAIN is missing",
        "USER is 'an ops'",
    ):
        assert [problem for problem in problems if text in problem], (text, problems)


def test_a_folder_without_a_project_and_one_with_two_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "neither it nor a folder in it has a manage.py" in refused(tmp_path, tmp_path / "empty")[0]
    assert "which is no folder" in refused(tmp_path, tmp_path / "absent")[0]
    projects.startproject(tmp_path / "both/shop")
    projects.environ(tmp_path / "both/intranet")
    assert f"APP={tmp_path}/both/intranet or APP={tmp_path}/both/shop" in refused(tmp_path, tmp_path / "both")[0]


def test_what_is_ambiguous_names_the_choices_and_the_variable_that_decides(tmp_path):
    app = projects.cookiecutter(tmp_path / "mysite")
    for name in ("wsgi", "asgi"):
        path = app / f"config/{name}.py"
        path.write_text(path.read_text().replace("production", "local"))
    (app / "config/settings/live.py").write_text("from .base import *\n")
    (app / "config/other.py").write_text((app / "config/celery_app.py").read_text())
    (app / "config/__init__.py").write_text("")
    settings, celery = refused(tmp_path, app)
    assert "set SETTINGS=config.settings.live or SETTINGS=config.settings.production." in settings
    assert "set CELERY=config.celery_app:app or CELERY=config.other:app." in celery
    newinventory.new(
        words(tmp_path, app, SETTINGS="config.settings.live", CELERY="config.other:app", NAME="notes"), None
    )
    values = values_of(tmp_path / "ops")
    chosen = [values[name] for name in ("app_settings_module", "app_celery", "app_name")]
    assert chosen == ["config.settings.live", "config.other:app", "notes"]


def test_settings_for_development_alone_are_not_taken(tmp_path):
    app = projects.cookiecutter(tmp_path / "mysite")
    for name in ("wsgi", "asgi"):
        path = app / f"config/{name}.py"
        path.write_text(path.read_text().replace("production", "local"))
    (app / "config/settings/production.py").unlink()
    assert "config.settings.local, in config/wsgi.py:4, is for development" in refused(tmp_path, app)[0]


def test_names_that_are_wrong_are_refused(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    problems = refused(tmp_path, app, NAME="My-Site", SETTINGS="bakery.absent", DOMAIN="http://x", HOST="a;b")
    for name in ("NAME is 'My-Site'", "SETTINGS is 'bakery.absent'", "DOMAIN is 'http://x'", "HOST is 'a;b'"):
        assert [problem for problem in problems if name in problem], (name, problems)
    assert "'COLOUR=red' is unknown" in refused(tmp_path, app, COLOUR="red")[0]
    assert "comes with Coldframe" in refused(tmp_path, app, ENV="single")[0]


def test_a_queue_whose_name_cannot_be_is_a_question(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    (app / "orders/tasks.py").write_text(
        "from celery import shared_task\n\n@shared_task(queue='High-Priority')\ndef a(): ...\n"
    )
    told = newinventory.new(words(tmp_path, app), None)
    assert "The queue 'High-Priority' (orders/tasks.py:3) cannot be in celery_queues" in told
    assert values_of(tmp_path / "ops")["celery_queues"] == {"default": {}}
    assert "High-Priority" in (tmp_path / "ops/group_vars/all/app.yml").read_text()


@pytest.mark.parametrize(
    ("configured", "config"),
    [
        ('app.config_from_object("bakery.celeryconfig")', 'task_routes = {"orders.tasks.bake": "ovens"}'),
        (
            "from . import celeryconfig\napp.config_from_object(celeryconfig)",
            'CELERY_ROUTES = {"orders.tasks.bake": {"queue": "ovens"}}',
        ),
        (
            "from bakery.celeryconfig import Live as L\napp.config_from_object(L)",
            'class Live:\n    task_routes = [("orders.*", "ovens")]',
        ),
        ('app.config_from_object("bakery.celeryconfig", namespace="JOB")', 'JOB_TASK_DEFAULT_QUEUE = "ovens"'),
        ("class Own:\n    task_default_queue = 'ovens'\n\napp.config_from_object(Own)", ""),
    ],
)
def test_celerys_settings_may_be_in_a_module_or_a_class_of_their_own(tmp_path, configured, config):
    app = projects.startproject(tmp_path / "mysite")
    (app / "orders/tasks.py").write_text("")
    (app / "bakery/celery.py").write_text(f"from celery import Celery\n\napp = Celery('bakery')\n{configured}\n")
    (app / "bakery/celeryconfig.py").write_text(config + "\n")
    newinventory.new(words(tmp_path, app), None)
    assert "ovens" in values_of(tmp_path / "ops")["celery_queues"]


def test_what_the_settings_read_and_nobody_sets_is_a_question(tmp_path):
    app = projects.environ(tmp_path / "mysite")
    told = newinventory.new(words(tmp_path, app), None)
    assert "SMS_GATEWAY_TOKEN (clinic/settings.py:6)" in told
    assert "SECRET_KEY (" not in told and "REGION" not in told and "DATABASE_URL" not in told
    assert f"after 'make secrets ENV={tmp_path}/ops': 'make secrets ENV={tmp_path}/ops SET=SMS_GATEWAY_TOKEN'." in told
    assert "in app_environment" not in told, "there is nothing but a secret"


@pytest.mark.parametrize(
    ("name", "secret"),
    [("MAPS_API_KEY", True), ("APIKEY", True), ("ERRORS_DSN", True), ("SMTP_PASSWORD", True), ("AWS_SECRET_ID", True),
     ("CRM_HOST", False), ("KEYWORDS", False), ("PASSENGERS", False), ("TOKENIZER", False)],
)  # fmt: skip
def test_variable_without_a_default_is_answered_by_a_line_or_by_a_command(tmp_path, name, secret):
    app = projects.environ(tmp_path / "mysite")
    settings = app / "clinic/settings.py"
    settings.write_text(settings.read_text().replace("SMS_GATEWAY_TOKEN", name))
    told = newinventory.new(words(tmp_path, app), None)
    path = tmp_path / "ops/group_vars/all/app.yml"
    assert (f"make secrets ENV={tmp_path}/ops SET={name}'" in told) == secret
    before = path.read_text()
    uncommented = before.replace("# app_environment:", "app_environment:").replace(f"#   {name}:", f"  {name}:")
    assert (uncommented == before) == secret
    assert yaml.safe_load(uncommented).get("app_environment") == (None if secret else {name: ""})


def test_schedule_and_time_zone_are_told(tmp_path):
    app = projects.environ(tmp_path / "mysite")
    with (app / "clinic/settings.py").open("a") as settings:
        settings.write(
            "CELERY_TIMEZONE = 'Europe/Vienna'\nCELERY_BEAT_SCHEDULE = {\n    'a': {'task': 'x'},\n    'b': {},\n}\n"
        )
    found = read(app, str(app), {}).found
    line = len((app / "clinic/settings.py").read_text().splitlines()) - 4
    assert (found["schedule"].value, found["schedule"].where) == ("2 entries", f"clinic/settings.py:{line + 1}")
    assert (found["Celery's time zone"].value, found["Celery's time zone"].where) == (
        "Europe/Vienna",
        f"clinic/settings.py:{line}",
    )


def test_variables_of_the_database_are_those_that_the_runtime_gives(tmp_path):
    app = projects.environ(tmp_path / "mysite")
    settings = app / "clinic/settings.py"
    settings.write_text(settings.read_text() + 'env("DB_USER")\nenv("PGPASSWORD")\nenv("POSTGRES_USERNAME")\n')
    asked = newinventory.new(words(tmp_path, app), None)
    assert "POSTGRES_USERNAME (" in asked and "DB_USER (" not in asked and "PGPASSWORD (" not in asked


def test_questions_are_asked_on_a_terminal_alone(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    with (app / "bakery/settings.py").open("a") as settings:
        settings.write('import os\nos.environ["BAKERY_SITE_URL"], os.environ["BAKERY_REGION"]\n')
    answers = iter(["one.example.com two.example.com", "admin", "shop.example.com"])
    told = newinventory.new(words(tmp_path, app, HOST="", DOMAIN=""), lambda text: next(answers))
    assert values_of(tmp_path / "ops")["app_url"] == "https://shop.example.com"
    hosts = yaml.safe_load((tmp_path / "ops/hosts.yml").read_text())["all"]
    assert hosts["vars"] == {"ansible_user": "admin"} and list(hosts["hosts"]) == ["one", "two"]
    assert "Which addresses have one, two in the network between the servers?" in told
    written = (tmp_path / "ops/group_vars/all/app.yml").read_text()
    assert "#   BAKERY_SITE_URL: https://shop.example.com " in written and "#   BAKERY_REGION: '' " in written
    shutil.rmtree(app / "bakery")
    with pytest.raises(RefusedError, match="No settings module"):
        newinventory.new(
            words(tmp_path, app, ENV=tmp_path / "other", HOST=""), lambda text: next(answers)
        )  # asks nothing


def test_end_of_input_at_a_question_leaves_out_what_is_not_answered(tmp_path, capsys):
    def ends(text):
        raise EOFError

    app = projects.startproject(tmp_path / "mysite")
    with pytest.raises(RefusedError) as error:
        newinventory.new(words(tmp_path, app, HOST="", DOMAIN=""), ends)
    assert [problem.split()[0] for problem in error.value.problems] == ["HOST", "DOMAIN"]
    assert capsys.readouterr().out == "\n", "the message begins on a line of its own"


@pytest.mark.parametrize("program", ["new", "try", "lock", "wheels"])
def test_interrupted_program_ends_with_a_line(tmp_path, program):
    text = (ROOT / "bin" / program).read_text().replace("from __future__ import annotations\n", "")
    raises = "class Interrupts(list):\n    def __getitem__(self, _):\n        raise KeyboardInterrupt\n"
    (tmp_path / "program.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'bin')!r})\n{raises}sys.argv = Interrupts(['x'])\n{text}"
    )
    done = subprocess.run(["python", tmp_path / "program.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"\nmake {program}: interrupted.\n")


def test_file_that_is_no_file_is_not_read(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    os.mkfifo(app / "bakery/pipe.py")
    assert newinventory.new(words(tmp_path, app), None)


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    monkeypatch.setattr(newinventory, "SANDBOX", tmp_path / "sandbox")
    return tmp_path / "sandbox"


def test_a_sandbox_host_keeps_its_debian(tmp_path, sandbox, monkeypatch):
    app = projects.startproject(tmp_path / "mysite")
    monkeypatch.setenv("SANDBOX_SUITE", "bookworm")
    newinventory.prepare({"APP": str(app)})
    monkeypatch.delenv("SANDBOX_SUITE")
    newinventory.prepare({"APP": str(app)})
    assert "Debian 12 (Python 3.11" in (sandbox / "mysite/requirements.txt").read_text()
    assert "sandbox_suite: bookworm" in (sandbox / "mysite/group_vars/all/try.yml").read_text()


def ports(folder):
    said = yaml.safe_load((folder / "group_vars/all/try.yml").read_text())
    return [said[f"sandbox_{name}_port"] for name in ("ssh", "https", "http")]


def test_what_has_no_default_has_a_value_to_try_it_with(tmp_path, sandbox, capsys):
    app = projects.environ(tmp_path / "mysite")
    settings = app / "clinic/settings.py"
    settings.write_text(
        settings.read_text()
        + 'env("BACK_OFFICE_ADMIN_URL")\nenv("ERRORS_DSN")\nenv.int("CART_DAYS")\n'
        + 'env("HOME")\nenv("PATH")\nenv("PYTHONPATH")\nenv("OVERLAY_FILE")\n'  # of each process
    )
    newinventory.prepare({"APP": str(app)})
    values = values_of(sandbox / "mysite")
    tried = {"SMS_GATEWAY_TOKEN": "try", "BACK_OFFICE_ADMIN_URL": "admin/", "ERRORS_DSN": "", "CART_DAYS": "1"}
    assert values["app_environment"] == tried
    valid = newinventory.VARIABLES.schemas(str(ROOT))["app_environment"]
    assert newinventory.VARIABLES.value_problems("app_environment", tried, valid) == []
    assert "app_environment has a value for each to try it with" in capsys.readouterr().out
    text = (sandbox / "mysite/group_vars/all/app.yml").read_text()
    assert f"# 'make secrets ENV={sandbox}/mysite SET=NAME' in place of a line here.\napp_environment:" in text
    newinventory.new(words(tmp_path, app), None)
    assert "app_environment" not in values_of(tmp_path / "ops"), "on a server nobody makes one up"


def test_what_the_deployment_decides_is_no_question_and_has_a_value_to_load_the_settings_with(tmp_path, sandbox):
    app = projects.environ(tmp_path / "mysite")
    settings = app / "clinic/settings.py"
    decided = {
        "BROKER_URL": "redis://localhost:6379/0",
        "CELERY_RESULT_BACKEND": "redis://localhost:6379/1",
        "REDIS_HOST": "localhost",
        "REDIS_PORT": "6379",
        "REDIS_PASSWORD": "",
        "DB_ENGINE": "django.db.backends.postgresql",
    }
    read = "".join(f'env("{name}")\n' for name in (*decided, "CRM_HOST", "MESSAGE_BROKER_OF_OTHERS"))
    settings.write_text(settings.read_text() + read)
    told = newinventory.new(words(tmp_path, app), None)
    assert (
        "CRM_HOST (" in told
        and "MESSAGE_BROKER_OF_OTHERS (" in told
        and not [name for name in decided if f"{name} (" in told]
    )
    assert values_of(tmp_path / "ops")["app_environment"] == decided
    text = (tmp_path / "ops/group_vars/all/app.yml").read_text()
    assert "# In app_environment above:\n#   CRM_HOST:" in text
    valid = newinventory.VARIABLES.schemas(str(ROOT))["app_environment"]
    assert newinventory.VARIABLES.value_problems("app_environment", decided, valid) == []
    newinventory.prepare({"APP": str(app)})
    tried = values_of(sandbox / "mysite")["app_environment"]
    assert tried.items() >= decided.items() and tried["CRM_HOST"] == "example.invalid"


SECURITY, CSRF = "django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware"


@pytest.mark.parametrize(
    ("more", "checks"),
    [
        (f'MIDDLEWARE = ["{SECURITY}", "{CSRF}"]', ["security.W002"]),
        (f'MIDDLEWARE = ["{SECURITY}"]\nMIDDLEWARE += ["bakery.Own"]', ["security.W002", "security.W003"]),
        (f'import os\nMIDDLEWARE = ["{CSRF}", os.environ["OWN_CLASS"]]', None),
        ("", None),
    ],
    ids=["one", "two", "not known", "not set"],
)
def test_middleware_that_a_deploy_asks_for_is_a_question_and_left_out_to_try_it(
    tmp_path, sandbox, capsys, more, checks
):
    app = projects.environ(tmp_path / "mysite")
    settings = app / "clinic/settings.py"
    settings.write_text(settings.read_text() + more + "\n")
    newinventory.prepare({"APP": str(app)})
    assert values_of(sandbox / "mysite").get("release_check_ignore") == checks
    told = newinventory.new(words(tmp_path, app), None)
    assert "release_check_ignore" not in values_of(tmp_path / "ops"), "on a server it is refused until somebody decides"
    asked = f"set release_check_ignore: [{', '.join(checks or [])}] if that is intended"
    assert (asked in told) == bool(checks), told


def test_a_project_has_a_sandbox_host_of_its_own_and_keeps_it(tmp_path, sandbox, capsys):
    mine = projects.startproject(tmp_path / "mysite")
    other = projects.poetry(tmp_path / "elsewhere/mysite")
    for app in (mine, other, mine):
        newinventory.prepare({"APP": str(app)})
    assert sorted(path.name for path in sandbox.iterdir()) == ["mysite", "mysite-2"]
    assert len({*ports(sandbox / "mysite"), *ports(sandbox / "mysite-2"), 2222, 8443, 8080}) == 9
    assert newinventory.tried(other) == sandbox / "mysite-2"
    third = projects.src(tmp_path / "third")
    (sandbox / "third/group_vars/all").mkdir(parents=True)
    assert newinventory.tried(third) == sandbox / "third", "further variables may be there before"
    assert values_of(sandbox / "mysite")["app_url"] == "https://localhost:{{ sandbox_https_port }}"
    assert "Kept in" in capsys.readouterr().out


def test_ports_of_a_host_that_still_boots_are_not_chosen():
    """They are bound, and a connection is refused."""
    first = newinventory.free_ports()
    with socket.socket() as booting:
        booting.bind(("127.0.0.1", first["ssh"]))
        second = newinventory.free_ports()
    assert second["ssh"] > first["ssh"] and second["https"] >= first["https"]


def bound(*numbers):
    """Sockets that have these ports on loopback."""
    sockets = contextlib.ExitStack()
    for number in numbers:
        sockets.enter_context(socket.socket()).bind(("127.0.0.1", number))
    return sockets


def test_ports_that_were_taken_before_the_host_was_started_are_changed_alone(tmp_path, sandbox, capsys):
    app = projects.startproject(tmp_path / "mysite")
    newinventory.prepare({"APP": str(app)})
    own = sandbox / "mysite/group_vars/all/try.yml"
    own.write_text(own.read_text() + "mine: 1\n")
    before = ports(sandbox / "mysite")
    with bound(before[1]):
        newinventory.prepare({"APP": str(app)})
    after = ports(sandbox / "mysite")
    assert [after[0], after[2]] == [before[0], before[2]] and after[1] > before[1]
    assert "mine: 1" in own.read_text() and f"https {before[1]} -> {after[1]}" in capsys.readouterr().out
    (sandbox / "mysite/.host").mkdir()
    (sandbox / "mysite/.host/ssh_config").touch()
    with bound(*after):  # its own container has them
        newinventory.prepare({"APP": str(app)})
    assert ports(sandbox / "mysite") == after


def test_ports_of_the_command_line_are_taken_until_the_host_was_started(tmp_path, sandbox):
    app = projects.startproject(tmp_path / "mysite")
    asked = newinventory.free_ports({"ssh": 2450, "http": 8450})
    words = {newinventory.PORT_WORDS[name]: str(port) for name, port in asked.items() if name != "https"}
    newinventory.prepare({"APP": str(app)} | words)
    assert ports(sandbox / "mysite")[::2] == [asked["ssh"], asked["http"]]
    other = str(newinventory.free_ports({"ssh": 2470})["ssh"])
    newinventory.prepare({"APP": str(app), "SANDBOX_SSH_PORT": other})
    assert ports(sandbox / "mysite")[::2] == [int(other), asked["http"]], "it was not started yet"
    (sandbox / "mysite/.host").mkdir()
    (sandbox / "mysite/.host/ssh_config").touch()
    newinventory.prepare({"APP": str(app), "SANDBOX_SSH_PORT": other})
    with pytest.raises(RefusedError) as error:
        newinventory.prepare({"APP": str(app), "SANDBOX_SSH_PORT": "2480", "SANDBOX_HTTP_PORT": "8480"})
    assert len(error.value.problems) == 2
    assert f"SANDBOX_SSH_PORT is 2480, and the sandbox host of this project has {other}" in error.value.problems[0]
    assert f"make try-down APP={app}" in error.value.problems[0]


def test_ports_that_cannot_be_are_refused_with_what_else_is_wrong(tmp_path, sandbox):
    app = projects.startproject(tmp_path / "mysite")
    (app / "bakery/celery.py").unlink()
    given = {"SANDBOX_SSH_PORT": "ssh", "SANDBOX_HTTPS_PORT": "70000", "SANDBOX_HTTP_PORT": "8100"}
    with pytest.raises(RefusedError) as error:
        newinventory.prepare({"APP": str(app)} | given)
    problems = "\n".join(error.value.problems)
    assert "SANDBOX_SSH_PORT is 'ssh'; it must be a port" in problems and "SANDBOX_HTTPS_PORT is '70000'" in problems
    assert "No Celery application was found" in problems and not sandbox.exists()
    free = newinventory.free_ports()["ssh"]
    with bound(free), pytest.raises(RefusedError, match=f"SANDBOX_SSH_PORT is {free}, which another program"):
        newinventory.choose_ports(sandbox / "mysite", {"SANDBOX_SSH_PORT": str(free)})
    with pytest.raises(RefusedError, match="SANDBOX_HTTP_PORT is '8470', which another port of the host is too"):
        newinventory.asked_ports({"SANDBOX_SSH_PORT": "8470", "SANDBOX_HTTP_PORT": "8470"})


def test_inventory_of_a_sandbox_host_has_all_that_the_examples_has(tmp_path, sandbox):
    newinventory.prepare({"APP": str(projects.src(tmp_path / "mysite"))})
    (sandbox / "mysite/.host").mkdir()
    shutil.copy(ROOT / "inventories/sandbox/hosts.yml", tmp_path / "hosts.yml")
    assert (sandbox / "mysite/hosts.yml").read_text() == (tmp_path / "hosts.yml").read_text()
    names = ["sandbox_name", "sandbox_state", "sandbox_ssh_port", "app_lock_file", "ansible_ssh_common_args"]
    shown = " ".join(f"{{{{ {name} }}}}" for name in names)
    command = ["ansible", "sandbox", "-i", sandbox / "mysite", "-m", "debug", "-a", f"msg='{shown}'"]
    around = os.environ | {
        "ANSIBLE_STRATEGY": "linear",
        "ANSIBLE_FORCE_COLOR": "0",
        "SANDBOX_NAME": "coldframe-sandbox",
        "SANDBOX_SSH_PORT": "2222",
    }
    done = subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, check=False)
    state, port = f"{sandbox}/mysite/.host", ports(sandbox / "mysite")[0]
    assert f"coldframe-mysite {state} {port} {sandbox}/mysite/requirements.txt -F {state}/ssh_config" in re.sub(
        r"\s+", " ", done.stdout
    )


MAKE = """#!/bin/sh
echo "make $*" >> "$LOG"
# A host that cannot boot: its ports are taken. Another program has one of them, and then none.
if [ "$2" = sandbox ] && [ -s "$FAILS" ]; then sed -i 1d "$FAILS"; exit 2; fi
exit ${CODE:-0}
"""


def test_try_deploys_and_try_down_removes_the_host_alone(tmp_path, sandbox):
    """With a `make` that only tells how it was called."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/make").write_text(MAKE)
    (tmp_path / "bin/make").chmod(0o755)
    app = projects.startproject(tmp_path / "mysite")
    program = tmp_path / "try.py"  # the program, with another folder for its sandbox hosts
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'bin')!r})\nimport newinventory\nfrom pathlib import Path\n"
        f"newinventory.SANDBOX = Path({str(sandbox)!r})\n"
        + (ROOT / "bin/try").read_text().replace("from __future__ import annotations\n", "")
    )

    def run(*arguments, code=0, fails=0):
        (tmp_path / "fails").write_text("one\n" * fails)
        around = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "CODE": str(code)}
        around["FAILS"] = str(tmp_path / "fails")
        command = ["python", program, *arguments]
        return subprocess.run(command, env=os.environ | around, capture_output=True, text=True, check=False)

    assert "make try: APP is '" in run("down", f"APP={app}").stderr
    first = run(f"APP={app}")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines()[-1] == f"Next, for your own servers: make new ENV=production APP={app}"
    failed = run(f"APP={app}", code=2)
    assert failed.returncode == 2 and f"then make try APP={app} again" in failed.stdout.splitlines()[-1]
    assert run("down", f"APP={app}").returncode == 0 and (sandbox / "mysite/group_vars/all/app.yml").exists()
    called = (tmp_path / "log").read_text().splitlines()
    targets = [line.split()[2] for line in called]
    wanted = ["check-app", "sandbox", "deploy", "check-app", "sandbox-down"]
    assert targets == wanted, "what is refused without a host boots none"
    assert all(f"ENV={sandbox}/mysite" in line.split() for line in called)
    assert '{"release_check_on_controller": false}' in called[2], "it is not checked twice; no text passes for false"
    refused = run(f"APP={tmp_path / 'bin'}")
    other = projects.startproject(tmp_path / "other")
    (other / "requirements.txt").write_text("django\ncelery\npylibmc==1.6.3\n")
    assert run(f"APP={other}").returncode == 0
    called = (tmp_path / "log").read_text().splitlines()[len(called) :]
    assert [line.split()[2] for line in called] == ["wheels", "check-app", "sandbox", "deploy"]
    assert refused.returncode == 1 and "which is no Django project" in refused.stderr
    assert f"make manage ENV={sandbox}/mysite CMD=createsuperuser" in first.stdout
    (tmp_path / "log").unlink()
    before = ports(sandbox / "mysite")
    failed = run(f"APP={app}", fails=1)
    assert failed.returncode == 2 and ports(sandbox / "mysite") == before, "its ports are free: it was something else"
    # Something takes a port while the host boots, and it is tried again with another one.
    taken = f'[ "$2" = sandbox ] && [ ! -e {tmp_path}/once ] && touch {tmp_path}/once && exit 2\n'
    listens = "import socket, sys, time; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); print(flush=True); time.sleep(60)"
    program.write_text(
        program.read_text().replace(
            "made = prepare(given)",
            f"made = prepare(given)\n    holds = subprocess.Popen([sys.executable, '-c', {listens!r}, '{before[0]}'], "
            "stdout=subprocess.PIPE)\n    holds.stdout.readline()\n    import atexit\n    atexit.register(holds.kill)",
        )
    )
    (tmp_path / "bin/make").write_text(MAKE.replace("exit ${CODE:-0}", taken + "exit 0"))
    again = run(f"APP={app}")
    assert again.returncode == 0 and ports(sandbox / "mysite")[0] > before[0], again.stdout + again.stderr
    assert f"Ports of the sandbox host: ssh {before[0]} -> " in again.stdout


def test_second_application_of_a_server_is_an_additional_one(tmp_path):
    app = projects.startproject(tmp_path / "mysite")
    made = newinventory.plan(SAID | {"APP": str(app)}, str(tmp_path / "ops"))
    for name, address, app in (
        ("blog", "server1.example.org", "blog"),
        ("stage", "server2.example.org", made.project.name),
    ):
        (tmp_path / f"inventories/{name}/group_vars/all").mkdir(parents=True)
        hosts = {"all": {"hosts": {"one": {"ansible_host": address}, "two.example.org": None}}}
        (tmp_path / f"inventories/{name}/hosts.yml").write_text(yaml.safe_dump(hosts))
        (tmp_path / f"inventories/{name}/group_vars/all/app.yml").write_text(f"app_name: {app}\n")
    (tmp_path / "inventories/broken").mkdir()
    (tmp_path / "inventories/broken/hosts.yml").write_text("[web]\nserver1.example.org\n")
    for host, found in (
        ("server1.example.org", "blog"),
        ("two.example.org", "blog"),
        ("server3.example.org", ""),
        ("server2.example.org", ""),  # the same application
    ):
        assert newinventory.beside(made, newinventory.servers(host), tmp_path) == found
    assert "app_additional" not in newinventory.app_yml(made)
    made.beside = "blog"
    assert yaml.safe_load(newinventory.app_yml(made))["app_additional"] is True
