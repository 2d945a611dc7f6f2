"""Gunicorn with the configuration of a release, a Django project and its Celery application."""

import json

import pytest
from conftest import LONGEST, QUEUE
from gunicorns import serving

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


@pytest.fixture(params=[True, False], ids=["loaded once", "loaded by each worker"])
def ask(request, server, environment, tmp_path):
    """Ask the application of a unit that is ready; return what it answers."""
    server.start()
    server.client.flushall()
    with serving(tmp_path, environment, PROJECT, app_wsgi="site1.wsgi:application", preload=request.param) as process:
        process.ready()
        yield lambda countdown: json.loads(process.get(f"/?countdown={countdown}"))


def test_application_sees_its_clients_and_sends_by_the_rules(ask, server):
    assert ask(1) == {"client": "203.0.113.7"}
    assert server.client.llen(QUEUE) == 1
    assert f"Set longest_countdown of {QUEUE} in celery_queues" in ask(LONGEST + 60)["error"]
    assert server.client.llen(QUEUE) == 1
