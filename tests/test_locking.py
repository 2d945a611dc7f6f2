"""`make lock`: from whatever a project says that it requires, with hashes, and the same each time."""

import importlib.machinery
import importlib.util
import re
import subprocess
from pathlib import Path

import locking
import package_index
import projects
import pytest
import relock
import yaml
from coldframe.versions import problems
from lock import lock_problems, read
from project import RefusedError

ROOT = Path(__file__).parents[1]
TRIXIE, BOOKWORM = locking.Target("13", "x86_64"), locking.Target("12", "x86_64")


pytestmark = pytest.mark.usefixtures("own_packages")


def made(folder, target=TRIXIE, before="", top=None, **options):
    source = locking.find(folder, top or folder)
    return locking.Maker(source, target).run(before, **options)


def requirements(folder, text, name="requirements.txt"):
    projects.put(folder / name, text)
    return folder


@pytest.mark.parametrize("layout", projects.LAYOUTS)
@pytest.mark.parametrize("target", [TRIXIE, BOOKWORM], ids=str)
def test_every_kind_is_locked_with_hashes_in_versions_that_were_tried(tmp_path, layout, target):
    app = projects.LAYOUTS[layout](tmp_path / "mysite")
    folder = app / "backend" if layout == "monorepo" else app
    result = made(folder, target, top=app)
    assert (result.problems, result.missing) == ([], [])
    locked, loose = read(result.text)
    assert not loose and list(problems(locked)) == []
    assert result.text.count("==") == len(re.findall(r"==[^\n]* \\\n    --hash=sha256:", result.text))
    path = tmp_path / "requirements.txt"
    path.write_text(result.text)
    assert lock_problems(str(folder), str(path), python=locking.PYTHON[target.debian]) == []


@pytest.mark.parametrize("layout", projects.LAYOUTS)
def test_the_same_input_gives_the_same_bytes(tmp_path, layout):
    texts = []
    for copy in ("one", "two"):
        app = projects.LAYOUTS[layout](tmp_path / copy / "mysite")
        folder = app / "backend" if layout == "monorepo" else app
        texts.append(made(folder, top=app).text)
    assert texts[0] == texts[1] == made(folder, before=texts[0], top=app).text


def test_versions_of_the_projects_lock_file_are_kept(tmp_path):
    for layout, name in (("src", "uv.lock"), ("poetry", "poetry.lock"), ("pipenv", "Pipfile.lock")):
        result = made(projects.LAYOUTS[layout](tmp_path / layout))
        assert result.packages["django"] == "5.2.18", name
        assert result.packages["celery"] == "5.6.3" and "pytest" not in result.packages
    assert made(tmp_path / "poetry").packages["whitenoise"] == "6.9.0"


def test_a_version_that_only_a_tool_chose_gives_way_and_that_is_told(tmp_path):
    result = made(projects.poetry(tmp_path))
    assert result.packages["kombu"] == "5.7.0"
    assert "kombu is 5.7.0: poetry.lock has 5.6.1, which was not tried." in result.said


def test_what_the_units_need_is_added_and_told(tmp_path):
    result = made(requirements(tmp_path, "django==5.2.19\ncelery==5.6.3\nkombu==5.6.2\n"))
    assert result.packages["redis"] == "6.4.0", "8.1.0 was not tried with that kombu"
    assert (
        "Added, because the project does not name them: django-celery-beat 2.9.0, gunicorn 27.0.1," in result.said[-1]
    )
    assert "psycopg-binary" in result.packages


def test_every_version_that_cannot_be_is_refused_with_file_and_line(tmp_path):
    requirements(tmp_path, "# shared\ncelery==5.3.6\n", "requirements/base.txt")
    requirements(tmp_path, "-r base.txt\nDjango==3.2.25\nkombu==5.3.7\n", "requirements/production.txt")
    result = made(tmp_path)
    assert result.text == "" and [problem.split(", ")[0] for problem in result.problems] == [
        "requirements/base.txt:2: celery==5.3.6",
        "requirements/production.txt:3: kombu==5.3.7",
        "requirements/production.txt:2: django==3.2.25 does not start with Python 3.13",
    ]
    assert "Write 'celery>=5.4,<5.5'." in result.problems[0] and "Set DEBIAN=12" in result.problems[2]


def test_a_python_that_is_too_old_is_the_reason(tmp_path):
    requirements(tmp_path, "django==6.0.8\ncelery==5.7.0\n")
    assert made(tmp_path).problems == []
    refused = made(tmp_path, BOOKWORM).problems[0]
    assert "cannot be locked for Debian 12 (Python 3.11, x86_64)" in refused and "requires Python >=3.12" in refused


def test_packages_without_wheels_are_named_all_at_once(tmp_path):
    requirements(tmp_path, "django\ncelery\nreports\npylibmc==1.6.3\nlocal @ git+https://git.example.com/local.git\n")
    result = made(tmp_path)
    assert sorted(result.missing) == [
        "docopt==0.6.2",
        "local @ git+https://git.example.com/local.git",
        "pylibmc==1.6.3",
    ]
    assert result.text == ""


def test_a_requirement_that_names_no_package_is_refused(tmp_path):
    requirements(tmp_path, "django\ncelery\n./libs/money\n")
    assert "requirements.txt:3: './libs/money' is in no package index" in made(tmp_path).problems[0]


def test_wheels_that_were_built_are_taken(tmp_path):
    requirements(tmp_path, "django\ncelery\nreports\nlocal @ git+https://git.example.com/local.git\n")
    (tmp_path / "built").mkdir()
    for name, version in (("docopt", "0.6.2"), ("local", "2.0")):
        package_index.wheel(tmp_path / "built", name, version, package_index.ANY, [])
    result = locking.Maker(locking.find(tmp_path, tmp_path), TRIXIE, tmp_path / "built").run()
    assert (result.missing, result.packages["docopt"], result.packages["local"]) == ([], "0.6.2", "2.0")


def test_the_same_module_with_wheels_takes_the_place_of_one_without(tmp_path):
    requirements(tmp_path, "django\ncelery\npsycopg2==2.9.9\n")
    assert made(tmp_path, BOOKWORM).packages["psycopg2-binary"] == "2.9.9"
    result = made(tmp_path)
    assert result.packages["psycopg2-binary"] == "2.9.11", "2.9.9 has no wheel for Python 3.13"
    assert "psycopg2" not in result.packages and "psycopg" not in result.packages


def test_a_requirements_file_is_read_as_pip_reads_it(tmp_path):
    projects.put(tmp_path / "pyproject.toml", '[project]\nname = "x"\nversion = "1"\ndependencies = ["whitenoise"]\n')
    text = "--index-url https://packages.example.com/simple\n-e .\n-r more.in\n-c limits.txt\ndjango \\\n  >=5.2 ; python_version > '3'  # why\n"
    requirements(tmp_path, text)
    requirements(tmp_path, "celery[redis] --hash=sha256:00\n", "more.in")
    requirements(tmp_path, "celery==5.6.3\n", "limits.txt")
    source = locking.find(tmp_path, tmp_path)
    assert [(line.name, line.where) for line in source.lines] == [
        ("whitenoise", "pyproject.toml:4"),
        ("celery", "more.in:1"),
        ("django", "requirements.txt:5"),
    ]
    assert [line.text for line in source.pins] == ["celery==5.6.3"]
    assert source.options == ["--index-url https://packages.example.com/simple"]


def test_what_cannot_be_read_is_told(tmp_path):
    requirements(tmp_path, "django\n-r absent.txt\n")
    with pytest.raises(ValueError, match=r"requirements\.txt includes absent\.txt, which is not there"):
        locking.find(tmp_path, tmp_path)
    (tmp_path / "requirements.txt").unlink()
    projects.put(tmp_path / "poetry.lock", "[[package]\n")
    projects.put(tmp_path / "pyproject.toml", "[project]\n")
    with pytest.raises(ValueError, match=r"poetry\.lock cannot be read"):
        locking.find(tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"REQUIREMENTS is 'no\.txt'"):
        locking.find(tmp_path, tmp_path, "no.txt")


@pytest.fixture
def ops(tmp_path):
    """An inventory with a lock file beside it, as `make new` writes it."""
    app = requirements(tmp_path / "mysite", "django==5.2.18\ncelery==5.6.3\nwhitenoise\n")
    folder = tmp_path / "ops"
    (folder / "group_vars/all").mkdir(parents=True)
    (folder / "hosts.yml").write_text("all: {hosts: {one: {}}}\n")
    values = {"app_source": "../mysite", "app_lock_file": "{{ inventory_dir }}/requirements.txt"}
    (folder / "group_vars/all/app.yml").write_text(yaml.safe_dump(values))
    source = locking.find(app, app)
    old = locking.Maker(source, TRIXIE).run("whitenoise==6.9.0\n")
    assert old.packages["whitenoise"] == "6.9.0"
    (folder / "requirements.txt").write_text(old.text)
    return folder


def test_lock_file_is_made_again_only_when_its_input_changes_or_on_demand(ops):
    path, app = ops / "requirements.txt", ops.parent / "mysite"
    before = path.read_text()
    assert "nothing to do" in relock.lock({"ENV": str(ops)}) and path.read_text() == before
    (app / "README.md").write_text("more\n")
    assert "nothing to do" in relock.lock({"ENV": str(ops)})
    (app / "requirements.txt").write_text("django==5.2.19\ncelery==5.6.3\nwhitenoise\n")
    told = relock.lock({"ENV": str(ops)})
    assert "  django 5.2.18 -> 5.2.19" in told and "whitenoise" not in told
    assert told.splitlines()[-1] == f"Next: make deploy ENV={ops}"
    assert "whitenoise 6.9.0 -> 6.10.0" in relock.lock({"ENV": str(ops), "UPGRADE": "1"})
    assert "Debian 12" in relock.lock({"ENV": str(ops), "DEBIAN": "12"})
    assert "nothing to do" in relock.lock({"ENV": str(ops)}), "it remembers what it is for"


def test_what_the_processes_report_with_is_added_where_the_inventory_names_a_receiver(ops):
    path, app, reports = (
        ops / "requirements.txt",
        str(ops.parent / "mysite"),
        ["app_secrets.sentry_dsn", "app_otel_endpoint"],
    )
    values = yaml.safe_load((ops / "group_vars/all/app.yml").read_text()) | {"app_secrets": {"sentry_dsn": "x"}}
    (ops / "group_vars/all/app.yml").write_text(yaml.safe_dump(values))
    (problem,) = lock_problems(app, str(path), python="3.13.5", reports=reports[:1])
    assert problem.endswith(
        f"does not lock sentry-sdk. 'make lock ENV={ops}' adds these lines, unless requirements.txt of the application names other "
        "versions:\n    sentry-sdk>=2.20,<3"
    )
    assert "sentry-sdk 2.75.0 is new" in relock.lock({"ENV": str(ops)}) and "opentelemetry-sdk" not in path.read_text()
    assert "nothing to do" in relock.lock({"ENV": str(ops)})
    (ops / "group_vars/all/app.yml").write_text(yaml.safe_dump(values | {"app_otel_endpoint": "http://192.0.2.7:4318"}))
    assert "opentelemetry-sdk 1.45.2 is new" in relock.lock({"ENV": str(ops)})
    assert lock_problems(app, str(path), python="3.13.5", reports=reports) == []
    assert "nothing to do" in relock.lock({"ENV": str(ops)})


def test_what_cannot_be_locked_leaves_the_lock_file_as_it_is(ops):
    before = (ops / "requirements.txt").read_text()
    (ops.parent / "mysite/requirements.txt").write_text("django==5.2.18\ncelery==5.3.6\ndocopt\n")
    with pytest.raises(RefusedError) as error:
        relock.lock({"ENV": str(ops)})
    assert len(error.value.problems) == 2 and f"'make wheels ENV={ops}' builds them" in error.value.problems[1]
    assert (ops / "requirements.txt").read_text() == before


def test_lock_is_refused_where_it_has_nothing_to_do(ops, tmp_path):
    for said, text in (
        ({}, "ENV is missing"),
        ({"ENV": str(tmp_path / "no")}, "there is no"),
        ({"ENV": str(ops), "DEBIAN": "11"}, "it must be 12 or 13"),
    ):
        with pytest.raises(RefusedError, match=text):
            relock.lock(said)
    values = {"app_source": str(tmp_path / "mysite"), "app_lock_file": "requirements.txt"}
    (ops / "group_vars/all/app.yml").write_text(yaml.safe_dump(values))
    with pytest.raises(RefusedError, match="a file of the application itself"):
        relock.lock({"ENV": str(ops)})


def test_packages_of_a_sandbox_host_that_is_not_there_yet_are_locked(ops):
    """As those of `make try`, which builds packages before it boots the host."""
    own = ops / "group_vars/all"
    for name in ("sandbox.yml", "secrets.yml"):
        (own / name).symlink_to(ROOT / "inventories/sandbox/group_vars/all" / name)
    (own / "try.yml").write_text("sandbox_state: '{{ inventory_dir }}/.host'\n")
    assert "nothing to do" in relock.lock({"ENV": str(ops)})
    assert (ops / ".host/secrets.yml").stat().st_mode & 0o77 == 0


def test_requirements_of_a_repository_are_those_of_the_version_to_deploy(ops, tmp_path):
    app = tmp_path / "mysite"
    git = ["git", "-C", app, "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    (app / "requirements.txt").write_text("celery==5.3.6\n")
    values = {"app_repository": str(app), "app_version": "v1", "app_lock_file": "{{ inventory_dir }}/requirements.txt"}
    (ops / "group_vars/all/app.yml").write_text(yaml.safe_dump(values))
    assert "nothing to do" in relock.lock({"ENV": str(ops)})


PODMAN = """#!/bin/sh
echo "$@" > "$0.called"
for each; do case $each in --volume=*) folder=${each#*=}; cp "$0".whl/*.whl "${folder%%:*}";; esac; done
"""


def test_wheels_are_built_with_the_servers_debian_and_then_locked(ops, tmp_path, monkeypatch, capsys):
    """With a podman that only tells how it was called."""
    programs = tmp_path / "coldframe/docker/host"
    (programs / "podman.whl").mkdir(parents=True)
    package_index.wheel(programs / "podman.whl", "docopt", "0.6.2", package_index.ANY, [])
    package_index.wheel(programs / "podman.whl", "pylibmc", "1.6.3", "cp311-cp311-linux_x86_64", [])
    for name, text in (("podman", PODMAN), ("build", "#!/bin/sh\necho image:$1\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setattr(relock, "ROOT", tmp_path / "coldframe")
    (tmp_path / "mysite/requirements.txt").write_text("django\ncelery==5.6.3\nreports\npylibmc==1.6.3\n")
    relock.build({"ENV": str(ops), "DEBIAN": "12"})
    called = (programs / "podman.called").read_text()
    assert "image:bookworm" in called and called.rstrip().endswith("build pylibmc==1.6.3 docopt==0.6.2")
    assert f"--volume={ops}/.wheels:/wheels" in called and "python3-dev" in called
    told = relock.lock({"ENV": str(ops), "DEBIAN": "12"})
    assert "Set app_packages_from: controller in " in capsys.readouterr().out
    assert "docopt 0.6.2 is new" in told and "pylibmc 1.6.3 is new" in told
    relock.build({"ENV": str(ops)})
    assert "nothing to build" in capsys.readouterr().out


@pytest.mark.parametrize("code, said", [(126, "No container could be started"), (1, "could be built")])
def test_container_that_does_not_start_is_not_blamed_on_the_compiler(ops, tmp_path, monkeypatch, code, said):
    programs = tmp_path / "coldframe/docker/host"
    programs.mkdir(parents=True)
    for name, text in (("podman", f"#!/bin/sh\nexit {code}\n"), ("build", "#!/bin/sh\necho image:$1\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setattr(relock, "ROOT", tmp_path / "coldframe")
    (tmp_path / "mysite/requirements.txt").write_text("django\ncelery==5.6.3\nreports\n")
    with pytest.raises(RefusedError, match=said):
        relock.build({"ENV": str(ops)})


# What a deploy says of a lock file beside the inventory


def test_a_lock_file_of_other_requirements_is_refused_with_the_command(ops):
    app, path = ops.parent / "mysite", ops / "requirements.txt"
    assert lock_problems(str(app), str(path), python="3.13.5") == []
    (app / "requirements.txt").write_text("django==5.2.19\n")
    assert lock_problems(str(app), str(path), python="3.13.5") == [
        f"requirements.txt of the application has changed since {path} was made from it: 'make lock ENV={ops}' makes it again."
    ]
    (app / "requirements.txt").unlink()
    assert "is gone" in lock_problems(str(app), str(path), python="3.13.5")[0]


def test_a_lock_file_for_another_python_is_refused(ops):
    said = lock_problems(str(ops.parent / "mysite"), str(ops / "requirements.txt"), python="3.11.2")
    assert len(said) == 1 and "is for Python 3.13, and this host has 3.11.2" in said[0]
    assert f"'make lock ENV={ops} DEBIAN=12'" in said[0]


def test_other_problems_of_it_name_the_command_too(ops):
    app, path = str(ops.parent / "mysite"), ops / "requirements.txt"
    text = path.read_text()
    path.write_text(re.sub(r"gunicorn==.*\n(    .*\n)+", "", text))
    assert lock_problems(app, str(path), python="3.13.5") == [
        f"{path} does not lock 'gunicorn': 'make lock ENV={ops}' adds it."
    ]
    path.write_text(text.replace("celery==5.6.3", "celery==5.6.1"))
    assert (
        "Write 'celery>=5.6.3,<5.8' in requirements.txt of the application, then"
        in lock_problems(app, str(path), python="3.13.5")[0]
    )
    path.write_text("django\n")
    assert "no list of packages with versions and hashes" in lock_problems(app, str(path), python="3.13.5")[0]
    path.unlink()
    assert "there is no such file" in lock_problems(app, str(path), python="3.13.5")[0]


def test_other_tables_of_pyproject_do_not_count(ops):
    app = ops.parent / "mysite"
    (app / "requirements.txt").unlink()
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["django", "celery"]\n'
    (app / "pyproject.toml").write_text(text)
    relock.lock({"ENV": str(ops)})
    (app / "pyproject.toml").write_text(text + "\n[tool.ruff]\nline-length = 100\n")
    assert lock_problems(str(app), str(ops / "requirements.txt"), python="3.13.5") == []
    (app / "pyproject.toml").write_text(text.replace('"celery"', '"celery", "whitenoise"'))
    assert "pyproject.toml of the application has changed" in lock_problems(str(app), str(ops / "requirements.txt"))[0]


def test_environment_in_messages_is_what_make_takes(tmp_path):
    for folder, environment in (("inventories/absent", "absent"), (".sandbox/mysite", ".sandbox/mysite")):
        said = lock_problems(str(tmp_path), str(ROOT / folder / "requirements.txt"))
        assert f"'make lock ENV={environment}'" in said[0]


def release_artifact():
    loader = importlib.machinery.SourceFileLoader("release_artifact", str(ROOT / "plugins/modules/release_artifact.py"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("release_artifact", loader))
    loader.exec_module(module)
    return module


def test_another_lock_file_is_another_release(tmp_path):
    """The file beside the inventory is none of the application's folder, so the release has a copy."""
    variables = yaml.safe_load((ROOT / "roles/release/vars/main.yml").read_text())
    assert "'.release/requirements.txt': __release_lock" in variables["__release_files"]
    assert "(app_folder, app_lock_file) | path_join" in variables["__release_lock"]
    module = release_artifact()
    (tmp_path / "manage.py").write_text("")
    ids = set()
    for text in ("django==1\n", "django==2\n", "django==1\n"):
        members = module.collect(
            [{"src": tmp_path, "dest": "", "exclude": []}], {".release/requirements.txt": text}, []
        )
        ids.add(module.digest(members, {}))
    assert len(ids) == 2
