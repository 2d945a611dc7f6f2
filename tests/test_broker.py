"""What is said of the queues' messages, and which queues may leave the table."""

import json

import broker
import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils import coldframe, coldframe_servers
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


@pytest.fixture
def redis(redis_socket):
    """Send commands to a Redis of this machine, as a playbook does."""
    client = coldframe_servers.Redis.behind(redis_socket)

    def send(commands):
        # Without an access list there is nobody to log in as.
        return coldframe_servers.conversation(client, commands.replace("LOGIN\n", "PING\n")).replace("PONG", "OK")

    yield send, client
    client.close()


def message(task, tag=""):
    """A message as kombu keeps it."""
    headers = {"task": task, "id": tag}
    return json.dumps({"body": "W10=", "headers": headers, "properties": {"delivery_tag": tag}})


def test_purge_removes_what_waits_and_is_parked_of_one_task(redis):
    send, client = redis
    client.ask("FLUSHALL")
    other = [message("app.mail", "app.report"), message("app.report.late"), "no JSON: app.report", '["app.report"]']
    kept = []
    for number in range(1500):
        for each in (message("app.report", str(number)), other[number % 4]):
            client.ask("LPUSH", "bulk", each)
        kept.insert(0, other[number % 4])
    client.ask("RPUSH", "unknown:bulk:app.report", "1 " + message("app.report"))
    client.ask("SADD", "unknown:bulk", "app.report", "app.mail")
    client.ask("LPUSH", "mail", message("app.report"))
    ask = broker.purge_commands(["bulk", "mail"], "app.report", "LOGIN\n")
    assert broker.broker_counts(send(ask), ["bulk", "mail"]) == {"bulk": 1501, "mail": 1}
    assert client.ask("LLEN", "bulk") == 3000, "it is only counted"
    do = broker.purge_commands(["bulk"], "app.report", "LOGIN\n", 0, True)
    assert broker.broker_counts(send(do), ["bulk"]) == {"bulk": 1501}
    assert client.ask("LRANGE", "bulk", "0", "-1") == kept
    assert client.ask("SMEMBERS", "unknown:bulk") == ["app.mail"]
    assert (client.ask("EXISTS", "unknown:bulk:app.report"), client.ask("LLEN", "mail")) == (0, 1)
    assert broker.broker_counts(send(do), ["bulk"]) == {"bulk": 0}


def test_dead_letters_go_behind_what_waits_the_oldest_first(redis):
    send, client = redis
    client.ask("FLUSHALL")
    client.ask("LPUSH", "bulk", "waits")
    for number in range(3):
        client.ask("LPUSH", "dead:bulk", f"170000000{number} {message('a b', str(number))}")
    assert broker.broker_counts(send(broker.retry_commands(["bulk"], "LOGIN\n")), ["bulk"]) == {"bulk": 3}
    assert client.ask("LLEN", "dead:bulk") == 3, "they are only counted"
    assert broker.broker_counts(send(broker.retry_commands(["bulk"], "LOGIN\n", 0, True)), ["bulk"]) == {"bulk": 3}
    taken = [client.ask("RPOP", "bulk") for _ in range(4)]
    assert taken == ["waits", *(message("a b", str(number)) for number in range(3))]
    assert client.ask("EXISTS", "dead:bulk") == 0


@pytest.mark.parametrize("said", ["", "NOAUTH Authentication required.", "OK\nOK\nNOPERM no", "OK\nOK\n1\n2"])
def test_a_broker_that_refuses_a_change_is_an_error(said):
    with pytest.raises(AnsibleFilterError, match="the broker refuses"):
        broker.broker_counts(said, ["bulk"])


def test_each_queue_has_a_line_and_is_known():
    state = answer(mail={"waiting": 12, "taken": 2, "parked": {"x": 3, "y": 1}, "letters": 5}, bulk={})
    lines = [" ".join(line.split()) for line in broker.queue_lines(state)]
    assert lines == [
        "bulk 0 waiting 0 taken 0 parked 0 dead letters",
        "mail 12 waiting 2 taken 4 parked 5 dead letters",
    ]
    assert broker.broker_queues(state) == ["bulk", "mail"]
    assert broker.queue_lines("NOAUTH x") == ["the broker does not tell: NOAUTH x"] and broker.broker_queues("") == []
