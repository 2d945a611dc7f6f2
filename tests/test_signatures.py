"""Releases are signed by keys that hosts know: what each of them refuses, with the ssh-keygen of this machine."""

import grp
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import release_unpack
from ansible.errors import AnsibleActionFail
from ansible.module_utils import coldframe_signatures as signatures
from ansible.plugins.loader import action_loader, init_plugin_loader
from release_artifact import write
from release_unpack import unpack
from signatures import signing_problems

ROOT = Path(__file__).parents[1]
MEMBERS = {
    "manage.py": (0o750, b"print(1)\n", ""),
    "package/code.py": (0o640, b"x = 1\n", ""),
    "link": (0o777, b"", "manage.py"),
}
RELEASE = "3f2a9c1b7d04"  # pragma: allowlist secret


def new_key(folder, name, passphrase=""):
    path = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", f"{name}@desk", "-f", path], check=True
    )
    return path.read_text(), path.with_suffix(".pub").read_text().strip()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Return private and public keys of three people, by name."""
    folder = tmp_path_factory.mktemp("keys")
    return {name: new_key(folder, name) for name in ("anna", "ben", "mallory")}


def known(*pairs):
    return signatures.allowed_signers([public for _, public in pairs])


def test_signature_of_a_known_key_is_right(keys, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"\0\n")
    by = signatures.fingerprint(keys["ben"][1])
    assert by.startswith("SHA256:")
    signature = signatures.sign(file, keys["ben"][0], signatures.RELEASE)
    assert signatures.verify(file, signature, known(keys["anna"], keys["ben"]), signatures.RELEASE) == by
    assert signatures.signer(file, signature, signatures.RELEASE) == by


@pytest.mark.parametrize(
    ("message", "purpose", "signature", "said"),
    [
        (b"other", signatures.RELEASE, None, "was changed after it was signed"),
        (b"text", signatures.REPORT, None, "was changed after it was signed"),
        (b"text", signatures.RELEASE, "rubbish", "was changed after it was signed"),
        (b"text", signatures.RELEASE, "", "has no signature"),
    ],
)
def test_what_is_wrong_with_a_signature_is_said(keys, message, purpose, signature, said):
    made = signatures.sign(b"text", keys["anna"][0], signatures.RELEASE)
    with pytest.raises(ValueError, match=said):
        signatures.verify(message, made if signature is None else signature, known(keys["anna"]), purpose)


def test_key_that_is_not_known_is_named(keys):
    made = signatures.sign(b"text", keys["mallory"][0], signatures.RELEASE)
    with pytest.raises(ValueError) as refused:
        signatures.verify(b"text", made, known(keys["anna"]), signatures.RELEASE)
    assert f"is signed by the key {signatures.fingerprint(keys['mallory'][1])}, which is none of" in str(refused.value)
    assert signatures.fingerprint(keys["anna"][1]) in str(refused.value)


def test_key_that_cannot_be_read_is_refused_without_a_word_of_it(keys, tmp_path):
    locked, _ = new_key(tmp_path, "locked", passphrase="a long one")
    for key, said in (
        (locked, "it has a passphrase"),
        (keys["anna"][0][:200], "no private key, or is cut off"),
        ("x", "no private key"),
    ):
        for action in (signatures.public_key, lambda key: signatures.sign(b"text", key, signatures.RELEASE)):
            with pytest.raises(ValueError, match=said) as refused:
                action(key)
            assert key not in str(refused.value)


@pytest.mark.parametrize(
    "wrong", ["ssh-ed25519 AAAA", "anna", "", "cert-authority {}", 'command="x" {}', "{}\n{}", "{}\nx", "{} \x1b[2J"]
)
def test_signer_that_is_no_key_is_refused(keys, wrong):
    with pytest.raises(ValueError, match="it is no public key of OpenSSH"):
        signatures.checked_public(wrong.replace("{}", keys["anna"][1]))
    assert signatures.checked_public(f" {keys['anna'][1]}\n") == keys["anna"][1]


def test_preflight_names_what_is_wrong_with_the_keys(keys):
    (anna, public), (_, ben), (mallory, _) = keys["anna"], keys["ben"], keys["mallory"]
    assert (
        signing_problems("", "", [], [])
        == signing_problems(anna, "", [ben], [])
        == signing_problems(anna, "", [], [public])
        == []
    )
    problems = signing_problems("broken", "", ["no key"], [public])
    assert problems[0].startswith("release_signing_key cannot be used: ssh-keygen cannot read it")
    assert problems[1].startswith("release_signers has 'no key', which cannot be used")
    assert signing_problems("broken", "", ["no key"], [public], False) == [], "one host tells it"
    assert "run 'make secrets'" in signing_problems("", "", [ben], [])[0]
    for key, said in (
        ("", "release_signing_key is not set, and this host"),
        (mallory, "release_signing_key is the key SHA256:"),
    ):
        (problem,) = signing_problems(key, "", [], [public], False)
        assert problem.startswith(said) and f"{signatures.fingerprint(public)} anna@desk" in problem
    assert signing_problems(mallory, anna, [], [public]) == [], "a rotation: the key before is known"


def signers_of(*own, others=()):
    """What the action plugin of deploy_begin sends a host."""
    init_plugin_loader()
    action_loader.add_directory(str(ROOT / "plugins/action"))
    module = sys.modules[action_loader.get("deploy_begin", class_only=True).__module__]
    return module.signed({"signing_keys": list(own), "signers": list(others)})


def test_host_takes_other_signers_only_from_one_that_it_knows(keys):
    anna, ben, mallory = keys["anna"], keys["ben"], keys["mallory"]

    def taken(before, sent):
        signatures.check_signers(before, sent["signers"], sent["signatures"])
        return sent["signers"]

    nobody = signers_of()
    assert taken("", nobody) == ""
    first = taken("", signers_of(anna[0]))
    assert signatures.keys_of(first) == [" ".join(anna[1].split()[:2])]
    both = taken(first, signers_of(anna[0], others=[ben[1]]))
    assert taken(both, signers_of(ben[0], others=[anna[1]])), "each of the two may"
    for sent, said in (
        (nobody, "release_signing_key is not set"),
        (signers_of(mallory[0], others=[anna[1]]), "is signed by the key"),
        (
            {**signers_of(anna[0], others=[mallory[1]]), "signatures": signers_of(anna[0])["signatures"]},
            "was changed after",
        ),
        ({**signers_of(mallory[0]), "signatures": []}, "has no signature"),
    ):
        with pytest.raises(ValueError, match=said):
            taken(first, sent)


def test_both_keys_are_known_during_a_rotation_and_then_the_new_one(keys):
    old, new = keys["anna"], keys["ben"]
    first = signers_of(old[0])["signers"]
    during = signers_of(new[0], old[0])
    signatures.check_signers(first, during["signers"], during["signatures"])
    assert len(signatures.keys_of(during["signers"])) == 2
    after = signers_of(new[0])
    signatures.check_signers(during["signers"], after["signers"], after["signatures"])
    with pytest.raises(ValueError):
        signatures.check_signers(first, after["signers"], after["signatures"])


def test_unreadable_key_ends_the_deploy_on_the_controller():
    with pytest.raises(AnsibleActionFail, match="release_signing_key cannot be used: ssh-keygen cannot read it"):
        signers_of("rubbish")


def test_built_file_is_signed_and_one_that_was_changed_is_built_again(keys, tmp_path):
    path = tmp_path / "cache/abc.tar.gz"
    signature = write(MEMBERS, "abc", path, keys["anna"][0])
    whole, made = path.read_bytes(), path.stat().st_mtime_ns
    assert signatures.verify(path, signature, known(keys["anna"]), signatures.RELEASE)
    assert write(MEMBERS, "abc", path, keys["anna"][0]) == signature and path.stat().st_mtime_ns == made, "it is taken"
    path.write_bytes(b"planted")
    assert write(MEMBERS, "abc", path, keys["anna"][0]) == signature and path.read_bytes() == whole
    other = write(MEMBERS, "abc", path, keys["ben"][0])
    assert signatures.verify(path, other, known(keys["ben"]), signatures.RELEASE)
    assert write(MEMBERS, "abc", path, "") == "", "without a key nothing is signed"


class Host:
    """A host's folders, and the module that is run there."""

    def __init__(self, folder):
        """Make the folders."""
        self.root, self.state = folder / "srv", folder / "state"
        (self.root / "releases").mkdir(parents=True)
        self.state.mkdir()
        self.group = grp.getgrgid(os.getgid()).gr_name

    def take(self, archive, signature, release=RELEASE):
        """Run release_unpack; return what it says."""
        arguments = {
            "app": self.group,
            "root": str(self.root),
            "release": release,
            "src": str(archive),
            "signature": signature,
        }
        given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
        program = (
            "import sys, io; import ansible.module_utils as u; u.__path__.append(sys.argv[1]); sys.path.insert(0, sys.argv[2])\n"
            "from pathlib import Path; from ansible.module_utils import coldframe; coldframe.STATE = Path(sys.argv[3])\n"
            "from ansible.module_utils import basic; basic._ANSIBLE_ARGS = sys.stdin.buffer.read(); basic._ANSIBLE_PROFILE = 'legacy'\n"
            "import release_unpack; release_unpack.main()"
        )
        paths = [str(ROOT / "plugins/module_utils"), str(ROOT / "plugins/modules"), str(self.state)]
        done = subprocess.run(
            [sys.executable, "-c", program, *paths], input=given, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip().startswith("{"), done.stderr
        return json.loads(done.stdout)

    def knows(self, *pairs):
        """Have the host know these signers."""
        (self.state / self.group).mkdir(exist_ok=True)
        (self.state / self.group / "allowed_signers").write_text(known(*pairs))

    @property
    def unpacked(self):
        """The files of the releases there."""
        return sorted(str(path.relative_to(self.root / "releases")) for path in (self.root / "releases").rglob("*"))


@pytest.fixture
def host(tmp_path):
    if os.getuid():
        pytest.skip("only root gives files to others")
    return Host(tmp_path)


@pytest.fixture
def archive(keys, tmp_path):
    """A release that Anna signed, and her signature."""
    path = tmp_path / "built.tar.gz"
    return path, write(MEMBERS, RELEASE, path, keys["anna"][0])


def test_host_refuses_what_no_known_key_signed_and_unpacks_nothing(keys, host, archive):
    path, signature = archive
    host.knows(keys["ben"])
    for given, said in ((signature, "The release is signed by the key"), ("", "The release has no signature")):
        result = host.take(path, given)
        assert result["failed"] and said in result["msg"] and "Nothing of it was unpacked" in result["msg"]
    host.knows(keys["anna"])
    path.write_bytes(path.read_bytes() + b"\0")
    assert "was changed after it was signed" in host.take(path, signature)["msg"]
    assert host.unpacked == []


def test_host_takes_what_a_known_key_signed_and_notes_it(keys, host, archive):
    path, signature = archive
    host.knows(keys["ben"], keys["anna"])
    result = host.take(path, signature)
    by = signatures.fingerprint(keys["anna"][1])
    assert result["changed"] and result["signer"] == by and not result.get("failed")
    note = json.loads((host.root / f"releases/{RELEASE}/.release/artifact.json").read_text())
    assert note["signature"] == signature and note["signer"] == by and len(note["sha256"]) == 64
    assert not host.take(path, signature)["changed"], "the second time nothing changes"


def test_host_without_signers_takes_what_is_not_signed(host, archive):
    result = host.take(archive[0], "")
    assert result["changed"] and result["signer"] == "" and f"{RELEASE}/manage.py" in host.unpacked


def test_signed_file_of_another_release_is_refused(keys, host, archive):
    """What was signed once is not put in the place of something else."""
    host.knows(keys["anna"])
    result = host.take(*archive, release="000000000000")
    assert result["failed"] and "is another one" in result["msg"] and host.unpacked == []


def test_files_are_as_in_the_archive_whatever_the_umask_and_stay_so(tmp_path, archive, host):
    releases = host.root / "releases"
    before = os.umask(0o077)
    try:
        assert unpack(archive[0], RELEASE, releases, os.getgid())
    finally:
        os.umask(before)
    folder = releases / RELEASE
    assert (folder / "package/code.py").read_text() == "x = 1\n" and os.readlink(folder / "link") == "manage.py"
    modes = {
        name: (folder / name).stat().st_mode & 0o777
        for name in (".", "manage.py", "package", "package/code.py", ".release")
    }
    assert modes == {".": 0o751, "manage.py": 0o750, "package": 0o750, "package/code.py": 0o640, ".release": 0o751}
    assert not unpack(archive[0], RELEASE, releases, os.getgid())
    for change in (
        lambda: (folder / "manage.py").write_text("y"),
        lambda: (folder / "package/code.py").unlink(),
        lambda: (folder / "package").chmod(0o777),
        lambda: ((folder / "link").unlink(), (folder / "link").symlink_to("/etc")),
        lambda: os.chown(folder / "manage.py", 1, 1),
    ):
        change()
        (folder / "own.txt").write_text("stays")
        assert unpack(archive[0], RELEASE, releases, os.getgid()) and not unpack(
            archive[0], RELEASE, releases, os.getgid()
        )
        assert (folder / "manage.py").read_text() == "print(1)\n" and (folder / "own.txt").exists()


def test_member_outside_of_the_release_is_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    for name in (f"{RELEASE}/../../etc", "/etc/x", "other/x"):
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(ValueError, match="is another one"):
            release_unpack.unpack(path, RELEASE, tmp_path, 0)
