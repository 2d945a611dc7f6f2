"""Which lock files are refused, and what to do then."""

import re
import tomllib
from pathlib import Path

import pytest
from lock import TRIED, lock_problems

ROOT = Path(__file__).parents[1]
GOOD = {
    "celery": "5.7.0",
    "kombu": "5.7.0",
    "redis": "8.1.0",
    "billiard": "4.3.2",
    "django-celery-beat": "2.9.0",
    "Django": "5.2.19",
    "gunicorn": "27.0.1",
    "packaging": "26.3",
}


def problems(tmp_path, python="3.13.5", without=(), **versions):
    """What is said about a lock file with other versions, or without some packages."""
    locked = GOOD | {name.replace("_", "-"): version for name, version in versions.items()}
    lines = (
        f"{name}=={version} \\\n    --hash=sha256:00\n    # via celery\n"
        for name, version in locked.items()
        if name not in without
    )
    (tmp_path / "requirements.txt").write_text("# made by uv\n" + "".join(lines))
    return lock_problems(str(tmp_path), "requirements.txt", python=python)


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"celery": "5.6.3", "kombu": "5.6.2", "redis": "6.4.0", "billiard": "4.2.2", "django_celery_beat": "2.8.1"},
        {"celery": "5.6.3", "redis": "7.4.0"},
        {"Django": "6.0.8"},
    ],
)
def test_what_was_tried_may_be_deployed(tmp_path, versions):
    assert problems(tmp_path, **versions) == []


@pytest.mark.parametrize(
    "lock", [*sorted((ROOT / "molecule/versions").glob("*.txt")), ROOT / "app_stub/requirements.txt"]
)
def test_the_lock_files_that_are_tried_may_be_deployed(lock):
    assert lock_problems(str(lock.parent), lock.name, python="3.11.2") == []


@pytest.mark.parametrize(
    ("package", "version", "right"),
    [
        ("celery", "5.5.3", "celery>=5.6.3,<5.8"),
        ("celery", "5.8.0", "celery>=5.6.3,<5.8"),
        ("celery", "6.0.0rc1", "celery>=5.6.3,<5.8"),
        ("kombu", "5.8.0", "kombu>=5.6.2,<5.8"),
        ("redis", "5.2.1", "redis>=6.4,<9"),
        ("redis", "9.0.0", "redis>=6.4,<9"),
        ("billiard", "4.1.0", "billiard>=4.2.2,<4.4"),
        ("django_celery_beat", "2.5.0", "django-celery-beat>=2.8,<2.10"),
    ],
)
def test_what_was_not_tried_is_refused_by_name(tmp_path, package, version, right):
    said = problems(tmp_path, **{package: version})
    assert len(said) == 1 and f"{package.replace('_', '-')}=={version}, which was not tried" in said[0]
    assert f"Write '{right}' in requirements.in" in said[0]
    assert (
        f".venv/bin/uv pip compile --universal --python-version 3.13 --generate-hashes {tmp_path}/requirements.in"
        in said[0]
    )


def test_a_celery_that_needs_a_newer_kombu_is_refused(tmp_path):
    assert "kombu==5.6.2, and celery==5.7.0 needs a newer one" in problems(tmp_path, kombu="5.6.2")[0]


def test_every_version_of_a_lock_for_several_platforms_counts(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "".join(f"{name}=={version} --hash=sha256:00\n" for name, version in GOOD.items())
        + "celery==5.5.3 ; python_full_version < '3.12' --hash=sha256:00\n"
    )
    assert ["celery==5.5.3" in problem for problem in lock_problems(str(tmp_path), "requirements.txt")] == [True]


def test_django_that_the_host_has_no_python_for_is_refused(tmp_path):
    said = problems(tmp_path, python="3.11.2", Django="6.0.8")
    assert "django==6.0.8, which needs Python 3.12, and this host has 3.11.2" in said[0]


@pytest.mark.parametrize("package", ["gunicorn", "django-celery-beat", "redis", "packaging", "kombu"])
def test_a_package_that_is_missing_is_named(tmp_path, package):
    said = problems(tmp_path, without=[package])
    assert f"does not lock {package!r}" in said[0]
    assert ("write celery[redis]" in said[0]) == (package in ("redis", "packaging"))


def test_a_list_of_requirements_is_no_lock_file(tmp_path):
    (tmp_path / "requirements.txt").write_text("django\nCelery[redis]>=5.6\ngunicorn==27.0.1\n")
    said = lock_problems(str(tmp_path), "requirements.txt")
    assert len(said) == 1 and "names celery, django without a version, so it is no lock file" in said[0]
    assert f"'mv {tmp_path}/requirements.txt {tmp_path}/requirements.in', then '.venv/bin/uv pip compile" in said[0]


def test_versions_without_hashes_are_no_lock_file(tmp_path):
    (tmp_path / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version in GOOD.items()))
    (tmp_path / "pyproject.toml").write_text("")
    said = lock_problems(str(tmp_path), "requirements.txt")
    assert len(said) == 1 and "has no hashes" in said[0] and f"{tmp_path}/pyproject.toml -o" in said[0]


@pytest.mark.parametrize(
    "lock", [None, "-r requirements/production.txt\n", "django==5.2\n", "celery\n", "celery==5.7.0 --hash=sha256:00\n"]
)
def test_a_project_file_without_celery_is_not_what_a_lock_file_is_made_from(tmp_path, lock):
    """cookiecutter-django keeps its requirements in a folder, and in pyproject.toml no more than Django."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/base.txt").write_text("celery==5.6.3\n")
    (tmp_path / "requirements/production.txt").write_text("-r base.txt\ngunicorn\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["django"]\n')
    if lock:
        (tmp_path / "requirements.txt").write_text(lock)
    said = lock_problems(str(tmp_path), "requirements.txt")
    assert (
        all(f" {tmp_path}/requirements/production.txt -o {tmp_path}/requirements.txt'" in one for one in said) and said
    )
    assert not any("'mv " in one for one in said)


@pytest.mark.parametrize(
    "made",
    [
        "uv pip compile --generate-hashes SITE/deploy.in -o SITE/requirements.txt",
        "uv pip compile ../site/deploy.in -o ../site/requirements.txt",
        "pip-compile --output-file=requirements.txt deploy.in",
    ],
)
def test_a_lock_file_is_made_again_from_what_it_was_made_from(tmp_path, made):
    for name in ("deploy.in", "requirements.in", "pyproject.toml"):
        (tmp_path / name).write_text("celery\n")
    (tmp_path / "requirements.txt").write_text(
        f"# by the following command:\n#    {made}\nkombu==5.7.0\n".replace("SITE", str(tmp_path))
    )
    said = lock_problems(str(tmp_path), "requirements.txt")
    assert said and all(f" {tmp_path}/deploy.in -o" in one for one in said)


def test_a_file_or_folder_that_is_missing_is_named(tmp_path):
    assert "app_source is" in lock_problems(str(tmp_path / "absent"), "requirements.txt")[0]
    assert "there is no such file in app_source" in lock_problems(str(tmp_path), "lock/production.txt")[0]
    assert "there is no such file in app_version 'v1'" in lock_problems(str(tmp_path), "requirements.txt", "v1")[0]


def test_project_of_the_runtime_names_the_same_versions():
    project = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text())["project"]
    named = dict(re.match(r"([\w-]+)(?:\[\w+\])?(.*)", line).groups() for line in project["dependencies"])
    for package, limits in TRIED.items():
        first, end = (".".join(map(str, limit)) for limit in limits)
        assert named[package] == f">={first},<{end}"
    assert project["version"] == (ROOT / "VERSION").read_text().strip()
