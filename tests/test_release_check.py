"""How a release is laid out on the controller, and what is said of what was found in it."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import release_artifact
import release_check
from inventory import placeholders
from lock import lock_python, lock_remedy

FILES = {
    ".release/environment": "MEDIA_ROOT=/srv/desk/shared/media\nDATABASE_URL=postgres://desk_a@/desk?host=%2Frun\nTITLE='two words'\n",
    ".release/overlay.json": '{"environment": {"MEDIA_ROOT": "/srv/desk/shared/media"}}',
    ".release/celery-web.json": "{}",
}
# In the place of the application's Python: it tells what it was given, as a finding.
PYTHON = """#!{python}
import json, os, pathlib, sys
order = json.load(sys.stdin)
seen = {{"arguments": sys.argv[1:], "order": order, "environment": dict(os.environ), "folder": os.getcwd(),
        "settings": pathlib.Path("settings.py").read_text(),
        "overlay": pathlib.Path(os.environ["OVERLAY_FILE"]).read_text(),
        "secrets": {{p.name: p.read_text() for p in pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"]).iterdir()}}}}
{last}
"""


@pytest.fixture
def parameters(tmp_path):
    """The module's parameters for a release with one file."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/settings.py").write_text("DEBUG = True\n")
    members = release_artifact.collect([{"src": str(tmp_path / "source"), "dest": "", "exclude": []}], FILES, [])
    release_artifact.build(members, "0123456789ab", tmp_path / "0123456789ab.tar.gz")
    return {
        "artifact": str(tmp_path / "0123456789ab.tar.gz"),
        "release": "0123456789ab",
        "venv": str(tmp_path / "venv"),
        "root": "/srv/desk",
        "source": str(tmp_path / "source"),
        "python": "3.11",
        "python_path": "src",
        "celery": "desk.celery:app",
        "wsgi": "desk.wsgi:application",
        "check_level": "WARNING",
        "check_ignore": [],
        "load_timeout": 20,
        "placeholders": placeholders({"STRIPE_KEY": "sk_live_51"}),
        "own_secrets": ["STRIPE_KEY"],
        "lock_file": "requirements.txt",
        "lock_remedy": "add it to requirements.in and lock again",
    }


@pytest.fixture
def load(parameters, tmp_path):
    """Load it with a Python that ends with some lines; return what was found and why nothing was."""

    def run(last):
        python = Path(parameters["venv"], "bin/python")
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON.format(python=sys.executable, last=last))
        python.chmod(0o755)
        (tmp_path / "top").mkdir()
        return release_check.load(release_check.Folder(parameters, str(tmp_path / "top")))

    return run


def test_process_has_what_a_unit_has_and_answers_with_the_paths_of_a_host(load):
    result, reason = load("print(json.dumps(seen))")
    assert reason == ""
    here = "/srv/desk/releases/0123456789ab"
    assert result["arguments"] == ["-m", "coldframe.release.controller"] and result["folder"] == here
    assert result["settings"] == "DEBUG = True\n" and "/srv/desk/shared/media" in result["overlay"]
    environment = result["environment"]
    assert environment["TITLE"] == "two words" and environment["MEDIA_ROOT"] == "/srv/desk/shared/media"
    assert environment["PYTHONPATH"] == f"{here}/.release/runtime:{here}/src"
    assert environment["STATIC_ROOT"] == f"{here}/.release/static"
    assert result["order"]["writable"] == ["/srv/desk/shared", f"{here}/.release/static"]
    assert result["order"]["secrets"] and result["order"]["check"]
    assert result["secrets"]["STRIPE_KEY"] == "xx_xxxx_11" and len(result["secrets"]["secret_key"]) >= 50


def test_files_of_the_application_are_named_as_in_the_application(load):
    """In a traceback. What a setting says is as it would be on a host."""
    line = """json.dump({"text": 'File "%s/desk/x.py", line 3: %s/media' % (os.getcwd(), os.getcwd())}, sys.stdout)"""
    result, _ = load(line)
    assert result["text"] == 'File "desk/x.py", line 3: /srv/desk/releases/0123456789ab/media'


def test_folder_of_the_hosts_that_the_code_names_is_one_that_may_be_written_here_too(parameters, tmp_path):
    code = 'DATA_DIR = "/srv/desk/shared/data"\nOTHER = "/srv/deskside/shared"\n'
    (tmp_path / "source/settings.py").write_text(code)
    members = release_artifact.collect([{"src": str(tmp_path / "source"), "dest": "", "exclude": []}], FILES, [])
    release_artifact.build(members, parameters["release"], Path(parameters["artifact"]))
    (tmp_path / "top").mkdir()
    folder = release_check.Folder(parameters, str(tmp_path / "top"))
    here = (folder.release / "settings.py").read_text()
    assert here == code.replace("/srv/desk/shared", f"{folder.root}/shared") and folder.told(here) == code


def test_process_has_nothing_else_of_the_controllers_environment(load, monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "of the operator")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/secret")
    environment = load("print(json.dumps(seen))")[0]["environment"]
    assert {"DATABASE_PASSWORD", "ANSIBLE_VAULT_PASSWORD_FILE"} & set(environment) == set()


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("os.abort()", "its process ended with -6"),
        ("sys.exit('no module named coldframe')", "its process ended with 1: no module named coldframe"),
        ("print('Timeout (0:00:20)!', file=sys.stderr); sys.exit(1)", "it was not loaded within 20 s"),
    ],
)
def test_process_that_tells_nothing_is_left_to_the_host(load, last, reason):
    result, said = load(last)
    assert result == {} and said.startswith(reason), said


def say(parameters, wanted="", **finding):
    return release_check.written({"place": "desk/settings.py:4", "text": "wrong"} | finding, parameters, wanted)


def test_module_of_a_package_is_told_with_the_way_to_add_it(parameters):
    said = say(parameters, text="ModuleNotFoundError: No module named 'acme'", module="acme")
    assert said == (
        "desk/settings.py:4: ModuleNotFoundError: No module named 'acme'\n"
        "    If a package brings it, add it to requirements.in and lock again."
    )


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("acme/__init__.py", "git ignores it, or a release leaves its name out. Write app_include: [acme]."),
        ("acme.py", "Write app_include: [acme]."),
        ("lib/acme/__init__.py", "set app_python_path to 'lib'."),
        ("lib/acme.py", "set app_python_path to 'lib'."),
        (".venv/acme.py", "If a package brings it"),
        ("node_modules/acme/index.js", "If a package brings it"),
    ],
)
def test_module_of_the_application_itself_is_told_with_the_variable(parameters, file, remedy):
    path = Path(parameters["source"], file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert remedy in say(parameters, text="ModuleNotFoundError: No module named 'acme'", module="acme")


def test_variable_is_told_with_where_to_set_it(parameters):
    for text in ("KeyError: 'ACME_KEY'", "ConfigError: Where is ACME_KEY?"):
        assert say(parameters, text=text, variable="ACME_KEY").startswith(
            f"desk/settings.py:4: {text}\n    ACME_KEY is not in the environment of the application: add it to app_environment; a secret, "
        )


def test_check_of_djangos_is_told_with_what_to_write_and_how_to_leave_it_out(parameters):
    said = say(parameters, text="security.W003: You don't appear to be using ...", check="security.W003", place="")
    assert "\n    In the settings: add 'django.middleware.csrf.CsrfViewMiddleware' to MIDDLEWARE." in said
    assert "release_check_ignore: [security.W003]" in said


def test_file_that_cannot_be_written_is_told_with_what_to_write(parameters):
    text = "OSError: [Errno 30] Read-only file system: '/srv/desk/releases/0123456789ab/logs/desk.log'"
    assert "Log to stderr, which the journal keeps" in say(parameters, text=text)


@pytest.mark.parametrize(
    ("asked", "python", "fits"),
    [(">=3.14", "3.13", False), (">=3.11.4", "3.11", True), ("", "3.11", True), ("==3.12.*", "3.11", False)],
)
def test_python_that_the_project_asks_for_is_told_where_another_may_be_why(parameters, asked, python, fits):
    source = Path(parameters["source"])
    (source / "pyproject.toml").write_text(f'[project]\nname = "desk"\nrequires-python = "{asked}"\n')
    wanted = release_check.python_wanted(source, python)
    assert wanted == ("" if fits else asked)
    said = say(parameters, wanted, text="SyntaxError: invalid syntax")
    assert ("The project asks for Python" in said) == (not fits)
    assert "asks for Python" not in say(parameters, wanted, text="CELERY_RESULT_BACKEND is 'x'")


def test_environments_that_no_check_uses_any_more_are_removed(tmp_path):
    old, used = tmp_path / "old", tmp_path / "used"
    for venv in (old, used):
        venv.mkdir()
        (venv / ".lock-sha256").touch()
        long_ago = time.time() - release_check.KEPT - 60
        os.utime(venv / ".lock-sha256", (long_ago, long_ago))
    release_check.prune(used)
    assert not old.exists() and used.exists()


@pytest.mark.parametrize(
    ("secret", "placeholder"),
    [
        ("https://k3y@o1.ingest.example.com/42", "https://x1x@x1.xxxxxx.xxxxxxx.xxx/11"),
        ('{"type": "account", "n": 7}', '{"xxxx": "xxxxxxx", "x": 1}'),
        ("Ünïcode", "xxxxxxx"),
        (465, "111"),
    ],
)
def test_placeholder_has_the_form_of_the_secret_and_nothing_of_it(secret, placeholder):
    assert placeholders({"A": secret})["A"] == placeholder


def test_placeholders_of_the_deployments_own_secrets_pass_djangos_check(parameters):
    made = placeholders({})
    assert made == placeholders({}) and made["secret_key_fallbacks"] == ""
    assert len(made["secret_key"]) >= 50 and len(set(made["secret_key"])) >= 5
    assert len(json.dumps(made)) < 1000


def test_lock_file_says_for_which_python_it_is_and_how_it_grows(tmp_path):
    lock = tmp_path / "ops/requirements.txt"
    lock.parent.mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site/pyproject.toml").touch()
    lock.write_text(
        f"# Made by 'make lock' for Debian 12 (Python 3.11, x86_64)\n# from pyproject.toml sha256:{'0' * 64}\n"
    )
    site = str(tmp_path / "site")
    assert (lock_python(site, str(lock)), lock_python(site, "absent.txt")) == ("3.11", "")
    assert lock_remedy(site, str(lock)) == (
        f"add it to pyproject.toml of the application, then 'make lock ENV={lock.parent}'"
    )
    inside = lock_remedy(site, "requirements.txt", python="3.13.5")
    assert inside.startswith(
        "add it to pyproject.toml and lock again, '.venv/bin/uv pip compile --universal --python-version 3.13 "
    )


OLD = """/cache/0-3.11 was not built from its lock file: error: No solution found when resolving dependencies
  cause: Because the current Python version (3.11.7) does not satisfy Python>=3.12 and django==6.0 depends on Python>=3.12,
         we can conclude that django==6.0 cannot be used.
If this host reaches no package index, set app_packages_from to 'controller'."""


def test_package_that_the_hosts_python_does_not_run_is_refused(parameters):
    problems, left = release_check.about_packages(OLD, parameters)
    assert left == "" and len(problems) == 1
    assert problems[0].startswith(
        "requirements.txt locks django==6.0, which needs Python >=3.12, and the hosts have 3.11. "
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "/cache/0 was not built from its lock file: there is no wheel for this host of docopt==0.6.2, and hosts build nothing. "
            "Take packages that have wheels",
            "there is no wheel for this machine of docopt==0.6.2",
        ),
        (
            "There is no Python 3.13 on this machine, and uv can get none.",
            "There is no Python 3.13 on this machine, and uv can get none.",
        ),
        (
            "/cache/0 was not built from its lock file: error: Failed\n  cause: to fetch",
            "error: Failed cause: to fetch",
        ),
    ],
)
def test_what_the_controller_lacks_is_left_to_the_hosts_in_one_line(parameters, error, line):
    assert release_check.about_packages(error, parameters) == ([], line)


def test_output_of_the_process_is_shown_without_control_characters(load):
    result, _ = load(
        "json.dump({'findings': [{'text': 'a\\x1b[31mb\\x1b]0;c\\x07'}], 'left': ['d\\x9b1me']}, sys.stdout)"
    )
    assert result == {"findings": [{"text": "ab"}], "left": ["de"]}


def test_errors_of_the_process_are_shown_without_control_characters(load):
    assert load("print('\\x1b[31mred\\x1b[0m', file=sys.stderr); sys.exit(3)")[1] == "its process ended with 3: red"
