"""Two applications on one server: none of them notices what is done with the other one. The tests run in this order."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from support.deployment import Deployment
from support.hosts import redis_client, root_shell
from support.playbooks import ROOT, Finished, ansible, changed, deploy, output, play
from support.units import current, running, wanted
from waits import wait_for

# With a fixture that only some of them have, pytest would run those first.
pytestmark = pytest.mark.usefixtures("host")

HOST = "shared"
SHOP, CLINIC = "molecule/shared/hosts.yml", ".sandbox/molecule-shared/clinic"
OTHER = {SHOP: CLINIC, CLINIC: SHOP}
# Of an application: its files with their times, its processes and those of its Redis, its rows and keys.
STATE = """
find /etc /usr/local/bin /srv/{app} /opt -not -type s -path '*{app}*' -not -path '/srv/{app}/shared*' -not -name __pycache__ \\
    -printf '%p %y %m %u %g %s %T@ %l\\n' | sort
stat --format='%n %a %U %G %s %Y' /etc/redis/{own}broker.acl /etc/redis/{own}cache.acl /etc/redis/redis-{own}broker.conf /etc/redis/redis-{own}cache.conf
systemctl show --property=Id,InvocationID,ActiveState '{app}-*' redis-server@{own}broker redis-server@{own}cache {app}.target
getent passwd | grep '^{app}-'; getent group | grep '^{app}'
runuser -u postgres -- psql -XAtc "select datname, datdba from pg_database where datname = '{app}'"
"""


@pytest.fixture(scope="module")
def deployed() -> dict[str, Deployment]:
    """Return both applications by their inventories."""
    return {inventory: Deployment(inventory, HOST) for inventory in OTHER}


@pytest.fixture
def state(host: Any, deployed: dict[str, Deployment]) -> Callable[[str], str]:
    """Return a function that reads all that a deploy of the other application must leave as it is."""
    shell = root_shell(host)

    def read(inventory: str) -> str:
        its = deployed[inventory]
        return shell(STATE.format(app=its.app_name, own=its.prefix))

    return read


def works(its: Deployment) -> bool:
    """Use an application: a request, and the task that it starts."""
    if its.app_name == "shop":
        order = {"sku": "a", "quantity": 1, "email": "a@example.com", "idempotency_key": uuid.uuid4().hex}
        placed = its.request("/orders/", order)
        assert placed.status == 201, placed.body
        wait_for(lambda: its.request(placed.json["status_url"]).json["state"] == "SUCCESS", 30, "the order is charged")
        return True
    name = uuid.uuid4().hex
    form = f"patient={name}&email=ana@example.com&at=2030-01-07T09:00:00Z".encode()
    placed = its.request("/api/appointments/", form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert placed.status == 201, placed.body

    def reminded() -> bool:
        return any(each["patient"] == name and each["reminded"] for each in its.request("/api/appointments/").json)

    wait_for(reminded, 30, "the mail is sent")
    return True


def make(target: str, *words: str) -> Finished:
    """Run a target of the Makefile for the second application's inventory."""
    return ansible("make", "--no-print-directory", target, f"ENV={CLINIC}", *words)


def open_ports(host: Any) -> set[int]:
    """Return the ports that are open to everybody."""
    rules = host.check_output("nft --stateless list chain inet coldframe input").splitlines()
    (line,) = [line.split("dport")[1] for line in rules if line.strip().startswith("tcp dport")]
    return set(map(int, re.findall(r"\d+", line)))


def test_both_work_at_their_own_names_and_other_names_get_no_answer(deployed):
    assert all(works(its) for its in deployed.values())
    with pytest.raises(OSError):  # the handshake is rejected
        deployed[SHOP].request("/", url=deployed[CLINIC].app_url.replace("clinic.", "nobody."))


def test_flower_of_each_has_its_workers_and_its_password(deployed):
    for inventory, its in deployed.items():
        other = deployed[OTHER[inventory]]
        assert its.request("/flower/api/workers", login=f"ops:{other.app_flower_password}").status == 401
        login = f"ops:{its.app_flower_password}"

        def seen(its: Deployment = its, login: str = login) -> bool:
            workers = its.request("/flower/api/workers?refresh=1", login=login).json
            return {name.partition("-")[0].partition("@")[0] for name in workers} == set(its.celery_queues)

        wait_for(seen, 60, "Flower has asked the workers")


@pytest.mark.parametrize("inventory", OTHER)
@pytest.mark.parametrize("playbook", ["deploy", "site"])
def test_deploy_again_changes_nothing(inventory, playbook):
    result = play(inventory, playbook)
    assert (result.returncode, changed(result)) == (0, 0), result.stdout


@pytest.mark.parametrize("inventory", OTHER)
def test_deploy_and_rollback_of_one_leave_the_other_as_it_is(host, deployed, state, inventory):
    its, before = deployed[inventory], state(OTHER[inventory])
    release = current(host, its.app_name)
    result = deploy(inventory, app_environment={"CHANGED": "1"}, nginx_hsts_seconds=60)
    assert result.returncode == 0 and changed(result) > 0, result.stdout
    assert current(host, its.app_name) != release
    result = play(inventory, "rollback")
    assert result.returncode == 0 and current(host, its.app_name) == release, result.stdout
    assert deploy(inventory).returncode == 0, "with the inventory's own nginx_hsts_seconds"
    assert running(host, its.app_name) >= wanted(its, release)
    assert state(OTHER[inventory]) == before
    assert all(works(each) for each in deployed.values())


def test_processes_of_one_reach_nothing_of_the_other(host, deployed):
    shop, clinic = deployed[SHOP], deployed[CLINIC]
    for mine, other in ((shop, clinic), (clinic, shop)):
        user = f"{mine.app_name}-web"
        groups = f"--property=SupplementaryGroups='{mine.app_name} {f'{mine.app_name}-redis' if mine.prefix else 'redis-clients'}'"
        run = f"systemd-run --quiet --pipe --wait --uid={user} {groups}"
        own, socket = (f"/run/redis-{each.prefix}broker/redis-server.sock" for each in (mine, other))
        assert "NOAUTH" in host.run(f"{run} redis-cli -s {own} PING").stdout, "it reaches its own: this test can fail"
        answer = host.run(f"{run} redis-cli -s {socket} PING 2>&1")
        assert "Permission denied" in answer.stdout + answer.stderr
        for place in (f"/srv/{other.app_name}/shared", f"/etc/credstore/{other.app_name}"):
            assert host.run(f"{run} ls {place}").rc != 0
        login = f"PGPASSWORD={mine.app_database_password} psql -h /run/postgresql -U {mine.app_name}_{mine.app_database_login or 'a'}"
        shell = root_shell(host)
        assert "1 row" in shell(f"{login} -d {mine.app_name} -c 'select 1' 2>&1")
        assert "no pg_hba.conf entry" in shell(f"{login} -d {other.app_name} -c 'select 1' 2>&1")


def test_each_redis_has_its_own_keys_and_passwords(host, deployed):
    shell = root_shell(host)
    clients = {inventory: redis_client(shell, its) for inventory, its in deployed.items()}
    clients[SHOP]("SET lock:mine 1")
    assert clients[SHOP]("EXISTS lock:mine") == "1" and clients[CLINIC]("EXISTS lock:mine") == "0"
    clients[SHOP]("DEL lock:mine")
    assert deployed[SHOP].app_redis_passwords != deployed[CLINIC].app_redis_passwords


def test_firewall_has_the_ports_of_both(host):
    assert open_ports(host) == {22, 80, 443}
    try:
        assert deploy(SHOP, firewall_open_ports=[8025]).returncode == 0
        assert deploy(CLINIC, firewall_open_ports=[2525]).returncode == 0
        assert open_ports(host) == {22, 80, 443, 2525, 8025}
    finally:
        assert deploy(SHOP).returncode == 0 and deploy(CLINIC).returncode == 0
    assert play(SHOP, "site").returncode == 0
    assert open_ports(host) == {22, 80, 443}


REFUSED = {
    "first one too": (
        {"app_additional": False},
        "app_additional is false, and this host has an application already, 'shop'",
    ),
    "name of the other one": ({"app_aliases": ["localhost"]}, "'localhost' is a host name of shop too"),
    "folder of the other one": (
        {"app_root": "/srv/shop/clinic"},
        "app_root is '/srv/shop/clinic', and that of shop is '/srv/shop'",
    ),
    "another setting of the host": (
        {"base_journal_max_use": "3G"},
        "base_journal_max_use is 3G, and 1G for shop: it is a setting of the whole host",
    ),
    "health checks": ({"nginx_health_path": "/up"}, "nginx_health_path is '/up' and app_additional is true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused_before_anything_is_touched(case):
    variables, message = REFUSED[case]
    result = deploy(CLINIC, **variables)
    assert result.returncode != 0 and changed(result) == 0
    assert message in output(result), result.stdout


def test_redis_of_both_must_fit_into_the_memory(host):
    total = int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) // 1024
    result = deploy(CLINIC, redis_broker_maxmemory_mb=total // 2 - 100, redis_cache_maxmemory_mb=16)
    assert result.returncode != 0 and changed(result) == 0
    assert re.search(r"MiB and \d+ of shop, and the host has", output(result)), result.stdout


def test_setting_of_the_host_is_changed_with_permission(host):
    limit = "runuser -u postgres -- psql -XAtc 'show max_connections'"
    try:
        result = deploy(SHOP, postgresql_max_connections=120)
        assert result.returncode != 0
        assert "with ALLOW_SHARED" in output(result)
        allowed = deploy(SHOP, postgresql_max_connections=120, release_allow_shared="postgresql_max_connections")
        assert allowed.returncode == 0, allowed.stdout
        assert deploy(CLINIC, postgresql_max_connections=120).returncode == 0
        assert host.check_output(limit) == "120"
    finally:
        deploy(SHOP, release_allow_shared="postgresql_max_connections")
        result = deploy(CLINIC)
    assert result.returncode == 0, result.stdout
    assert host.check_output(limit) == "100"


def test_removal_is_only_printed_by_a_dry_run(deployed, state):
    before = {inventory: state(inventory) for inventory in OTHER}
    result = make("down", "DRY_RUN=1")
    assert result.returncode == 0, result.stdout + result.stderr
    said = output(result)
    assert "the database clinic and its logins" in said and "What stays: shop" in said
    assert "pg_dump --format=custom clinic" in said and "clinic would be removed" in said
    assert {inventory: state(inventory) for inventory in OTHER} == before
    assert works(deployed[CLINIC])


@pytest.mark.parametrize("words", [(), ("CONFIRM=",), ("CONFIRM=shop",)])
def test_removal_needs_the_name(deployed, state, words):
    before = {inventory: state(inventory) for inventory in OTHER}
    result = make("down", *words)
    assert result.returncode != 0
    assert "nothing was removed. Without a terminal, answer with CONFIRM=clinic." in output(result)
    assert {inventory: state(inventory) for inventory in OTHER} == before


# What a host still has of an application.
LEFT = """
find /etc /opt /run /srv /usr/local /var/lib -maxdepth 4 \\( -path /run/systemd -or -path '/opt/{other}-*' -or -path '/srv/{other}' \\) -prune -or \\
    \\( -name '{app}' -or -name '{app}-*' -or -name '{app}.*' -or -name '{broker}*' -or -name 'redis-{broker}*' \\) -print
getent passwd | grep '^{app}-'; getent group | grep '^{app}'
systemctl list-units --all --plain --no-legend '{app}-*' '{app}.*' 'redis-server@{broker}*'
runuser -u postgres -- psql -XAtc "select rolname from pg_roles where rolname like '{app}%'"
runuser -u postgres -- psql -XAtc "select datname from pg_database where datname = '{app}'"
"""


def left(host: Any, app: str, other: str, broker: str) -> str:
    """List it, without looking at the other application's files."""
    return root_shell(host)(LEFT.format(app=app, other=other, broker=broker)).strip()


def test_additional_application_is_removed_wholly_and_the_first_one_stays(host, deployed, state):
    assert deploy(CLINIC, firewall_open_ports=[2525]).returncode == 0
    before = state(SHOP)
    result = make("down", "CONFIRM=clinic")
    assert result.returncode == 0, result.stdout + result.stderr
    assert left(host, "clinic", "shop", "clinic-broker") == ""
    assert state(SHOP) == before and works(deployed[SHOP])
    assert open_ports(host) == {22, 80, 443}
    with pytest.raises(OSError):  # its name is one of those without an answer
        deployed[CLINIC].request("/")
    again = play(SHOP, "site")
    assert (again.returncode, changed(again)) == (0, 0), again.stdout


def test_removal_is_refused_where_the_application_is_not():
    result = make("down", "CONFIRM=clinic")
    assert result.returncode != 0 and changed(result) == 0
    assert "has no such application: there is nothing to remove" in output(result)


def test_removed_application_is_deployed_again(deployed):
    result = make("deploy")
    assert result.returncode == 0, result.stdout
    assert all(works(its) for its in deployed.values())


def test_first_application_is_removed_and_the_additional_one_stays(host, deployed, state):
    before = state(CLINIC)
    result = play(SHOP, "down", "-e", json.dumps({"down_confirm": "shop"}))
    assert result.returncode == 0, result.stdout
    assert left(host, "shop", "clinic", "broker") == ""
    assert state(CLINIC) == before and works(deployed[CLINIC])
    again = play(CLINIC, "site")
    assert (again.returncode, changed(again)) == (0, 0), again.stdout


def test_last_application_leaves_no_site_and_no_firewall(host):
    result = make("down", "CONFIRM=clinic")
    assert result.returncode == 0, result.stdout + result.stderr
    assert left(host, "clinic", "shop", "clinic-broker") == ""
    assert host.run("systemctl is-active nginx").stdout.strip() == "inactive"
    assert "coldframe" not in host.check_output("nft list tables")
    assert host.check_output("systemctl is-active postgresql") == "active"
    assert (ROOT / CLINIC / "hosts.yml").exists(), "the inventory stays"
