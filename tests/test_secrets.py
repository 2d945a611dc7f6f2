"""`make secrets`: strong, encrypted, and never written over."""

import importlib.machinery
import importlib.util
import stat
from pathlib import Path

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.vault import VaultLib, VaultSecret
from certificates import tls_problems
from preflight import REDIS_USERS, secret_problems

PATH = Path(__file__).parents[1] / "playbooks/secrets"


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    loader = importlib.machinery.SourceFileLoader("make_secrets", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_secrets", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    (tmp_path / "inventories/mine/group_vars/all").mkdir(parents=True)
    return module


def test_secrets_are_what_the_preflight_wants_and_can_be_decrypted(secrets, tmp_path):
    told = secrets.main("mine")
    vault, key = tmp_path / "inventories/mine/group_vars/all/vault.yml", tmp_path / ".vault/mine"
    assert "vault.yml holds new secrets" in told and ".vault/mine, which is nowhere else" in told
    assert stat.S_IMODE(vault.stat().st_mode) == stat.S_IMODE(key.stat().st_mode) == 0o600
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.")
    secret = VaultSecret(key.read_bytes().strip())
    made = yaml.safe_load(VaultLib([(DEFAULT_VAULT_ID_MATCH, secret)]).decrypt(vault.read_text()))
    assert secret_problems(made) == []
    assert set(made["app_redis_passwords"]) == set(REDIS_USERS)
    assert not any(value in told for value in made["app_redis_passwords"].values())


def test_authority_is_what_the_preflight_wants(secrets, tmp_path):
    secrets.main("mine")
    secret = VaultSecret((tmp_path / ".vault/mine").read_bytes().strip())
    vault = tmp_path / "inventories/mine/group_vars/all/vault_tls.yml"
    made = yaml.safe_load(VaultLib([(DEFAULT_VAULT_ID_MATCH, secret)]).decrypt(vault.read_text()))
    assert tls_problems("own", made["app_tls_authority"], {}, "10.0.0.1", serves=True) == []


def test_what_is_there_stays_and_what_is_missing_is_made(secrets, tmp_path):
    secrets.main("mine")
    vault, tls = (tmp_path / "inventories/mine/group_vars/all" / name for name in ("vault.yml", "vault_tls.yml"))
    before = vault.read_text(), tls.read_text()
    assert secrets.main("mine").count("is there already, and stays as it is") == 2
    assert (vault.read_text(), tls.read_text()) == before
    tls.unlink()
    assert "vault_tls.yml holds new secrets" in secrets.main("mine")
    assert vault.read_text() == before[0] and tls.read_text().startswith("$ANSIBLE_VAULT;1.")


def test_password_file_of_the_operator_is_used(secrets, tmp_path, monkeypatch):
    key = tmp_path / "own"
    key.write_text("of the operator\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(key))
    assert "The password is in own." in secrets.main("mine")
    assert key.read_text() == "of the operator\n" and not (tmp_path / ".vault").exists()


def test_inventory_without_its_folder_is_refused(secrets):
    assert "copy inventories/single" in secrets.main("absent")
