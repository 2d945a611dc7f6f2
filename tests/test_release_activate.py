"""The order in which a release becomes the running one, and what stays when it cannot."""

import sys

import pytest
import release_activate
from ansible.module_utils import coldframe
from fake_systemd import Failure, FakeModule, place
from release_activate import Activation

PARTS = ["web", "worker-default", "beat"]


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in ("UNITS", "STATE", "CREDENTIALS", "MARKS"):
        monkeypatch.setattr(coldframe, name, tmp_path / name)
        (tmp_path / name).mkdir()
    for release in ("r1", "r2", "r3"):
        place(tmp_path, release, *PARTS)
    return coldframe.Application(FakeModule(), "shop", tmp_path)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes where it is waited for."""
    now = [0.0]
    monkeypatch.setattr(release_activate.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(release_activate.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return lambda: now[0]


def activate(host, release, parts=PARTS, back=False):
    host.module.calls.clear()
    activation = Activation(host, release, parts, back)
    activation.run()
    return activation


def active(host):
    return sorted(u for u, s in host.module.states.items() if s == "active" and "@" in u)


def test_first_release_listens_runs_and_starts_at_boot(host, tmp_path):
    activate(host, "r1")
    assert active(host) == ["shop-beat@r1.service", "shop-web@r1.service", "shop-worker-default@r1.service"]
    assert host.current == "r1" and host.enabled() == set(active(host))
    assert host.module.states["shop-web.socket"] == "active" and host.module.states["shop.target"] == "active"
    assert "Service=shop-web@r1.service" in (tmp_path / "UNITS/shop-web.socket.d/release.conf").read_text()
    assert (tmp_path / "UNITS/shop-web@r1.service").read_text() == "web of r1\n"


def test_second_time_there_is_nothing_to_do(host):
    activate(host, "r1")
    assert not Activation(host, "r1", PARTS).changes()


def test_new_units_are_ready_before_an_old_one_is_asked_to_stop(host):
    activate(host, "r1")
    activate(host, "r2")
    calls = host.module.calls
    start = max(calls.index(("start", f"shop-{part}@r2.service")) for part in ("web", "worker-default"))
    stop = next(i for i, call in enumerate(calls) if call[0] == "stop" and "shop-web@r1.service" in call)
    assert start < stop
    assert host.module.states["shop-web@r1.service"] == "deactivating", "stopped without waiting"
    assert host.enabled() == {f"shop-{part}@r2.service" for part in PARTS} and host.current == "r2"


@pytest.mark.parametrize(("back", "order"), [(False, ["worker-default", "web"]), (True, ["web", "worker-default"])])
def test_what_sends_tasks_runs_beside_workers_that_know_them(host, back, order):
    activate(host, "r1")
    activate(host, "r2", back=back)
    calls = host.module.calls
    assert [call for call in calls if call[0] == "start"][:2] == [
        ("start", f"shop-{part}@r2.service") for part in order
    ]
    stopped = [("stop", f"shop-{part}@r1.service") for part in ("web", "worker-default")]
    assert [call for call in calls if call in stopped] == stopped, "the old web first"


def test_old_workers_go_on_while_they_get_tasks_that_the_new_ones_do_not_know(host):
    activate(host, "r1")
    ends = iter(["deactivating", "deactivating"] + ["inactive"] * 9)
    says = iter(["consuming, returning a.b"] * 3 + ["consuming"] * 9)
    asked, run = [], host.module.run_command

    def systemctl(arguments):
        verb = arguments[1]
        if verb in ("list-units", "show"):
            asked.append((verb, host.module.states.get("shop-worker-default@r1.service")))
        if verb == "list-units" and host.module.states.get("shop-web@r1.service") == "deactivating":
            host.module.states["shop-web@r1.service"] = next(ends)
        if verb == "show" and "r1" in arguments[-1]:
            host.module.doing["shop-worker-default@r1.service"] = next(says)
        return run(arguments)

    host.module.run_command = systemctl
    activate(host, "r2")
    assert [verb for verb, _ in asked].count("show") == 5, "the old worker four times, then the new one"
    assert {state for _, state in asked} == {"active"}
    assert host.module.states["shop-worker-default@r1.service"] == "deactivating"


def test_they_are_not_waited_for_for_ever(host, clock):
    activate(host, "r1")
    host.module.doing["shop-worker-default@r2.service"] = "consuming, parking a.b"
    activate(host, "r2")  # whose old web never ends, either
    assert 30 <= clock() < 32
    assert host.module.states["shop-worker-default@r1.service"] == "deactivating"


@pytest.mark.parametrize("job", ["restart", "start", None])
def test_old_unit_that_comes_back_on_its_own_is_asked_to_stop(host, job):
    activate(host, "r1")
    worker = "shop-worker-default@r1.service"
    host.module.states[worker] = "deactivating"  # the watchdog's doing, or `systemctl restart`
    if job:
        host.module.jobs[worker] = job
    assert activate(host, "r2").to_stop.count(worker) == 1
    assert host.module.calls.count(("stop", worker)) == 1
    assert not Activation(host, "r2", PARTS).changes(), "what was asked to stop is gone"
    del host.module.jobs[worker]
    assert Activation(host, "r2", PARTS).to_stop == [worker], "somebody had it restarted afterwards"
    assert not host.as_wanted("r2", PARTS)


def test_unit_of_the_release_itself_that_is_being_restarted_is_replaced_by_one_beside_it(host):
    activate(host, "r1")
    host.module.states["shop-worker-default@r1.service"] = "deactivating"
    activation = activate(host, "r1")
    assert activation.to_start == ["shop-worker-default@r1:2.service"]
    assert activation.to_stop == ["shop-worker-default@r1.service"]


def test_release_that_drains_is_gone_back_to_beside_itself(host, tmp_path):
    worker, beside = "shop-worker-default@r1.service", "shop-worker-default@r1:2.service"
    activate(host, "r1")
    activate(host, "r2")
    assert host.module.states[worker] == host.module.states["shop-web@r1.service"] == "deactivating"
    activate(host, "r1")
    assert host.module.states[worker] == "deactivating", "it goes on with its last tasks"
    assert active(host) == ["shop-beat@r1.service", "shop-web@r1:2.service", beside]
    assert host.enabled() == set(active(host)) and host.current == "r1"
    assert "Service=shop-web@r1:2.service" in (tmp_path / "UNITS/shop-web.socket.d/release.conf").read_text()
    host.module.states[worker] = "inactive"
    assert not Activation(host, "r1", PARTS).changes(), "the one beside is as good as the first"
    activate(host, "r2")
    assert host.module.states[beside] == "deactivating"
    host.note("d1", "activated", release="r2", parts=PARTS)
    place(tmp_path, "r0")
    assert not [path for path in host.prunable(1) if "r1" in str(path)], "it drains still"


def test_units_name_their_release_whatever_the_instance(host, tmp_path):
    (tmp_path / "releases/r1/.release/units/worker-default.service").write_text("@RELEASE@ runs as %I, once %i")
    host.module.states["shop-worker-default@r1.service"] = "deactivating"
    activate(host, "r1", ["worker-default"])
    assert (tmp_path / "UNITS/shop-worker-default@r1:2.service").read_text() == "r1 runs as %I, once r1"


def test_beat_that_only_ends_is_awaited(host):
    activate(host, "r1")
    activate(host, "r2")
    host.module.states["shop-beat@r1.service"] = "deactivating"
    activate(host, "r3")
    calls = host.module.calls
    stop = next(i for i, call in enumerate(calls) if call[0] == "stop" and "shop-beat@r1.service" in call)
    assert stop < calls.index(("start", "shop-beat@r3.service"))


def test_two_beats_never_run(host):
    activate(host, "r1")
    activate(host, "r2")
    calls = host.module.calls
    assert calls.index(("stop", "shop-beat@r1.service")) < calls.index(("start", "shop-beat@r2.service"))
    assert not any(
        "shop-beat@r2.service" in call
        for call in calls[: calls.index(("stop", "shop-beat@r1.service"))]
        if call[0] == "start"
    )


@pytest.mark.parametrize("broken", PARTS)
def test_unit_that_does_not_start_leaves_the_old_release_as_it_was(host, tmp_path, broken):
    activate(host, "r1")
    before, pointer = active(host), (tmp_path / "UNITS/shop-web.socket.d/release.conf").read_text()
    host.module.broken = {f"shop-{broken}@r2.service"}
    with pytest.raises(Failure) as failure:
        activate(host, "r2")
    assert f"shop-{broken}@r2.service:\njournal of --unit=shop-{broken}@r2.service" in str(failure.value)
    assert "r1 was left running" in str(failure.value)
    assert active(host) == before and host.current == "r1" and host.enabled() == set(before)
    assert (tmp_path / "UNITS/shop-web.socket.d/release.conf").read_text() == pointer
    assert not any(call[0] == "stop" and "shop-web@r1.service" in call for call in host.module.calls)


def test_unit_that_was_stopped_by_hand_is_a_difference(host):
    activate(host, "r1")
    host.module.states["shop-worker-default@r1.service"] = "inactive"
    activation = Activation(host, "r1", PARTS)
    assert activation.changes() and activation.to_start == ["shop-worker-default@r1.service"]
    assert activation.difference()["before"]["running"] == ["shop-beat@r1.service", "shop-web@r1.service"]


def test_rollback_runs_the_parts_that_the_release_ran_with(host):
    host.note("d1", "activated", release="r1", parts=["web"])
    asked = {"web": True, "queues": ["default"], "beat": True, "processes": []}
    assert host.parts("r1", as_before=True, **asked) == ["web"]
    assert host.parts("r1", as_before=False, **asked) == PARTS
    assert host.parts("r2", as_before=True, **asked) == PARTS, "it never ran here"


def test_previous_is_the_release_that_ran_before_and_is_still_whole(host, tmp_path):
    for deploy, release in (("d1", "r1"), ("d2", "r2"), ("d3", "r3")):
        activate(host, release)
        host.note(deploy, "activated", release=release, parts=PARTS)
    assert host.previous() == "r2"
    (tmp_path / "releases/r2/.release/ready").unlink()
    assert host.previous() == "r1"


def test_release_with_an_environment_for_another_python_is_no_longer_one_to_go_back_to(host, tmp_path):
    mine = "python{}.{}".format(*sys.version_info)
    for release, library in (("r1", "python3.9"), ("r2", mine)):
        (tmp_path / "releases" / release / ".venv/lib" / library).mkdir(parents=True)
    for release in ("r1", "r2", "r3"):
        (tmp_path / "releases" / release / ".release/ready").touch()
    assert set(host.releases()) == {"r2", "r3"}
    (tmp_path / "releases/r1/.venv/pyvenv.cfg").write_text("home = /opt/python3.9/bin\nversion_info = 3.9.2\n")
    assert set(host.releases()) == {"r2", "r3"}, "it is gone"
    (tmp_path / "releases/r1/.venv/bin").mkdir()
    (tmp_path / "releases/r1/.venv/bin/python").symlink_to(sys.executable)
    assert set(host.releases()) == {"r1", "r2", "r3"}
    (tmp_path / "releases/r1/.venv/pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.9.2\n")
    assert set(host.releases()) == {"r2", "r3"}, "Debian's is another one now"


@pytest.mark.parametrize(
    "made, link, right",
    [("venvs/a-3.13", "venvs/a-3.13", True), ("venvs/a-3.11", "venvs/a-3.11", False), ("", "venvs/a-3.13", False)],
)
def test_release_is_in_place_with_the_environment_that_it_shall_have(tmp_path, made, link, right):
    host = coldframe.Application(FakeModule(), "shop", tmp_path)
    if made:
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / made / ".lock-sha256").touch()
    (tmp_path / "releases/r1").mkdir(parents=True)
    (tmp_path / "releases/r1/.venv").symlink_to(tmp_path / link)
    assert host.in_place("r1", str(tmp_path / "venvs/a-3.13")) is right
    assert host.in_place("r1", ""), "a rollback asks for none"
    assert not host.in_place("r2", str(tmp_path / "venvs/a-3.13"))


def deployed(host, outcome="done"):
    """Note a deploy of r1 whose inputs have the digest `d`, and end it."""
    left = {"digest": "d", "converged": "c", "release": "r1", "parts": PARTS, "venv": ""}
    assert host.take_lock({"deploy": "a", "converged": "c", "inputs": left})
    host.finish("a", outcome)


def test_inputs_of_the_last_deploy_are_told_while_the_host_is_as_it_left_it(host):
    activate(host, "r1")
    assert host.inputs() == ""
    deployed(host, "failed")
    assert host.inputs() == ""
    deployed(host)
    assert host.inputs() == "d"
    host.module.states["shop-web@r1.service"] = "inactive"
    assert host.inputs() == ""
    host.module.states["shop-web@r1.service"] = "active"
    assert host.inputs() == "d"
    host.marks.mkdir(parents=True)
    (host.marks / "paused-bulk").touch()
    assert host.inputs() == ""
    (host.marks / "paused-bulk").unlink()
    host.stamp_file.write_text("another deploy's")
    assert host.inputs() == ""
    host.stamp_file.write_text("c")
    assert host.inputs() == "d"
    activate(host, "r2")
    assert host.inputs() == ""


def test_pruning_keeps_what_runs_drains_and_may_be_gone_back_to(host, tmp_path):
    for number, release in enumerate(["r1", "r2", "r3"]):
        (tmp_path / "venvs" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / ".venv").symlink_to(tmp_path / "venvs" / release)
        (tmp_path / "CREDENTIALS/shop" / release).mkdir(parents=True)
        activate(host, release)
        host.note(f"d{number}", "activated", release=release, parts=PARTS)
    place(tmp_path, "never-ran")
    gone = {str(p.relative_to(tmp_path)) for p in host.prunable(1)}
    assert gone == {"releases/never-ran"}, "r1 drains still, r2 is the one before"
    assert host.prunable(1, "never-ran") == [], "a dry run would make it the current one"
    for part in PARTS:
        host.module.states[f"shop-{part}@r1.service"] = "inactive"
        host.module.states[f"shop-{part}@r2.service"] = "inactive"
    gone = {str(p.relative_to(tmp_path)) for p in host.prunable(1)}
    assert gone == {"releases/never-ran", "releases/r1", "venvs/r1", "CREDENTIALS/shop/r1"} | {
        f"UNITS/shop-{part}@r1.service" for part in PARTS
    }
    (tmp_path / "releases/r3/.venv").unlink()
    (tmp_path / "releases/r3/.venv").symlink_to(tmp_path / "venvs/r1")
    assert tmp_path / "venvs/r1" not in host.prunable(1), "another release uses that environment"


def test_lock_is_one_deploys_alone(host):
    assert host.take_lock({"deploy": "a", "who": "anna"})
    assert host.take_lock({"deploy": "a", "who": "anna"}), "its own again"
    assert not host.take_lock({"deploy": "b", "who": "ben"})
    assert host.lock()["who"] == "anna"
    host.finish("b", "done")
    assert host.lock(), "only its holder gives it back"
    host.finish("a", "done")
    assert host.take_lock({"deploy": "b", "who": "ben"})


def test_a_deploy_that_is_done_has_converged_the_host_and_no_other(host):
    for outcome in ("failed", "cut off", "lock broken"):
        assert host.take_lock({"deploy": "a", "converged": "digest"})
        host.finish("a", outcome)
        assert not host.stamp_file.exists()
    for digest, stamp in (("digest", "digest"), ("", "digest")):
        assert host.take_lock({"deploy": "a", "converged": digest})
        host.finish("another", "done")
        host.finish("a", "done")
        assert host.stamp_file.read_text() == stamp, "a rollback converges nothing, and leaves it"


def test_a_lock_is_removed_whoever_has_it(host):
    assert not host.unlock(), "there is none"
    host.take_lock({"deploy": "a", "who": "anna", "converged": "digest"})
    assert host.unlock() and not host.lock() and not host.stamp_file.exists()
    assert [(event["deploy"], event["outcome"]) for event in host.history()] == [("a", "lock broken")]
    host.lock_file.write_text("not JSON")
    assert host.unlock() and not host.lock_file.exists()


def test_history_survives_a_line_that_a_crash_cut_off(host):
    host.note("a", "begun", release="r1")
    with host.history_file.open("a") as file:
        file.write('\n{"deploy": "b", "ev')
    host.note("c", "begun", release="r2")
    assert [event["deploy"] for event in host.history()] == ["a", "c"]


def test_unit_of_the_current_release_that_does_not_start_is_left_to_systemd(host):
    activate(host, "r1")
    for part in ("web", "beat"):
        host.module.states[f"shop-{part}@r1.service"] = "failed"
        host.module.broken.add(f"shop-{part}@r1.service")
        with pytest.raises(Failure, match="The release r1 is the current one, and not all of it starts") as failure:
            activate(host, "r1")
        assert "new release" not in str(failure.value) and f"shop-{part}@r1.service" in str(failure.value)
        assert not [call for call in host.module.calls if call[0] == "stop"]
        host.module.broken.clear()
        host.module.states[f"shop-{part}@r1.service"] = "active"


@pytest.mark.parametrize("state", ["activating", "failed", "inactive"])
def test_restarts_before_a_unit_is_started_do_not_count(host, state):
    activate(host, "r1")
    unit = "shop-worker-default@r1.service"
    host.module.states[unit] = state
    host.module.calls.clear()
    activate(host, "r1")
    calls = host.module.calls
    assert calls.index(("reset-failed", unit)) < calls.index(("start", unit))
    assert not [call for call in calls if call[0] == "reset-failed" and len(call) > 2], "what runs keeps its count"


def test_reason_and_the_applications_lines_are_said_of_a_unit_that_does_not_start(host):
    activate(host, "r1")
    host.module.broken.add("shop-web@r2.service")
    host.module.journal = (
        "Main process exited, code=exited, status=203/EXEC\nModuleNotFoundError: No module named 'maps'"
    )
    with pytest.raises(Failure) as failure:
        activate(host, "r2")
    said = str(failure.value)
    assert "The new release r2 does not start; r1 was left running" in said
    assert "shop-web@r2.service (exit status 203: its program is missing" in said and "There is no module maps" in said


MORE = ["service-bot", "timer-report"]


@pytest.fixture
def more(host, tmp_path):
    """Two releases that have a service and a timer besides."""
    for release in ("r1", "r2"):
        units = tmp_path / "releases" / release / ".release/units"
        for file in ("service-bot.service", "timer-report.timer", "timer-report.service"):
            (units / file).write_text(f"{file} of @RELEASE@\n")
    return [*PARTS, *MORE]


def test_services_and_timers_run_once_and_come_and_go_with_their_release(host, more, tmp_path):
    activate(host, "r1", more)
    assert {"shop-service-bot@r1.service", "shop-timer-report@r1.timer"} <= host.enabled()
    assert "shop-timer-report@r1.service" not in host.enabled() | set(active(host)), "its timer starts it"
    assert (tmp_path / "UNITS/shop-timer-report@r1.service").read_text() == "timer-report.service of r1\n"
    assert not Activation(host, "r1", more).changes()
    activate(host, "r2", more)
    for unit in ("service-bot@{}.service", "timer-report@{}.timer"):
        calls = [
            call
            for call in host.module.calls
            if f"shop-{unit.format('r1')}" in call or f"shop-{unit.format('r2')}" in call
        ]
        assert [call[0] for call in calls if call[0] in ("start", "stop")] == ["stop", "start"], "never two at once"
    activate(host, "r3")
    assert not [unit for unit in active(host) if "bot" in unit or "report" in unit]
    assert host.enabled() == {f"shop-{part}@r3.service" for part in PARTS}


def test_command_of_a_timer_is_left_to_end_by_itself(host, more):
    activate(host, "r1", more)
    host.module.states["shop-timer-report@r1.service"] = "activating"
    assert not Activation(host, "r1", more).changes()
    activate(host, "r2", more)
    assert host.module.states["shop-timer-report@r1.service"] == "activating"
    assert not [call for call in host.module.calls if call[0] == "stop" and "shop-timer-report@r1.service" in call]


@pytest.mark.parametrize("ends", ["at once", "soon after"])
def test_service_that_does_not_run_leaves_the_old_release_as_it_was(host, more, ends):
    activate(host, "r1", more)
    before = active(host)
    if ends == "at once":
        host.module.broken.add("shop-service-bot@r2.service")
    else:
        host.module.restarts["shop-service-bot@r2.service"] = 1
    with pytest.raises(Failure, match=r"shop-service-bot@r2\.service"):
        activate(host, "r2", more)
    assert active(host) == before and host.current == "r1"


def test_what_changed_over_before_goes_back_when_beat_does_not_start(host, more):
    activate(host, "r1", more)
    before = active(host)
    host.module.broken.add("shop-beat@r2.service")
    with pytest.raises(Failure, match=r"shop-beat@r2\.service"):
        activate(host, "r2", more)
    assert active(host) == before
