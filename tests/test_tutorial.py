"""docs/your-app.md: its commands exist, and are all found by the scenario `tutorial`, which runs them word for word."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import newinventory
import pytest
from contract import celery_contract_lines
from queues import celery_queue_table
from support.tutorial import missing, plain, replaced, steps

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/your-app.md").read_text()
STEPS = steps(PAGE)
MAKEFILE = (ROOT / "Makefile").read_text()
PROGRAMS = {"cd", "curl", "echo", "git", "make", "ssh"}
ASSIGNMENT = re.compile(r"[A-Z_]+=")


def calls(command):
    """The programs of a command, each with its arguments: it may be a pipeline, and write to a file."""
    words = [word for word in shlex.split(command) if word != ">>"]
    parts = [[]]
    for word in words:
        if word == "|":
            parts.append([])
        elif parts[-1] or not ASSIGNMENT.match(word):
            parts[-1].append(word)
    return parts


def taken(target):
    """The words in capitals on which a target of the Makefile depends, itself and by what it refers to."""
    text = "\n".join(re.findall(rf"^{target}:.*\n(?:\t.*\n)*", MAKEFILE, re.MULTILINE))
    known = set()
    while new := set(re.findall(r"[A-Za-z_]+", text)) - known:
        known |= new
        text = "\n".join(
            line for name in new for line in re.findall(rf"^{name} *[:?]?= *(.*)$", MAKEFILE, re.MULTILINE)
        )
    return {name for name in known if name.isupper()} | {"ENV"} if known else set()


def problems(words):
    """What is wrong with a call of make."""
    target, *given = words[1:]
    known = taken(target)
    wrong = [word for word in given if word.partition("=")[0] not in known or "=" not in word]
    return [f"make {target} does not take {word}" for word in wrong] if known else [f"no target {target}"]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.line}-{step.command[:30]}")
def test_command_of_the_page_exists_and_takes_its_variables(step):
    for words in calls(step.command):
        assert words[0] in PROGRAMS
        assert words[0] != "make" or problems(words) == []


def test_commands_that_the_page_only_names_exist_too():
    named = [each for each in re.findall(r"`(make [^`]+)`", PAGE) if "..." not in each]
    assert named and [problem for each in named for problem in problems(shlex.split(each))] == []


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("make deploi ENV=production", ["no target deploi"]),
        (
            "make preflight ENV=production DOMAIN=www.example.com",
            ["make preflight does not take DOMAIN=www.example.com"],
        ),
        ("make new ENV=production SERVER=a", ["make new does not take SERVER=a"]),
        ("make ssh ENV=production HOST=a CMD='b c'", []),
        ("make deploy ENV=production DRY_RUN=1", []),
    ],
)
def test_command_that_does_not_exist_is_found(command, wrong):
    assert problems(shlex.split(command)) == wrong


def test_every_command_of_the_page_is_found():
    typed = re.compile(rf"^(?:{'|'.join(re.escape(each) for each in PROGRAMS)}|{ASSIGNMENT.pattern})")
    lines = PAGE.splitlines()
    assert [step.line for step in STEPS] == [number for number, line in enumerate(lines, 1) if typed.match(line)]
    assert [step.command for step in STEPS] == [lines[step.line - 1] for step in STEPS]
    shown = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert [line for step in STEPS for line in step.shown] == "".join(shown).splitlines()


def test_the_way_of_the_page_is_complete():
    """From a clone to a rollback, with what the next step needs."""
    targets = [words[1] for step in STEPS for words in calls(step.command) if words[0] == "make"]
    way = ["try", "new", "secrets", "preflight", "deploy", "status", "deploy", "rollback", "deploy", "try-down"]
    rest = iter(targets)
    assert all(target in rest for target in way), targets
    assert STEPS[0].command.startswith("git clone ")


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("# A\n\n    make deploy\n", "line 3: an indented block"),
        ("# A\n\n```\nmake deploy\n```\n", "line 3: a block of the kind ''"),
        ("# A\n\n```bash\nmake deploy\n```\n", "line 3: a block of the kind 'bash'"),
        ("# A\n\n```sh\nmake deploy\n", "line 3: a block that does not end"),
        ("# A\n\n```sh\nmake deploy\n```\n\n## B\n\n```text\ndone\n```\n", "line 9: an output, and no command"),
    ],
)
def test_block_that_would_be_passed_over_is_refused(page, told):
    with pytest.raises(ValueError, match=told):
        steps(page)


def test_output_is_that_of_the_last_command():
    first, second = steps("# A\n\n```sh\nmake deploy\nmake status\n```\n\nThen:\n\n```text\none\n\ntwo\n```\n")
    assert (first.command, first.shown, first.line) == ("make deploy", (), 4)
    assert (second.command, second.shown, second.heading) == ("make status", ("one", "two"), "A")


PRINTED = "ok: [server1] =>\n    msg: |-\n      server1: release 8c41f07d9be2 (previously none)\n        web active\nHTTP/1.1 200 OK\n"


@pytest.mark.parametrize(
    ("shown", "lacks"),
    [
        (("server1: release 3050226828af (previously none)", "web active"), ""),
        (
            ("web active", "server1: release 3050226828af (previously none)"),
            "server1: release 3050226828af (previously none)",
        ),
        (("server1: ... none)", "  web   active"), ""),
        (
            ("server1: release 3050226828af (previously 3050226828af)",),
            "server1: release 3050226828af (previously 3050226828af)",
        ),
        (("web",), "web"),
        (("HTTP/1.1 200 OK",), ""),
        (("HTTP/1.1 404 Not Found",), "HTTP/1.1 404 Not Found"),
        (("HTTP/1.1 201 OK",), "HTTP/1.1 201 OK"),
    ],
)
def test_line_that_is_not_printed_is_found(shown, lacks):
    assert missing(shown, PRINTED) == lacks


def test_what_differs_from_run_to_run_is_left_out():
    assert plain("  a@3050226828af  done in 95 s ") == plain("a@8c41f07d9be2 done in 7 s") != plain("a@b done in 7 s")


def command(target):
    """The first call of a target on the page."""
    return next(step for step in STEPS if step.command.startswith(f"make {target} "))


@pytest.mark.usefixtures("own_packages")
def test_page_shows_what_make_new_and_make_secrets_print(tmp_path):
    """On a host, the scenario shows the rest."""
    place = tmp_path / "production"
    values = {
        "inventories/production": str(place),
        "ENV=production": f"ENV={place}",
        ".vault/production": f"{place}/.vault_pass",
        "../mysite": str(ROOT / "molecule/adopt/projects/mysite"),
    }
    new, secrets = command("new"), command("secrets")
    words = shlex.split(replaced(new.command, values))[2:]
    printed = {new: newinventory.new(words, None)}
    done = subprocess.run(
        [sys.executable, ROOT / "bin/secrets", "make", place], capture_output=True, text=True, check=True
    )
    printed[secrets] = done.stdout
    for step, text in printed.items():
        assert missing(tuple(replaced(line, values) for line in step.shown), text) == ""
    found = tuple(line for line in command("try").shown if line.startswith("  app_") or line.startswith("  queue"))
    assert len(found) == 3 and missing(found, printed[new]) == ""


def test_page_shows_what_make_preflight_prints_of_the_queues():
    """The short account prints a list as lines."""
    lines = celery_contract_lines(celery_queue_table({"default": {}, "mail": {}}))
    assert command("preflight").shown == (lines[0],)
