"""Which lock files are refused, and what to do then."""

import re
import tomllib
from pathlib import Path

import pytest
from coldframe.versions import GREEN, LACKS, NEEDS, REPORTING, REPORTING_ASGI, TRIED, parsed, shown
from lock import lock_problems, lock_warnings, read

ROOT = Path(__file__).parents[1]
LOCK = "requirements.txt"
LOCKS = [*sorted((ROOT / "molecule/versions").glob("*.txt")), ROOT / "app_stub/requirements.txt"]
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


def problems(tmp_path, python="3.13.5", without=(), asgi=False, reports=(), **versions):
    """What is said about a lock file with other versions, or without some packages."""
    locked = GOOD | {name.replace("_", "-"): version for name, version in versions.items()}
    lines = (
        f"{name}=={version} \\\n    --hash=sha256:00\n    # via celery\n"
        for name, version in locked.items()
        if name not in without
    )
    (tmp_path / "requirements.txt").write_text("# made by uv\n" + "".join(lines))
    return lock_problems(str(tmp_path), "requirements.txt", python=python, asgi=asgi, reports=reports)


BOTH = ("app_secrets.sentry_dsn", "app_otel_endpoint")


def test_what_an_application_reports_with_is_needed_only_then(tmp_path):
    assert problems(tmp_path, sentry_sdk="1.45.0") == []
    sentry, spans = problems(tmp_path, sentry_sdk="1.45.0", reports=BOTH, asgi=False)
    assert sentry.startswith(
        "app_secrets.sentry_dsn is set, and requirements.txt line 26: it locks sentry-sdk==1.45.0, which was not tried. "
        "Add these lines to requirements.in and lock again, '.venv/bin/uv pip compile "
    )
    assert sentry.splitlines()[1:] == ["    sentry-sdk>=2.20,<3"]
    assert "app_otel_endpoint is set, and requirements.txt does not lock opentelemetry-sdk, opentelemetry-" in spans
    assert spans.splitlines()[1:] == [
        "    opentelemetry-sdk>=1.30,<2",
        "    opentelemetry-exporter-otlp-proto-http>=1.30,<2",
        "    opentelemetry-instrumentation-django>=0.51,<1",
        "    opentelemetry-instrumentation-celery>=0.51,<1",
    ]


@pytest.mark.parametrize(
    "locked, said",
    [
        ({"psycopg": "3.1.14"}, ["does not lock gevent. Add these lines to requirements.in and lock again"]),
        ({"gevent": "24.2.1", "psycopg": "3.3.9"}, ["it locks gevent==24.2.1, which was not tried"]),
        ({"gevent": "26.9.0", "psycopg": "3.3.9"}, []),
        (
            {"gevent": "26.9.0", "psycopg": "3.1.13"},
            ["requirements.txt locks psycopg==3.1.13: a query would hold up all tasks"],
        ),
        (
            {"gevent": "26.9.0", "psycopg2_binary": "2.9.10"},
            ["requirements.txt locks psycopg2-binary==2.9.10: a query would"],
        ),
        ({"gevent": "26.9.0"}, ["requirements.txt locks no psycopg: a query would"]),
    ],
)
def test_pool_of_green_threads_needs_packages_only_then(tmp_path, locked, said):
    assert problems(tmp_path, **locked) == []
    found = problems(tmp_path, reports=[GREEN], **locked)
    assert len(found) == len(said) and all(part in problem for part, problem in zip(said, found, strict=True)), found
    assert all(problem.startswith("pool: gevent in celery_queues is set, and requirements.txt ") for problem in found)


def reporting(**changed):
    """The packages that an application reports with, in versions that were tried."""
    wanted = {package: shown(range_.first) for table in REPORTING.values() for package, range_ in table.items()}
    return {name.replace("-", "_"): version for name, version in wanted.items()} | changed


def test_served_by_asgi_a_further_package_is_needed(tmp_path):
    served = {"uvicorn": "0.38.0", "uvicorn_worker": "0.4.0", "websockets": "15.0"}
    assert problems(tmp_path, reports=BOTH, **reporting(opentelemetry_instrumentation_django="0.66b2")) == []
    (problem,) = problems(tmp_path, reports=BOTH, asgi=True, **served, **reporting())
    assert problem.splitlines()[1:] == ["    opentelemetry-instrumentation-asgi>=0.51,<1"]
    old = reporting(opentelemetry_sdk="1.29.0")
    (problem,) = problems(tmp_path, reports=BOTH, **old)
    assert "it locks opentelemetry-sdk==1.29.0, which was not tried" in problem and problem.count("\n") == 1


@pytest.mark.parametrize("kind", ["", "-older"])
def test_first_and_last_version_that_an_application_may_report_with_are_those_of_the_tests(kind):
    locked, _ = read((ROOT / f"requirements/optional{kind}.txt").read_text())
    tables = [*REPORTING.values(), *REPORTING_ASGI.values()]
    for package, range_ in ((package, range_) for table in tables for package, range_ in table.items()):
        (version,) = locked[package]
        assert range_.has(parsed(version)) and (not kind or parsed(version)[:2] == range_.first), package


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"celery": "5.6.3", "kombu": "5.6.2", "redis": "6.4.0", "billiard": "4.2.2", "django_celery_beat": "2.8.1"},
        {"celery": "5.6.3", "redis": "7.4.0"},
        {"celery": "5.5.3", "kombu": "5.5.4", "redis": "5.2.1"},
        {"celery": "5.4.0", "kombu": "5.4.2", "redis": "5.0.8", "billiard": "4.2.1", "django_celery_beat": "2.7.0"},
        {"celery": "5.4.0", "kombu": "5.6.2", "redis": "5.3.1"},
        {"Django": "6.0.8"},
    ],
)
def test_what_was_tried_may_be_deployed(tmp_path, versions):
    assert problems(tmp_path, **versions) == []


def python_of(lock):
    """The Python that the runtime's tests run with."""
    newer = re.search(r"^# Python ([\d.]+)$", lock.with_suffix(".in").read_text(), re.MULTILINE)
    return newer[1] if newer else "3.11"


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_files_that_are_tried_may_be_deployed(lock):
    assert lock_problems(str(lock.parent), lock.name, python=python_of(lock)) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_page_names_the_versions_that_are_tried(lock):
    locked, _ = read(lock.read_text())
    versions = [shown(parsed(locked[name][0])[:2]) for name in ("celery", "kombu", "redis", "django")]
    names = (lock.stem.removeprefix("requirements-"), str(lock.relative_to(ROOT)))
    rows = [f"| `{name}` | {' | '.join([*versions, python_of(lock)])} |" for name in names]
    assert any(row in (ROOT / "docs/testing.md").read_text() for row in rows), rows


def test_every_series_is_tried():
    """Each of Celery and of kombu, alone and with the others that it may have."""
    found = [[parsed(read(lock.read_text())[0][name][0]) for name in ("celery", "kombu")] for lock in LOCKS]
    for position, package in enumerate(("celery", "kombu")):
        for range_ in TRIED[package]:
            assert any(range_.has(versions[position]) for versions in found), (package, range_)
    for celery in [need for need in NEEDS if need.package == "celery"]:
        kombu = [versions[1] for versions in found if celery.versions.has(versions[0])]
        assert min(kombu)[:2] == celery.wanted.first[:2], "its oldest kombu"
        assert max(kombu) < celery.wanted.end <= (max(kombu)[0], max(kombu)[1] + 1), "its newest kombu"


@pytest.mark.parametrize(
    ("package", "version", "right"),
    [
        ("celery", "5.3.6", "celery>=5.4,<5.5"),
        ("celery", "5.5.1", "celery>=5.5.3,<5.6"),
        ("celery", "5.6.0", "celery>=5.6.3,<5.8"),
        ("celery", "5.8.0", "celery>=5.6.3,<5.8"),
        ("celery", "6.0.0rc1", "celery>=5.6.3,<5.8"),
        ("kombu", "5.8.0", "kombu>=5.7,<5.8"),
        ("kombu", "5.6.2", "kombu>=5.7,<5.8"),
        ("redis", "5.2.1", "redis>=6.4,<9"),
        ("redis", "9.0.0", "redis>=6.4,<9"),
        ("billiard", "4.1.0", "billiard>=4.2.1,<4.4"),
        ("django_celery_beat", "2.5.0", "django-celery-beat>=2.7,<2.10"),
    ],
)
def test_what_was_not_tried_is_refused_by_name(tmp_path, package, version, right):
    said = problems(tmp_path, **{package: version})
    line = 2 + 3 * [*GOOD].index(package.replace("_", "-"))
    it_locks = f"requirements.txt, line {line}: it locks {package.replace('_', '-')}=={version}, which was not tried"
    assert len(said) == 1 and it_locks in said[0]
    assert f"Write '{right}' in requirements.in" in said[0]
    assert (
        f".venv/bin/uv pip compile --universal --python-version 3.13 --generate-hashes {tmp_path}/requirements.in"
        in said[0]
    )


@pytest.mark.parametrize(
    ("versions", "what", "others", "right"),
    [
        ({"kombu": "5.6.2"}, "kombu==5.6.2", "celery==5.7.0", "kombu>=5.7,<5.8"),
        ({"celery": "5.4.0", "redis": "5.3.1"}, "kombu==5.7.0", "celery==5.4.0", "kombu>=5.6.2,<5.7"),
        ({"celery": "5.5.3"}, "kombu==5.7.0", "celery==5.5.3", "kombu>=5.5.4,<5.6"),
        ({"celery": "5.6.3", "redis": "6.2.0"}, "redis==6.2.0", "kombu==5.7.0", "redis>=6.4,<9"),
        ({"celery": "5.5.3", "kombu": "5.5.4"}, "redis==8.1.0", "kombu==5.5.4", "redis>=5.0.8,<5.3"),
    ],
)
def test_versions_that_were_not_tried_together_are_refused(tmp_path, versions, what, others, right):
    said = problems(tmp_path, **versions)
    assert len(said) == 1 and f"{what}, which was not tried with {others}: " in said[0]
    assert f"Write '{right}'" in said[0]


def test_versions_to_write_are_those_that_go_together(tmp_path):
    said = problems(tmp_path, celery="5.4.0", kombu="5.6.1", redis="6.4.0")
    assert len(said) == 1 and "kombu==5.6.1, which was not tried: " in said[0] and "'kombu>=5.6.2,<5.7'" in said[0]


def test_what_an_older_version_lacks_is_a_warning(tmp_path):
    assert problems(tmp_path, celery="5.5.3", kombu="5.5.4", redis="5.2.1") == []
    said = lock_warnings(str(tmp_path), LOCK)
    assert len(said) == len([lack for lack in LACKS if lack.end > (5, 5, 4)])
    assert said[0].startswith(f"{LOCK}, line 5: it locks kombu==5.5.4, which lacks what kombu 5.6 has. Code of")
    assert problems(tmp_path) == lock_warnings(str(tmp_path), LOCK) == lock_warnings(str(tmp_path), "absent") == []


def test_guide_says_what_older_versions_lack():
    guide = (ROOT / "docs/application.md").read_text()
    for lack in LACKS:
        assert f"| {lack.package} before {shown(lack.end)} | {lack.text} |" in guide


def test_every_version_of_a_lock_for_several_platforms_counts(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "".join(f"{name}=={version} --hash=sha256:00\n" for name, version in GOOD.items())
        + "celery==5.3.6 ; python_full_version < '3.12' --hash=sha256:00\n"
    )
    assert [
        "line 9: it locks celery==5.3.6" in problem for problem in lock_problems(str(tmp_path), "requirements.txt")
    ] == [True]


def test_django_that_the_host_has_no_python_for_is_refused(tmp_path):
    said = problems(tmp_path, python="3.11.2", Django="6.0.8")
    assert "django==6.0.8, which needs Python 3.12, and this host has 3.11.2" in said[0]


@pytest.mark.parametrize("python", ["3.9.2", "3.14.0"])
def test_host_with_another_python_is_refused(tmp_path, python):
    said = problems(tmp_path, python=python)
    assert len(said) == 1 and f"This host has Python {python}, which was not tried" in said[0]
    assert "needs Python >=3.11,<3.14. Leave app_python_interpreter out, or set it to one of these" in said[0]


@pytest.mark.parametrize("package", ["gunicorn", "django-celery-beat", "redis", "packaging", "kombu"])
def test_a_package_that_is_missing_is_named(tmp_path, package):
    said = problems(tmp_path, without=[package])
    assert f"does not lock {package!r}" in said[0]
    assert ("write celery[redis]" in said[0]) == (package in ("redis", "packaging"))


def test_what_serves_asgi_is_needed_where_it_is_served(tmp_path):
    said = problems(tmp_path, asgi=True)
    for problem, package in zip(said, ("uvicorn", "uvicorn-worker", "websockets"), strict=True):
        assert f"does not lock {package!r}" in problem and "write uvicorn" in problem
    assert problems(tmp_path, asgi=True, uvicorn="0.54.0", uvicorn_worker="0.4.0", websockets="17.4") == []


def test_a_kombu_that_does_without_a_package_needs_none(tmp_path):
    old = {"celery": "5.4.0", "kombu": "5.4.2", "redis": "5.0.8"}
    assert problems(tmp_path, without=["packaging"], **old) == []
    assert "does not lock 'packaging'" in problems(tmp_path, without=["packaging"], **old | {"kombu": "5.6.2"})[0]


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
    named["python"] = project["requires-python"]
    for package, ranges in TRIED.items():
        assert named[package] == f">={shown(ranges[0].first)},<{shown(ranges[-1].end)}"
    assert project["version"] == (ROOT / "VERSION").read_text().strip()
