"""Gunicorn with the configuration of a release, a Django project and its Celery application."""

import http.client
import json
import socket
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from conftest import LONGEST, QUEUE, listen, wait_for

TEMPLATE = Path(__file__).parents[2] / "roles/gunicorn/templates/gunicorn.conf.py.j2"
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


class Connection(http.client.HTTPConnection):
    """A connection through a Unix socket."""

    def connect(self):
        """Connect; the host is the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


@pytest.fixture(params=[True, False], ids=["loaded once", "loaded by each worker"])
def ask(request, server, environment, tmp_path):
    """Ask the application of a unit that is ready; return what it answers."""
    (tmp_path / "site1").mkdir()
    for name, text in PROJECT.items():
        lines = text.splitlines()
        (tmp_path / "site1" / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    environments = jinja2.Environment(autoescape=False)  # noqa: S701
    environments.filters["to_json"] = json.dumps
    options = {"workers": 2, "threads": 2, "timeout": 30, "max_requests": 100, "preload": request.param}
    values = {"app_gunicorn": options, "app_addresses": {}, "app_wsgi": "site1.wsgi:application", "app_celery": "site1"}
    (tmp_path / "gunicorn.conf.py").write_text(environments.from_string(TEMPLATE.read_text()).render(values))
    server.start()
    server.client.flushall()
    said, notify = listen(tmp_path / "notify")
    command = [sys.executable, "-m", "gunicorn", f"--bind=unix:{tmp_path}/web.sock", "--config=gunicorn.conf.py"]
    with (tmp_path / "log").open("w") as log:
        own = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": f"{environment['PYTHONPATH']}:{tmp_path}"}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment | own, stdout=log, stderr=log)

    def ask(countdown):
        connection = Connection(f"{tmp_path}/web.sock", timeout=10)
        connection.request("GET", f"/?countdown={countdown}", headers={"Host": "x", "X-Forwarded-For": "203.0.113.7"})
        return json.loads(connection.getresponse().read())

    try:
        wait_for(lambda: any("READY=1" in each for each in said) or process.poll(), 30, "it is ready")
        yield ask
    finally:
        process.terminate()
        process.wait(30)
        notify.close()
        print((tmp_path / "log").read_text())


def test_application_sees_its_clients_and_sends_by_the_rules(ask, server):
    assert ask(1) == {"client": "203.0.113.7"}
    assert server.client.llen(QUEUE) == 1
    assert f"Set longest_countdown of {QUEUE} in celery_queues" in ask(LONGEST + 60)["error"]
    assert server.client.llen(QUEUE) == 1
