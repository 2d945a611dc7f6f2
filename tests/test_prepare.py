"""What happens to a release before it starts, with a small project and a database in a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import release_prepare
from support.hosts import wait_for_end

RUNTIME = Path(__file__).parents[1] / "runtime"
PROJECT = {
    "conf.py": """
        SECRET_KEY = "".join(map(chr, range(48, 110)))
        INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.staticfiles", "library"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "library.db"}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        STATIC_URL, STATIC_ROOT = "/static/", "collected"
        SECURE_HSTS_SECONDS, SECURE_SSL_REDIRECT = 60, True
        MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                      "django.middleware.clickjacking.XFrameOptionsMiddleware"]
        CSRF_COOKIE_SECURE, ALLOWED_HOSTS = True, ["a.example"]
        SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
    """,
    "library/__init__.py": "",
    "library/apps.py": """
        import os
        from django.apps import AppConfig
        from django.core.checks import Warning, register
        from django.db.models.signals import post_migrate

        def note(**_):
            with open("noted", "a") as file:
                file.write("x")
            if os.path.exists("post-fails"):
                raise RuntimeError("the lock for permissions is taken")

        class LibraryConfig(AppConfig):
            name = "library"

            def ready(self):
                from library.models import Book
                post_migrate.connect(note, sender=self)

                @register("library", deploy=True)
                def shelves(app_configs, **_):
                    if os.path.exists("no-check"):
                        return []
                    return [] if Book.objects.count() == 0 else [Warning("books are there", id="library.W001")]
    """,
    "library/models.py": """
        from django.db import models

        class Book(models.Model):
            title = models.CharField(max_length=20)
    """,
    "library/migrations/__init__.py": "",
    "library/migrations/0001_initial.py": """
        from django.db import migrations, models

        class Migration(migrations.Migration):
            initial = True
            operations = [migrations.CreateModel("Book", [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=20))])]
    """,
    "library/management/__init__.py": "",
    "library/management/commands/__init__.py": "",
    "library/management/commands/press.py": """
        from django.core.management import BaseCommand

        class Command(BaseCommand):
            def add_arguments(self, parser):
                parser.add_argument("--into")

            def handle(self, into, **_):
                print("pressed")
                with open(into, "x"):
                    pass
    """,
}


def write(folder, files):
    """Write files, name to text, with the text's indentation taken away."""
    import textwrap

    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


@pytest.fixture
def project(tmp_path):
    """A project that passes its checks when it is migrated."""
    write(tmp_path, PROJECT)
    return tmp_path


def prepare(project, **order):
    """Prepare a release as the module does; return the result and what the module says of a failure."""
    order = {
        "celery": "",
        "wsgi": "",
        "check": True,
        "check_level": "WARNING",
        "check_ignore": [],
        "static": False,
        "commands": [],
        "migrate": True,
        "hooks": True,
        "running": "",
        "allow": [],
        "linter": "/nowhere",
        "lock_timeout": 5,
        "load_timeout": 60,
    } | order
    environment = os.environ | {"PYTHONPATH": str(RUNTIME), "DJANGO_SETTINGS_MODULE": "conf"}
    done = subprocess.run(
        [sys.executable, "-m", "coldframe.release.prepare"],
        cwd=project,
        env=environment,
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    ignored = order["check_ignore"]
    return result, release_prepare.failure(result, 5, ignored, order["running"]) if result["error"] else ""


def test_check_that_asks_a_table_passes_when_the_first_deploy_has_made_it(project):
    result, said = prepare(project)
    assert said == "" and "library.0001_initial" in result["applied"]


def test_check_that_fails_with_tables_too_is_refused_and_what_was_applied_is_said(project):
    write(project, {"library/apps.py": PROJECT["library/apps.py"].replace("== 0", "== 1")})
    result, said = prepare(project)
    assert "library.W001: books are there" in said and "library.0001_initial" in said, said
    assert "This is the first deploy: workers and Beat run only after it" in said
    assert "first deploy" not in prepare(project, running="0123456789ab")[1]
    result, said = prepare(project, check_ignore=["library.W001"])
    assert said == "" and release_prepare.report(result) == ["Left out by release_check_ignore: library.W001"]
    result, said = prepare(project, check_level="ERROR")
    assert said == "" and release_prepare.report(result) == ["Check library.W001: books are there"]
    assert prepare(project, migrate=False)[0]["error"]["type"] == "Failed", "another host, after the first has migrated"


def test_finding_of_djangos_own_is_refused_before_the_database_is_touched(project):
    write(
        project,
        {"conf.py": PROJECT["conf.py"].replace("SECURE_HSTS_SECONDS, ", "DEBUG, ").replace("60, True", "True, True")},
    )
    result, said = prepare(project)
    assert not (project / "library.db").stat().st_size and result["plan"] == []
    assert "security.W004: SECURE_HSTS_SECONDS = 31536000" in said and "security.W018: DEBUG = False" in said, said
    assert "library" not in said
    said = prepare(project, check_ignore=["library.W001"])[1]
    line = said.splitlines()[-1]
    assert line.startswith("    release_check_ignore: [library.W001, "), "the line has what is left out already"
    assert "security.W004" in line and "security.W018" in line


def test_many_migrations_are_counted(project):
    error = {"type": "Failed", "text": "shop.W033.Old Hub: none\n    hint: none\nE1: no id", "lock": False}
    result = {"step": "check", "error": error, "applied": [f"shop.{number:04}" for number in range(1, 41)]}
    said = release_prepare.failure(result | {"plan": []}, 5)
    assert "Its migrations were applied: 40, from shop.0001 to shop.0040." in said
    assert said.endswith("\n    release_check_ignore: [shop.W033.Old Hub]")


def test_finding_that_a_missing_table_may_have_made_is_not_shown_among_those_to_mend(project):
    asks = PROJECT["library/apps.py"].replace(
        "return [] if Book.objects.count() == 0 else [", 'return [] if "library_book" in tables() else ['
    )
    asks = asks.replace("import os", "import os\n        from django.db import connection", 1)
    asks = asks.replace("tables()", "connection.introspection.table_names()")
    write(project, {"library/apps.py": asks, "conf.py": PROJECT["conf.py"].replace("SECURE_HSTS_SECONDS, ", "DEBUG, ")})
    said = prepare(project)[1]
    assert "security.W004" in said and "library.W001" not in said and "Not shown: 1 more" in said, said
    write(project, {"conf.py": PROJECT["conf.py"]})
    assert prepare(project)[1] == ""


def test_level_none_asks_nothing(project):
    write(project, {"conf.py": PROJECT["conf.py"].rstrip() + "\n        DEBUG = True\n"})
    assert prepare(project, check=False)[1] == ""


def test_what_follows_a_migration_runs_again_though_nothing_is_unapplied(project):
    (project / "post-fails").touch()
    result, said = prepare(project)
    assert "the lock for permissions is taken" in said and "was not migrated to the end" in said, said
    assert result["applied"] and (project / "noted").read_text() == "x"
    (project / "post-fails").unlink()
    result, said = prepare(project)
    assert said == "" and result["applied"] == [] and (project / "noted").read_text() == "xx"


def test_model_changed_without_a_migration_is_refused_unless_left_out(project):
    model = "            pages = models.IntegerField(null=True)\n"
    write(project, {"library/models.py": PROJECT["library/models.py"].rstrip() + "\n" + model})
    _, said = prepare(project)
    assert "coldframe.E001: The models of library were changed and no migration does that: Add field pages" in said, (
        said
    )
    assert "manage.py makemigrations library" in said and not (project / "library.db").stat().st_size
    result, _ = prepare(project, check_ignore=["coldframe.E001"], check_level="CRITICAL")
    assert "coldframe.E001" in release_prepare.report(result)[-1]


def test_table_of_stored_tasks_that_a_router_keeps_away_is_refused(project):
    conf = PROJECT["conf.py"].replace('"library"]', '"library", "coldframe.delayed"]').rstrip() + "\n"
    write(project, {"conf.py": conf})
    assert prepare(project)[1] == ""
    (project / "library.db").unlink()
    router = """
        class Router:
            def allow_migrate(self, db, app_label, **_):
                return app_label in ("library", "contenttypes")
    """
    write(
        project,
        {
            "library/routers.py": router,
            "conf.py": conf.rstrip() + '\n        DATABASE_ROUTERS = ["library.routers.Router"]\n',
        },
    )
    _, said = prepare(project)
    assert "coldframe.E002: The default database has no table" in said and "coldframe zero" in said, said


def test_translated_names_of_models_are_no_changes(project):
    """Whatever the project's language: Django writes migrations without translations, and it translates 'Text' itself."""
    title = 'models.CharField(_("Text"), max_length=20)'
    models = PROJECT["library/models.py"].replace("models.CharField(max_length=20)", title)
    migration = PROJECT["library/migrations/0001_initial.py"].replace("20)", '20, verbose_name="Text")')
    write(
        project,
        {
            "conf.py": PROJECT["conf.py"].rstrip() + "\n        LANGUAGE_CODE = 'es'\n",
            "library/models.py": "        from django.utils.translation import gettext_lazy as _\n" + models,
            "library/migrations/0001_initial.py": migration,
        },
    )
    result, said = prepare(project)
    assert said == "" and release_prepare.report(result) == [], said
    assert "library.0001_initial" in result["applied"]


def test_installed_package_without_its_migration_is_worth_a_word(project):
    packages = project / ".venv/lib"
    write(
        packages,
        {
            f"foreign/{name}": text
            for name, text in {
                "__init__.py": "",
                "models.py": PROJECT["library/models.py"],
                "migrations/__init__.py": "",
            }.items()
        },
    )
    path = "import sys; sys.path.append('.venv/lib')\n"
    write(project, {"conf.py": PROJECT["conf.py"].replace('"library"]', '"library", "foreign"]')})
    (project / "conf.py").write_text(path + (project / "conf.py").read_text())
    result, said = prepare(project, migrate=True)
    assert said == "" and "The installed package of foreign has models" in release_prepare.report(result)[0]


def test_project_without_static_files_has_none_to_collect(project):
    write(project, {"conf.py": PROJECT["conf.py"].replace('"django.contrib.staticfiles", ', "")})
    result, said = prepare(project, static=True, commands=["press --into=pressed"])
    assert said == "" and result["collected"] is True and (project / "pressed").exists(), said


def test_commands_run_when_static_files_are_collected(project):
    write(project, {"static/a.css": "a {}"})
    result, said = prepare(project, static=True, commands=["press --into=pressed"])
    assert said == "" and result["collected"] is True and (project / "pressed").exists()
    assert not prepare(project, commands=["press --into=again"])[1] and not (project / "again").exists()
    result, said = prepare(project, static=True, commands=["press --into=pressed", "never"])
    assert "release_commands failed for the new release (press --into=pressed)" in said, said
    assert "press.py" in said and result["collected"] is False


NOTES = """
    from django.core.management import BaseCommand
    from django.db import connection

    class Command(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument("said")

        def handle(self, said, **_):
            tables = "library_book" in connection.introspection.table_names()
            with open("notes", "a") as file:
                file.write(f"{said} {tables}\\n")
            if said == "fails":
                print(*range(50), sep="\\n")
                raise SystemExit(3)
"""


def hooked(project, **hooks):
    """Give the project commands of app_hooks, a command of manage.py and another program."""
    manage = """
        import sys
        from django.core.management import execute_from_command_line

        if __name__ == "__main__":
            execute_from_command_line(sys.argv)
    """
    command = {
        "library/management/commands/note.py": NOTES,
        "manage.py": manage,
        "own": "#!/bin/sh\necho own $1 >>notes\n",
    }
    write(project, {**command, ".release/hooks.json": json.dumps(hooks)})
    (project / "own").chmod(0o755)


def noted(project):
    return (project / "notes").read_text().splitlines() if (project / "notes").exists() else []


def test_hooks_run_before_and_after_the_migrations_though_none_is_unapplied(project):
    hooked(
        project,
        before_migrate=["python manage.py note 'a b'", "./own c"],
        after_migrate=["python manage.py note d"],
        after_activate=["false"],
    )
    assert prepare(project)[1] == "" and noted(project) == ["a b False", "own c", "d True"]
    assert prepare(project)[1] == "" and noted(project)[3:] == ["a b True", "own c", "d True"]
    assert (
        prepare(project, hooks=False)[1] == "" and prepare(project, migrate=False)[1] == "" and len(noted(project)) == 6
    )


def test_failed_hook_before_the_migrations_keeps_the_database_as_it_is(project):
    hooked(
        project,
        before_migrate=["python manage.py note fails", "python manage.py note never"],
        after_migrate=["python manage.py note never"],
    )
    result, said = prepare(project)
    assert result["applied"] == [] and noted(project) == ["fails False"] and not (project / "library.db").stat().st_size
    assert said.startswith("A command of app_hooks failed for the new release; what ran before was left running.")
    assert "app_hooks.before_migrate, 'python manage.py note fails', ended with the status 3." in said
    assert said.splitlines()[-2:] == ["48", "49"] and "\n10\n" not in said


def test_failed_hook_after_the_migrations_names_what_was_applied(project):
    hooked(project, after_migrate=["acme-sync --all"])
    _, said = prepare(project)
    assert "Its migrations were applied: contenttypes" in said and "library.0001_initial" in said
    assert "app_hooks.after_migrate, 'acme-sync --all', ended with the status 127." in said and "acme-sync" in said


def test_hooks_do_not_run_when_a_migration_is_refused(project, tmp_path_factory):
    hooked(project, before_migrate=["python manage.py note never"])
    result, said = prepare(project, running="0f1e2d3c4b5a", linter=str(tmp_path_factory.mktemp("no linter")))
    assert said == "" and result["linter_missing"] and noted(project) == []


def test_hooks_of_another_point_run_by_themselves(project):
    hooked(project, before_activate=["./own a"], after_activate=["sh -c 'echo b >>notes; exit 5'", "./own c"])
    module = [sys.executable, "-m", "coldframe.release.hooks"]
    environment = os.environ | {"PYTHONPATH": str(RUNTIME)}
    done = subprocess.run(
        [*module, "before_activate"], cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == "" and noted(project) == ["own a"]
    done = subprocess.run(
        [*module, "after_activate"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and noted(project) == ["own a", "b"]
    assert done.stderr.startswith(
        "app_hooks.after_activate, \"sh -c 'echo b >>notes; exit 5'\", ended with the status 5."
    )


def test_hook_that_takes_too_long_is_ended_with_what_it_started(project, monkeypatch):
    from coldframe.release import errors, hooks

    monkeypatch.chdir(project)
    monkeypatch.setattr(hooks.programs, "LONGEST", 1)
    hooked(project, after_migrate=["sh -c 'sleep 300 & echo $! >>notes; echo waits; wait'", "./own never"])
    with pytest.raises(errors.Complete) as failed:
        hooks.run("after_migrate")
    (pid,) = noted(project)
    assert str(failed.value).splitlines() == [
        "app_hooks.after_migrate, \"sh -c 'sleep 300 & echo $! >>notes; echo waits; wait'\", was not done after 1 seconds.",
        "The last lines of its output:",
        "waits",
    ]
    wait_for_end(pid)


def test_failed_hook_is_told_with_its_signal_and_without_control_characters(project):
    hooked(project, before_migrate=["sh -c 'printf \"\\033]0;title\\007\\033[31mred\\n\"; kill -40 $$'"])
    _, said = prepare(project)
    assert said.splitlines()[1].endswith("was ended by signal 40.") and said.splitlines()[2:] == [
        "The last lines of its output:",
        "red",
    ]


def test_manage_py_of_a_hook_has_the_settings_of_the_deployment(project, monkeypatch):
    """There is no Celery here, which its extensions need: the command is looked at."""
    from coldframe.release import hooks

    seen = []
    monkeypatch.chdir(project)
    monkeypatch.setattr(hooks.programs, "run", lambda _, words, **__: seen.append(words))
    hooked(project, before_activate=["manage.py note 'a b'", "python x.py"])
    hooks.run("before_activate")
    manage = [sys.executable, "-m", "coldframe.manage", "manage.py", "note", "a b"]
    assert [words[2:] for words in seen] == [manage, ["python", "x.py"]]


LOADING = {
    "a variable": ("import os\nWHAT = os.environ['MAPS_KEY']\n", "MAPS_KEY is not in the environment"),
    "a file of logs": (
        "def f():\n    raise OSError(30, 'Read-only file system', '/srv/x/releases/a1/logs/app.log')\nf()\n",
        "/srv/x/releases/a1/logs/app.log cannot be written",
    ),
    "static files": (
        "raise OSError(30, 'Read-only file system', '/srv/x/releases/a1/staticfiles')\n",
        'STATIC_ROOT = os.environ["STATIC_ROOT"]',
    ),
    "a module": ("import maps_of_the_world\n", "There is no module maps_of_the_world"),
    "a cache of django-environ's": (
        "raise Exception('Invalid cache schema unix')\n",
        "env.cache() does not know the scheme unix",
    ),
    "a host": (
        "raise Exception(\"failed to resolve host '%2Frun%2Fpostgresql': [Errno -2] Name or service not known\")\n",
        "still percent-encoded (%2Frun%2Fpostgresql)",
    ),
}


@pytest.mark.parametrize("case", LOADING)
def test_failure_to_load_names_its_line_and_what_helps(project, case):
    line, helps = LOADING[case]
    (project / "conf.py").write_text(line)
    _, said = prepare(project)
    assert "cannot be loaded" in said and f'{project}/conf.py", line ' in said and helps in said, said
    assert "django/conf/__init__.py" not in said and "docs/releases.md" in said


class Statements:
    """A connection and its cursor, which note what is executed."""

    def __init__(self, in_transaction):
        """Begin with nothing executed."""
        self.in_atomic_block, self.done, self.cursor = in_transaction, [], self

    def execute(self, sql, *_):
        """Note a statement."""
        self.done.append(sql)


@pytest.mark.parametrize("in_transaction", [True, False])
def test_through_a_pooler_the_limit_of_a_wait_is_the_transactions(in_transaction):
    from coldframe.release import migrations

    connection = Statements(in_transaction)
    run = migrations.limited("7s")
    run(connection.execute, "ALTER TABLE a", None, False, {"connection": connection, "cursor": connection})
    limit = ["SET LOCAL lock_timeout = '7s'"] if in_transaction else []
    assert connection.done == [*limit, "ALTER TABLE a"]
