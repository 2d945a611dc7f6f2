"""What fails is told once, at the end."""

import os
import subprocess
from pathlib import Path

import pytest
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]
PLAY = """
- hosts: localhost
  gather_facts: false
  connection: local
  tasks:
    - name: Outer
      block:
        - name: Inner
          block:
            - {{name: First, {first}}}
          rescue:
            - {{name: Second, ansible.builtin.fail: {{msg: "{{{{ ansible_failed_result.msg }}}}, that is why"}}}}
      rescue:
        - {{name: Last, ansible.builtin.fail: {{msg: "the end: {{{{ ansible_failed_result.msg }}}}"}}}}
"""
END = '"the end: {{ ansible_failed_result.msg }}"'


@pytest.fixture
def play(tmp_path):
    """Run a play; return what it prints."""

    def run(text, *arguments, filters="plugins/filter"):
        (tmp_path / "play.yml").write_text(text)
        command = ["ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), *arguments]
        environment = (
            os.environ
            | PLAIN
            | {
                "ANSIBLE_STRATEGY": "linear",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_FILTER_PLUGINS": str(filters),
            }
        )
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode
        return done.stdout + done.stderr

    return run


def test_a_failure_that_is_dealt_with_is_told_where_it_ends_the_run(play):
    said = play(PLAY.format(first="ansible.builtin.fail: {msg: it broke}"))
    assert said.count("it broke") == 1 and "fatal: [localhost]: FAILED!\nthe end: it broke, that is why\n" in said
    assert said.count("failed: [localhost]: see below") == 2 and "[ERROR]" not in said


@pytest.mark.parametrize("how", ["import_role", "include_role", "import_tasks", "include_tasks"])
def test_a_failure_of_a_role_or_a_file_is_dealt_with_too(play, tmp_path, how):
    (tmp_path / "roles/breaks/tasks").mkdir(parents=True)
    file = tmp_path / "roles/breaks/tasks/main.yml"
    file.write_text("- {name: Breaks, ansible.builtin.fail: {msg: it broke}}\n")
    what = "{name: breaks}" if "role" in how else f"{{file: {file}}}"
    head = "- hosts: localhost\n  gather_facts: false\n  connection: local\n  tasks:\n"
    block = f"    - block:\n        - ansible.builtin.{how}: {what}\n      rescue:\n        - ansible.builtin.fail: {{msg: {END}}}\n"
    said = play(head + block)
    assert said.count("it broke") == 1 and said.count("failed: [localhost]: see below") == 1


def test_a_refusal_is_told_once_and_a_command_with_all_that_it_said(play):
    head = "- hosts: localhost\n  gather_facts: false\n  connection: local\n  tasks:\n"
    said = play(f"{head}    - ansible.builtin.assert: {{that: false, fail_msg: set another value}}\n")
    assert said.count("set another value") == 1 and "fatal: [localhost]: FAILED!" in said
    said = play(f"{head}    - ansible.builtin.command: ls /nowhere\n")
    assert said.count("No such file") == 1 and "fatal: [localhost]: FAILED!" in said


GONE = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - {{ansible.builtin.command: "true", changed_when: {changed}}}
    - {{ansible.builtin.command: "true", delegate_to: localhost}}
- hosts: all
  gather_facts: false
  connection: ansible.builtin.ssh
  vars: {{ansible_ssh_executable: {ssh}, ansible_host: 192.0.2.7}}
  tasks:
    - {{name: Ask, ansible.builtin.command: "true"}}
"""


@pytest.mark.parametrize(
    ("changed", "told"),
    [("false", "Nothing was changed. Run"), ("true", "Something was changed before on localhost. Run")],
)
def test_a_lost_connection_is_told_in_words_with_what_was_changed_before(play, tmp_path, changed, told):
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'ssh: connect to host 192.0.2.7 port 22: Connection timed out' >&2\nexit 255\n")
    ssh.chmod(0o755)
    said = play(GONE.format(changed=changed, ssh=ssh))
    assert said.count("Connection timed out") == 1 and "fatal: [localhost]: UNREACHABLE\n" in said, said
    assert f"{told} the command again." in said and "make doctor" in said
    assert not any(word in said for word in ("[ERROR]", "Origin:", "=> ", "Task failed"))
    assert "=> " in play(GONE.format(changed=changed, ssh=ssh), "-v"), "all of it"


def test_what_a_command_said_is_not_told_in_several_forms(play):
    head = "- hosts: localhost\n  gather_facts: false\n  connection: local\n  tasks:\n"
    text = f"{head}    - ansible.builtin.command: sh -c 'echo it broke >&2; exit 3'\n"
    said = play(text)
    assert "stderr: it broke" in said and "rc: 3" in said
    assert not any(word in said for word in ("<omitted>", "_lines", "delta:", "start:", "stdout:")), said
    assert "stderr_lines" in play(text, "-v")
    looped = f"{head}    - {{ansible.builtin.command: ls /nowhere, loop: [1]}}\n"
    said = play(looped)
    assert "No such file" in said and "_lines" not in said


def test_filters_are_loaded_once_and_not_for_each_task(play, tmp_path):
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins/counts.py").write_text(
        f"open({str(tmp_path / 'loaded')!r}, 'a').write('.')\n"
        "class FilterModule:\n    def filters(self):\n        return {'same': lambda value: value}\n"
    )
    debug = '    - ansible.builtin.debug: {msg: "{{ 1 | same }}"}\n'
    head = "- hosts: localhost\n  gather_facts: false\n  connection: local\n  tasks:\n"
    play(head + 3 * debug + f"    - ansible.builtin.fail: {{msg: {END}}}\n", filters=tmp_path / "filter_plugins")
    assert (tmp_path / "loaded").read_text() == "."
