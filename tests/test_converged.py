"""A host is converged again when something that its configuration follows from is another, and only then."""

import os
import threading
from pathlib import Path

import pytest
import yaml
from applications import evaluate
from converged import FOUND, converged_digest, converged_inputs, deploy_digest, deploy_inputs, source_digest

ROOT = Path(__file__).parents[1]
SET = "ansible.builtin.set_fact"

CREDENTIALS = "runtime/coldframe/credentials.py"  # Flower has it too
GROUPS = {"web": ["one"]}
FACTS = {"memtotal_mb": 1024}
VARIABLES = {"redis_appendfsync": "everysec", "app_environment": {}, "ansible_host": "a", "smoke_request": {}}


@pytest.fixture
def project(tmp_path):
    for path in ("roles/redis/tasks/main.yml", "roles/app/vars/main.yml", "systemd/web.socket.j2", CREDENTIALS):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def digest(project, groups=GROUPS, facts=FACTS, **variables):
    everything = VARIABLES | variables
    inputs = {name: everything[name] for name in converged_inputs(everything, str(project))}
    return converged_digest(inputs, groups, facts, str(project))


def test_what_is_worked_out_once_is_no_input_beside_what_it_follows_from():
    """One is a path of this controller: on another one each host would be converged again."""
    (task,) = yaml.safe_load((ROOT / "roles/app/tasks/facts.yml").read_text())
    assert {name for name in task[SET] if not name.startswith("__")} <= FOUND


def test_variables_may_follow_from_the_facts_of_the_host():
    """What is worked out once is worked out after they are known."""
    names = [task["name"] for task in yaml.safe_load((ROOT / "roles/app/tasks/preflight.yml").read_text())]
    assert names.index("State") < names.index("Facts")


def test_same_input_is_the_same_digest(project):
    (project / "roles/redis/tasks/main.yml").touch()
    assert digest(project) == digest(project)


@pytest.mark.parametrize("path", ["roles/redis/tasks/main.yml", "systemd/web.socket.j2", CREDENTIALS])
def test_changed_file_is_another(project, path):
    before = digest(project)
    (project / path).write_text("changed")
    assert digest(project) != before


def test_changed_variable_group_or_fact_is_another(project):
    others = [
        digest(project, redis_appendfsync="always"),
        digest(project, app_secrets={"token": "x"}),
        digest(project, groups={"web": ["one", "two"]}),
        digest(project, facts={"memtotal_mb": 2048}),
    ]
    assert len({digest(project), *others}) == 5


def test_changed_file_that_a_variable_names_is_another(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "errors").mkdir()
    (project / "roles/nginx").mkdir()
    for variable, path in (("nginx_snippet", "nginx.conf"), ("nginx_error_pages", "errors/502.html")):
        value = str(folder / path.partition("/")[0])
        seen = {digest(project)}
        for text in ("", "one", "two"):
            (folder / path).write_text(text)
            seen.add(digest(project, **{variable: value}))
        assert len(seen) == 4, variable
    assert digest(project, nginx_error_pages="errors") == digest(project, nginx_error_pages="errors")


@pytest.mark.parametrize(
    "variables",
    [
        {"app_environment": {"A": "1"}},
        {"app_source": "/elsewhere"},
        {"smoke_request": {"path": "/"}},
        {"release_keep": 9},
    ],
)
def test_what_makes_a_release_or_a_run_is_not_the_hosts(project, variables):
    assert digest(project, **variables) == digest(project)


def test_what_the_preflight_finds_out_is_no_input():
    """It comes before the digest, and some of it is another at each run, such as how long a command took."""
    found = set()
    for path in [*ROOT.glob("roles/*/tasks/preflight.yml"), ROOT / "roles/app/tasks/state.yml"]:
        for task in yaml.safe_load(path.read_text()) or []:
            found |= {task.get("register"), *task.get(SET, {})} - {None}
    assert {"app_state", "__nginx_pair"} <= found
    assert converged_inputs(found, str(ROOT)) == []


@pytest.fixture
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for name in ("manage.py", "requirements.txt", "shop/views.py", "tests/test_views.py", "note.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return {"folder": str(folder), "kind": "folder", "include": [], "exclude": ["note.txt"], "lock": "requirements.txt"}


def whole(project, source, groups=GROUPS, facts=FACTS, **variables):
    everything = VARIABLES | variables
    inputs = {name: everything[name] for name in deploy_inputs(everything, str(project))}
    return deploy_digest(inputs, groups, facts, str(project), source_digest(source))


def test_deploy_of_the_same_is_the_same_digest(project, source):
    same = whole(project, source)
    assert len(same) == 64 and whole(project, source) == same
    folder = Path(source["folder"])
    for left_out in ("note.txt", "tests/test_views.py", "shop/views.pyc"):
        (folder / left_out).write_text("another")
    (folder / "shop/views.py").touch()
    assert whole(project, source, app_state={"when": 1}, ansible_host="b", smoke_request={"body": 7}) == same


@pytest.mark.parametrize(
    "variables",
    [
        {"redis_appendfsync": "always"},
        {"app_environment": {"A": "1"}},
        {"app_secrets": {"token": "x"}},
        {"release_keep": 9},
        {"sandbox_name": "a"},
        {"groups": {"web": ["one", "two"]}},
        {"facts": {"memtotal_mb": 2048}},
    ],
)
def test_deploy_with_another_variable_group_or_fact_is_another(project, source, variables):
    (project / "roles/release").mkdir()
    assert whole(project, source, **variables) != whole(project, source)


def test_deploy_of_another_file_is_another(project, source, tmp_path):
    folder, lock = Path(source["folder"]), tmp_path / "beside.txt"
    seen = [whole(project, source)]
    for change in (
        lambda: (folder / "shop/views.py").write_text("another"),
        lambda: (folder / "shop/new.py").write_text(""),
        lambda: (folder / "manage.py").chmod(0o755),
        lambda: (folder / "shop/link").symlink_to("views.py"),
        lambda: (folder / "manage.py").unlink(),
        lambda: (folder / "requirements.txt").write_text("another"),
        lambda: (project / "playbooks").mkdir() or (project / "playbooks/deploy.yml").write_text(""),
        lambda: (project / "roles/app/vars/main.yml").write_text("another"),
        lambda: (project / "VERSION").write_text("2"),
        lambda: source.update(include=["note.txt"], exclude=[]),
        lambda: lock.write_text("one") and source.update(lock=str(lock)),
        lambda: lock.write_text("two"),
        lambda: (folder / "lock.txt").symlink_to(lock) or source.update(lock="lock.txt"),
        lambda: lock.write_text("three"),
    ):
        change()
        seen.append(whole(project, source))
    assert len(set(seen)) == len(seen) == 15


def test_deploy_of_files_that_cannot_be_told_has_no_digest(project, source):
    (Path(source["folder"]) / "requirements.txt").unlink()
    assert whole(project, source) == ""
    assert whole(project, source | {"folder": "/nowhere", "lock": "a"}) == ""


def test_what_the_deploy_refuses_has_no_digest(project, source, monkeypatch):
    fifo = Path(source["folder"], "shop/queue")
    os.mkfifo(fifo)
    threading.Thread(target=fifo.open, args=("wb",), daemon=True).start()  # without it whoever reads waits for ever
    assert source_digest(source) == "", "it is not read"
    fifo.unlink()
    snippet = Path(source["folder"], "note.txt")
    (project / "roles/nginx").mkdir()
    assert whole(project, source, nginx_snippet=str(snippet)) != ""

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path) if path == snippet else b"")
    assert whole(project, source, nginx_snippet=str(snippet)) == ""


UNIT = {
    "unit": "shop-web@1.service",
    "part": "web",
    "release": "1",
    "state": "active",
    "doing": "Gunicorn arbiter booted",
}
UNIT |= {"restarts": 0, "age": 600, "ended": "", "since": ""}
AS_LEFT = {"inputs": "a", "lock": None, "current": "1", "units": [UNIT]}


def unchanged(one=None, two=None, **variables):
    """Whether the quick deploy, of two hosts that the last one left alike, finds nothing to do."""
    tasks = yaml.safe_load((ROOT / "playbooks/tasks/compare.yml").read_text())
    (expression,) = (task[SET]["release_unchanged"] for task in tasks if "release_unchanged" in str(task.get(SET)))
    states = {"one": AS_LEFT | (one or {}), "two": AS_LEFT | (two or {})}
    known = {
        "ansible_play_hosts_all": list(states),
        "hostvars": {name: {"release_inputs": "a", "app_state": state} for name, state in states.items()},
        "__app_inventory_checks": {"smoke test": []},
    }
    return evaluate("shop", expression, **(known | variables))


@pytest.mark.parametrize("one", [{}, {"current": ""}])
def test_hosts_that_are_as_the_last_deploy_left_them_need_none(one):
    """A host without a release, such as that of Redis, has no units either."""
    assert unchanged(one | ({"units": []} if one else {})) is True


@pytest.mark.parametrize(
    "changed",
    [
        {"two": {"inputs": "b"}},
        {
            "hostvars": {
                name: {"release_inputs": "", "app_state": AS_LEFT | {"inputs": ""}} for name in ("one", "two")
            },
        },
        {"two": {"lock": {"by": "ops"}}},
        {"two": {"current": "2", "units": [UNIT | {"release": "2"}]}},
        {"two": {"units": [UNIT | {"state": "failed"}]}},
        {"two": {"units": [UNIT | {"restarts": 4, "age": 30}]}},
        {"two": {"units": [UNIT, UNIT | {"unit": "shop-worker-a@0.service", "release": "0"}]}},
        {"__app_inventory_checks": {"smoke test": ["smoke_request has no path"]}},
        {"deploy_all": True},
    ],
    ids=[
        "other inputs",
        "no inputs",
        "locked",
        "other release",
        "unit failed",
        "unit restarts",
        "unit of an old release",
        "smoke test",
        "site.yml",
    ],
)
def test_what_the_last_deploy_did_not_leave_so_is_a_whole_deploy(changed):
    assert unchanged(**changed) is False
