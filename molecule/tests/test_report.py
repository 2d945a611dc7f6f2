"""A deploy leaves a signed report, and a host takes releases only of keys that it knows. These tests change the host."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from support.playbooks import ROOT, ansible, deploy, output, play
from support.units import current, newest_report

pytestmark = [pytest.mark.deploys, pytest.mark.one_host, pytest.mark.changes]


@pytest.fixture
def key(deployment):
    """The key that signs the releases of this host."""
    assert deployment.release_signing_key, "make secrets creates it"
    return deployment.release_signing_key


@pytest.fixture
def other_key(tmp_path):
    """A key that the host does not know."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / "key"], check=True)
    return (tmp_path / "key").read_text()


def known(host, app):
    """How many keys the host takes releases from."""
    return int(host.check_output(f"grep -c ^coldframe /var/lib/coldframe/{app}/allowed_signers"))


def test_deploy_leaves_a_signed_report(host, deployment, inventory, key):
    app = deployment.app_name
    result = deploy(inventory)
    assert result.returncode == 0, result.stdout
    path, report = newest_report(host, app)
    assert report["action"] == "deploy" and report["release"] == current(host, app) and "@" in report["who"]
    assert len(report["sha256"]) == len(report["lock_sha256"]) == 64 and report["contract"]
    (mine,) = report["hosts"].values()
    assert mine["smoke"] == {"requests": 4, "failed": 0} and mine["seconds"]["preflight"] >= 0
    scores = {
        unit["unit"]: unit["exposure"]
        for unit in mine["units"]
        if unit["state"] == "active" and unit["unit"].endswith(".service")
    }
    assert scores and all(isinstance(score, float) and score < 3 for score in scores.values()), scores
    assert host.file(str(Path(path).parent)).mode == 0o700
    shown = play(inventory, "report")
    assert shown.returncode == 0 and "signature right, by SHA256:" in output(shown), shown.stdout
    page = next(word for word in output(shown).split() if word.endswith(".html"))
    assert Path(page).is_relative_to(ROOT / ".reports") and "<script" not in Path(page).read_text()


def test_report_has_no_secret(host, deployment, inventory, shell, key):
    assert deploy(inventory).returncode == 0
    secrets = [deployment.app_secret_key, deployment.app_database_password, deployment.app_flower_password]
    secrets += [*deployment.app_redis_passwords.values(), *key.splitlines()[1:-1]]
    write = "umask 077; cat >/run/coldframe-patterns <<'END'\n" + "\n".join(secrets) + "\nEND\n"
    found = shell(
        write
        + f"grep -rlF -f /run/coldframe-patterns /var/lib/coldframe/{deployment.app_name}; rm /run/coldframe-patterns"
    )
    assert found == ""


def test_report_that_was_changed_by_hand_is_named(host, deployment, inventory, key):
    assert deploy(inventory).returncode == 0
    path, report = newest_report(host, deployment.app_name)
    host.check_output(f'cp -p {path} /root/report.json && sed -i \'s/"who": "/&x/\' {path}')
    try:
        shown = play(inventory, "report")
        assert shown.returncode != 0 and "signature WRONG: the report or its signature was changed" in output(shown)
        assert f"x{report['who']}" not in shown.stdout
    finally:
        host.check_output(f"mv /root/report.json {path}")
    assert play(inventory, "report").returncode == 0


def test_key_that_the_host_does_not_know_deploys_nothing(host, deployment, inventory, key, other_key):
    app = deployment.app_name
    assert deploy(inventory).returncode == 0
    before = current(host, app)
    for variables, said in (
        ({"release_signing_key": other_key}, "release_signing_key is the key SHA256:"),
        (
            {"release_signing_key": ""},
            "release_signing_key is not set, and this host takes only releases that are signed by",
        ),
        ({"release_signing_key": "rubbish"}, "release_signing_key"),
    ):
        result = deploy(inventory, release_commands=["check"], **variables)
        assert result.returncode != 0 and said in output(result), result.stdout
        assert current(host, app) == before and known(host, app) == 1


def test_host_refuses_a_file_that_was_changed_on_its_way(host, deployment, inventory, key, tmp_path):
    """The signature is of another file: nothing of this one is unpacked."""
    app, before = deployment.app_name, current(host, deployment.app_name)
    cache = tmp_path / "releases"
    change = "import sys, pathlib; path = pathlib.Path(sys.argv[1]); path.write_bytes(path.read_bytes() + bytes(1))"
    step = {
        "name": "Change the file",
        "ansible.builtin.command": {"argv": ["python3", "-c", change, "{{ release_artifact_built.path }}"]},
        "delegate_to": "localhost",
        "become": False,
    }
    plays = yaml.safe_load((ROOT / "playbooks/deploy.yml").read_text())
    next(play for play in plays if play["name"] == "Place the release")["tasks"].insert(0, step)
    playbook = ROOT / "playbooks/.changed.yml"
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False))
    try:
        variables = json.dumps({"release_commands": ["check"], "release_artifact_dir": str(cache)})
        result = ansible("ansible-playbook", "-i", str(inventory), str(playbook), "-e", variables)
    finally:
        playbook.unlink()
    assert result.returncode != 0 and "was changed after it was signed. Nothing of it was unpacked" in output(result), (
        result.stdout
    )
    assert current(host, app) == before
    (built,) = cache.glob("*.tar.gz")
    assert not host.file(f"/srv/{app}/releases/{built.name.partition('.')[0]}").exists


def test_both_keys_are_known_during_a_rotation(host, deployment, inventory, key, other_key):
    app = deployment.app_name
    assert deploy(inventory).returncode == 0 and known(host, app) == 1
    # The last one gives the host its own key back; its next deploy forgets the other one.
    for new, before, count in [(other_key, key, 2), (other_key, "", 1), (key, other_key, 2)]:
        result = deploy(inventory, release_signing_key=new, release_signing_key_before=before)
        assert result.returncode == 0 and known(host, app) == count, result.stdout
