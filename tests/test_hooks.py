"""The commands of app_hooks run on one host of a deploy, and not for a release that runs already."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]
OLD, NEW = "0f1e2d3c4b5a", "3050226828af"  # pragma: allowlist secret

# In place of the module, which writes to the host's history.
DEPLOY_END = """
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({name: {} for name in ("app", "deploy", "outcome", "reason", "root")})
with Path(module.params["root"], "ended").open("a") as file:
    file.write(f"{module.params['deploy']} {module.params['outcome']}\\n")
module.exit_json(changed=False)
"""


@pytest.fixture
def hooks(tmp_path):
    """Run the step of a deploy on two hosts; return the exit code, what was printed and what was run."""
    manage = tmp_path / "manage"
    manage.write_text(f"#!/bin/sh\necho $@ >>{tmp_path}/ran\ncat {tmp_path}/status >&2 && exit 1\nexit 0\n")
    manage.chmod(0o755)
    (tmp_path / "library").mkdir()
    (tmp_path / "library/deploy_end.py").write_text(DEPLOY_END)
    play = {"hosts": "all", "gather_facts": False, "any_errors_fatal": True}
    play["vars_files"] = [str(ROOT / "roles/release/vars/main.yml")]
    step = {"ansible.builtin.import_tasks": str(ROOT / "roles/release/tasks/hooks.yml")}
    variables = {"release_hook": "after_activate", "release_hook_failed": "It stays."}
    (tmp_path / "play.yml").write_text(json.dumps([play | {"tasks": [step | {"vars": variables}]}]))

    def run(*arguments, current=(OLD, OLD), hooks=None, **variables):
        hosts = {
            f"one{number}": {"ansible_connection": "local", "release_begun": {"current": release, "deploy": "d1"}}
            for number, release in enumerate(current)
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        values = {"app_name": "library", "app_root": str(tmp_path), "release_id": NEW, "__release_manage": str(manage)}
        values["app_hooks"] = hooks if hooks is not None else {"after_activate": ["manage.py purge"]}
        command = ["ansible-playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.yml"]
        done = subprocess.run(
            [*command, "-e", json.dumps(values | variables), *arguments],
            cwd=ROOT,
            env=os.environ | PLAIN | {"ANSIBLE_STRATEGY": "linear"},
            capture_output=True,
            text=True,
            check=False,
        )
        file = tmp_path / "ran"
        ran = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return done.returncode, done.stdout + done.stderr, ran

    return run


def test_commands_run_on_one_host_with_the_new_release(hooks):
    code, said, ran = hooks()
    assert (code, ran) == (0, [f"--release {NEW} --module coldframe.release.hooks after_activate"]), said
    assert len(hooks(current=(NEW, OLD))[2]) == 1, "a host has it, another not yet"
    assert len(hooks(current=("", ""))[2]) == 1, "the first deploy"


def test_nothing_runs_for_a_release_that_runs_already_nor_in_a_dry_run_nor_without_commands(hooks):
    for arguments, options in (((), {"current": (NEW, NEW)}), (("--check",), {}), ((), {"hooks": {}})):
        code, said, ran = hooks(*arguments, **options)
        assert (code, ran) == (0, []), said


def test_failed_command_is_told_with_what_becomes_of_the_release(hooks, tmp_path):
    (tmp_path / "status").write_text("app_hooks.after_activate, 'manage.py purge', ended with the status 1.")
    code, said, ran = hooks()
    assert (
        code != 0 and len(ran) == 1 and "'manage.py purge', ended with the status 1." in said and "It stays." in said
    ), said
    assert (tmp_path / "ended").read_text().splitlines() == ["d1 failed"] * 2, "the locks of both are given back"
