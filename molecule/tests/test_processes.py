"""Services and timers of the application: they come and go with their release, in the sandbox of the other units."""

import json

import pytest
from support.playbooks import changed, deploy, output, play, roll_back
from support.sandbox import COSTS, OPENS, SEALED, SOCKETS, exposure
from support.units import current, instances
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.changes, pytest.mark.one_host, pytest.mark.group("beat")]
WATCH = "python -c \"import signal, time; open('/tmp/own', 'w'); signal.signal(signal.SIGTERM, lambda *_: exit()); time.sleep(10**6)\""
NOTE = "python -c \"import django; django.setup(); from django.core.cache import cache; cache.set('noted', 1, 600)\""
SERVICES = {"watch": {"command": WATCH, "memory_max": "200M", "open_files": 512, "stop_timeout": 10}}
TIMERS = {"note": {"command": NOTE, "calendar": "*:*:0/2", "timeout": 60}}


@pytest.fixture(scope="module")
def before(host, deployment, inventory):
    """The release without them, which runs again at the end; the one with them is deployed."""
    release = current(host, deployment.app_name)
    done = deploy(inventory, app_services=SERVICES, app_timers=TIMERS)
    assert done.returncode == 0, done.stdout + done.stderr
    yield release
    assert play(inventory, "deploy").returncode == 0
    name = deployment.app_name
    wait_for(lambda: not instances(host, name, "service-*") | instances(host, name, "timer-*"), 60, "all have ended")


def of_unit(host, unit, *properties):
    """Properties of a unit, in this order."""
    shown = host.check_output(f"systemctl show {unit} {' '.join(f'--property={name}' for name in properties)}")
    return [dict(line.split("=", 1) for line in shown.splitlines())[name] for name in properties]


def test_service_runs_as_its_own_user_within_its_limits(host, deployment, before):
    unit = f"{deployment.app_name}-service-watch@{current(host, deployment.app_name)}.service"
    found = of_unit(host, unit, "ActiveState", "User", "MemoryMax", "LimitNOFILE", "NRestarts", "ProtectSystem")
    assert found == ["active", f"{deployment.app_name}-service", str(200 << 20), "512", "0", "strict"]


@pytest.mark.parametrize("part", ["service-watch", "timer-note"])
def test_no_way_out_of_the_unit(host, deployment, attempts, before, part):
    """The same attempts, and the same limit of its score, as for the other units (test_sandbox.py)."""
    unit = f"{deployment.app_name}-{part}@{current(host, deployment.app_name)}.service"
    network, switches = deployment.app_network or "egress", deployment.app_sandbox or []
    score, analysis = exposure(host, unit)
    assert score <= (SEALED if network == "sealed" else SOCKETS) + sum(COSTS[switch] for switch in switches), analysis
    results = attempts(unit)
    ways = {attempt for attempt, result in results.items() if result == "done"}
    allowed = {OPENS[switch] for switch in switches} | ({"connect out"} if network == "egress" else set())
    assert ways <= allowed, {attempt: results[attempt] for attempt in ways - allowed}


def test_command_of_a_timer_has_the_settings_of_the_deployment(host, deployment, shell, before):
    name = deployment.app_name
    code = "from django.core.cache import cache; print(cache.get('noted'))"
    ask = f'{name}-manage shell --no-imports --command "{code}"'
    wait_for(lambda: shell(ask).strip() == "1", 30, "the command has run")
    unit = f"{name}-timer-note@{current(host, name)}"
    assert of_unit(host, f"{unit}.timer", "ActiveState", "UnitFileState") == ["active", "enabled"]
    assert of_unit(host, f"{unit}.service", "Result") == ["success"]


def test_status_lists_them_and_a_second_deploy_changes_nothing(host, deployment, inventory, before):
    release = current(host, deployment.app_name)
    said = output(play(inventory, "status"))
    assert f"-service-watch@{release}.service" in said and f"-timer-note@{release}.timer" in said
    assert changed(deploy(inventory, app_services=SERVICES, app_timers=TIMERS)) == 0


def test_service_that_ends_leaves_the_running_release(host, deployment, inventory, before):
    release, ends = current(host, deployment.app_name), {"watch": {"command": "python -c 'raise SystemExit(3)'"}}
    done = deploy(inventory, app_services=ends, app_timers=TIMERS)
    assert done.returncode != 0 and f"{release} was left running" in output(done)
    assert current(host, deployment.app_name) == release
    unit = f"{deployment.app_name}-service-watch@{release}.service"
    wait_for(lambda: of_unit(host, unit, "ActiveState") == ["active"], 20, "the service runs again")


@pytest.mark.parametrize(
    ("calendar", "said"), [("often", "systemd cannot read"), ("2020-01-01", "never comes"), ("*-02-31", "never comes")]
)
def test_time_that_never_comes_is_refused_before_anything_changes(inventory, before, calendar, said):
    wrong = {"note": {**TIMERS["note"], "calendar": calendar}}
    done = play(inventory, "preflight", "-e", json.dumps({"app_timers": wrong}))
    assert done.returncode != 0 and f"app_timers.note.calendar is {calendar!r}, which {said}" in output(done)


def test_rollback_brings_back_what_the_other_release_had(host, deployment, inventory, before):
    name, release = deployment.app_name, current(host, deployment.app_name)
    assert roll_back(inventory, before).returncode == 0
    assert current(host, name) == before and not instances(host, name, "service-*")
    assert roll_back(inventory, release).returncode == 0
    assert instances(host, name, "service-watch") == {f"{name}-service-watch@{release}.service"}


def test_program_that_the_release_has_is_started_by_its_path(host, deployment, inventory, before):
    """As a service and as a timer's command."""
    write = "sh -c \"{ echo '#!/bin/sh'; echo 'exec sleep $1'; } >ops/wait\""
    build = ["mkdir ops", write, "chmod +x ops/wait"]
    services = SERVICES | {"wait": {"command": "ops/wait 1000000"}}
    timers = TIMERS | {"nap": {"command": "./ops/wait 0", "calendar": "*:*:0/2"}}
    done = deploy(inventory, app_build=build, app_services=services, app_timers=timers)
    assert done.returncode == 0, done.stdout + done.stderr
    name, release = deployment.app_name, current(host, deployment.app_name)
    assert of_unit(host, f"{name}-service-wait@{release}.service", "ActiveState", "NRestarts") == ["active", "0"]
    unit = f"{name}-timer-nap@{release}.service"
    wait_for(lambda: of_unit(host, unit, "ExecMainStartTimestampMonotonic") != ["0"], 30, "the command has run")
    assert of_unit(host, unit, "Result") == ["success"]
