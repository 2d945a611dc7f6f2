"""What is said of the queues' messages, and which queues may leave the table."""

import json

import broker
import pytest
from ansible.module_utils import coldframe
from fake_systemd import FakeModule


def answer(**queues):
    """Print as redis-cli does; what a queue does not say is none."""
    none = {"waiting": 0, "taken": 0, "parked": {}, "letters": 0, "dead": {}}
    return "OK\nOK\n" + json.dumps({name: none | state for name, state in queues.items()})


def test_queues_that_are_served_and_hold_nothing_odd_need_no_word():
    assert broker.broker_lines(answer(a={"waiting": 900, "taken": 3}, gone={}), ["a"]) == []


def test_parked_tasks_and_dead_letters_are_named_the_most_frequent_first():
    parked = {f"task{n}": n for n in range(1, 8)}
    lines = broker.broker_lines(answer(a={"parked": parked, "letters": 120, "dead": {"x.y": 100}}), ["a"])
    assert " ".join(lines[0].split()) == (
        "a parked until a release has it: task7 (7), task6 (6), task5 (5), task4 (4), task3 (3) and 2 more"
    )
    assert " ".join(lines[1].split()) == "a 120 dead letters of tasks that no release has: x.y (100)"


def test_queue_in_no_table_is_told_with_what_it_holds():
    (line, _) = broker.broker_lines(answer(old={"waiting": 5, "taken": 1, "parked": {"x": 2, "y": 1}}), ["a"])
    assert "old" in line and "in no table" in line and "5 waiting, 1 taken by a worker, 3 parked" in line


@pytest.mark.parametrize("said", ["", "NOAUTH Authentication required.", "OK\nOK\nERR Error running script"])
def test_broker_that_does_not_answer_is_said_to_and_lets_no_queue_go(said):
    assert "the broker does not tell: " + (said.split("\n")[-1] or "no answer") in broker.broker_lines(said, ["a"])[0]
    assert "could not be asked" in broker.leaving_queue_problems(said, ["a"], [])[0]


def test_queue_that_leaves_with_messages_is_refused_with_the_way_out():
    state = answer(mail={"taken": 2}, images={"parked": {"x": 1}}, empty={}, stays={"waiting": 9})
    problems = broker.leaving_queue_problems(state, ["mail", "images", "empty"], [])
    assert len(problems) == 2 and "'mail'" in problems[0] and "2 taken by a worker" in problems[0]
    assert "1 parked" in problems[1] and "make deploy ALLOW_QUEUES=images" in problems[1]


def test_rollback_to_a_release_that_does_not_serve_a_queue_names_the_release():
    (problem,) = broker.leaving_queue_problems(answer(mail={"waiting": 3}), ["mail"], [], "0a1b2c")
    assert "release 0a1b2c" in problem and "3 waiting" in problem and "make rollback ALLOW_QUEUES=mail" in problem
    (problem,) = broker.leaving_queue_problems("", ["mail", "maps"], [], "0a1b2c")
    assert "mail, maps" in problem and "make rollback ALLOW_QUEUES=mail,maps" in problem


def test_queue_that_is_named_may_leave():
    state = answer(mail={"waiting": 2}, images={"waiting": 1})
    assert len(broker.leaving_queue_problems(state, ["mail", "images"], ["mail"])) == 1
    assert broker.leaving_queue_problems("", ["mail"], ["mail"]) == [], "then nobody is asked"
    (problem,) = broker.leaving_queue_problems(state, ["mail", "images"], "mailing,images")
    assert "'mail'" in problem, "a text is names with commas, and no part of a name is a name"


def test_script_is_one_line_that_redis_cli_reads_as_one_word():
    commands = broker.broker_commands(["a", "b"], "main", "AUTH admin secret\n", 3).splitlines()
    assert commands[:2] == ["AUTH admin secret", "SELECT 3"] and len(commands) == 3
    script, _, rest = commands[2].removeprefix('EVAL "').partition('"')
    assert rest == " 1 _kombu.binding.main a b" and "\\" not in script


def test_queues_of_a_release_are_those_that_it_has_workers_for(tmp_path):
    host = coldframe.Application(FakeModule(), "shop", tmp_path)
    assert host.queues() == []
    folder = tmp_path / "current/.release"
    folder.mkdir(parents=True)
    for name in ("worker-mail.env", "worker-a_b.env", "environment"):
        (folder / name).touch()
    assert host.queues() == ["a_b", "mail"]
    folder = tmp_path / "releases/before/.release"
    folder.mkdir(parents=True)
    (folder / "worker-old.env").touch()
    assert host.queues("before") == ["old"]
