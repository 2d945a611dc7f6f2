"""What is found of a release before a server has it, with real projects that have several faults at once."""

import json
import re
import sys

import pytest
from conftest import QUEUE
from projects import CELERY_OF_THE_DOCUMENTATION, CONTRACT, PLAIN
from sites import CACHE_PASSWORD, DATABASE_PASSWORD, SECRET_KEY

pytestmark = pytest.mark.any_celery

CELERY = {
    name.replace("mysite", "desk"): text.replace("mysite", "desk") for name, text in CELERY_OF_THE_DOCUMENTATION.items()
}
DESK = CELERY | {
    "manage.py": "",
    "desk/wsgi.py": """
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
    """,
    "desk/urls.py": "urlpatterns = []",
    "desk/settings.py": """
        from pathlib import Path

        BASE_DIR = Path(__file__).parent.parent
        SECRET_KEY = "django-insecure-desk"  # pragma: allowlist secret
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.staticfiles", "letters"]
        MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                      "django.middleware.clickjacking.XFrameOptionsMiddleware"]
        ROOT_URLCONF, DEFAULT_AUTO_FIELD = "desk.urls", "django.db.models.BigAutoField"
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
        STATIC_URL = "static/"
    """,
    "letters/__init__.py": "",
    "letters/models.py": """
        from django.db import models


        class Letter(models.Model):
            text = models.TextField()
    """,
    "letters/migrations/__init__.py": "",
    "letters/migrations/0001_initial.py": """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            initial = True
            operations = [migrations.CreateModel("Letter", [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField())])]
    """,
    "letters/tasks.py": f"""
        from celery import shared_task


        @shared_task(queue="{QUEUE}")
        def send(letter):
            return letter
    """,
}


@pytest.fixture
def look(site, tmp_path):
    """Look at a project as the controller does; return what was found."""

    def run(
        files,
        module="desk.settings",
        celery="desk.celery:app",
        wsgi="desk.wsgi:application",
        own=(),
        path="",
        deployed=None,
        **order,
    ):
        found = site(files, module, celery)
        for name, value in (deployed or {}).items():
            setattr(found, name, value)
        (tmp_path / "releases").mkdir()
        found.folder = found.folder.rename(tmp_path / "releases/1")
        found.credentials = found.folder / "credentials"
        found.path, found.own = found.folder / path, list(own)
        found.given["MEDIA_ROOT"] = str(tmp_path / "shared/media")
        found.given["CACHE_URL"] = "unix:///run/redis-cache/redis-server.sock?db=0"
        order = {
            "celery": celery,
            "wsgi": wsgi,
            "load_timeout": 60,
            "check": True,
            "check_level": "WARNING",
            "check_ignore": ["security.W005", "security.W021"],
            "writable": [str(tmp_path / "shared")],
            "secrets": False,
        } | order
        done = found.run(sys.executable, "-m", "coldframe.release.controller", input=json.dumps(order))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def told(result):
    """Each finding with its place, in a line."""
    return [f"{finding['place']}: {finding['text']}" for finding in result["findings"]]


def test_project_without_a_fault_has_no_findings_and_both_values_of_each_setting(look):
    result = look(DESK)
    assert (result["findings"], result["left"]) == ([], [])
    assert "db.sqlite3 -> django.db.backends.postgresql shop at /run/postgresql as shop_a" in result["settings"]
    assert "SECRET_KEY: *** -> ***" in result["settings"]
    for secret in (SECRET_KEY, DATABASE_PASSWORD, CACHE_PASSWORD):
        assert secret not in json.dumps(result)


def test_project_that_reads_the_deployment_has_no_findings(look):
    result = look(CONTRACT, "shop.settings", "shop.celery:app", "")
    assert [line for line in told(result) if "security" not in line] == [] and result["left"] == []


def test_settings_that_fit_no_server_are_all_told_with_their_lines(look):
    settings = """
    MEDIA_ROOT = BASE_DIR / "media"
    STATIC_ROOT = str(BASE_DIR / "collected")
    CELERY_RESULT_BACKEND = "redis://:hidden1@localhost:6379/0"
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:6379/1"}}
    CELERY_BEAT_SCHEDULER = "letters.beat:Scheduler"
    """
    files = DESK | {
        "desk/settings.py": DESK["desk/settings.py"].rstrip() + settings.replace("\n", "\n    "),
        "letters/tasks.py": DESK["letters/tasks.py"]
        + """
        @shared_task(queue="parcels")
        def parcel():
            return 1


        @shared_task(time_limit=7200)
        def press():
            return 1
    """,
        "letters/models.py": DESK["letters/models.py"].rstrip()
        + "\n            sent = models.BooleanField(default=False)\n",
    }
    result = look(files, own=["media", "static", "results", "cache"])
    said = "\n".join(told(result))
    root = "releases/1"
    for line, wanted in {
        13: "CELERY_RESULT_BACKEND is 'redis://***@localhost:6379/0', and no Redis listens there",
        14: "CACHES['default']['LOCATION'] is 'redis://127.0.0.1:6379/1', and no Redis listens there",
        15: "CELERY_BEAT_SCHEDULER is 'letters.beat:Scheduler'",
    }.items():
        assert f"desk/settings.py:{line}: {wanted}" in said, said
    assert "desk/settings.py:11: MEDIA_ROOT in desk.settings is '" in said and f"{root}/media', in the folder" in said
    assert "desk/settings.py:12: STATIC_ROOT in desk.settings is '" in said and f"{root}/collected', in the" in said
    assert "letters/tasks.py:8: The application sends the task letters.tasks.parcel to the queue 'parcels'" in said
    assert "letters/tasks.py:13: The task letters.tasks.press has time_limit=7200" in said
    assert "letters/models.py:4: coldframe.E001: The models of letters were changed" in said
    assert len(result["findings"]) == 8 and result["left"] == [], said
    assert "hidden1" not in json.dumps(result)


def test_packages_that_are_not_there_are_told_all_at_once(look):
    files = DESK | {
        "desk/settings.py": "import acme_environ\n"
        + DESK["desk/settings.py"].replace("\n        ", "\n").replace('"letters"]', '"letters", "acme_widgets"]'),
        "letters/models.py": "import acme_money.fields\n" + DESK["letters/models.py"].replace("\n        ", "\n"),
        "letters/tasks.py": """
            from letters import mail
            try:
                import acme_fast
            except ImportError:
                acme_fast = None
            if mail is None:
                import acme_debug
        """,
        "letters/mail.py": "from acme_mail import send\n",
        "letters/management/__init__.py": "import acme_never",
    }
    result = look(files)
    assert sorted(told(result)) == [
        "desk/settings.py:1: ModuleNotFoundError: No module named 'acme_environ'",
        "desk/settings.py:7: ModuleNotFoundError: No module named 'acme_widgets'",
        "letters/mail.py:1: ModuleNotFoundError: No module named 'acme_mail'",
        "letters/models.py:1: ModuleNotFoundError: No module named 'acme_money'",
    ]
    assert {finding["module"] for finding in result["findings"]} == {
        "acme_environ",
        "acme_widgets",
        "acme_mail",
        "acme_money",
    }


def test_app_that_the_settings_name_and_no_package_has_is_told_with_its_line(look):
    settings = DESK["desk/settings.py"].replace('"letters"]', '"acme_widgets.apps.Widgets", "letters"]')
    assert told(look(DESK | {"desk/settings.py": settings})) == [
        "desk/settings.py:5: ModuleNotFoundError: No module named 'acme_widgets'"
    ]


@pytest.mark.parametrize("package", ["gunicorn", "celery"])
def test_package_that_the_deployment_itself_needs_is_left_to_the_lock_file(look, package):
    """The preflight refuses such a lock file. The rest is told all the same."""
    hide = f"import sys\nsys.modules['{package}'] = None\n"
    result = look(
        DESK | {"sitecustomize.py": hide, "letters/models.py": DESK["letters/models.py"].replace("Letter", "Note")}
    )
    assert any(package in line for line in result["left"]), result
    assert [finding["text"] for finding in result["findings"] if package in finding["text"]] == []
    assert package == "celery" or any("coldframe.E001" in finding["text"] for finding in result["findings"])


def test_faults_of_the_web_of_the_tasks_and_of_migrations_are_told_together(look):
    files = DESK | {
        "desk/wsgi.py": "undefined_name\n",
        "letters/tasks.py": "def broken(:\n    pass\n",
        "letters/migrations/0001_initial.py": DESK["letters/migrations/0001_initial.py"].replace("text", "body"),
    }
    said = told(look(files))
    assert "desk/wsgi.py:1: NameError: name 'undefined_name' is not defined" in said
    assert any(line.startswith("letters/tasks.py:1: SyntaxError") for line in said)
    assert any("coldframe.E001" in line for line in said) and len(said) == 3, said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("letters.tasks:stored", "and Python says: module 'letters.tasks' has no attribute 'stored'."),
        ("letters.outbox:stored", "and Python says: No module named 'letters.outbox'."),
        ("letters.tasks:__name__", "which is no function."),
        ("letters.tasks:send", None),
    ],
)
def test_function_for_stored_tasks_that_is_not_there_is_told_with_the_variable(look, name, why):
    result = look(DESK, deployed={"stored_tasks": name})
    assert told(result) == ([f": app_stored_tasks is {name!r}, {why}"] if why else [])


@pytest.mark.parametrize("broken", [False, True])
def test_asgi_application_is_loaded_in_place_of_that_for_wsgi(look, broken):
    served = DESK["desk/wsgi.py"].replace("wsgi", "asgi")
    served = served.replace("= get_asgi_application", "= undefined_name") if broken else served
    files = DESK | {"desk/wsgi.py": "undefined_name\n", "desk/asgi.py": served}
    said = told(look(files, wsgi="desk.asgi:application"))
    assert [re.sub(r":\d+:", ":", line) for line in said] == [
        "desk/asgi.py: NameError: name 'undefined_name' is not defined"
    ] * broken


def test_file_that_a_release_could_not_write_is_refused(look):
    logging = """
        (BASE_DIR / "logs").mkdir(exist_ok=True)
    """
    said = told(look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + logging}))
    assert len(said) == 1 and said[0].startswith("desk/settings.py:11: OSError: [Errno 30]"), said
    assert "Read-only file system: '" in said[0] and "releases/1/logs'" in said[0]


@pytest.mark.parametrize("folder", ['os.environ["MEDIA_ROOT"]', '"/tmp"'])
def test_what_a_release_may_write_is_no_finding(look, folder):
    write = f"""
        import os, pathlib, tempfile
        os.makedirs({folder}, exist_ok=True)
        tempfile.NamedTemporaryFile(dir={folder}).write(b"x")
    """
    result = look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + write})
    assert (result["findings"], result["left"]) == ([], [])


ON_A_SERVER = {
    "the database": """
        from letters.models import Letter
        Letter.objects.count()
    """,
    "an address": """
        import socket
        socket.create_connection(("203.0.113.7", 80))
    """,
    "a name": """
        import urllib.request
        urllib.request.urlopen("https://api.example.com/")
    """,
    "a library": """
        import ctypes
        ctypes.CDLL("libacme.so.1")
    """,
    "a program": """
        import subprocess
        subprocess.run(["acme-thumbnails"])
    """,
}


@pytest.mark.parametrize("what", ON_A_SERVER)
def test_what_only_a_server_has_is_left_to_it(look, what):
    result = look(DESK | {"letters/tasks.py": ON_A_SERVER[what]})
    assert result["findings"] == [] and len(result["left"]) == 1, result
    assert result["left"][0].startswith("letters/tasks.py:"), result["left"]


@pytest.mark.parametrize("secrets", [False, True])
def test_error_that_a_placeholder_may_have_caused_is_left_to_the_server(look, secrets):
    result = look(DESK | {"letters/tasks.py": "import json\njson.loads('xxx')\n"}, secrets=secrets)
    assert (len(result["findings"]), len(result["left"])) == ((0, 1) if secrets else (1, 0)), result


def test_variable_that_is_not_set_is_refused_whatever_the_secrets_are(look):
    result = look(DESK | {"letters/tasks.py": "import os\nos.environ['ACME_KEY']\n"}, secrets=True)
    assert told(result) == ["letters/tasks.py:2: KeyError: 'ACME_KEY'"] and result["left"] == []
    assert result["findings"][0]["variable"] == "ACME_KEY"


VARIABLES = """
        import os
        import environ
        from django.core.exceptions import ImproperlyConfigured

        class UndefinedValueError(Exception):
            pass

        def config(name):
            if name not in os.environ:
                raise UndefinedValueError(f"{name} not found. Declare it as envvar or define a default value.")

        def required(name):
            try:
                return os.environ[name]
            except KeyError:
                raise ImproperlyConfigured(f"Where is {name}?") from None

        env = environ.Env(ACME_RETRIES=int)
        ACME_KEY = os.environ["ACME_KEY"]
        ACME_OPTIONAL = env("ACME_OPTIONAL", default="")
        ACME_RETRIES = env("ACME_RETRIES")
        ACME_SEARCH = env("ACME_SEARCH")
        assert "://" in ACME_SEARCH
        ACME_TOKEN = config("ACME_TOKEN")
        ACME_PLACE = required("ACME_PLACE")
        SECRET = env("SECRET_KEY")
"""


@pytest.mark.parametrize("secrets", [False, True])
def test_variables_that_are_not_set_are_told_all_at_once(look, secrets):
    files = DESK | {
        "desk/settings.py": DESK["desk/settings.py"].rstrip() + VARIABLES,
        "desk/wsgi.py": DESK["desk/wsgi.py"].rstrip() + "\n        import os; os.environ['ACME_WEB']",
        "letters/tasks.py": "import os\nos.environ['ACME_TASKS']\n",
    }
    result = look(files, secrets=secrets)
    assert [re.sub(r":\d+: ", ": ", line) for line in told(result)] == [
        "desk/settings.py: KeyError: 'ACME_KEY'",
        "desk/settings.py: django.core.exceptions.ImproperlyConfigured: Set the ACME_RETRIES environment variable",
        "desk/settings.py: django.core.exceptions.ImproperlyConfigured: Set the ACME_SEARCH environment variable",
        "desk/settings.py: desk.settings.UndefinedValueError: ACME_TOKEN not found. Declare it as envvar or define a default value.",
        "desk/settings.py: django.core.exceptions.ImproperlyConfigured: Where is ACME_PLACE?",
        "desk/wsgi.py: KeyError: 'ACME_WEB'",
        "letters/tasks.py: KeyError: 'ACME_TASKS'",
    ]
    assert result["left"] == [], result["left"]


@pytest.mark.parametrize(
    ("added", "warned"),
    [
        ("", True),
        ('EMAIL_HOST, EMAIL_PORT = "127.0.0.1", 1025', True),
        ('EMAIL_HOST = "mx.example.net"', False),
        ('EMAIL_BACKEND = "desk.mail.Own"', False),
        ("EMAIL_HOST = None", True),
    ],
)
def test_mail_server_that_is_not_there_is_a_warning(look, added, warned):
    result = look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + f"\n        {added}\n"})
    assert (result["findings"], result["left"]) == ([], [])
    place = "desk/settings.py:11: " if added else ""
    host = "127.0.0.1:1025" if "1025" in added else "localhost:25"
    assert [line.partition(",")[0] for line in result["warnings"]] == [f"{place}E-mail is sent to {host}"] * warned


@pytest.mark.parametrize("backend", ["console", "filebased", "locmem", "dummy"])
@pytest.mark.parametrize("where", ["server", "sandbox host", "app_email"])
def test_mail_that_is_sent_nowhere_is_a_warning_on_a_server(look, backend, where):
    name = f"django.core.mail.backends.{backend}.EmailBackend"
    more = {
        "sandbox host": {"email_logged": True},
        "app_email": {
            "email": {"host": "mx.example.net", "port": 25, "encryption": "none", "user": "", "sender": ""},
        },
    }
    files = DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + f"\n        EMAIL_BACKEND = {name!r}\n"}
    result = look(files, deployed=more.get(where, {}))
    assert (result["findings"], result["left"]) == ([], [])
    expected = [f"desk/settings.py:11: No e-mail is sent: EMAIL_BACKEND is {name!r}"] * (where == "server")
    assert [line.partition(", so ")[0] for line in result["warnings"]] == expected
    assert all("Name a server with app_email" in line for line in result["warnings"])


def test_what_only_a_placeholder_leads_to_is_no_finding(look):
    settings = """
        import os
        ACME_MODE = {"fast": 1, "slow": 2}[os.environ["ACME_MODE"]]
        ACME_KEY = os.environ["ACME_KEY"]
    """
    result = look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + settings})
    assert told(result) == [
        "desk/settings.py:12: KeyError: 'ACME_MODE'",
        "desk/settings.py:13: KeyError: 'ACME_KEY'",
    ], "what comes after it is read"
    (left,) = result["left"]
    assert left.startswith(
        "further variables: with placeholders for ACME_MODE, it ends with desk/settings.py:12: KeyErr"
    )


CONVERTED = {
    "numbers and JSON": """
        import json, os
        ACME_A = int(os.environ["ACME_A"])
        ACME_B = float(os.environ["ACME_B"])
        ACME_C = json.loads(os.environ["ACME_C"]).items()
        ACME_D = [str(each) for each in json.loads(os.environ["ACME_D"])][0]
    """,
    "addresses": """
        import os
        from urllib.parse import urlsplit
        NODE, PORT = os.environ["ACME_A"].split(":")
        PLACE = os.environ["ACME_B"]
        NUMBER = int(PLACE.partition(":")[2])
        SEARCH = urlsplit(os.environ["ACME_C"])
        assert SEARCH.hostname
        ACME_D = os.environ["ACME_D"]
    """,
    "words and lists": """
        import os
        ON = {"true": True, "false": False}[
            os.environ["ACME_A"]
        ]
        LATITUDE, LONGITUDE = map(float, os.environ["ACME_B"].split(","))
        ACME_C = bool(int(os.environ["ACME_C"])) and os.environ["ACME_D"]
    """,
    "in a function": """
        import datetime, json, os

        def as_mapping(name):
            return dict(json.loads(os.environ[name]))

        LIMITS = as_mapping("ACME_A")
        SINCE = datetime.date.fromisoformat(os.environ["ACME_B"])
        LIMITS |= as_mapping("ACME_C")
        ACME_D = os.environ["ACME_D"]
    """,
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_variables_that_are_converted_are_told_all_at_once(look, kind):
    result = look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + CONVERTED[kind]})
    assert [finding["variable"] for finding in result["findings"]] == ["ACME_A", "ACME_B", "ACME_C", "ACME_D"]
    assert result["left"] == [], result["left"]


LATER = """
        import os
        import environ
        from desk import more

        env = environ.Env(ACME_LIMIT=(int, 5))
        ACME_MODE = {"fast": 1}[os.environ["ACME_MODE"]]
        ACME_SURE = int(os.environ["ACME_SURE"])
        ACME_PERHAPS = env("ACME_PERHAPS")
        ACME_LIMIT = env("ACME_LIMIT")
        ACME_OPTIONAL = env("ACME_OPTIONAL", default="")
        ACME_GET = os.environ.get("ACME_GET")
        ACME_EITHER = os.environ["ACME_EITHER"] if ACME_GET else ""
        os.environ.setdefault("ACME_SET", "1")
        ACME_SET = os.environ["ACME_SET"]
        if ACME_GET:
            ACME_ONCE = os.environ["ACME_ONCE"]
        URL, KEY = os.environ["DATABASE_URL"], os.environ["DJANGO_SECRET_KEY"]

        def later():
            return os.environ["ACME_LATER"]
"""


def test_what_comes_after_a_value_that_nobody_knows_is_read(look):
    """What is missing for certain is a finding; what may be is a line; no more is claimed."""
    files = DESK | {
        "desk/settings.py": DESK["desk/settings.py"].rstrip() + LATER,
        "desk/more.py": "import os\n\nif os.environ.get('ACME_MORE'):\n    os.environ['ACME_REST']\n",
        "letters/tasks.py": DESK["letters/tasks.py"] + "\n        import os\n        os.environ['ACME_TASKS']\n",
    }
    result = look(files)
    assert [finding["variable"] for finding in result["findings"]] == ["ACME_MODE", "ACME_SURE"]
    ends, perhaps = result["left"]
    assert "with placeholders for ACME_MODE, it ends with desk/settings.py:16: KeyError" in ends
    assert perhaps.startswith("further variables: the application may need ")
    named = re.findall(r"ACME_\w+", perhaps)
    assert sorted(named) == [f"ACME_{name}" for name in ("EITHER", "LATER", "ONCE", "PERHAPS", "REST", "TASKS")]


def test_variables_that_a_file_may_set_are_not_claimed_to_be_missing(look):
    settings = """
        import os
        from dotenv import load_dotenv
        load_dotenv("values")
        ACME_MODE = {"fast": 1}[os.environ["ACME_MODE"]]
        ACME_KEY = os.environ["ACME_KEY"]
    """
    files = {"dotenv.py": "def load_dotenv(path):\n    pass\n"}
    result = look(DESK | files | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + settings})
    assert [finding["variable"] for finding in result["findings"]] == ["ACME_MODE"]
    assert result["left"][1] == "further variables: the application may need ACME_KEY (desk/settings.py:15)."


def test_setting_that_a_placeholder_made_is_no_finding(look):
    settings = """
        import os
        MEDIA_ROOT = BASE_DIR / os.environ["ACME_FOLDER"]
    """
    result = look(DESK | {"desk/settings.py": DESK["desk/settings.py"].rstrip() + settings}, own=["media"])
    assert (told(result), result["left"]) == (["desk/settings.py:12: KeyError: 'ACME_FOLDER'"], [])


def test_app_that_asks_the_database_when_it_is_loaded_is_left_to_the_server(look):
    apps = """
        from django.apps import AppConfig

        class Letters(AppConfig):
            name = "letters"

            def ready(self):
                self.get_model("Letter").objects.count()
    """
    result = look(DESK | {"letters/apps.py": apps})
    assert result["findings"] == [] and "OperationalError: no database of the servers" in result["left"][0], result


def test_checks_that_read_tables_are_left_to_the_server(look):
    apps = """
        from django.apps import AppConfig
        from django.core.checks import Error, register

        class Letters(AppConfig):
            name = "letters"

            def ready(self):
                from letters.models import Letter

                @register()
                def few(app_configs, **_):
                    return [Error("many", id="letters.E001")] if Letter.objects.count() else []

                @register()
                def always(app_configs, **_):
                    return [Error("never right", id="letters.E002")]
    """
    result = look(DESK | {"letters/apps.py": apps})
    assert result["findings"] == [] and len(result["left"]) == 2, result
    assert any("1 finding of" in line and line.endswith("letters.E002.") for line in result["left"])


def test_modules_below_a_folder_are_found_there(look):
    result = look(PLAIN, "bakery.conf", "bakery.queue:ovens", "bakery.wsgi:application", path="src", check=False)
    assert all("celery_queues" not in line for line in told(result)) and result["left"] == [], result
