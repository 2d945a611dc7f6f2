"""What comes from elsewhere is locked by hash, and no secret lies in a tracked file."""

import re
import secrets
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The projects of the scenarios `adopt` and `chat` are not ours: they are locked when they are deployed.
LISTED = ["git", "ls-files", "-z", ":!molecule/*/projects/*"]
TRACKED = subprocess.run(LISTED, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
LOCKS = [name for name in TRACKED if re.search(r"requirements[^/]*(/[^/]+)?\.txt$", name)]
HASHED = re.compile(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==\S+( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_file_has_a_hash_and_names_no_index(lock):
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if not re.match(r"\s*(#|$)", line)]
    assert lines
    for line in lines:
        assert HASHED.fullmatch(line), line


def test_every_list_of_packages_has_its_lock_file():
    lists = {name for name in TRACKED if re.search(r"requirements[^/]*(/[^/]+)?\.in$", name)}
    assert lists and {re.sub(r"\.in$", ".txt", name) for name in lists} == set(LOCKS)


def test_nothing_is_installed_without_hashes():
    for name in TRACKED:
        if (
            name.startswith(("roles/", "plugins/", "requirements/", "playbooks/", "docker/"))
            and (ROOT / name).is_file()
        ):
            text = (ROOT / name).read_text(errors="replace")
            if re.search(r"\bpip\W+(install|sync|download)\b", text):
                assert "--require-hashes" in text, name


RANDOM = secrets.token_urlsafe(60)  # the scanner misses one of 50 with 30 bytes
PLANTED = {
    "a.yml": f"app_flower_password: {RANDOM}",
    "b.py": f"token = '{RANDOM}'",
    "c.env": f"SMTP_PASSWORD={RANDOM}",
    "d.pem": "-----BEGIN OPENSSH PRIVATE " + "KEY-----",
    "e.txt": "AKIA" + "Q3EGR5ZTJ2XW7LMN",
}


def test_a_secret_in_a_tracked_file_is_found(tmp_path):
    for name, text in PLANTED.items():
        (tmp_path / name).write_text(text + "\n")
    command = ["detect-secrets-hook", "--no-verify", *(tmp_path / name for name in PLANTED)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert [name for name in PLANTED if f"/{name}:" not in found.stdout] == []
