"""ENV names an inventory of this project, or is the path of one elsewhere: for make, for the programs and for the secrets."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from connections import environment_of, inventory_of, vault_password_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ops(tmp_path):
    """An inventory of an operator, in a repository of its own."""
    folder = tmp_path / "ops"
    (folder / "group_vars/all").mkdir(parents=True)
    (folder / "hosts.yml").write_text("all: {hosts: {one: {ansible_host: one.example.com}}}\n")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


def make(*arguments, **environment):
    around = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SANDBOX_", "PIP_"))
    }
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=around | environment, capture_output=True, text=True, check=False)


def variable(name, *arguments, **environment):
    """What make exports to its programs; empty when nothing."""
    done = make("--silent", "--eval=told: ; @echo $${" + name + ":-}", "told", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("target", ["deploy", "status", "rollback", "preflight", "site", "unlock"])
def test_every_playbook_runs_with_the_inventory_at_that_path(ops, target):
    assert f"ansible-playbook -i {ops} " in make("-n", target, f"ENV={ops}").stdout
    assert f"ansible-playbook -i {ops} " in make("-n", target, f"ENV={ops}/").stdout
    assert "ansible-playbook -i inventories/single " in make("-n", target, "ENV=single").stdout


def test_paths_are_relative_to_this_project_and_may_begin_with_the_home(ops):
    relative = os.path.relpath(ops, ROOT)
    assert f"ansible-playbook -i {relative} " in make("-n", "deploy", f"ENV={relative}").stdout
    assert f"ansible-playbook -i {ops} " in make("-n", "deploy", "ENV=~/ops", HOME=str(ops.parent)).stdout
    assert inventory_of(relative) == ops and inventory_of("production") == ROOT / "inventories/production"


@pytest.mark.parametrize(
    "environment", ["single", "inventories/single", "inventories/single/", f"{ROOT}/inventories/single"]
)
def test_a_path_in_this_project_is_the_same_as_its_name(environment):
    assert "ansible-playbook -i inventories/single " in make("-n", "deploy", f"ENV={environment}").stdout
    assert environment_of(inventory_of(environment)) == "single"
    assert vault_password_of(inventory_of(environment)) == ROOT / ".vault/single"


def test_an_inventory_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    for environment in (f"{tmp_path}/absent", "absent"):
        done = make("-n", "deploy", f"ENV={environment}")
        assert done.returncode == 2 and "Set ENV to one of: cluster sandbox single" in done.stderr


def test_secrets_of_an_inventory_elsewhere_are_beside_it_with_their_password(ops):
    done = make("secrets", f"ENV={ops}")
    key = ops / ".vault_pass"
    assert f"{ops}/group_vars/all/vault.yml holds new secrets" in done.stdout and str(key) in done.stdout, done.stderr
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert variable("ANSIBLE_VAULT_PASSWORD_FILE", f"ENV={ops}") == str(key)
    untracked = ["git", "-C", ops, "status", "--porcelain", "--untracked-files=all"]
    listed = subprocess.run(untracked, capture_output=True, text=True, check=True).stdout
    assert "group_vars/all/vault.yml" in listed and ".vault_pass" not in listed, "the password is never in git"
    shown = subprocess.run(
        ["ansible-inventory", "-i", ops, "--host", "one", "--vault-password-file", key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"app_secret_key": "' in shown.stdout and "WARNING" not in shown.stderr


def test_a_password_of_the_operator_goes_first(ops):
    (ops / ".vault_pass").write_text("x\n")
    said = {"ANSIBLE_VAULT_PASSWORD_FILE": "/elsewhere"}
    assert variable("ANSIBLE_VAULT_PASSWORD_FILE", f"ENV={ops}", **said) == "/elsewhere"


def test_wheels_beside_the_inventory_are_found_by_pip(ops):
    assert variable("PIP_FIND_LINKS", f"ENV={ops}") == ""
    (ops / ".wheels").mkdir()
    assert variable("PIP_FIND_LINKS", f"ENV={ops}") == f"{ops}/.wheels"


def test_a_sandbox_host_of_a_project_is_reached_by_its_own_name_and_ports(ops):
    (ops / "group_vars/all/sandbox.yml").symlink_to(ROOT / "inventories/sandbox/group_vars/all/sandbox.yml")
    said = "sandbox_name: coldframe-mine\nsandbox_ssh_port: 2301\nsandbox_https_port: 8501\nsandbox_http_port: 8101\n"
    (ops / "group_vars/all/try.yml").write_text(said)
    names = ("NAME", "SSH_PORT", "HTTPS_PORT", "HTTP_PORT")
    assert [variable(f"SANDBOX_{name}", f"ENV={ops}") for name in names] == ["coldframe-mine", "2301", "8501", "8101"]
    other = (f"ENV={ops}", "SANDBOX_SSH_PORT=9")  # as a make that was called by another has it
    assert variable("SANDBOX_SSH_PORT", *other) == "2301", "the host has the ports that it was made with"
    done = make("-n", "deploy", f"ENV={ops}").stdout
    assert f"bin/sandbox-is-up {ops}/.host || ansible-playbook -i {ops} playbooks/sandbox.yml" in done
    assert f"ansible-playbook -i {ops} playbooks/sandbox_down.yml" in make("-n", "sandbox-down", f"ENV={ops}").stdout
    assert f"bin/secrets make {ops}/.host/secrets.yml" in make("-n", "secrets", f"ENV={ops}").stdout
    assert "is for sandbox hosts only" in make("-n", "sandbox-down", "ENV=single").stderr
    assert "is for the example on the sandbox host only" in make("-n", "test-app", f"ENV={ops}").stderr


def test_words_that_the_environment_has_too_count_on_the_command_line_only(tmp_path):
    done = make("-n", "new", "ENV=x", "APP=../my site", "DOMAIN=it's.example.com", USER="me", HOST="this", NAME="box")
    assert "bin/new 'ENV=x' 'APP=../my site' 'DOMAIN=it'\\''s.example.com'" in re.sub(" +", " ", done.stdout)
    assert "USER=" not in done.stdout and "HOST=" not in done.stdout and "NAME=" not in done.stdout
