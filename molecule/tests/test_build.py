"""What a deploy does between source and running release: build steps, and hooks. These tests change the host."""

import json
import shutil

import pytest
from support.playbooks import changed, deploy, output, play, restore
from support.units import current, running, wanted
from waits import wait_for

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes, pytest.mark.example]

POINTS = ("before_migrate", "after_migrate", "before_activate", "after_activate")


@pytest.fixture
def original(host, deployment, inventory):
    """The release that runs; it runs again after the test, and what hooks wrote is gone."""
    app = deployment.app_name
    before = current(host, app)
    yield before
    host.check_output(f"rm -f /srv/{app}/shared/media/hooks")
    if current(host, app) != before:
        restore(inventory, before)
    assert current(host, app) == before
    wait_for(lambda: running(host, app) == wanted(deployment, before), 60, f"only {before} runs")


@pytest.fixture
def noted(host, deployment):
    """Return the lines that hooks have written so far."""
    return lambda: host.run(f"cat /srv/{deployment.app_name}/shared/media/hooks").stdout.splitlines()


def notes(app, *failing):
    """Make commands for each point: each notes it, who runs it, the release, and the running one."""
    seen = f'$(id -un) $RELEASE_ID $(basename $(readlink /srv/{app}/current)) >>"$MEDIA_ROOT/hooks"'
    return {point: [f"sh -c 'echo {point} {seen}'", *(["false"] if point in failing else [])] for point in POINTS}


@pytest.fixture
def interpreter(host):
    """A Python that is not Debian's: a copy of its program, elsewhere."""
    path = "/opt/another-python/bin/python3"
    host.check_output(f"mkdir -p {path.rpartition('/')[0]}; cp --dereference /usr/bin/python3 {path}")
    yield path
    host.check_output("rm -r /opt/another-python")


def test_what_commands_write_is_deployed_and_they_run_once(
    host, deployment, inventory, interpreter, original, tmp_path
):
    app, folder = deployment.app_name, tmp_path / "app"
    shutil.copytree(deployment.app_source, folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    commands = ["mkdir -p orders/static/orders", "sh -c 'date +%s.%N >orders/static/orders/built.txt'"]
    variables = {"app_source": str(folder), "app_build": commands, "app_python_interpreter": interpreter}
    result = deploy(inventory, **variables)
    assert result.returncode == 0, result.stdout
    release = current(host, app)
    assert (
        f"home = {interpreter.rpartition('/')[0]}" in host.file(f"/srv/{app}/current/.venv/pyvenv.cfg").content_string
    )
    assert release != original and not (folder / "orders/static/orders/built.txt").exists()
    built = host.check_output(f"cat /srv/{app}/current/orders/static/orders/built.txt")
    assert host.check_output(f"cat /srv/{app}/current/.release/static/orders/built.txt") == built
    assert deployment.request("/static/orders/built.txt").status == 200
    again = deploy(inventory, **variables)
    assert (again.returncode, changed(again), current(host, app)) == (0, 0, release), again.stdout


@pytest.mark.parametrize(
    "variables, said",
    [
        (
            {"app_build": ["sh -c 'echo no such page; exit 4'"]},
            "ended with the status 4. No host was changed. The last lines of its output: no such page",
        ),
        # Their texts are tested without a host too.
        *(
            pytest.param({"app_build": [command]}, said, marks=pytest.mark.thorough)
            for command, said in (
                ("acme-build --all", "there is no acme-build here, on the controller"),
                ("mkfifo queue", "The commands of app_build have left queue (a FIFO)"),
                ("npm ci && npm run build", "it has &&, which only a shell knows"),
            )
        ),
        (
            {"app_python_interpreter": "/opt/none/bin/python3"},
            "is /opt/none/bin/python3, which is not there on this host",
        ),
    ],
)
def test_build_that_fails_changes_no_host(host, deployment, inventory, variables, said):
    app = deployment.app_name
    state = (
        f"find /srv/{app} /var/lib/coldframe/{app} /etc/systemd/system -printf '%p %T@\\n' | grep -v /shared/ | sort"
    )
    before = host.check_output(state)
    result = deploy(inventory, **variables)
    assert result.returncode != 0 and changed(result) == 0 and said in output(result), result.stdout
    assert host.check_output(state) == before


def test_hooks_run_once_at_their_points_and_not_at_a_rollback(host, deployment, inventory, original, noted):
    app = deployment.app_name
    hooks = notes(app)
    code = "import os; open(os.environ['MEDIA_ROOT'] + '/hooks', 'a').write('manage ' + os.environ['RELEASE_ID'] + chr(10))"
    hooks["after_migrate"].append(f'manage.py shell --no-imports --command "{code}"')
    dry = deploy(inventory, "--check", app_hooks=hooks)
    assert dry.returncode == 0 and noted() == [], dry.stdout
    result = deploy(inventory, app_hooks=hooks)
    assert result.returncode == 0, result.stdout
    release = current(host, app)
    assert release != original
    *before, last = [f"{point} {app}-web {release} {original}" for point in POINTS]
    assert noted() == [*before[:2], f"manage {release}", before[2], last.replace(original, release)]
    again = deploy(inventory, app_hooks=hooks)
    assert (again.returncode, changed(again), len(noted())) == (0, 0, 5), again.stdout
    result = play(inventory, "rollback")
    assert result.returncode == 0 and current(host, app) == original and len(noted()) == 5, result.stdout


@pytest.mark.parametrize(
    "point", ["after_migrate", *(pytest.param(point, marks=pytest.mark.thorough) for point in POINTS[:3:2])]
)
def test_failed_hook_before_the_activation_keeps_the_running_release(
    host, deployment, inventory, original, noted, point
):
    app = deployment.app_name
    units = running(host, app)
    result = deploy(inventory, app_hooks=notes(app, point))
    assert result.returncode != 0, result.stdout
    assert f"app_hooks.{point}, 'false', ended with the status 1." in output(result), result.stdout
    assert [line.split()[0] for line in noted()] == list(POINTS[: POINTS.index(point) + 1])
    assert current(host, app) == original and running(host, app) == units
    assert not host.file(f"/var/lib/coldframe/{app}/lock.json").exists


def test_failed_hook_after_the_activation_fails_the_deploy_and_the_new_release_goes_on(
    host, deployment, inventory, original, noted
):
    app = deployment.app_name
    hooks = notes(app, "after_activate")
    result = deploy(inventory, app_hooks=hooks)
    release = current(host, app)
    assert result.returncode != 0 and release != original, result.stdout
    assert "app_hooks.after_activate, 'false', ended with the status 1." in output(result), result.stdout
    assert f"Release {release} runs on all hosts, and stays: nothing is rolled back." in output(result)
    wait_for(lambda: running(host, app) == wanted(deployment, release), 60, f"only {release} runs")
    assert not host.file(f"/var/lib/coldframe/{app}/lock.json").exists
    history = host.check_output(f"cat /var/lib/coldframe/{app}/history.jsonl").splitlines()
    assert json.loads(history[-1])["outcome"] == "failed"
    assert deploy(inventory, app_hooks=hooks).returncode == 0 and len(noted()) == 4
    by_hand = host.run(f"{app}-manage --module coldframe.release.hooks after_activate")
    assert by_hand.rc == 1 and "ended with the status 1" in by_hand.stderr and len(noted()) == 5
