"""A release is judged by what waits for its tasks: in a real Redis, in the tables and in Beat's schedule."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import broker_messages
import pytest
import waiting
from ansible.module_utils import coldframe_servers, coldframe_shapes
from ansible.module_utils.coldframe_shapes import misfit, parameters
from support.playbooks import PLAIN

ROOT = Path(__file__).parents[1]

NOTHING = {"messages": [], "unknown": [], "sampled": []}
STORED = {"messages": [], "held": 0, "read": 0}


def release(*functions, queues=("default",), schedule=None, entries=None, **tasks):
    """What a release says of its tasks: functions by their names, or names to functions."""
    named = {f"app.{each.__name__}": each for each in functions} | {f"app.{name}": each for name, each in tasks.items()}
    known = {
        name: {"queue": "default", "parameters": parameters(SimpleNamespace(run=each))} for name, each in named.items()
    }
    own = {"tasks": known, "queues": list(queues), "schedule": schedule or {}}
    return own | {"stored": STORED, "entries": entries or {}}


def waits(task, args=0, kwargs=(), **more):
    """A message that the broker holds."""
    own = {"task": f"app.{task}", "args": args, "kwargs": list(kwargs), "further": [], "unread": ""}
    return own | {"queue": "default", "place": "waiting", "count": 1} | more


def entry(task, args=0, kwargs=(), queue=""):
    """What Beat sends."""
    return {"task": f"app.{task}", "args": args, "kwargs": list(kwargs), "queue": queue}


def judged(coming, running, *messages, allowed=(), back_to="", **broker):
    """What refuses a deploy, as one text, and what is noted."""
    found = NOTHING | {"messages": list(messages)} | broker
    answer = waiting.task_judgement(coming, running, found, allowed, back_to)
    return "\n".join(answer["problems"]), "\n".join(answer["notes"])


def send(to):
    """A task."""


def mail(to, subject=""):
    """A task."""


def test_same_tasks_are_no_word():
    same = release(send, schedule={"nightly": entry("send", 1)}, entries={"hourly": entry("send", 0, ["to"])})
    assert judged(same, same, waits("send", 1)) == ("", "")


def test_removed_task_is_refused_with_each_place_where_it_waits_and_with_the_ways_out():
    running = release(send, mail)
    running["stored"] = {"messages": [waits("send", 1, count=4, queue="later")], "held": 4, "read": 4}
    messages = waits("send", 1, count=12), waits("send", 1, place="taken", count=2), waits("send", 1, place="parked")
    problem, notes = judged(release(mail), running, *messages, waits("mail", 1))
    assert "what waits for 1 task:" in problem and "app.mail" not in problem and notes == ""
    assert (
        "app.send is not in the new release, and waits: 12 in the queue default, 2 with a worker of default, "
        "1 parked for default, 4 stored for later until due."
    ) in problem
    assert "keep the old name as an alias" in problem and "make deploy ALLOW_TASKS='app.send'" in problem
    assert judged(release(mail), running, *messages, allowed=["app.send"])[0] == ""
    assert "Allowed: app.send is not in" in judged(release(mail), running, *messages, allowed="app.send")[1]


def test_what_the_application_keeps_is_judged_too_and_a_function_that_fails_is_a_note():
    running = release(send)
    running["kept"] = {"messages": [waits("send", 1, queue="", count=3), waits("send", 0, queue="")]}
    assert "app.send is not in the new release, and waits: 3 kept by the application." in judged(release(), running)[0]
    problem, notes = judged(release(send=lambda to, subject: 0), release(send) | running)
    assert "(missing a required argument: 'subject'): 3 kept by the application with 1 positional argument." in problem
    assert notes == "app.send: the running release cannot execute 1 message of it either."
    running["kept"] = {"error": "shop.outbox:stored failed with OSError: x"}
    wanted = "Tasks that the application keeps were not judged: shop.outbox:stored failed with OSError: x."
    assert judged(release(), running) == ("", wanted)


def test_task_that_is_removed_while_nothing_waits_may_go():
    assert judged(release(), release(send), waits("other")) != judged(release(), release(send))
    assert judged(release(), release(send)) == ("", "")


@pytest.mark.parametrize("new", ["letters.send", "app.sent"])
def test_new_name_is_guessed(new):
    coming = release()
    coming["tasks"][new] = {"queue": "default", "parameters": parameters(SimpleNamespace(run=send))}
    assert (
        f"app.send is not in the new release (renamed to {new}?)" in judged(coming, release(send), waits("send", 1))[0]
    )


def test_name_that_is_no_finding_is_refused_beside_those_that_are():
    problem, _ = judged(release(mail), release(send, mail), waits("send", 1), allowed="app.mail,app.snd")
    assert "release_allow_tasks has app.mail, app.snd, and nothing is wrong with them" in problem
    assert "(to be allowed: app.send)" in problem and "app.send is not in the new release" in problem
    assert "(to be allowed: none)" in judged(release(send), release(send), allowed=["app.send"])[0]


def test_task_that_changes_may_be_named_although_nothing_waits_any_more():
    assert judged(release(), release(send), allowed=["app.send"]) == ("", "")
    assert judged(release(send=mail), release(send), allowed=["app.send"]) == ("", "")


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "why"),
    [
        (lambda to: 0, 1, [], ""),
        (lambda to: 0, 0, ["to"], ""),
        (lambda to: 0, 0, [], "missing a required argument: 'to'"),
        (lambda to: 0, 2, [], "too many positional arguments"),
        (lambda to: 0, 1, ["to"], "multiple values for argument 'to'"),
        (lambda to: 0, 1, ["cc"], "got an unexpected keyword argument 'cc'"),
        (lambda to, /, cc=None: 0, 0, ["to"], "'to'"),
        (lambda to, /, **more: 0, 1, ["to"], ""),
        (lambda *to: 0, 9, [], ""),
        (lambda *to, cc: 0, 9, [], "'cc'"),
        (lambda **more: 0, 0, ["a", "b"], ""),
        (lambda **more: 0, 1, [], "too many positional arguments"),
        (lambda to, subject="": 0, 1, [], ""),
        (dict.fromkeys, None, [], ""),
    ],
)
def test_arguments_fit_as_python_calls(function, args, kwargs, why):
    told = misfit(json.loads(json.dumps(parameters(SimpleNamespace(run=function)))), args, kwargs)
    assert why in told and bool(why) == bool(told)


def test_bound_task_takes_no_self_and_what_python_cannot_tell_is_not_judged():
    class Task:
        def run(self, to):
            """A bound one."""

    assert misfit(parameters(Task()), 1, []) == "" and misfit(parameters(Task()), 2, [])
    assert parameters(SimpleNamespace(run=type)) is None and misfit(None, 3, ["x"]) == ""


def test_changed_parameters_are_refused_for_messages_that_do_not_fit_and_no_others():
    changed = {"mail": lambda to, text: 0}
    messages = waits("mail", 2, count=5), waits("mail", 1, ["subject"], count=3), waits("mail", 1, count=2)
    problem, _ = judged(release(**changed), release(mail), *messages)
    assert (
        "app.mail does not take the arguments of what waits (missing a required argument: 'text'): "
        "3 in the queue default with 1 positional argument and subject=, 2 in the queue default with 1 positional argument."
    ) in problem
    assert "5 in" not in problem and "ALLOW_TASKS='app.mail'" in problem


def test_what_the_running_release_cannot_execute_either_is_told_and_not_refused():
    running, coming = release(mail), release(mail, send)
    running["entries"] = {"old": entry("gone"), "odd": entry("mail", 9), "far": entry("mail", 1, queue="away")}
    problem, notes = judged(coming, running, waits("gone", place="parked", count=7), waits("mail", 0))
    assert problem == ""
    assert "app.gone: the running release cannot execute 7 messages of it either." in notes
    assert "app.mail: the running release cannot execute 1 message of it either." in notes
    problem, _ = judged(coming, running, waits("send", 2, place="parked"))
    assert "too many positional arguments" in problem, "it would leave its place, and fail"


def test_tasks_that_follow_a_message_are_judged_by_their_names():
    message = waits("mail", 1, further=["app.send", "celery.chord_unlock"], count=2)
    problem, _ = judged(release(mail), release(mail, send), message)
    assert "app.send is not in the new release, and waits: 2 to follow app.mail in the queue default." in problem


def test_entries_of_beat_that_point_at_nothing_are_refused():
    table = {
        "nightly": entry("send", 1),
        "weekly": entry("mail"),
        "far": entry("mail", 1, queue="bulk"),
        "own": entry("send"),
    }
    running = release(send, mail, queues=["default", "bulk"], entries=table)
    coming = release(
        mail, schedule={"own": entry("mail", 1), "typo": entry("mial", 1), "lost": entry("mail", 1, queue="no")}
    )
    problem, _ = judged(coming, running)
    for line in (
        "app.send: The periodic task 'nightly' of Beat's table sends it, and the new release does not have it.",
        "app.mail: The periodic task 'far' of Beat's table sends it to the queue 'bulk', which is not in celery_queues.",
        "app.mial: CELERY_BEAT_SCHEDULE['typo'] sends it, and the new release does not have it.",
        "app.mail: CELERY_BEAT_SCHEDULE['lost'] sends it to the queue 'no', which is not in celery_queues.",
    ):
        assert line in problem
    assert "'weekly'" not in problem, "it was as wrong before"
    assert "'own'" not in problem, "Beat writes the release's over it"
    assert judged(coming, running, allowed="app.send,app.mail,app.mial")[0] == ""


def test_rollback_is_told_and_goes_on():
    target, unknown = release(mail), {"error": "it was not asked"}
    problem, notes = judged(target, unknown, waits("send", 1, count=3), back_to="0a1b2c", allowed=["app.mail"])
    assert problem == "" and "Release 0a1b2c cannot execute what waits for 1 task. The rollback goes on" in notes
    assert "app.send is not in release 0a1b2c, and waits: 3 in the queue default." in notes
    assert judged(target, unknown, waits("mail", 1), back_to="0a1b2c") == ("", "")


def test_what_was_not_read_is_said():
    messages = [waits("mail", None, unread="is application/x-python-serialize, and not JSON", count=2)]
    broker = {
        "messages": messages,
        "unknown": [{"queue": "bulk", "place": "taken", "why": "is not JSON, so no message of Celery", "count": 1}],
        "sampled": [{"queue": "default", "place": "waiting", "held": 5000, "read": 1000}],
    }
    running = release(mail)
    running["stored"] = {"messages": [], "held": 2000, "read": 1000}
    problem, notes = judged(release(mail), running, **broker)
    assert problem == "" and notes.splitlines() == [
        "Of 5000 messages in the queue default 1000 were read.",
        "1 message with a worker of bulk: not judged, for it is not JSON, so no message of Celery.",
        "2 messages in the queue default: judged by the name of the task alone, for the body is application/x-python-serialize, and "
        "not JSON.",
        "Stored until they are due: of 2000 tasks the arguments of 1000 were read.",
    ]
    assert "app.mail is not in" in judged(release(), running, **broker)[0], "the name is known"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"rc": 1, "stderr": "/srv/x/bin/python: No module named coldframe.release.tasks"}, "an earlier Coldframe"),
        ({"rc": 1, "stderr": "Timeout (0:01:00)!\nThread 0x1"}, "in time"),
        ({"rc": 1, "stderr": "Traceback\nNameError: name 'x'"}, "NameError: name 'x'"),
        ({"rc": 2, "msg": "No such file or directory"}, "No such file"),
        ({"rc": 0, "stdout": "no JSON"}, "cannot be read"),
        ({"rc": 0, "stdout": "5"}, "cannot be read"),
        ({"skipped": True}, "was not asked"),
        ({}, "was not asked"),
    ],
)
def test_release_that_does_not_tell_its_tasks_stops_no_deploy(asked, error):
    found = waiting.task_registry(asked)
    assert list(found) == ["error"] and error in found["error"]
    coming = release(mail)
    del coming["stored"]
    problem, notes = judged(coming, found, waits("mail", 1))
    assert problem == "" and error in notes
    assert waiting.task_judgement(found, found, NOTHING, ["x"])["problems"] == []
    answer = waiting.task_judgement(release(mail), release(mail), {"msg": "the broker does not answer: x"}, [])
    assert answer == {
        "problems": [],
        "notes": ["The messages in the broker were not judged: the broker does not answer: x."],
    }


def test_release_says_its_tasks_as_json():
    told = {"tasks": {}, "queues": []}
    assert waiting.task_registry({"rc": 0, "stdout": json.dumps(told)}) == told


def test_module_and_runtime_have_one_reading():
    own = sys.modules["coldframe.release.shapes"].__file__ if "coldframe.release.shapes" in sys.modules else None
    path = Path(coldframe_shapes.__file__).resolve()
    assert path.parts[-4:] == ("runtime", "coldframe", "release", "shapes.py") and own in (None, str(path))


def message(task="app.mail", args=(), kwargs=None, embed=None, **other):
    """A message as kombu keeps it in Redis."""
    body = base64.b64encode(json.dumps([list(args), kwargs or {}, embed]).encode()).decode()
    own = {"body": body, "content-type": "application/json", "headers": {"task": task, "id": "1"}}
    return json.dumps(own | {"properties": {"body_encoding": "base64"}} | other)


@pytest.fixture
def read(redis_socket):
    """Read an empty Redis after commands; what was there must be there still."""
    client = coldframe_servers.Redis.behind(redis_socket)
    client.ask("FLUSHALL")

    def run(*commands, most=1000):
        for words in commands:
            client.ask(*words)
        keys = sorted(client.ask("KEYS", "*"))
        before = [client.ask("DUMP", key) for key in keys]
        reader = broker_messages.Reader(client, most)
        reader.read(["default"], "default")
        assert sorted(client.ask("KEYS", "*")) == keys and [client.ask("DUMP", key) for key in keys] == before
        return reader.result()

    yield run
    client.close()


def test_each_place_of_the_broker_is_read_and_nothing_is_taken(read):
    eta = {"headers": {"task": "app.late", "id": "2", "eta": "2030-01-01T00:00:00+00:00"}}
    found = read(
        (
            "LPUSH",
            "default",
            message(args=[1], kwargs={"b": 2, "a": "secret"}),
            message(args=[5], kwargs={"a": 1, "b": 1}),
        ),
        ("SADD", "_kombu.binding.default", "default\x06\x16\x06\x16default", "bulk\x06\x16\x06\x16bulk"),
        ("LPUSH", "bulk", message("app.bulk")),
        ("HSET", "unacked", "tag", json.dumps([json.loads(message(**eta)), "default", "bulk"])),
        ("SADD", "unknown:default", "app.gone"),
        ("RPUSH", "unknown:default:app.gone", "170000 " + message("app.gone", args=[1, 2])),
    )
    assert found["unknown"] == [] and found["sampled"] == []
    got = [(m["queue"], m["place"], m["task"], m["args"], m["kwargs"], m["count"]) for m in found["messages"]]
    assert got == [
        ("default", "waiting", "app.mail", 1, ["a", "b"], 2),
        ("default", "parked", "app.gone", 2, [], 1),
        ("bulk", "waiting", "app.bulk", 0, [], 1),
        ("bulk", "taken", "app.late", 0, [], 1),
    ]
    assert "secret" not in json.dumps(found)


def test_of_a_long_list_both_ends_are_read_and_that_is_said(read):
    old, new = [message("app.next") for _ in range(350)], [message("app.last") for _ in range(350)]
    tasks = [("HSET", "unacked", f"{n}", json.dumps([json.loads(message()), "", "default"])) for n in range(900)]
    found = read(("LPUSH", "default", *old, *[message("app.middle")] * 5000, *new), *tasks, most=600)
    got = {(m["task"], m["place"]): m["count"] for m in found["messages"]}
    assert got == {("app.next", "waiting"): 300, ("app.last", "waiting"): 300, ("app.mail", "taken"): 600}
    assert found["sampled"] == [
        {"queue": "default", "place": "waiting", "held": 5700, "read": 600},
        {"queue": "", "place": "taken", "held": 900, "read": 600},
    ]


def test_what_follows_is_found_in_chains_chords_and_callbacks(read):
    embed = {
        "callbacks": [{"task": "app.after"}],
        "errbacks": None,
        "chain": [{"task": "app.second"}, "odd", {"task": 5}],
        "chord": {"task": "app.end", "args": []},
    }
    (found,) = read(("LPUSH", "default", message(embed=embed)))["messages"]
    assert found["further"] == ["app.after", "app.end", "app.second"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("coldframe.purged", "is not JSON"),
        ("[1]", "is not JSON, so no message of Celery"),
        ("[" * 100000, "is not JSON"),
        (json.dumps({"body": "e30=", "headers": {}, "properties": {}}), "message protocol 1"),
        (json.dumps({"body": "e30=", "headers": None, "properties": None}), "message protocol 1"),
    ],
)
def test_message_without_a_task_is_counted_and_not_judged(read, text, why):
    found = read(("LPUSH", "default", text, text), ("HSET", "unacked", "a", text))
    assert found["messages"] == [] and {each["place"]: each["count"] for each in found["unknown"]} == {
        "waiting": 2,
        "taken": 1,
    }
    assert why in found["unknown"][0]["why"]


@pytest.mark.parametrize(
    "other",
    [
        {"content-type": "application/x-python-serialize", "body": "gAWVCg=="},
        {"headers": {"task": "app.mail", "compression": "application/x-gzip"}},
        {"body": base64.b64encode(b"no JSON").decode()},
        {"body": base64.b64encode(b'{"a": 1}').decode()},
        {"body": "no base64 %"},
        {"body": 5},
    ],
)
def test_message_whose_arguments_cannot_be_read_is_judged_by_its_name(read, other):
    (found,) = read(("LPUSH", "default", message(**other)))["messages"]
    assert (found["task"], found["args"]) == ("app.mail", None) and found["unread"].startswith("is ")


def test_login_that_is_refused_is_told(redis_socket):
    with pytest.raises(coldframe_servers.Failed, match=r"WRONGPASS|AUTH"):
        coldframe_servers.logged_in({"socket": redis_socket}, 'AUTH nobody "x"\n', 0)


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Variables
      ansible.builtin.import_role: {name: app, rolespec_validate: false}
    - name: Tasks
      ansible.builtin.import_role: {name: release, tasks_from: tasks.yml}
    - name: Problems
      ansible.builtin.copy: {content: "{{ __release_tasks | to_json }}", dest: "{{ said }}-{{ inventory_hostname }}"}
      check_mode: false
"""
# Two hosts that are this machine: the broker's, which is the first one, and that of the application.
INVENTORY = """
all:
  hosts: {data: , app: }
  vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  children: {redis: {hosts: {data: }}, web: {hosts: {app: }}, workers: {hosts: {app: }}, beat: {hosts: {app: }}}
"""


@pytest.fixture
def play(redis_socket, tmp_path):
    """Judge the tasks with the role's own tasks, with a program in place of manage.py; return what was found on both hosts."""
    client = coldframe_servers.Redis.behind(redis_socket)
    client.ask("FLUSHALL")
    client.ask("LPUSH", "default", message("app.send", [1]), message("app.mail", [1]))
    manage = tmp_path / "manage"
    manage.write_text(f'#!/bin/sh\n[ "$3 $4" = "--module coldframe.release.tasks" ] && cat "{tmp_path}/$2"\n')
    manage.chmod(0o755)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "hosts.yml").write_text(INVENTORY)

    def run(*options, **variables):
        states = {"data": {"current": "", "queues": [], "release_queues": {}}}
        states["app"] = {"current": "old", "queues": ["default"], "release_queues": {"new": ["default"]}}
        given = {
            "said": str(tmp_path / "said"),
            "app_name": "blog",
            "app_celery": "blog.celery:app",
            "app_settings_module": "blog.settings",
            "app_url": "https://blog.example.com",
            "app_state": "{{ states[inventory_hostname] }}",
            "states": states,
            "release_id": "new",
            "celery_queues": {"default": {}},
            "celery_default_queue": "default",
            "app_broker_server": {"socket": redis_socket},
            "app_broker_login": "SELECT 0\n",
            "app_broker_index": 0,
            "app_broker_host": "data",
            "__release_manage": str(manage),
        }
        (tmp_path / "variables.json").write_text(json.dumps(given | variables))
        command = [
            "ansible-playbook",
            "-i",
            tmp_path / "hosts.yml",
            tmp_path / "play.yml",
            "-e",
            f"@{tmp_path}/variables.json",
        ]
        done = subprocess.run(
            [*command, *options], cwd=ROOT, env=os.environ | PLAIN, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "changed=0" in done.stdout or "changed=1" in done.stdout, "the note of this test alone"
        return {name: json.loads((tmp_path / f"said-{name}").read_text()) for name in states}, done.stdout

    run.tell = lambda name, told: (tmp_path / name).write_text(json.dumps(told))
    yield run
    client.close()


def test_first_host_judges_for_all_in_a_dry_run_too(play):
    play.tell("old", release(send, mail))
    coming = release(mail)
    for options in ([], ["--check"]):
        found, _ = play(*options, release_checked={"tasks": coming})
        (problem,) = found["data"]["problems"]
        assert "app.send is not in the new release, and waits: 1 in the queue default." in problem
        assert found["app"] == {"problems": [], "notes": []}
    found, output = play(release_checked={"tasks": coming}, release_allow_tasks="app.send")
    assert found["data"]["problems"] == [] and "Allowed: app.send is not in the new release" in output


def test_release_that_is_on_the_host_is_asked_itself_and_a_rollback_goes_on(play):
    play.tell("old", release(send, mail))
    play.tell("new", release(mail))
    found, _ = play(release_tasks_placed=True)
    assert "app.send is not in the new release" in found["data"]["problems"][0]
    found, output = play(release_tasks_placed=True, release_action="rollback")
    assert (
        found["data"]["problems"] == []
        and "Release new cannot execute what waits for 1 task. The rollback goes on" in output
    )
    play.tell("new", "")
    found, output = play(release_tasks_placed=True, release_action="rollback")
    assert found["data"]["problems"] == [] and "What waits for tasks was not judged" in output


def test_first_deploy_and_one_of_the_same_release_ask_nobody(play):
    nothing = {"problems": [], "notes": []}
    assert play(release_id="old", release_checked={"tasks": release()})[0]["data"] == nothing


def test_broker_that_does_not_answer_stops_nothing(play, tmp_path):
    play.tell("old", release(mail))
    found, output = play(release_checked={"tasks": release(mail)}, app_broker_server={"socket": str(tmp_path / "none")})
    assert (
        found["data"]["problems"] == []
        and "The messages in the broker were not judged: the broker does not answer: No such" in output
    )
