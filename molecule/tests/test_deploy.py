"""Deploying again: what changes, what is refused, what comes back. These tests change the host."""

import json
import re

import pytest
from conftest import ROOT, ansible, wait_for
from test_units import current, running, wanted

pytestmark = pytest.mark.changes


def deploy(inventory, *arguments, **variables):
    """Deploy from the inventory with other variables; return the finished process."""
    return ansible("ansible-playbook", "-i", inventory, "playbooks/site.yml", *arguments, "-e", json.dumps(variables))


def changed(result):
    """How many tasks changed something, of all hosts."""
    return sum(int(n) for n in re.findall(r"changed=(\d+)", result.stdout))


SECRETS = dict.fromkeys(["admin", "web", "worker", "beat", "flower", "exporter", "cache"], "x" * 40)
REFUSED = {
    "unknown queue option": (
        {"celery_queues": {"default": {"concurency": 2}}},
        "celery_queues.default.concurency is unknown",
    ),
    "wrong queue value": (
        {"celery_queues": {"default": {"concurrency": 0}}},
        "celery_queues.default.concurrency is 0; it must be",
    ),
    "route to a missing queue": ({"celery_task_routes": {"a.b": "slow"}}, "celery_task_routes['a.b'] leads to 'slow'"),
    "missing default queue": ({"celery_default_queue": "nope"}, "celery_default_queue is 'nope'"),
    "missing secret": ({"app_secret_key": ""}, "app_secret_key is missing: set it in the inventory's vault"),
    "short secret": ({"app_flower_password": "short"}, "app_flower_password is shorter than 16 characters"),
    "missing Redis password": (
        {"app_redis_passwords": SECRETS | {"worker": ""}},
        "app_redis_passwords.worker is missing",
    ),
    "missing lock file": ({"app_lock_file": "absent.txt"}, "app_lock_file is 'absent.txt', and there is no such file"),
    "no application": ({"app_source": "/nowhere"}, "app_source is '/nowhere', which is not a folder"),
    "wrong type": ({"app_web": {"workers": "many"}}, "workers"),
    "memory beyond the host": ({"redis_broker_maxmemory_mb": 10**9}, "redis_broker_maxmemory_mb is 1000000000"),
    "half a certificate": ({"nginx_tls_key": "/x.key"}, "nginx_tls_certificate is ''"),
    "unsupported distribution": (
        {"ansible_facts": {"distribution": "Fedora", "distribution_major_version": "43", "memtotal_mb": 4096}},
        "This host runs Fedora 43. Supported are Debian 12",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_touched(inventory, case):
    variables, message = REFUSED[case]
    result = deploy(inventory, **variables)
    assert result.returncode != 0
    assert message in re.sub(r"\s+", " ", result.stdout + result.stderr), result.stdout
    assert changed(result) == 0


def test_two_beats_and_a_second_host_without_an_address_are_refused(inventory, tmp_path):
    second = tmp_path / "second.yml"
    second.write_text("all: {children: {beat: {hosts: {another: {ansible_host: 192.0.2.1}}}}}")
    result = ansible("ansible-playbook", "-i", inventory, "-i", str(second), "playbooks/site.yml", "--limit=!another")
    assert result.returncode != 0
    said = re.sub(r"\s+", " ", result.stdout)
    assert "'beat' has 2 hosts" in said and changed(result) == 0
    assert "app_private_address of another is '', and the application runs on 2 hosts" in said


def test_check_mode_with_diff_reports_no_change_in_plain_ansible_too(inventory):
    command = ("ansible-playbook", "-i", inventory, "playbooks/site.yml", "--check", "--diff")
    result = ansible(*command, ANSIBLE_STRATEGY="linear")
    assert (result.returncode, changed(result)) == (0, 0), result.stdout


def test_check_mode_foretells_a_new_release_and_makes_none(host, deployment, inventory):
    app = deployment.app_name
    before = current(host, app)
    result = deploy(inventory, "--check", "--diff", app_environment={"CHANGED": "1"})
    assert result.returncode == 0, result.stdout
    assert changed(result) > 0
    assert "-current: " + before in re.sub(r"^-\s+", "-", result.stdout, flags=re.MULTILINE)
    assert running(host, app) == wanted(deployment, before) and current(host, app) == before


def test_failed_smoke_is_a_failed_deploy_with_the_journal(inventory):
    result = deploy(inventory, smoke_request={"path": "/nowhere/"})
    assert result.returncode != 0
    assert "does not pass its smoke test" in result.stdout and "Journal of shop-web@" in result.stdout
    assert "Starting shop-web@" in result.stdout or "GET /nowhere/" in result.stdout


def test_release_whose_workers_do_not_start_leaves_the_old_one_running(host, deployment, inventory):
    app = deployment.app_name
    before = current(host, app)
    result = deploy(inventory, app_celery="absent.celery:app")
    assert result.returncode != 0
    said = re.sub(r"\s+", " ", result.stdout)
    assert "The new release does not start; the one before it was left running" in said, said
    assert f"Not ready: {app}-worker-" in said and "absent" in said
    assert running(host, app) == wanted(deployment, before) and current(host, app) == before
    assert deployment.request("/healthz/").json["release"] == before


def test_removed_queue_loses_its_unit_and_comes_back(host, deployment, inventory):
    app, queues = deployment.app_name, deployment.celery_queues
    fewer = {name: options for name, options in queues.items() if name != "bulk"}
    before = current(host, app)
    result = deploy(inventory, celery_queues=fewer, celery_task_routes={})
    assert result.returncode == 0, result.stdout
    try:
        assert not host.file(f"/etc/systemd/system/{app}-worker-bulk@.service").exists
        assert not [unit for unit in running(host, app) if "-bulk@" in unit]
        assert current(host, app) != before
    finally:
        result = deploy(inventory)
    assert result.returncode == 0, result.stdout
    assert current(host, app) == before, "the same input is the same release"
    wait_for(lambda: running(host, app) == wanted(deployment, before), 30, "the old instances are gone")


def test_restart_of_the_host_brings_everything_back(host, deployment):
    app = deployment.app_name
    release = current(host, app)
    podman = ansible(str(ROOT / "docker/host/podman"), "restart", "--time=60", deployment.sandbox_name)
    assert podman.returncode == 0, podman.stderr

    def up():
        try:
            return host.run("systemctl is-system-running").stdout.strip() == "running"
        except (RuntimeError, AssertionError):
            return False

    wait_for(up, 90, "the host has booted")
    wait_for(lambda: deployment.request("/readyz/").status == 200, 60, "the application is ready")
    assert running(host, app) == wanted(deployment, release)
    order = {
        "sku": "after-boot",
        "quantity": 1,
        "email": "a@example.com",
        "idempotency_key": f"boot-{release}-{host.check_output('cat /proc/sys/kernel/random/uuid')}",
    }
    placed = deployment.request("/orders/", order)
    assert placed.status == 201
    wait_for(
        lambda: deployment.request(placed.json["status_url"]).json["state"] == "SUCCESS",
        30,
        "an order is charged after the boot",
    )
