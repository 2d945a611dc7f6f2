"""The units that run, and the release that they run."""

import json

import pytest
from support.units import RELEASED, current, instances, once, wanted

released = pytest.mark.group(*sorted(RELEASED))


@released
def test_every_unit_runs_the_current_release_and_no_other(host, deployment):
    app = deployment.app_name
    assert {once(unit) for unit in instances(host, app, state="active")} == wanted(deployment, current(host, app))


def test_every_unit_is_active_and_starts_at_boot(host, deployment):
    app = deployment.app_name
    services = {
        "redis": [f"redis-server@{deployment.prefix}{instance}" for instance in ("broker", "cache")],
        "postgresql": ["postgresql"],
        "edge": ["nginx"],
        "flower": [f"{app}-flower"],
        "web": [f"{app}-web.socket"],
        "monitoring": ["prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"],
    }
    exporters = {"redis": "redis", "postgresql": "postgres", "edge": "nginx"}
    expected = ["coldframe-firewall"]
    if deployment.groups.get("monitoring"):
        expected += [f"{app}-metrics", "prometheus-node-exporter"]
        expected += [
            f"prometheus-{exporters[group]}-exporter" for group in deployment.group_names if group in exporters
        ]
    expected += [unit for group in deployment.group_names for unit in services.get(group, [])]
    if RELEASED & set(deployment.group_names):
        expected += [*instances(host, app, state="active"), f"{app}.target"]
    for unit in expected:
        assert host.check_output(f"systemctl is-active {unit}") == "active", unit
        assert host.run(f"systemctl is-enabled {unit}").stdout.strip() in ("enabled", "enabled-runtime"), unit


def test_nothing_failed_on_the_host(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.example
@released
def test_web_says_which_release_answers(host, deployment):
    answer = deployment.request("/healthz/")
    assert (answer.status, answer.json["release"]) == (200, current(host, deployment.app_name))


@released
def test_processes_run_the_code_of_their_release(host, deployment):
    app = deployment.app_name
    release = current(host, app)
    for unit in instances(host, app, state="active"):
        pid = host.check_output(f"systemctl show --property=MainPID --value {unit}")
        assert host.check_output(f"readlink /proc/{pid}/cwd") == f"/srv/{app}/releases/{release}", unit


@released
def test_units_are_well_formed(host, deployment):
    app = deployment.app_name
    units = [*instances(host, app), f"{app}.target", f"{app}.slice"]
    units += [f"{app}-flower.service"] if "flower" in deployment.group_names else []
    units += [f"{app}-web.socket"] if "web" in deployment.group_names else []
    result = host.run(f"systemd-analyze verify {' '.join(units)}")
    complaints = [line for line in (result.stdout + result.stderr).splitlines() if app in line]
    assert (result.rc, complaints) == (0, [])


def test_every_instance_has_the_unit_file_of_its_release(host, deployment):
    app = deployment.app_name
    release = current(host, app)
    for unit in instances(host, app, state="active"):
        part = unit.removeprefix(f"{app}-").partition("@")[0]
        path = host.check_output(f"systemctl show --property=FragmentPath --value {unit}")
        assert path == f"/etc/systemd/system/{unit}"
        template = host.file(f"/srv/{app}/releases/{release}/.release/units/{part}.service").content_string
        assert host.file(path).content_string == template.replace("@RELEASE@", release)


def test_no_service_user_can_write_code_or_settings(host, deployment):
    app = deployment.app_name
    users = {"web": "web", "workers": "worker", "beat": "beat", "flower": "flower"}
    for user in (users[group] for group in deployment.group_names if group in users):
        places = f"/srv/{app}/releases /srv/{app}/venvs /etc/systemd /etc/{app}-flower /opt"
        found = host.check_output(f"runuser -u {app}-{user} -- find {places} -writable ! -type l 2>/dev/null || true")
        assert found == "", user


def test_secrets_are_in_no_place_that_others_read(shell, deployment):
    secrets = [deployment.app_secret_key, deployment.app_database_password, deployment.app_flower_password]
    secrets += deployment.app_redis_passwords.values()
    places = f"/srv/{deployment.app_name} /etc/systemd /etc/redis /etc/{deployment.app_name}-flower /etc/nginx"
    found = shell(
        "umask 077; patterns=$(mktemp)\n"
        f"cat >$patterns <<'END'\n{chr(10).join(secrets)}\nEND\n"
        f"grep -rlF -f $patterns {places}\n"
        "for each in /proc/[0-9]*; do for what in cmdline environ; do\n"
        "    grep -qF -f $patterns $each/$what 2>/dev/null && echo $each/$what; done; done\n"
        "systemctl show '*' | grep -F -f $patterns\n"
        "journalctl --no-pager --output=cat | grep -F -f $patterns\n"
        "rm $patterns; echo searched\n"
    )
    assert found == "searched\n"


@released
@pytest.mark.one_host
def test_settings_of_every_process_agree_about_redelivery(host, deployment):
    app = deployment.app_name
    files = [
        f"/srv/{app}/current/.release/celery.json",
        f"/srv/{app}/current/.release/celery-web.json",
    ]
    files += [f"/etc/{app}-flower/celery.json"] if "flower" in deployment.group_names else []
    seen = {json.loads(host.file(f).content_string)["broker_transport_options"]["visibility_timeout"] for f in files}
    assert len(seen) == 1 and seen.pop() > 300
