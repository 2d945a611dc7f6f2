"""Gunicorn as the unit of a release runs it, behind a Unix socket, with a project in a folder."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jinja2
from conftest import listen, of_journal
from waits import wait_for

TEMPLATE = Path(__file__).parents[2] / "roles/gunicorn/templates/gunicorn.conf.py.j2"
# As systemd starts a service that has a socket: sd_listen_fds(3).
ACTIVATE = """
import os, sys
os.dup2(number := int(sys.argv[1]), 3)
if number != 3:
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web.socket")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
EDGE = {"Host": "x", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}  # what nginx tells of a client
# A Django project with its Celery application.
PROJECT = {
    "__init__.py": "from site1.celery import app",
    "celery.py": """
        import os
        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
        app = Celery("site1")
        app.config_from_object("django.conf:settings", namespace="CELERY")
    """,
    "settings.py": """
        import json
        import os
        from pathlib import Path

        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # as Twisted does, which Daphne imports
            os.environ.pop(name, None)
        SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF, INSTALLED_APPS = "x" * 60, ["*"], "site1.urls", []
        CELERY = json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text())
        globals().update({f"CELERY_{name.upper()}": value for name, value in CELERY.items()})
    """,
    "urls.py": """
        from celery import current_app
        from django.http import JsonResponse
        from django.urls import path

        def send(request):
            seconds = int(request.GET["countdown"])
            try:
                current_app.send_task("a.b", countdown=seconds)
            except ValueError as error:
                return JsonResponse({"error": str(error)})
            return JsonResponse({"client": request.META["REMOTE_ADDR"]})

        urlpatterns = [path("", send)]
    """,
    "wsgi.py": """
        import os
        from django.core.wsgi import get_wsgi_application

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
        application = get_wsgi_application()
    """,
}
# One whose requests send tasks of all kinds.
SITE = PROJECT | {
    "settings.py": """
        SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF, INSTALLED_APPS = "x" * 60, ["*"], "site1.urls", ["site1"]
        CELERY_RESULT_BACKEND = "redis://localhost"
    """,
    "celery.py": """
        import os
        from celery import Celery

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
        app = Celery("site1")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
    "urls.py": """
        import logging
        from django.http import HttpResponse
        from django.urls import path
        from site1 import tasks

        def send(request):
            logging.getLogger("shop").info("the view sends")
            getattr(tasks, request.GET["task"]).delay()
            return HttpResponse(request.headers["X-Request-ID"])

        def fail(request):
            raise LookupError("no such page, ann@example.com")

        urlpatterns = [path("send", send), path("fail", fail)]
    """,
    "asgi.py": """
        import os
        from django.core.asgi import get_asgi_application

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
        application = get_asgi_application()
    """,
    "tasks.py": """
        import logging
        import time
        from celery import chain, chord, group, shared_task
        from celery.utils.log import get_task_logger

        logger = get_task_logger(__name__)

        @shared_task(bind=True)
        def say(self, *words):
            logger.info("says %s", words[-1])
            return words[-1]

        @shared_task
        def many():
            chain(say.si("first"), say.si("second")).delay()
            group(say.si("one"), say.si("other")).delay()
            chord([say.si("a"), say.si("b")], say.si("together")).delay()

        @shared_task(bind=True, max_retries=1)
        def again(self):
            logging.getLogger("shop").warning("try %d", self.request.retries)
            if not self.request.retries:
                raise self.retry(countdown=0)
            raise OSError("for ever")

        @shared_task
        def slow(word):
            for _ in range(5):
                logger.info("slow %s", word)
                time.sleep(0.2)

        @shared_task(time_limit=1)
        def hang():
            time.sleep(60)

        @shared_task
        def outer():
            say.apply(args=("inner",))
            print("printed")
    """,
}


class Connection(http.client.HTTPConnection):
    """A connection through a Unix socket."""

    def connect(self):
        """Connect; the host is the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


class Gunicorn:
    """A Gunicorn that was started, and what it says to systemd."""

    def __init__(self, folder, environment):
        """Start it."""
        self.path, self.log = f"{folder}/web.sock", folder / "log"
        self.said, self.notify = listen(folder / "notify")
        own = {"NOTIFY_SOCKET": str(folder / "notify"), "PYTHONPATH": f"{environment['PYTHONPATH']}:{folder}"}
        with self.log.open("w") as log, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen()
            own |= of_journal(log) if "JOURNAL_SOCKET" in environment else {}
            number = listener.fileno()
            command = [sys.executable, "-c", ACTIVATE, str(number), "-m", "gunicorn", "--config=gunicorn.conf.py"]
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment | own, stdout=log, stderr=log, pass_fds=[number]
            )

    def ready(self):
        """Wait until it is."""
        wait_for(lambda: any("READY=1" in each for each in self.said) or self.process.poll(), 30, "it is ready")

    def get(self, path, **headers):
        """Return the body of a page, for a client with further headers."""
        connection = Connection(self.path, timeout=10)
        connection.request("GET", path, headers=EDGE | headers)
        return connection.getresponse().read()


@contextlib.contextmanager
def serving(folder, environment, files, *, app_wsgi="", app_asgi="", **options):
    """Serve a project: `files` of the package site1, and options of Gunicorn as `app_web` has them."""
    (folder / "site1").mkdir()
    for name, text in files.items():
        (folder / "site1" / name).write_text(textwrap.dedent(text).lstrip("\n"))
    environments = jinja2.Environment(autoescape=False)  # noqa: S701
    environments.filters["to_json"] = json.dumps
    options = {"workers": 2, "threads": 2, "timeout": 30, "drain": 10, "max_requests": 100, "preload": True} | options
    values = {"app_gunicorn": options, "app_addresses": {}, "app_wsgi": app_wsgi, "app_asgi": app_asgi}
    values |= {"app_celery": "site1", "app_web_stop": max(options["timeout"], options["drain"]) + 5}
    (folder / "gunicorn.conf.py").write_text(environments.from_string(TEMPLATE.read_text()).render(values))
    process = Gunicorn(folder, environment)
    try:
        yield process
    finally:
        process.process.terminate()
        process.process.wait(60)
        process.notify.close()
        print(process.log.read_text())
