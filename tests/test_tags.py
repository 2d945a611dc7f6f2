"""A part of a deploy by its tag, and what a misspelt tag says."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from molecule.provisioner.ansible import Ansible
from tags import SPECIAL, deploy_tags, tag_problems

ROOT = Path(__file__).parents[1]
# Those that a deploy runs, not those that they use.
ROLES = {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()} - {"app", "packages", "tls"}


def playbook(*arguments):
    command = ["ansible-playbook", "-i", "localhost,", "playbooks/deploy.yml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_each_role_and_each_of_its_phases_has_a_tag_of_its_name():
    phases = set()
    for role in ROLES:
        for task in yaml.safe_load((ROOT / f"roles/{role}/tasks/main.yml").read_text()):
            assert re.fullmatch(rf"{role}_(install|configure|activate)", task["tags"]), task
            included = task.get("ansible.builtin.include_tasks")  # whose tasks do not get its tags by themselves
            assert not included or included["apply"] == {"tags": task["tags"]}, task
            phases.add(task["tags"])
    assert deploy_tags(str(ROOT)) == sorted(ROLES | phases)


def test_the_tags_are_those_that_ansible_knows():
    known = re.findall(r"TASK TAGS: \[(.*)\]", playbook("--list-tags"))
    assert {tag for line in known for tag in line.split(", ") if tag} - SPECIAL == set(deploy_tags(str(ROOT)))


def test_a_tag_runs_its_role_and_what_every_deploy_runs():
    *_, services, place, activated, watched, after, smoke, finish = playbook("--list-tasks", "--tags=redis").split(
        "\n  play #"
    )
    roles = set(re.findall(r"^ +(\w+) : (?!Validating)", services, re.MULTILINE))
    assert roles == {"redis"}
    assert (
        "release : " not in place + activated + watched + after
        and "Test from outside" in smoke
        and "release the lock" in finish
    )


def test_valid_tags_have_no_problem():
    assert tag_problems(["all", "always", "redis", "nginx_configure"], str(ROOT)) == []


def test_what_molecule_skips_is_no_problem():
    config = SimpleNamespace(action="idempotence", debug=False)
    skipped = Ansible.default_options.fget(SimpleNamespace(_config=config))["skip-tags"].split(",")
    assert tag_problems(skipped, str(ROOT)) == [] and not set(skipped) & set(deploy_tags(str(ROOT)))


@pytest.mark.parametrize("tag, near", [("redsi", "redis"), ("nginx_config", "nginx_configure"), ("rabbitmq", "")])
def test_a_misspelt_tag_is_rejected_with_the_valid_ones(tag, near):
    (problem,) = tag_problems([tag], str(ROOT))
    assert problem.startswith(f"There is no tag {tag!r}.") and ", base, base_configure," in problem
    assert not near or f"Did you mean {near!r}?" in problem
