"""What fails is told once, at the end. The short account has a line for each play, and what was changed."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
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
    # It takes what Ansible sends, or else Ansible may find that it cannot send it before it hears why.
    ssh.write_text(
        "#!/bin/sh\n[ ! -p /dev/stdin ] || cat >/dev/null\necho 'ssh: connect to host 192.0.2.7 port 22: Connection timed out' >&2\nexit 255\n"
    )
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


SHORT = """
- name: First
  hosts: all
  connection: local
  gather_facts: false
  tasks:
    - {name: "tools : Change this", ansible.builtin.command: "true"}
    - {name: Change one, ansible.builtin.command: "true", when: inventory_hostname == "a"}
    - {name: Read, ansible.builtin.command: echo secret-free, changed_when: false}
    - {name: Try, ansible.builtin.command: ls /nowhere, ignore_errors: true}
    - {name: Say, ansible.builtin.debug: {msg: "one\\ntwo"}}
- name: For nobody
  hosts: nobody
  tasks: []
- name: Last
  hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Block
      block: [{name: Break, ansible.builtin.command: "ls /nowhere{{ inventory_hostname }}"}]
      rescue:
        - {name: Tell, LAST}
"""


def short(tmp_path, text, *arguments, **options):
    """Run a play on two hosts with the short account."""
    (tmp_path / "play.yml").write_text(text)
    own = {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_STDOUT_CALLBACK": "coldframe_short", "TERM": "xterm", "COLUMNS": "90"}
    return subprocess.run(
        ["ansible-playbook", "-i", "a,b,", str(tmp_path / "play.yml"), *arguments],
        cwd=ROOT,
        env=os.environ | PLAIN | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")} | own,
        text=True,
        check=False,
        **({"capture_output": True} | options if "stdout" not in options else options),
    )


def timeless(text):
    """Leave out seconds."""
    return re.sub(r" +[0-9.]+ s\b", " N s", text)


def test_short_account_has_a_line_for_each_play_and_what_failed_last(tmp_path):
    # One fork: what `debug` says is printed as it comes.
    done = short(tmp_path, SHORT.replace("LAST", "ansible.builtin.fail: {msg: it broke}"), "--forks=1")
    assert done.returncode == 2
    assert timeless(done.stdout).splitlines() == [
        "a:",
        "one",
        "two",
        "b:",
        "one",
        "two",
        "First N s",
        "  a: Change this; Change one",
        "  b: Change this",
        "Last N s",
        "Tasks that changed something: a 2, b 1. N s in all.",
        "",
        "FAILED on a, b",
        "it broke",
        "",
        "Every task is shown with VERBOSE=1.",
    ]


def test_short_account_tells_what_a_command_said_and_which_items_failed(tmp_path):
    done = short(tmp_path, SHORT.replace("LAST", "ansible.builtin.command: ls /nowhere"))
    assert "FAILED on a, b\nTell:\nls /nowhere ended with 2:\nls: " in done.stdout
    assert "FAILED on a\nBreak:\nls /nowherea ended with 2:\nls: " in done.stdout, "what the rescue was for"
    loop = "ansible.builtin.command: 'ls {{ item }}', loop: [/, /one, /two]"
    said = short(tmp_path, SHORT.replace("LAST", loop)).stdout
    assert "FAILED on a, b\nTell:\n/one: ls /one ended with 2:" in said and "/two: ls /two ended with 2:" in said


def test_short_account_says_why_hosts_failed_when_it_is_cut_off(tmp_path):
    text = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - {name: Look, ansible.builtin.command: ls /nowhere, when: inventory_hostname == 'a'}
    - {name: Wait, ansible.builtin.command: "sh -c 'touch FILE; sleep 600'"}
"""
    file = tmp_path / "waits"
    log = (tmp_path / "log").open("w")
    (tmp_path / "play.yml").write_text(text.replace("FILE", str(file)))
    own = {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_STDOUT_CALLBACK": "coldframe_short"}
    command = ["ansible-playbook", "-i", "a,b,", str(tmp_path / "play.yml")]
    environment = os.environ | PLAIN | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")} | own
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True) as run:
        try:
            until = time.monotonic() + 60
            while not file.exists():
                assert time.monotonic() < until and run.poll() is None
                time.sleep(0.1)
            os.killpg(run.pid, signal.SIGINT)
            run.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    assert "FAILED on a\nLook:\nls /nowhere ended with 2:\n" in (tmp_path / "log").read_text()


def test_short_account_says_all_that_a_command_said(tmp_path):
    command = "sh -c 'echo the reason; echo a warning >&2; exit 3'"
    play = f'- {{hosts: a, connection: local, gather_facts: false, tasks: [{{name: Say, ansible.builtin.command: "{command}"}}]}}'
    said = short(tmp_path, play).stdout
    assert "FAILED on a\nSay:\n" in said and " ended with 3:\nthe reason\na warning\n" in said


def test_short_account_with_v_is_the_long_one(tmp_path):
    done = short(tmp_path, SHORT.replace("LAST", "ansible.builtin.fail: {msg: it broke}"), "-v")
    assert "TASK [Read]" in done.stdout and "PLAY RECAP" in done.stdout and "secret-free" in done.stdout


def test_dry_run_shows_differences_with_their_task_and_host(tmp_path):
    copy = f"ansible.builtin.copy: {{dest: {tmp_path}/new, content: hello}}"
    text = f"- {{name: One, hosts: a, connection: local, gather_facts: false, tasks: [{{name: Write, {copy}}}]}}"
    done = short(tmp_path, text, "--check", "--diff")
    assert "Write, a:\n--- before\n+++ after: " in done.stdout and "+hello" in done.stdout
    assert not (tmp_path / "new").exists() and "  a: Write\n" in done.stdout


LONG = """
- name: Slow
  hosts: a
  connection: local
  gather_facts: false
  tasks: [{name: "x : Sleep", ansible.builtin.command: sleep 13, changed_when: false}]
"""


def test_long_task_is_said_to_run_still(tmp_path):
    assert re.match(r"  Sleep: 1\d s and still running\nSlow ", short(tmp_path, LONG).stdout)


def test_in_a_terminal_the_last_line_says_which_task_runs_and_goes_again(tmp_path):
    main, other = pty.openpty()
    done = short(tmp_path, LONG.replace("sleep 13", "sleep 5"), stdout=other, stderr=other)
    os.close(other)
    said = os.read(main, 100000).decode()
    assert done.returncode == 0
    # A machine that is busy may skip a second.
    assert re.match(r"(\r\x1b\[K  Sleep, [1-9] s)+\r\x1b\[KSlow ", said), said
    assert "still running" not in said


TELLS = """
- name: Tells
  hosts: all
  connection: local
  gather_facts: false
  vars: {lines: [first line, second line], facts: {city: Ghent}}
  tasks:
    - {ansible.builtin.debug: {msg: "{{ lines }}"}, run_once: true}
    - {ansible.builtin.debug: {msg: "{{ facts }}"}, when: inventory_hostname == "a"}
    - {ansible.builtin.debug: {var: facts.city}, when: inventory_hostname == "a"}
    - {ansible.builtin.debug: {msg: "{{ [item] }}"}, loop: [each], run_once: true}
"""


def test_short_account_tells_lists_mappings_and_variables_too(tmp_path):
    said = short(tmp_path, TELLS).stdout
    lines = [line.strip() for line in said.splitlines()]
    told = ["first line", "second line", "a:", "msg:", "city: Ghent", "a: facts.city: Ghent", "each"]
    assert lines[: len(told)] == told, said


UNTOLD = """
- name: Breaks
  hosts: a
  connection: local
  gather_facts: false
  tasks:
    - block: [{name: Break, ansible.builtin.fail: {msg: it broke first}}]
      rescue: [{name: Mend, ansible.builtin.command: ls /nowhere}]
"""


def test_short_account_tells_the_reason_too_if_what_deals_with_it_fails(tmp_path):
    said = short(tmp_path, UNTOLD).stdout
    assert said.index("FAILED on a\nit broke first") < said.index("FAILED on a\nMend:\nls /nowhere ended with 2")


ASKS = """
- {name: Before, hosts: a, connection: local, gather_facts: false, tasks: [{name: Look, ansible.builtin.debug: {msg: hello}}]}
- name: Asks
  hosts: a
  connection: local
  gather_facts: false
  vars_prompt: [{name: sure, prompt: "Sure", private: false}]
  tasks: [{ansible.builtin.debug: {msg: "you said {{ sure }}"}}]
"""


def test_question_has_its_line_for_itself(tmp_path):
    (tmp_path / "play.yml").write_text(ASKS)
    main, other = pty.openpty()
    environment = os.environ | PLAIN | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TERM": "xterm"}
    environment |= {"ANSIBLE_STRATEGY": "linear", "ANSIBLE_STDOUT_CALLBACK": "coldframe_short"}
    command = ["ansible-playbook", "-i", "a,", str(tmp_path / "play.yml")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=other, stdout=other, stderr=other, start_new_session=True
    )
    os.close(other)
    said = b""
    while b"Sure" not in said:
        said += os.read(main, 10000)
    time.sleep(3)  # in which nothing may be written
    ready, _, _ = select.select([main], [], [], 0)
    waited = os.read(main, 10000) if ready else b""
    os.write(main, b"yes\n")
    with contextlib.suppress(OSError):  # the end
        while more := os.read(main, 10000):
            said += more
    assert process.wait(30) == 0 and b"Look" not in waited and b"you said yes" in said, (waited, said)
