"""An ordinary project, with django-sendfile2 and by hand, lets nginx send its uploads to those who may see them."""

import os
import re
import subprocess
import sys
import time

import pytest
from real_nginx import NAME, Edge

SETTINGS = """

import os

INSTALLED_APPS += ["papers"]
ALLOWED_HOSTS = ["{name}"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = True
MEDIA_ROOT = os.environ["MEDIA_ROOT"]
LOGIN_URL = "/admin/login/"
SENDFILE_BACKEND = "django_sendfile.backends.nginx"
SENDFILE_ROOT = MEDIA_ROOT
SENDFILE_URL = "/protected"
"""
FILES = {
    "papers/__init__.py": "",
    "papers/models.py": """
from django.conf import settings
from django.db import models


class Paper(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    file = models.FileField(upload_to="papers/%Y")
""",
    "papers/views.py": """
import urllib.parse

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django_sendfile import sendfile

from .models import Paper


@login_required
def by_package(request, pk):
    paper = get_object_or_404(Paper, pk=pk, owner=request.user)
    return sendfile(request, paper.file.path, attachment=True, attachment_filename="Zeugnis \\u00fc.txt")


@login_required
def by_hand(request, pk):
    paper = get_object_or_404(Paper, pk=pk, owner=request.user)
    response = HttpResponse(headers={"X-Accel-Redirect": "/protected/" + urllib.parse.quote(paper.file.name)})
    response["Content-Security-Policy"] = "default-src 'self'"
    del response["Content-Type"]
    return response
""",
    "site_/urls.py": """
from django.contrib import admin
from django.urls import path
from papers import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("package/<int:pk>/", views.by_package),
    path("hand/<int:pk>/", views.by_hand),
]
""",
    "serve.py": """
import socketserver
import sys
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler

from site_.wsgi import application


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    server_name, server_port, base_environ = "site", 80, {}


class Handler(WSGIRequestHandler):
    def setup(self):
        self.client_address = ("", 0)
        super().setup()

    def get_environ(self):
        self.server.base_environ = {"SERVER_NAME": "site", "SERVER_PORT": "80", "GATEWAY_INTERFACE": "CGI/1.1"}
        return super().get_environ()

    def get_app(self):
        return application

    def handle(self):
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():
            handler = ServerHandler(self.rfile, self.wfile, self.get_stderr(), self.get_environ())
            handler.request_handler = self
            handler.run(application)

    def log_message(self, *_):
        pass


Server(sys.argv[1], Handler).serve_forever()
""",
    "fill.py": """
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.files.base import ContentFile
from papers.models import Paper

for name in ("anna", "ben"):
    user = User.objects.create_user(name)
    session = SessionStore()
    session.update({"_auth_user_id": str(user.pk), "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
                    "_auth_user_hash": user.get_session_auth_hash()})
    session.save()
    print("made", session.session_key)
for name in ("letter \\u00fc 100%.txt", "page.html", "gone.txt"):
    print("made", Paper.objects.create(owner=User.objects.get(username="anna"), file=ContentFile(b"0123456789", name)).file.name)
""",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Nginx before a project of startproject, the sessions of Anna and Ben, and the names of Anna's papers."""
    project = tmp_path_factory.mktemp("project")
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}"]
    certificate = project / "crt", project / "key"
    subprocess.run([*key, "-out", certificate[0], "-keyout", certificate[1]], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "django", "startproject", "site_", project], check=True)
    for name, text in FILES.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    with (project / "site_/settings.py").open("a") as file:
        file.write(SETTINGS.format(name=NAME))
    edge = Edge(certificate, nginx_media_url="")
    environment = os.environ | {"MEDIA_ROOT": str(edge.app / "shared/media")}
    environment.pop("DJANGO_SETTINGS_MODULE", None)

    def manage(*arguments):
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True, text=True)

    manage("makemigrations", "papers")
    manage("migrate")
    anna, ben, *names = re.findall("^made (.*)$", manage("shell", "-c", FILES["fill.py"]).stdout, re.MULTILINE)
    command = [sys.executable, "serve.py", str(edge.socket)]
    process = subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not edge.socket.exists():
            assert process.poll() is None
            time.sleep(0.05)
        with edge:
            yield edge, anna, ben, names
    finally:
        process.terminate()
        process.wait(timeout=10)


def get(edge, path, session=None, **headers):
    cookie = {"Cookie": f"sessionid={session}"} if session else {}
    return edge.request(path, headers=cookie | headers)


@pytest.mark.parametrize("way", ["package", "hand"])
def test_paper_is_sent_to_its_owner_alone(site, way):
    edge, anna, ben, names = site
    sent = get(edge, f"/{way}/1/", anna)
    assert (sent.status, sent.body, sent.get("Content-Type")) == (200, "0123456789", "text/plain")
    assert get(edge, f"/{way}/1/", ben).status == 404
    assert (get(edge, f"/{way}/1/").status, get(edge, f"/{way}/1/").get("Location")) == (
        302,
        f"/admin/login/?next=/{way}/1/",
    )
    for session in (None, ben, anna):
        for path in (f"/protected/{names[1]}", f"/media/{names[1]}", f"/static/../protected/{names[1]}"):
            assert get(edge, path, session).status == 404, path


@pytest.mark.parametrize("way", ["package", "hand"])
def test_part_of_a_paper_is_sent(site, way):
    edge, anna, _, _ = site
    part = get(edge, f"/{way}/1/", anna, Range="bytes=-3")
    assert (part.status, part.body, part.get("Content-Range")) == (206, "789", "bytes 7-9/10")


def test_headers_of_the_view_and_of_djangos_middleware_are_kept(site):
    edge, anna, _, _ = site
    package, hand = get(edge, "/package/2/", anna), get(edge, "/hand/2/", anna)
    assert "filename*=UTF-8''Zeugnis%20%C3%BC.txt" in package.get("Content-Disposition")
    assert hand.get("Content-Security-Policy") == "default-src 'self'"
    for answer in (package, hand):
        assert answer.get("X-Frame-Options") == "DENY" and answer.get("Cross-Origin-Opener-Policy") == "same-origin"
        assert answer.get("Vary") == "Cookie" and answer.get("X-Content-Type-Options") == "nosniff"
        assert answer.get("Referrer-Policy") == "same-origin" and answer.get("Cache-Control") == "private"
    assert package.get("Content-Security-Policy").endswith("sandbox"), "what people upload runs no script"


@pytest.mark.parametrize("way", ["package", "hand"])
def test_paper_that_is_not_there_is_the_applications_404(site, way):
    edge, anna, _, names = site
    (edge.app / "shared/media" / names[2]).unlink(missing_ok=True)
    answer = get(edge, f"/{way}/3/", anna)
    assert answer.status == 404 and "nginx" not in answer.body
