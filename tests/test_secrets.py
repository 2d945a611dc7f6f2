"""`make secrets` and `make rotate-secret`: strong, encrypted, never written over, changed in two steps."""

import importlib.machinery
import importlib.util
import io
import os
import pty
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.constants import DEFAULT_VAULT_ID_MATCH
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.template import Templar
from certificates import tls_problems
from inventory import redis_users
from preflight import secret_problems
from signatures import signing_problems

ROOT = Path(__file__).parents[1]
PATH = ROOT / "bin/secrets"


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    loader = importlib.machinery.SourceFileLoader("make_secrets", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("make_secrets", loader))
    loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    (tmp_path / "inventories/mine/group_vars/all").mkdir(parents=True)
    return module


def decrypted(folder):
    secret = VaultSecret((folder / ".vault/mine").read_bytes().strip())
    vault = folder / "inventories/mine/group_vars/all/vault.yml"
    return yaml.safe_load(VaultLib([(DEFAULT_VAULT_ID_MATCH, secret)]).decrypt(vault.read_text()))


def test_secrets_are_what_the_preflight_wants_and_can_be_decrypted(secrets, tmp_path):
    told = secrets.main(["make", "mine"])
    vault, key = tmp_path / "inventories/mine/group_vars/all/vault.yml", tmp_path / ".vault/mine"
    assert "vault.yml holds new secrets (app_secret_key," in told and ".vault/mine, which is nowhere else" in told
    assert stat.S_IMODE(vault.stat().st_mode) == stat.S_IMODE(key.stat().st_mode) == 0o600
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.")
    made = decrypted(tmp_path)
    users = list(redis_users(str(ROOT)))
    assert (
        secret_problems(
            {name: made[name] for name in made if name not in ("app_tls_authority", "release_signing_key")}, users
        )
        == []
    )
    assert signing_problems(made["release_signing_key"], "", [], []) == []
    assert tls_problems("own", made["app_tls_authority"], {}, "10.0.0.1", serves=True) == []
    assert set(made["app_redis_passwords"]) == set(users)
    assert not any(value in told for value in made["app_redis_passwords"].values())


def test_what_is_there_stays(secrets, tmp_path):
    secrets.main(["make", "mine"])
    vault = tmp_path / "inventories/mine/group_vars/all/vault.yml"
    before = vault.read_text()
    assert "is there already, and stays as it is" in secrets.main(["make", "mine"])
    assert vault.read_text() == before


def test_what_is_missing_is_added(secrets, tmp_path):
    plain = tmp_path / "a/secrets.yml"
    plain.parent.mkdir()
    plain.write_text("app_secret_key: mine  # and a comment\n")
    assert (
        "(app_database_password, app_flower_password, app_redis_passwords, app_tls_authority, release_signing_key)"
        in secrets.main(["make", str(plain)])
    )
    assert plain.read_text().startswith("app_secret_key: mine  # and a comment\n")
    assert set(yaml.safe_load(plain.read_text())) > {"app_secret_key", "app_tls_authority"}


@pytest.mark.parametrize("user", ["flower", "reader"])
def test_password_of_a_new_redis_user_is_added(secrets, tmp_path, user):
    secrets.main(["make", "mine"])
    whole = decrypted(tmp_path)
    store = secrets.Store("mine")
    data = store.read()
    del data["app_redis_passwords"][user]
    store.write(data)
    for name in (f"redis_{user}", "all"):
        with pytest.raises(SystemExit, match=f"app_redis_passwords in .* has no {user}: run make secrets first"):
            secrets.main(["begin", "mine", name])
    assert f"(app_redis_passwords.{user})" in secrets.main(["make", "mine"])
    new = decrypted(tmp_path)
    others = {name: password for name, password in whole["app_redis_passwords"].items() if name != user}
    assert new["app_redis_passwords"] == others | {user: new["app_redis_passwords"][user]}
    assert {**new, "app_redis_passwords": 0} == {**whole, "app_redis_passwords": 0}


def test_vault_whose_password_is_not_here_stays(secrets, tmp_path):
    secrets.main(["make", "mine"])
    (tmp_path / ".vault/mine").unlink()
    with pytest.raises(SystemExit, match=r"its password \.vault/mine is not"):
        secrets.main(["make", "mine"])
    assert not (tmp_path / ".vault/mine").exists()


def test_password_file_of_the_operator_is_used(secrets, tmp_path, monkeypatch):
    key = tmp_path / "own"
    key.write_text("of the operator\n")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(key))
    assert "Its password is in own." in secrets.main(["make", "mine"])
    assert key.read_text() == "of the operator\n" and not (tmp_path / ".vault").exists()


def test_inventory_without_its_folder_is_refused(secrets):
    with pytest.raises(SystemExit, match="copy inventories/single"):
        secrets.main(["make", "absent"])


def changed(secrets, folder, name):
    """The secrets before, between the two steps, and after."""
    before = decrypted(folder)
    assert name in secrets.main(["begin", "mine", name])
    between = decrypted(folder)
    assert "going on from there" in secrets.main(["begin", "mine", name])
    assert decrypted(folder) == between
    secrets.main(["finish", "mine", name])
    return before, between, decrypted(folder)


def test_redis_password_is_beside_the_old_one_and_then_alone(secrets, tmp_path):
    secrets.main(["make", "mine"])
    before, between, after = changed(secrets, tmp_path, "redis_web")
    old, new = before["app_redis_passwords"], after["app_redis_passwords"]
    assert between == before | {"app_redis_passwords": new, "app_redis_passwords_before": {"web": old["web"]}}
    assert after == before | {"app_redis_passwords": old | {"web": new["web"]}}
    assert new["web"] != old["web"]


def test_database_password_changes_with_the_login(secrets, tmp_path):
    secrets.main(["make", "mine"])
    before, between, after = changed(secrets, tmp_path, "database_password")
    new = {"app_database_password": after["app_database_password"], "app_database_login": "b"}
    assert between == before | new | {"app_database_password_before": before["app_database_password"]}
    assert after == before | new
    assert changed(secrets, tmp_path, "database_password")[2]["app_database_login"] == "a"


def test_key_is_known_before_it_signs_and_verifies_until_it_is_taken_away(secrets, tmp_path):
    secrets.main(["make", "mine"])
    before, between, after = changed(secrets, tmp_path, "secret_key")
    assert between == before | {"app_secret_key_next": after["app_secret_key"]}
    assert after == before | {
        "app_secret_key": after["app_secret_key"],
        "app_secret_key_before": before["app_secret_key"],
    }
    secrets.main(["begin", "mine", "secret_key_before"])
    assert decrypted(tmp_path) == before | {"app_secret_key": after["app_secret_key"]}


def test_signing_key_is_beside_the_old_one_and_then_alone(secrets, tmp_path):
    secrets.main(["make", "mine"])
    before, between, after = changed(secrets, tmp_path, "release_signing_key")
    new = {"release_signing_key": after["release_signing_key"]}
    assert between == before | new | {"release_signing_key_before": before["release_signing_key"]}
    assert after == before | new and after != before
    assert signing_problems(after["release_signing_key"], before["release_signing_key"], [], []) == []
    assert secrets.main(["make", "mine", "SHOW=release_signing_key"]) == after["release_signing_key"]
    store = secrets.Store("mine")
    data = store.read()
    del data["release_signing_key"]
    store.write(data)
    with pytest.raises(SystemExit, match="has no release_signing_key: run make secrets first"):
        secrets.main(["begin", "mine", "release_signing_key"])
    assert "(release_signing_key)" in secrets.main(["make", "mine"])


def test_all_are_changed_and_comments_stay(secrets, tmp_path):
    plain = tmp_path / "secrets.yml"
    secrets.main(["make", str(plain)])
    plain.write_text("# Keep me\n" + plain.read_text())
    before = yaml.safe_load(plain.read_text())
    secrets.main(["begin", str(plain), "all"])
    secrets.main(["finish", str(plain), "all"])
    after = yaml.safe_load(plain.read_text())
    assert plain.read_text().startswith("# Keep me\n") and stat.S_IMODE(plain.stat().st_mode) == 0o600
    assert after.pop("app_secret_key_before") == before["app_secret_key"] and after.pop("app_database_login") == "b"
    assert set(after) == set(before)
    assert [name for name in after if after[name] == before[name]] == ["app_tls_authority"]
    assert not set(after["app_redis_passwords"].values()) & set(before["app_redis_passwords"].values())


def test_what_cannot_be_changed_is_refused_and_nothing_is_written(secrets, tmp_path):
    for name, said in (("", "NAME is ''"), ("redis", "NAME is 'redis': set it to one of secret_key")):
        with pytest.raises(SystemExit, match=said):
            secrets.main(["begin", "mine", name])
    with pytest.raises(SystemExit, match="make secrets makes it"):
        secrets.main(["begin", "mine", "redis_web"])
    plain = tmp_path / "secrets.yml"
    plain.write_text("app_secret_key: x\n")
    with pytest.raises(SystemExit, match="does not hold app_database_password"):
        secrets.main(["begin", str(plain), "redis_web"])
    assert plain.read_text() == "app_secret_key: x\n"


def given(monkeypatch, value):
    """Let standard input, which is no terminal, have this value."""
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(value if isinstance(value, bytes) else value.encode()))
    )


def as_ansible_reads(path, key=None):
    """The variables of a file, with their templates worked out."""
    loader = DataLoader()
    if key:
        loader.set_vault_secrets([(DEFAULT_VAULT_ID_MATCH, VaultSecret(key.read_bytes().strip()))])
    return Templar(loader).template(loader.load_from_file(str(path), trusted_as_template=True))


VALUES = {
    "YES": "yes",
    "DIGITS": "0123",
    "TIME": "12:30:59",
    "NULL": "~",
    "HASH": "a #b: {c}",
    "TEMPLATE": "a{{b}} {% c",
    "LINES": "first\n  second\n\nlast",
    "QUOTES": "\"'\\",
    "LONG": "word " * 60 + "end",
    "api_key": "\u00e9\u0085\u4e2d",
}


def test_own_secrets_are_added_as_they_are_given(secrets, tmp_path, monkeypatch):
    secrets.main(["make", "mine"])
    before = decrypted(tmp_path)
    for name, value in VALUES.items():
        given(monkeypatch, value + "\n")
        told = secrets.main(["make", "mine", f"SET={name}"])
        assert f"vault.yml: added app_secrets.{name}. Commit it." in told and value not in told
    vault, key = tmp_path / "inventories/mine/group_vars/all/vault.yml", tmp_path / ".vault/mine"
    assert as_ansible_reads(vault, key) == before | {"app_secrets": VALUES}
    assert stat.S_IMODE(vault.stat().st_mode) == 0o600 and vault.read_text().startswith("$ANSIBLE_VAULT;")
    for name, value in VALUES.items():
        assert secrets.main(["make", "mine", f"SHOW={name}"]) == value
    given(monkeypatch, "no")
    assert "changed app_secrets.YES." in secrets.main(["make", "mine", "SET=YES"])
    assert as_ansible_reads(vault, key)["app_secrets"] == VALUES | {"YES": "no"}
    for name in VALUES:
        assert f"removed app_secrets.{name}." in secrets.main(["make", "mine", f"UNSET={name}"])
    assert as_ansible_reads(vault, key) == before


FILE = """\
# Keep me
app_secret_key: "0123"  # and me
app_secrets:
  # of the payment service
  STRIPE_KEY: 'yes'
  FROM_ELSEWHERE: "{{ lookup('ansible.builtin.pipe', 'pass show mail') }}"
app_redis_passwords: {web: abc}
"""


def test_what_else_is_in_the_file_stays_with_its_comments(secrets, tmp_path, monkeypatch):
    plain = tmp_path / "secrets.yml"
    plain.write_text(FILE)
    given(monkeypatch, "s3")
    secrets.main(["make", str(plain), "SET=MAIL"])
    added = "app_redis_passwords", '  MAIL: "s3"\napp_redis_passwords'
    assert plain.read_text() == FILE.replace(*added)
    secrets.main(["make", str(plain), "UNSET=MAIL"])
    assert plain.read_text() == FILE


def test_generated_secrets_can_be_shown_too(secrets, tmp_path):
    plain = tmp_path / "secrets.yml"
    plain.write_text(FILE + "app_flower_password: flower\n")
    shown = {name: secrets.main(["make", str(plain), f"SHOW={name}"]) for name in ("flower_password", "redis_web")}
    assert shown == {"flower_password": "flower", "redis_web": "abc"}  # pragma: allowlist secret
    with pytest.raises(
        SystemExit, match="SHOW is 'OTHER': set it to one of secret_key, flower_password, redis_web, STRIPE"
    ):
        secrets.main(["make", str(plain), "SHOW=OTHER"])
    with pytest.raises(SystemExit, match=r"UNSET is 'flower_password': set it to one of STRIPE_KEY, FROM_ELSEWHERE\."):
        secrets.main(["make", str(plain), "UNSET=flower_password"])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("", "x", "The name '' in app_secrets must be at most 64 letters, digits and _.-"),
        ("a b", "x", "The name 'a b' in app_secrets must be at most 64 letters, digits and _.-"),
        ("redis_web", "x", "app_secrets.redis_web has the name of a secret that Coldframe creates itself"),
        ("PYTHONPATH", "x", "app_secrets.PYTHONPATH has the name of a variable that the units set themselves"),
        ("PATH", "x", "app_secrets.PATH has the name of a variable that the programs of a process depend on"),
        ("LD_PRELOAD", "x", "app_secrets.LD_PRELOAD has the name of a variable that the programs of a process"),
        ("TOKEN", "", "app_secrets.TOKEN is of the type str; it must be a text that is not empty"),
        ("TOKEN", "\n", "app_secrets.TOKEN is of the type str; it must be a text that is not empty"),
        ("TOKEN", "hidden\0value", "app_secrets.TOKEN is of the type str; it must be a text that is not empty and contains no NUL"),
        ("TOKEN", b"\xff\xfe", "The value of TOKEN is no text in UTF-8"),
        ("TOKEN", "x" * 70000, "app_secrets.TOKEN is larger than 65536 bytes"),
    ],
)  # fmt: skip
def test_own_secret_that_would_be_refused_is_not_written(secrets, tmp_path, monkeypatch, name, value, said):
    plain = tmp_path / "secrets.yml"
    plain.write_text(FILE)
    given(monkeypatch, value)
    with pytest.raises(SystemExit) as refused:
        secrets.main(["make", str(plain), f"SET={name}"])
    assert said in str(refused.value) and "hidden" not in str(refused.value)
    assert plain.read_text() == FILE


def test_own_secrets_elsewhere_are_not_replaced(secrets, tmp_path, monkeypatch):
    secrets.main(["make", "mine"])
    other = tmp_path / "inventories/mine/group_vars/all/app.yml"
    other.write_text("app_name: x\napp_secrets:\n  A: b\n")
    given(monkeypatch, "x")
    with pytest.raises(SystemExit, match=r"app_secrets is in inventories/mine/group_vars/all/app\.yml, and this"):
        secrets.main(["make", "mine", "SET=TOKEN"])
    assert "app_secrets" not in decrypted(tmp_path)


@pytest.mark.parametrize("of", ["a project", "the example"])
def test_own_secrets_beside_those_of_a_sandbox_host_are_refused(secrets, tmp_path, monkeypatch, of):
    """There the file of this command counts, and an app.yml with the variable does not."""
    folder = tmp_path / (".sandbox/mysite" if of == "a project" else "inventories/sandbox")
    plain = folder / ".host/secrets.yml" if of == "a project" else tmp_path / ".sandbox/coldframe-sandbox/secrets.yml"
    for path, text in ((plain, FILE), (folder / "group_vars/all/app.yml", "app_name: x\napp_secrets: {A: b}\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copy(ROOT / "inventories/sandbox/group_vars/all/secrets.yml", folder / "group_vars/all")
    given(monkeypatch, "x")
    with pytest.raises(
        SystemExit, match=r"app_secrets is in .*/group_vars/all/app\.yml.* counts, which is the latter: remove it there"
    ):
        secrets.main(["make", str(plain), "SET=TOKEN"])
    assert plain.read_text() == FILE
    (folder / "group_vars/all/app.yml").write_text("app_name: x\n")
    given(monkeypatch, "x")
    assert "added app_secrets.TOKEN" in secrets.main(["make", str(plain), "SET=TOKEN"])


def test_file_that_cannot_be_read_is_told_without_what_is_in_it(secrets, tmp_path, monkeypatch):
    plain = tmp_path / "secrets.yml"
    plain.write_text("a: 1\nsecret: [hidden\n")
    with pytest.raises(SystemExit, match="is no YAML, at line") as refused:
        secrets.main(["make", str(plain), "SHOW=A"])
    assert "hidden" not in str(refused.value)
    secrets.main(["make", "mine"])
    (tmp_path / ".vault/mine").write_text("another\n")
    with pytest.raises(SystemExit, match=r"vault\.yml cannot be decrypted with the password of \.vault/mine"):
        secrets.main(["make", "mine", "SHOW=A"])


def test_one_thing_is_asked_at_a_time(secrets):
    with pytest.raises(SystemExit, match="SET SHOW: give one of them"):
        secrets.main(["make", "mine", "SET=A", "SHOW=B"])


def at_a_terminal(plain, typed):
    """Ask for a secret at a terminal; return the exit status and what was printed."""
    plain.write_text("app_secret_key: x\n")
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, str(PATH), "make", str(plain), "SET=TOKEN"])  # noqa: S606
    told = b""
    while b"not shown): " not in told:
        told += os.read(terminal, 1000)
    os.write(terminal, typed)
    try:
        while more := os.read(terminal, 1000):
            told += more
    except OSError:
        pass  # Linux says so at the end
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def test_value_at_a_terminal_is_not_shown(tmp_path):
    code, told = at_a_terminal(tmp_path / "secrets.yml", b"hidden\n")
    assert code == 0 and b"hidden" not in told, told
    assert yaml.safe_load((tmp_path / "secrets.yml").read_text())["app_secrets"] == {"TOKEN": "hidden"}


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (b"\x03", 130, "make secrets: interrupted."),
        (b"hid\x03", 130, "make secrets: interrupted."),
        (b"\x04", 1, "make secrets: no value was given for TOKEN, and nothing was changed."),
    ],
    ids=["Ctrl-C", "Ctrl-C in it", "Ctrl-D"],
)
def test_question_that_is_not_answered_ends_with_a_line(tmp_path, typed, code, said):
    ended, told = at_a_terminal(tmp_path / "secrets.yml", typed)
    lines = [line for line in told.decode().replace("^C", "").splitlines() if line.strip()]
    assert (ended, lines[1:]) == (code, [said])
    assert (tmp_path / "secrets.yml").read_text() == "app_secret_key: x\n"


def test_make_hands_the_name_and_the_value_on(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "inventories/single", folder)
    (folder / "group_vars/all/vault.yml").unlink(missing_ok=True)

    def make(*arguments, value=""):
        command = ["make", "--silent", "secrets", f"ENV={folder}", *arguments]
        environment = os.environ | {"SHOW": "IGNORED", "SET": "IGNORED"}  # they count on the command line alone
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=value, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "holds new secrets" in make()
    assert "added app_secrets.STRIPE_KEY" in make("SET=STRIPE_KEY", value="sk_$HOME 'x'\n")
    assert make("SHOW=STRIPE_KEY") == "sk_$HOME 'x'\n"
    assert "removed app_secrets.STRIPE_KEY" in make("UNSET=STRIPE_KEY")


def test_password_of_a_provider_is_not_changed_here(secrets, tmp_path):
    secrets.main(["make", "mine"])
    file = tmp_path / "inventories/mine/group_vars/all/app.yml"
    for unset in ('app_database_url: ""\n', "# app_database_url: postgres://a@b/c\n"):
        file.write_text(unset)
        assert "database_password" in secrets.main(["begin", "mine", "database_password"])
        secrets.main(["finish", "mine", "database_password"])
    for text in ("app_database_url: postgres://ann@db/blog\n", 'a: 1\napp_database_url: "postgres://ann@db/blog"\n'):
        file.write_text(text)
        before = decrypted(tmp_path)
        with pytest.raises(SystemExit, match=r"docs/managed\.md"):
            secrets.main(["begin", "mine", "database_password"])
        assert decrypted(tmp_path) == before
        secrets.main(["begin", "mine", "all"])
        secrets.main(["finish", "mine", "all"])
        after = decrypted(tmp_path)
        assert after["app_database_password"] == before["app_database_password"]
        assert after["app_flower_password"] != before["app_flower_password"]
