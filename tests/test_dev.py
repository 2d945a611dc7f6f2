"""`make dev`: a project runs on this machine with what the servers run, and at the end nothing of it is left."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import dev_services
import development
import projects
import pytest
import yaml
from waits import wait_for

ROOT = Path(__file__).parents[1]
VARIABLES = {
    "app_name": "kiosk",
    "app_settings_module": "kiosk.settings",
    "app_wsgi": "kiosk.wsgi:application",
    "app_celery": "kiosk.celery:app",
    "app_url": "https://kiosk.example",
    # That of the example: with it Django, Celery and what else a project needs are there.
    "app_lock_file": str(ROOT / "app_stub/requirements.txt"),
    "celery_queues": {"default": {"concurrency": 1}, "papers": {"concurrency": 1}},
    "celery_task_routes": {"papers.tasks.fold": "papers"},
    "app_services": {"ticker": {"command": "manage.py tick"}},
    "app_environment": {"CITY": "Ghent"},
    "app_secrets": {"TILL_KEY": "sk_live_3"},
    "app_redis_passwords": {"admin": "a" * 40},
    **dict.fromkeys(("app_secret_key", "app_database_password", "app_flower_password"), "z" * 60),
}
HOSTS = {
    "all": {
        "hosts": {"one": {"ansible_host": "192.0.2.1"}},
        "children": {
            group: {"hosts": {"one": {}}}
            for group in ("redis", "postgresql", "web", "workers", "beat", "flower", "edge")
        },
    }
}
needs_services = pytest.mark.skipif(
    not (dev_services.redis_program() and dev_services.postgresql_programs()), reason="no Redis or no PostgreSQL here"
)


def kiosk(root):
    """A project with two tasks, a page that sends them and a page that says what it was started with."""
    projects.put(root / "manage.py", projects.MANAGE.format(settings="kiosk.settings"))
    projects.package(root, "kiosk", apps='"django.contrib.auth", "django.contrib.contenttypes", "papers"')
    projects.put(
        root / "kiosk/settings.py",
        (root / "kiosk/settings.py").read_text().replace('"django.contrib.admin", ', "")
        + """
import os

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
EMAIL_BACKEND = "mailings.Service"
USE_TZ = True
CELERY_BEAT_SCHEDULE = {"often": {"task": "papers.tasks.sweep", "schedule": 1.0}}
CITY, TILL_KEY = os.environ.get("CITY"), os.environ.get("TILL_KEY")
SHELL = sorted(set(os.environ) & {"ENV", "PORT", "VENV", "CMD", "SANDBOX_NAME", "SANDBOX_KEY", "MAKER", "MAKEFLAGS"})
""",
    )
    projects.put(
        root / "kiosk/urls.py",
        """
        from django.urls import path

        from papers import views

        urlpatterns = [path("", views.page), path("send/", views.send)]
        """,
    )
    projects.put(root / "papers/__init__.py", "")
    projects.put(root / "papers/static/paper.css", "p { color: grey }\n")
    projects.put(
        root / "papers/models.py",
        """
        from django.db import models

        class Paper(models.Model):
            title = models.CharField(max_length=20)
        """,
    )
    projects.put(
        root / "papers/migrations/0001_initial.py",
        """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            operations = [
                migrations.CreateModel("Paper", [
                    ("id", models.AutoField(primary_key=True)), ("title", models.CharField(max_length=20))
                ])
            ]
        """,
    )
    projects.put(root / "papers/migrations/__init__.py", "")
    projects.put(
        root / "papers/tasks.py",
        """
        import time

        from celery import shared_task

        WORD = "first"

        @shared_task
        def sell(number):
            print(f"sold {number} {WORD}")

        @shared_task
        def fold(number, seconds=0):
            print(f"folds {number} {WORD}")
            time.sleep(seconds)
            print(f"folded {number} {WORD}")

        @shared_task
        def sweep():
            print("swept")
        """,
    )
    projects.put(
        root / "papers/views.py",
        """
        from django.conf import settings
        from django.core.cache import cache
        from django.core.mail import send_mail
        from django.db import connection
        from django.http import JsonResponse

        from papers import tasks
        from papers.models import Paper

        GREETING = "hello"

        def page(request):
            if "mail" in request.GET:
                send_mail("a subject of a mail", "", "a@example.com", ["b@example.com"])
            cache.set("seen", 1)
            return JsonResponse({
                "greeting": GREETING, "debug": settings.DEBUG, "vendor": connection.vendor, "seen": cache.get("seen"),
                "papers": Paper.objects.count(), "city": settings.CITY, "key": settings.TILL_KEY, "shell": settings.SHELL,
            })

        def send(request):
            number, seconds = request.GET["number"], float(request.GET.get("seconds", 0))
            tasks.sell.delay(number)
            tasks.fold.delay(number, seconds)
            return JsonResponse({"sent": number})
        """,
    )
    projects.put(
        root / "papers/tests.py",
        """
        from django.conf import settings
        from django.core.cache import cache
        from django.db import connection
        from django.test import TestCase

        from papers.models import Paper
        from papers.tasks import fold

        class Tests(TestCase):
            def test_page(self):
                Paper.objects.create(title="a")
                self.assertEqual(self.client.get("/").json()["papers"], 1)
                cache.set("seen", "by a test")
                place = settings.CACHES["default"].get("LOCATION", "memory")
                print(f"tested with {connection.vendor} {connection.settings_dict['NAME']}, {place}")

            def test_task(self):
                if connection.vendor == "postgresql":
                    fold.delay(1)
                fold(2)
        """,
    )
    projects.put(
        root / "papers/management/commands/tick.py",
        """
        import time

        from django.core.management.base import BaseCommand

        class Command(BaseCommand):
            def handle(self, *args, **options):
                while True:
                    print("tick", flush=True)
                    time.sleep(1)
        """,
    )
    return root


def inventory(folder, app, **variables):
    """Write an inventory for a project."""
    projects.put(folder / "hosts.yml", yaml.safe_dump(HOSTS))
    projects.put(folder / "group_vars/all/app.yml", yaml.safe_dump(VARIABLES | {"app_source": str(app)} | variables))
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path="/"):
    """Return the answer of a page of the site; None while there is none."""
    try:
        with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()[:2000]}"
    except OSError:
        return None


class Dev:
    """A run of make dev."""

    def __init__(self, folder, inventory, *words, verb="dev", **variables):
        """Start it in a session of its own, as a terminal has one."""
        self.log, self.port = folder / f"{verb}.log", free_port()
        words = [*words, *([f"PORT={self.port}"] if verb == "dev" and "PORT=" not in " ".join(words) else [])]
        command = ["make", "--no-print-directory", verb, f"ENV={inventory}", *words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, env=os.environ | variables
            )

    def text(self):
        """What it has printed."""
        return self.log.read_text()

    def page(self, path="/"):
        """Wait for a page, and return it."""
        return wait_for(lambda: get(self.port, path) or self.ended(), 60, f"the page {path}")

    def ended(self):
        """Fail when it has ended."""
        if self.process.poll() is not None:
            pytest.fail(f"it ended: {self.text()[-3000:]}")

    def says(self, pattern, seconds=60):
        """Wait until a line has this."""
        return wait_for(
            lambda: re.search(pattern, self.text(), re.MULTILINE) or self.ended(),
            seconds,
            f"{pattern} in {self.log}",
        )

    def program(self):
        """The id of the process of bin/dev that stays to the end."""
        return min(of_inventory(str(self.process.args[3].partition("=")[2]), "bin/dev"))

    def end(self, number, process=None):
        """Send a signal; return the seconds until all has ended."""
        start = time.monotonic()
        os.kill(process or self.program(), number)
        self.process.wait(30)
        return time.monotonic() - start


def of_inventory(name, *words):
    """The ids of processes whose command line or environment has this text."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = line + (path / "environ").read_bytes().decode(errors="replace")
            if name in known and all(word in line for word in words) and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def left(folder):
    """The command lines of processes that have something of a folder in them."""
    found = {}
    for each in of_inventory(str(folder)):
        with contextlib.suppress(OSError):
            found[each] = Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


@pytest.fixture
def desk(tmp_path):
    """A project with its inventory, and the folder of its services, which is removed again."""
    app = kiosk(tmp_path / "kiosk")
    own = inventory(tmp_path / "desk", app)
    services = development.folder_of(own)
    yield app, own, services
    remaining = left(services)
    for each in remaining:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    shutil.rmtree(services, ignore_errors=True)
    assert not remaining


@needs_services
def test_project_runs_with_its_queues_reloads_and_leaves_nothing(desk, tmp_path):
    app, own, services = desk
    dev = Dev(tmp_path, own, TILL_KEY="sk_test_4", SANDBOX_KEY="k", MAKER="m")
    page = json.loads(dev.page("/?mail=1"))
    # Settings and services as on the servers, with DEBUG; no mail is sent; no secret of the servers is here.
    wanted = {"greeting": "hello", "debug": True, "vendor": "postgresql", "seen": 1, "papers": 0, "city": "Ghent"}
    # What the developer's shell has is there, and what make was given is not.
    assert page == wanted | {"key": "sk_test_4", "shell": ["MAKER", "SANDBOX_KEY"]}
    dev.says(r"web +\| Subject: a subject of a mail")
    assert get(dev.port, "/static/paper.css") == "p { color: grey }\n"
    written = [path for folder in ("dev", "redis") for path in (services / folder).rglob("*") if path.is_file()]
    assert written and not [path for path in written if b"sk_live_3" in path.read_bytes()]
    # A worker for each queue, Beat and a further process.
    get(dev.port, "/send/?number=17")
    dev.says(r"worker-default +\| .*sold 17 first")
    dev.says(r"worker-papers +\| .*folded 17 first")
    dev.says(r"worker-default +\| .*swept")
    dev.says(r"service-ticker +\| tick")
    # Code that changes: a task that runs is given up, and begun again with the new code.
    get(dev.port, "/send/?number=18&seconds=600")
    dev.says("folds 18 first")
    tasks = (app / "papers/tasks.py").read_text()
    projects.put(app / "papers/tasks.py", tasks.replace("first", "second").replace("time.sleep(seconds)", "pass"))
    dev.says(r"make dev +\| papers/tasks.py changed: .*worker-default, worker-papers, beat again")
    dev.says(r"folded 18 second")
    wait_for(lambda: "sent" in (get(dev.port, "/send/?number=19") or ""), 60, "the page")
    dev.says(r"sold 19 second")
    projects.put(app / "papers/views.py", (app / "papers/views.py").read_text().replace('"hello"', '"good day"'))
    wait_for(lambda: "good day" in (get(dev.port) or ""), 60, "the page has changed")
    # A change that runserver does not see, as one between its first load of a file and its first look at the file's time.
    views = app / "papers/views.py"
    before = views.stat()
    projects.put(views, views.read_text().replace('"good day"', '"good evening"'))
    os.utime(views, ns=(before.st_atime_ns, before.st_mtime_ns))
    dev.says(r"make dev +\| papers/views.py changed: web again")
    wait_for(lambda: "good evening" in (get(dev.port) or ""), 60, "the page has changed, unseen by runserver")
    # Code that cannot be loaded ends a worker; the next change starts it again.
    good = (app / "papers/tasks.py").read_text()
    projects.put(app / "papers/tasks.py", "nonsense(\n")
    dev.says(r"make dev +\| worker-papers ended with 1. It is started again when a Python file changes.")
    projects.put(app / "papers/tasks.py", good.replace("second", "third"))
    dev.says(r"worker-papers +\| .* ready")
    wait_for(lambda: "sent" in (get(dev.port, "/send/?number=20") or ""), 60, "the page after the error")
    dev.says(r"folded 20 third")
    assert len(left(services)) > 8
    assert dev.end(signal.SIGINT) < 12
    assert left(services) == {}, dev.text()[-2000:]
    assert dev.process.returncode == 0


@needs_services
def test_eager_tasks_run_in_the_request_and_there_is_no_worker(desk, tmp_path):
    _, own, services = desk
    dev = Dev(tmp_path, own, "EAGER=1")
    dev.page()
    assert json.loads(get(dev.port, "/send/?number=21")) == {"sent": "21"}
    for done in ("sold 21 first", "folded 21 first"):
        assert re.search(rf"^web +\| {done}", dev.text(), re.MULTILINE), dev.text()[-3000:]
    names = set(re.findall(r"^([\w-]+) +\| ", dev.text(), re.MULTILINE))
    assert {"web", "service-ticker"} <= names and not [name for name in names if name.startswith(("worker", "beat"))]
    dev.end(signal.SIGINT)
    assert left(services) == {}


@needs_services
@pytest.mark.parametrize("how", ["terminal", "make", "keeper", "supervisor"])
def test_nothing_is_left_however_it_ends(desk, tmp_path, how):
    """The terminal is closed, make is killed, or one of the two processes of bin/dev."""
    _, own, services = desk
    dev = Dev(tmp_path, own, *([] if how == "supervisor" else ["EAGER=1"]))
    dev.page("/send/?number=5")
    if how == "supervisor":
        dev.says(r"worker-papers +\| .*folded 5 first")
    else:  # without workers: a task runs in the request
        dev.says(r"web +\| .*folded 5 first")
        assert "worker-" not in dev.text() and "beat " not in dev.text()
    processes = sorted(of_inventory(str(own), "bin/dev"))
    make = dev.process.pid
    victims = {"make": [make], "keeper": [p for p in processes if p != make][:1], "supervisor": processes[-1:]}
    if how == "terminal":
        os.killpg(make, signal.SIGHUP)
    else:
        os.kill(victims[how][0], signal.SIGKILL)
    dev.process.wait(30)
    wait_for(lambda: left(services) == {}, 12, "everything has ended")


# A signal for each line that is executed while the one before it is handled, as when a terminal closes and the keeper passes it on.
STORM = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import development
run = development.Run("dev", "shop", "playbooks/dev.yml", {})
run.signals([signal.SIGHUP])
sent = 0
def trace(frame, event, _):
    global sent
    if event == "line":
        sent += 1
        os.kill(os.getpid(), signal.SIGHUP)
    return trace
sys.settrace(trace)
os.kill(os.getpid(), signal.SIGHUP)
sys.settrace(None)
sys.exit(3 if run.stopping.wait(30) and sent > 3 else 4)
"""


def test_signals_that_come_while_one_is_handled_do_not_hold_it_up():
    done = subprocess.run(
        [sys.executable, "-c", STORM, ROOT / "bin"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 3, done.stderr


@needs_services
def test_tests_of_the_project_run_with_the_same_services_in_databases_of_their_own(desk, tmp_path):
    _, own, services = desk
    tests = Dev(tmp_path, own, verb="dev-test")
    assert tests.process.wait(120) == 0, tests.text()
    text = tests.text()
    assert text.startswith("manage.py test: nothing configures pytest\n") and "Ran 2 tests" in text
    assert f"tested with postgresql test_kiosk, unix://{services}/run/cache?db=16" in text
    assert left(services) == {}
    # The same while make dev runs: what its workers and pages have is not the tests'.
    dev = Dev(tmp_path, own)
    dev.page()
    dev.says("worker-papers .* ready")
    tests = Dev(tmp_path, own, "ARGS=papers.tests.Tests -v2", verb="dev-test")
    assert tests.process.wait(120) == 0, tests.text()
    assert "test_task (papers.tests.Tests.test_task)" in tests.text()
    assert json.loads(dev.page())["papers"] == 0 and "folded 1" not in dev.text()
    manage = Dev(
        tmp_path,
        own,
        "CMD=shell -c 'from papers.models import *; print(Paper.objects.create(title=\"x\").pk)'",
        verb="dev-manage",
    )
    assert manage.process.wait(60) == 0 and manage.text().endswith("1\n"), manage.text()
    assert json.loads(dev.page())["papers"] == 1
    dev.end(signal.SIGINT)


def copied(folder):
    """The example, in a folder of its own."""
    return shutil.copytree(ROOT / "app_stub", folder, ignore=shutil.ignore_patterns(".development", "__pycache__"))


@pytest.mark.parametrize(
    ("write", "page", "model"), [(kiosk, "/", "papers.models.Paper"), (copied, "/healthz/", "orders.models.Order")]
)
def test_project_that_was_adopted_works_without_coldframe(tmp_path, write, page, model):
    """With its own settings, database and server, and none of the variables of a deployment."""
    app = write(tmp_path / "mysite")
    python = environment(inventory(tmp_path / "ops", kiosk(tmp_path / "kiosk")))
    variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

    def manage(*words):
        command = [python, "manage.py", *words]
        done = subprocess.run(command, cwd=app, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    manage("migrate")
    assert ("tested with sqlite" in manage("test")) == (write is kiosk)  # the example's tests are pytest's
    module, _, name = model.rpartition(".")
    counted = manage("shell", "-c", f"from {module} import {name} as M; print(M.objects.count(), M._meta.app_label)")
    assert counted.endswith(f"0 {model.partition('.')[0]}\n")
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        command = [python, "manage.py", "runserver", str(port)]
        server = subprocess.Popen(command, cwd=app, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        answer = json.loads(wait_for(lambda: get(port, page), 60, "the page"))
        assert answer.get("vendor", "sqlite") == "sqlite"
        style = "/static/paper.css" if write is kiosk else "/static/admin/css/base.css"
        assert "{" in get(port, style)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def environment(own):
    """Return the Python of the packages that the inventory's lock file has."""
    asked = development.Run("dev-manage", str(own), "playbooks/dev.yml", {})
    asked.prepare()
    asked.lock.close()
    shutil.rmtree(asked.folder)
    return str(Path(asked.app["venv"], "bin/python"))


# What is wrong is told before anything is started, all of it in one message.


def refusal(verb, own, **given):
    """Return the problems with which a command is refused; nothing runs then."""
    asked = development.Run(verb, str(own), "playbooks/dev.yml", given)
    with pytest.raises(development.RefusedError) as refused:
        asked.prepare()
    if hasattr(asked, "folder"):
        assert not [path for path in asked.folder.rglob("*") if path.is_socket()] and asked.owned == []
        asked.lock.close()
    return refused.value.problems


def test_everything_that_is_wrong_is_in_one_message(desk, monkeypatch):
    app, own, _ = desk
    monkeypatch.setattr(dev_services, "redis_program", lambda: "")
    monkeypatch.setattr(dev_services, "postgresql_programs", lambda: None)
    projects.put(app / "papers/tasks.py", "import press_of_gutenberg\n")
    inventory(own, app, celery_task_routes={"papers.tasks.fold": "nowhere"})
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
        redis, postgresql, taken, *rest = refusal("dev", own, PORT=port)
    assert "redis-tools" in redis and "apt-get install --no-install-recommends postgresql" in postgresql
    assert taken.startswith(f"PORT is '{port}', which another program has")
    assert "celery_task_routes['papers.tasks.fold'] leads to 'nowhere'" in rest[0]
    inventory(own, app)
    *_, module = refusal("dev", own)
    assert "papers/tasks.py:1" in module and "No module named 'press_of_gutenberg'" in module and "VENV=" in module


def test_what_is_given_is_checked(desk, tmp_path, monkeypatch):
    app, own, _ = desk
    assert "PORT is '80'; it must be a number from 1024" in refusal("dev", own, PORT="80", VENV=str(tmp_path))[0]
    assert "which is no virtual environment: it has no bin/python" in refusal("dev", own, VENV=str(tmp_path))[0]
    assert refusal("dev", own, ENV=str(own), APP=str(app)) == [
        "ENV and APP are both given: APP is a project without an inventory. Leave one of them out."
    ]
    problems = refusal("dev", own, PORT="x", APP=str(tmp_path / "nothing"))
    assert problems[0].startswith("PORT is 'x'") and "nothing" in problems[1]
    assert "there is no" in refusal("dev", tmp_path / "none")[0]
    monkeypatch.setattr(development.platform, "system", lambda: "Darwin")
    assert "needs Linux" in refusal("dev", own)[0]


def test_application_that_runs_already_is_not_started_again(desk):
    _, own, _ = desk
    first = development.Run("dev", str(own), "playbooks/dev.yml", {"PORT": str(free_port())})
    first.prepare()
    before = {path: path.read_text() for path in first.settings.folder.rglob("*") if path.is_file()}
    (problem,) = refusal("dev", own, PORT=str(free_port()), EAGER="1")
    assert problem.startswith("make dev, or a command with its services, runs already for ")
    assert {path: path.read_text() for path in before} == before, "those of the one that runs"
    first.lock.close()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {"pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = shop.tests\n"},
            ("pytest", "pytest.ini has [pytest]", "shop.tests"),
        ),
        (
            {"tox.ini": "[tox]\n", "setup.cfg": "[tool:pytest]\naddopts = -q %s\n"},
            ("pytest", "setup.cfg has [tool:pytest]", ""),
        ),
        (
            {"pyproject.toml": '[tool.pytest.ini_options]\nDJANGO_SETTINGS_MODULE = "a.b"\n'},
            ("pytest", "pyproject.toml configures pytest", "a.b"),
        ),
        ({"conftest.py": ""}, ("pytest", "there is a conftest.py", "")),
        ({"pyproject.toml": "[tool.black]\n", "tox.ini": "no ini"}, ("test", "nothing configures pytest", "")),
    ],
)
def test_how_the_tests_are_run_is_detected(tmp_path, files, found):
    projects.write(tmp_path, **files)
    words, why, settings = development.test_command(tmp_path)
    assert (words[-1], why, settings) == found


def test_pytest_that_is_not_installed_is_asked_for(desk):
    app, own, _ = desk
    projects.put(app / "pytest.ini", "[pytest]\n")
    (problem,) = refusal("dev-test", own)
    assert (
        problem.startswith("pytest.ini has [pytest], so pytest runs the tests, and ")
        and "VENV=../mysite/.venv" in problem
    )
