"""The history, as `make status` tells it."""

from deploy_state import deploys

BEGUN = {"event": "begun", "action": "deploy", "who": "anna@desk", "release": "r1"}


def entries(*events, lock=None):
    return deploys([{"when": 100, **event} for event in events], lock or {}, 10)


def test_deploy_that_ended_has_its_outcome_and_time():
    (entry,) = entries({**BEGUN, "deploy": "a"}, {"deploy": "a", "event": "ended", "when": 107, "outcome": "done"})
    assert (entry["who"], entry["release"], entry["outcome"], entry["seconds"]) == ("anna@desk", "r1", "done", 7)


def test_failed_deploy_has_its_reason():
    ended = {"deploy": "a", "event": "ended", "outcome": "failed", "reason": "one: Release checked"}
    assert entries({**BEGUN, "deploy": "a"}, ended)[0]["reason"] == "one: Release checked"


def test_deploy_without_an_end_did_not_finish_unless_it_has_the_lock():
    events = [{**BEGUN, "deploy": "a"}, {**BEGUN, "deploy": "b"}]
    assert [e["outcome"] for e in entries(*events, lock={"deploy": "b"})] == ["running, or cut off", "did not finish"]


def test_newest_comes_first_and_other_events_are_no_deploys():
    events = [
        {**BEGUN, "deploy": "a"},
        {"deploy": "a", "event": "activated", "release": "r1"},
        {**BEGUN, "deploy": "b"},
    ]
    assert [entry["deploy"] for entry in entries(*events)] == ["b", "a"]
