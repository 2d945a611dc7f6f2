"""Deploying again: what changes, what is refused, what comes back. These tests change the host."""

import re
import shutil
import subprocess

import pytest
from support.playbooks import ROOT, ansible, changed, deploy, output, play
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes]


# What the fuzzed inventories leave out, and one that they ask too: through the whole deploy, and in its words.
REFUSED = {
    "wrong type": ({"app_web": {"workers": "many"}}, "app_web.workers is 'many'; it must be a whole number"),
    "no application": ({"app_source": "/nowhere"}, "app_source is '/nowhere', which is not a folder"),
    "version without repository": (
        {"app_version": "v1"},
        "app_version is 'v1' and app_repository_folder '', while app_repository is empty",
    ),
    "no such repository": (
        {"app_repository": "/nowhere.git", "app_version": "v1"},
        "app_repository is '/nowhere.git', which git cannot read",
    ),
    "certificate that no authority gives": (
        {"nginx_acme": True, "nginx_server_name": "localhost"},
        "nginx_server_name is 'localhost': it must be one name in the DNS",
    ),
    "another application": (
        {"app_name": "blog", "app_url": "https://blog.example.com", "nginx_server_name": "blog.example.com"},
        "app_additional is false, and this host has an application already, 'shop'. If blog is another one, set app_additional to true",
    ),
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
    assert message in output(result), result.stdout
    assert changed(result) == 0


def test_two_brokers_and_a_second_host_without_an_address_are_refused(inventory, tmp_path):
    second = tmp_path / "second.yml"
    second.write_text("all: {children: {redis: {hosts: {another: {ansible_host: 192.0.2.1}}}}}")
    result = ansible("ansible-playbook", "-i", inventory, "-i", str(second), "playbooks/site.yml", "--limit=!another")
    assert result.returncode != 0
    assert "'redis' has 2 hosts" in output(result) and changed(result) == 0
    assert "app_private_address of another is '', and the application runs on 2 hosts" in output(result)


def test_all_that_is_wrong_is_said_at_once(inventory):
    """One problem of each role; each of them alone would be refused too."""
    wrong = {
        "celery_default_queue": "absent",
        "app_repository": "/nowhere.git",
        "nginx_trusted_proxies": ["0.0.0.0/0"],
        "postgresql_shared_buffers_mb": 2**23,
        "redis_broker_maxmemory_mb": 2**23,
    }
    result = deploy(inventory, app_version="v1", **wrong)
    assert result.returncode != 0 and changed(result) == 0
    assert result.stdout.count("FAILED!") == 1, result.stdout
    said = result.stdout.partition("FAILED!")[2]
    assert [name for name in wrong if not re.search(f"{name} (is|has) ", said)] == [], said


def skip_without_python(result):
    """Skip the test if the controller could not load the application, and said why."""
    if missing := re.search(r"left to the hosts: (There is no Python [\d.]+) on\s+this machine", output(result)):
        pytest.skip(missing[1])


def test_faulty_application_is_refused_by_the_controller_before_the_host_is_touched(
    host, deployment, inventory, tmp_path
):
    """All of its faults in one message. The release that runs is not checked again."""
    app, folder = deployment.app_name, tmp_path / "app"
    shutil.copytree(deployment.app_source, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    with (folder / "orders/tasks.py").open("a") as file:
        file.write("\n\n@shared_task(queue='parcels')\ndef parcel():\n    return 1\n")
    with (folder / "orders/models.py").open("a") as file:
        file.write("\n\nclass Parcel(models.Model):\n    weight = models.IntegerField()\n")
    (folder / "shop/wsgi.py").write_text("import acme_apm\n")
    state = (
        f"find /srv/{app} /var/lib/coldframe/{app} /etc/systemd/system -printf '%p %T@\\n' | grep -v /shared/ | sort"
    )
    before = host.check_output(state)
    result = deploy(inventory, app_source=str(folder), release_check_on_controller=True)
    skip_without_python(result)
    assert result.returncode != 0 and changed(result) == 0 and result.stdout.count("FAILED!") == 1, result.stdout
    for wanted_ in (
        "shop/wsgi.py:1: ModuleNotFoundError: No module named 'acme_apm'",
        "The application sends the task orders.tasks.parcel to the queue 'parcels'",
        "coldframe.E001: The models of orders were changed and no migration does that: Create model Parcel",
    ):
        assert wanted_ in output(result), result.stdout
    assert host.check_output(state) == before
    result = deploy(inventory, release_check_on_controller=True)
    assert (result.returncode, changed(result)) == (0, 0), result.stdout
    assert re.search(r"Load the application on the controller\] \*+\s+skipping", result.stdout), result.stdout


def test_preflight_shows_what_is_laid_over_the_settings(deployment, inventory):
    result = play(inventory, "preflight", "-e", '{"release_check_on_controller": true}')
    skip_without_python(result)
    assert result.returncode == 0, result.stdout
    assert "result_backend stays: 'django-db'" in result.stdout
    for secret in (deployment.app_secret_key, deployment.app_database_password):
        assert secret not in result.stdout + result.stderr


def git(folder, *arguments):
    """Run git as nobody in particular; return what it prints."""
    author = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.thorough
def test_same_files_from_a_repository_are_the_running_release(deployment, inventory, tmp_path):
    """The version is deployed as it was committed, not as the folder is now; a wrong one is refused."""
    shutil.copytree(deployment.app_source, tmp_path / "work" / "site")
    git(tmp_path / "work", "init", "--quiet")
    git(tmp_path / "work", "add", "--force", ".")
    git(tmp_path / "work", "commit", "--quiet", "--message=as deployed")
    git(tmp_path / "work", "tag", "v1")
    (tmp_path / "work" / "site" / "manage.py").unlink()
    git(tmp_path, "clone", "--quiet", "--bare", "work", "application.git")
    repository = {"app_repository": str(tmp_path / "application.git"), "app_repository_folder": "site"}
    result = deploy(inventory, **repository, app_version="v1", app_source="")
    assert (result.returncode, changed(result)) == (0, 0), result.stdout
    result = deploy(inventory, **repository, app_version="v2")
    assert result.returncode != 0 and changed(result) == 0
    assert "app_version is 'v2', which is no branch, tag or commit of" in output(result)


@pytest.mark.thorough
def test_deploy_with_nothing_to_do_runs_the_smoke_test_alone(host, deployment, inventory):
    app = deployment.app_name
    release = current(host, app)
    nothing = "Nothing has changed since the last deploy, and the application's units run as it left them."
    assert deploy(inventory).returncode == 0
    history = host.check_output(f"cat /var/lib/coldframe/{app}/history.jsonl")
    for arguments in ([], ["--check", "--diff"]):
        result = deploy(inventory, *arguments)
        assert result.returncode == 0 and changed(result) == 0 and nothing in output(result), result.stdout
        assert "Lock the host for this deploy" not in result.stdout
        assert ("Send the request" in result.stdout) == (not arguments)
        assert f"release {release} (unchanged), configuration unchanged" in output(result)
    assert host.check_output(f"cat /var/lib/coldframe/{app}/history.jsonl") == history
    # A host that is not as the deploy left it, a variable, and the playbook that does all of it each time.
    host.check_output(f"systemctl stop {app}-beat@{release}.service")
    for run in (lambda: deploy(inventory), lambda: deploy(inventory, release_keep=4), lambda: play(inventory, "site")):
        result = run()
        assert result.returncode == 0 and nothing not in output(result), result.stdout
        assert running(host, app) == wanted(deployment, release)


def test_check_mode_with_diff_reports_no_change_in_plain_ansible_too(inventory):
    command = ("ansible-playbook", "-i", inventory, "playbooks/site.yml", "--check", "--diff")
    result = ansible(*command, ANSIBLE_STRATEGY="linear")
    assert (result.returncode, changed(result)) == (0, 0), result.stdout


@pytest.mark.thorough  # the dry run of test_releases.py does the same, with other files
def test_check_mode_foretells_a_new_release_and_makes_none(host, deployment, inventory):
    app = deployment.app_name
    before = current(host, app)
    result = deploy(inventory, "--check", "--diff", app_environment={"CHANGED": "1"})
    assert result.returncode == 0, result.stdout
    assert changed(result) > 0
    assert "-current: " + before in re.sub(r"^-\s+", "-", result.stdout, flags=re.MULTILINE)
    assert running(host, app) == wanted(deployment, before) and current(host, app) == before


@pytest.mark.thorough  # the scenario `cluster` has one too
def test_failed_smoke_is_a_failed_deploy_with_the_journal(inventory):
    result = deploy(inventory, smoke_request={"path": "/nowhere/"})
    assert result.returncode != 0
    assert "does not pass its smoke test" in result.stdout and "Journal of shop-web@" in result.stdout
    assert "Starting shop-web@" in result.stdout or "GET /nowhere/" in result.stdout


# A package that nothing else here wants, so no host has it in a cache.
FURTHER_LOCK = """
unidecode==1.4.0 \\
    --hash=sha256:c3c7606c27503ad8d501270406e345ddb480a7b5f38827eafe4fa82a137f0021 \\
    --hash=sha256:ce35985008338b676573023acc382d62c264f307c8f7963733405add37ea2b23
"""


@pytest.mark.thorough
def test_host_that_reaches_no_index_gets_its_packages_from_the_controller(
    host, deployment, inventory, manage, tmp_path
):
    app = deployment.app_name
    shutil.copytree(deployment.app_source, tmp_path / "app")
    with (tmp_path / "app" / "requirements.txt").open("a") as lock:
        lock.write(FURTHER_LOCK)
    installed = f"/opt/uv-* /opt/{app}-flower-*"
    before = current(host, app)
    route = host.check_output("ip route show default")
    assert route
    try:
        host.check_output("ip route del default")
        result = deploy(inventory, app_source=str(tmp_path / "app"))
        assert result.returncode != 0 and current(host, app) == before
        assert "If this host reaches no package index, set app_packages_from to 'controller'" in output(result), (
            result.stdout
        )
        host.check_output(f"rm -rf {installed}")
        result = deploy(inventory, app_source=str(tmp_path / "app"), app_packages_from="controller")
        assert result.returncode == 0, result.stdout
        assert host.run(f"ls -d {installed}").stdout.count("\n") == 2
        assert manage("from unidecode import unidecode; print(unidecode('\u00e9'))") == "e"
        after = current(host, app)
        assert deployment.request("/healthz/").json["release"] == after != before
    finally:
        host.check_output(f"ip route replace {route}")
        result = deploy(inventory)
        wait_for(lambda: running(host, app) == wanted(deployment, before), 60, f"only {before} runs: {result.stdout}")
    assert result.returncode == 0, result.stdout


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
