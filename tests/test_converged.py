"""A host is converged again when something that its configuration follows from is another, and only then."""

from pathlib import Path

import pytest
import yaml
from converged import NOT_INPUT, converged_digest, converged_inputs

ROOT = Path(__file__).parents[1]

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
    assert set(task["ansible.builtin.set_fact"]) <= NOT_INPUT


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
            found |= {task.get("register"), *task.get("ansible.builtin.set_fact", {})} - {None}
    assert {"app_state", "__nginx_pair"} <= found
    assert converged_inputs(found, str(ROOT)) == []
