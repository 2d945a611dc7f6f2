"""On several hosts the first one goes alone, and the rest only when it stands."""

import re

import pytest
from support.deployment import deployed
from support.playbooks import ROOT, deploy
from support.units import once
from testinfra import get_host
from waits import wait_for

pytestmark = [pytest.mark.changes, pytest.mark.group("web")]


@pytest.fixture
def hosts(host, inventory, deployment):
    """The hosts with web, the canary first; its tests run once, on that one."""
    names = deployment.groups["web"]
    if len(names) < 2 or host.backend.get_hostname() != names[0]:
        pytest.skip("not the first of several hosts with web")
    config = ROOT / deployed(inventory, names[0]).sandbox_state / "ssh_config"
    return [get_host(f"ssh://{name}", ssh_config=str(config), sudo=True) for name in names]


def processes(host, app):
    """Map each active instance to its main process."""
    shown = host.check_output(f"systemctl show --property=Id,MainPID,ActiveState '{app}-*@*.service'").split("\n\n")
    units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown if unit]
    return {unit["Id"]: unit["MainPID"] for unit in units if unit["ActiveState"] == "active"}


def releases(hosts, app):
    """The releases that run on each host."""
    return [{once(unit).partition("@")[2] for unit in processes(host, app)} for host in hosts]


@pytest.mark.parametrize("fault", ["no smoke", pytest.param("no worker", marks=pytest.mark.thorough)])
def test_release_that_fails_on_the_first_host_reaches_no_other(hosts, inventory, deployment, fault):
    app = deployment.app_name
    before, others = releases(hosts, app), [processes(host, app) for host in hosts[1:]]
    variables = {
        "no smoke": {"smoke_requests": [{"path": "/"}, {"path": "/nowhere/"}]},
        "no worker": {"app_celery": "absent:app"},
    }
    result = deploy(inventory, app_environment={"CHANGED": fault}, **variables[fault])
    assert result.returncode != 0, result.stdout
    assert fault != "no smoke" or re.search("Send the further requests at http.*/nowhere/:", result.stdout), (
        result.stdout
    )
    wait_for(lambda: releases(hosts, app) == before, 30, f"{before} run, not {releases(hosts, app)}")
    assert [processes(host, app) for host in hosts[1:]] == others, "never touched"
    assert deployment.request("/healthz/").status == 200
    result = deploy(inventory)
    assert result.returncode == 0 and releases(hosts, app) == before, result.stdout
    assert [processes(host, app) for host in hosts[1:]] == others, "never touched"


def test_release_that_stands_on_the_first_host_reaches_the_rest(hosts, inventory, deployment):
    app = deployment.app_name
    before = releases(hosts, app)
    try:
        result = deploy(inventory, app_environment={"CHANGED": "canary"})
        assert result.returncode == 0, result.stdout
        assert result.stdout.count("PLAY [Activate the release]") == 2, "the first alone, then the rest"
        wait_for(lambda: len(set.union(*releases(hosts, app))) == 1, 30, "every unit of every host runs one release")
        assert releases(hosts, app) != before
    finally:
        result = deploy(inventory)
    assert result.returncode == 0 and releases(hosts, app) == before, result.stdout


@pytest.mark.thorough
def test_host_that_fails_alone_is_named_and_all_locks_are_given_back(hosts, inventory, deployment):
    app = deployment.app_name
    before = [processes(host, app) for host in hosts]
    result = deploy(inventory, nginx_packages=["nowhere-to-be-found"])
    edge = deployment.groups["edge"][0]
    assert result.returncode != 0 and f"{edge}: Install the packages" in result.stdout, result.stdout
    assert "stopped, for another host failed" in result.stdout
    assert [processes(host, app) for host in hosts] == before
    assert not any(host.file(f"/var/lib/coldframe/{app}/lock.json").exists for host in hosts)
    repaired = deploy(inventory)
    assert repaired.returncode == 0, repaired.stdout
    assert [processes(host, app) for host in hosts] == before
