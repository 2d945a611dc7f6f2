"""A package index on disk for uv: small packages with the names, versions and requirements of real ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

ANY = "py3-none-any"
WHEELS = [
    ("billiard", "4.2.2", ANY, []),
    ("billiard", "4.3.2", ANY, []),
    ("celery", "5.3.6", ANY, ["billiard", "kombu>=5.3.4"]),
    ("celery", "5.6.3", ANY, ["billiard", "kombu>=5.6.0", "kombu[redis]; extra == 'redis'"]),
    ("celery", "5.7.0", ANY, ["billiard", "kombu>=5.7,<5.8", "kombu[redis]; extra == 'redis'"]),
    *(("django", version, ANY, []) for version in ("3.2.25", "5.2.18", "5.2.19")),
    ("channels", "4.3.2", ANY, ["django", "daphne; extra == 'daphne'"]),
    ("channels-redis", "4.3.0", ANY, ["channels", "redis"]),
    ("daphne", "4.2.3", ANY, []),
    ("django", "6.0.8", ANY, ["Requires-Python: >=3.12"]),
    ("django-celery-beat", "2.9.0", ANY, ["celery", "django"]),
    ("django-environ", "0.13.0", ANY, []),
    ("gunicorn", "27.0.1", ANY, []),
    *(("kombu", version, ANY, ["redis; extra == 'redis'"]) for version in ("5.3.7", "5.6.1", "5.6.2", "5.7.0")),
    ("packaging", "26.3", ANY, []),
    ("psycopg", "3.3.4", ANY, ["psycopg-binary==3.3.4; extra == 'binary'", "psycopg-c==3.3.4; extra == 'c'"]),
    *(("psycopg-binary", "3.3.4", f"{tag}-manylinux_2_28_x86_64", []) for tag in ("cp311-cp311", "cp313-cp313")),
    ("psycopg2-binary", "2.9.9", "cp311-cp311-manylinux_2_17_x86_64", []),
    ("psycopg2-binary", "2.9.11", "cp313-cp313-manylinux_2_17_x86_64", []),
    ("python-magic", "0.4.27", ANY, []),
    ("opentelemetry-exporter-otlp-proto-http", "1.45.2", ANY, []),
    ("opentelemetry-instrumentation-celery", "0.66b2", ANY, []),
    ("opentelemetry-instrumentation-django", "0.66b2", ANY, []),
    ("opentelemetry-sdk", "1.45.2", ANY, []),
    *(("redis", version, ANY, []) for version in ("5.0.8", "6.4.0", "8.1.0")),
    ("reports", "1.0", ANY, ["docopt"]),
    ("sentry-sdk", "2.75.0", ANY, []),
    ("uvicorn", "0.54.0", ANY, ["websockets; extra == 'standard'"]),
    ("uvicorn-worker", "0.4.0", ANY, ["gunicorn", "uvicorn"]),
    ("websockets", "17.4", ANY, []),
    ("whitenoise", "6.9.0", ANY, []),
    ("whitenoise", "6.10.0", ANY, []),
]
# What is in the wheel of an application that operators install and give a settings module.
GALLERY = {
    "gallery/__init__.py": "",
    "gallery/settings_example.py": (
        'INSTALLED_APPS = ["gallery", "django.contrib.admin"]\nROOT_URLCONF = "gallery.urls"\n'
        'CELERY_TASK_ROUTES = {"gallery.jobs.tasks.hang": {"queue": "frames"}}\n'
    ),
    "gallery/urls.py": 'urlpatterns = [path("", front), path("healthz/", healthz)]\n',
    "gallery/wsgi.py": "from django.core.wsgi import get_wsgi_application\n\napplication = get_wsgi_application()\n",
    "gallery/jobs/app.py": (
        "from celery import Celery\n\n# With the class of its tasks.\n"
        'app = Celery[Task[..., int]]("gallery")\napp.config_from_object("django.conf:settings", namespace="CELERY")\n'
    ),
    "gallery/jobs/tasks.py": "from celery import shared_task\n\n@shared_task(queue='labels')\ndef write(): ...\n",
}
SDISTS = [("docopt", "0.6.2"), ("psycopg-c", "3.3.4"), ("psycopg2", "2.9.9"), ("pylibmc", "1.6.3")]


def metadata(name: str, version: str, lines: list[str]) -> str:
    """The metadata of a package."""
    head = [line for line in lines if line.startswith("Requires-Python")]
    needs = [f"Requires-Dist: {line}" for line in lines if line not in head]
    extras = {line.split("'")[1] for line in needs if "extra ==" in line}
    return "\n".join(
        [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *head,
            *(f"Provides-Extra: {e}" for e in sorted(extras)),
            *needs,
            "",
        ]
    )


def wheel(
    folder: Path, name: str, version: str, tag: str, lines: list[str], files: dict[str, str] | None = None
) -> Path:
    """Write a wheel."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as whole:
        for file, text in {
            "METADATA": metadata(name, version, lines),
            "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            "RECORD": "",
        }.items():
            whole.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{file}"), text)
        for file, text in (files or {}).items():
            whole.writestr(zipfile.ZipInfo(file), text)
    return path


def write(folder: Path) -> Path:
    """Write the index; return the configuration of uv that names it alone."""
    index = folder / "index"
    index.mkdir(parents=True)
    for each in WHEELS:
        wheel(index, *each)
    wheel(index, "gallery", "2.1", ANY, ["celery", "django"], GALLERY)
    for name, version in SDISTS:
        text = metadata(name, version, []).encode()
        with tarfile.open(index / f"{name.replace('-', '_')}-{version}.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo(f"{name.replace('-', '_')}-{version}/PKG-INFO")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    config = folder / "uv.toml"
    config.write_text(f'cache-dir = "{folder}/cache"\n[pip]\nno-index = true\nfind-links = ["{index}"]\n')
    return config
