"""What make queues refuses, and what it says that it will do, as Ansible evaluates its playbook without a host."""

import json

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from real_nginx import ROOT, of_roles

PLAY = yaml.safe_load((ROOT / "playbooks/queues.yml").read_text())[0]
TASKS = {task["name"]: task for task in PLAY["tasks"]}
NONE = {"waiting": 0, "taken": 0, "parked": {}, "letters": 0, "dead": {}}
STATE = {"bulk": NONE, "mail": NONE | {"waiting": 3, "parked": {"app.report": 2}}, "gone": NONE}


def trusted(variables):
    """Make templates of texts."""
    return {name: trust_as_template(text) if isinstance(text, str) else text for name, text in variables.items()}


@pytest.fixture
def evaluate():
    """Evaluate expressions and texts with the variables of the play, and with what the broker says."""
    of_roles("nginx")  # has Ansible find the filters

    def run(given, counted="", own=None):
        broker = {"status_broker": {"stdout": "OK\nOK\n" + json.dumps(STATE)}, "status_probes": {"stdout": ""}}
        host = {"a": broker | {"queues_counted": {"stdout": counted}}}
        known = {
            "app_broker_host": "a",
            "celery_queues": {"bulk": {}, "mail": {}},
            "hostvars": host,
            "app_name": "blog",
        }
        variables = trusted(PLAY["vars"]) | known | {f"queues_{name}": value for name, value in given.items()}
        return Templar(DataLoader(), variables=variables | trusted(own or {}))

    return run


def refused(evaluate, **given):
    """What the play says to a wrong request; empty to one that is right."""
    check, templar = TASKS["Check what is asked"]["ansible.builtin.assert"], evaluate(given)
    right = all(templar.evaluate_conditional(trust_as_template(each)) for each in check["that"])
    return "" if right else templar.template(trust_as_template(check["fail_msg"]))


@pytest.mark.parametrize(
    ("given", "counted", "plan"),
    [
        ({"pause": "bulk"}, "", "The workers of bulk will finish their tasks and stop."),
        ({"resume": "bulk"}, "", "The workers of bulk will start."),
        ({"retry": "gone"}, "OK\nOK\n4", "4 dead letters will be sent again (gone: 4)."),
        ({"purge": "app.report"}, "OK\nOK\n1\n0\n2", "3 messages of app.report will be deleted (bulk: 1, mail: 2)."),
        ({"purge": "app.report", "queue": "mail"}, "OK\nOK\n2", "2 messages of app.report will be deleted (mail: 2)."),
    ],
)
def test_what_will_be_done_is_said_with_its_numbers(evaluate, given, counted, plan):
    assert refused(evaluate, **given) == ""
    task = TASKS["Say what will be done"]
    said = evaluate(given, counted, task["vars"]).template(
        trust_as_template(task["ansible.builtin.set_fact"]["queues_plan"])
    )
    assert said.startswith(plan)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"retry": "no"}, "RETRY no: set one of PAUSE, RESUME and RETRY to a queue (bulk, gone, mail), or PURGE"),
        ({"pause": "gone"}, "PAUSE gone: set one of"),
        ({"pause": "bulk", "resume": "mail"}, "PAUSE and RESUME bulk and mail: set one of"),
        ({"purge": "app report"}, "PURGE app report: set one of"),
        ({"purge": "app.report", "queue": "no"}, "PURGE app.report QUEUE no: set one of"),
        ({"retry": "bulk", "queue": "mail"}, "RETRY bulk QUEUE mail: set one of"),
        ({"queue": "mail"}, "QUEUE mail: set one of"),
    ],
)
def test_what_is_wrong_is_refused_with_the_queues_that_there_are(evaluate, given, said):
    message = refused(evaluate, **given).strip()
    assert message.startswith(said) and message.endswith("Nothing was changed.")


def test_without_a_request_only_what_the_queues_hold_is_told(evaluate):
    assert refused(evaluate) == ""
    report = TASKS["Report"]
    lines = evaluate({}, "", report["vars"]).template(trust_as_template(report["ansible.builtin.debug"]["msg"]))
    assert " ".join(lines[2].split()) == "mail 3 waiting 0 taken 2 parked 0 dead letters"
    assert lines[-1].endswith("parked until a release has it: app.report (2)")
