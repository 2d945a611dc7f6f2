"""Who else installs packages."""

import subprocess
import sys

import pytest
from apt_lock import holder

HOLD = (
    "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
)


@pytest.fixture
def locks(tmp_path):
    paths = [tmp_path / name for name in ("frontend", "lists")]
    for path in paths:
        path.touch()
    return [str(tmp_path / "absent"), *map(str, paths)]


@pytest.mark.parametrize("held", [1, 2])
def test_holder_of_a_lock_is_named_until_it_ends(locks, held):
    assert holder(locks) == ""
    command = [sys.executable, "-c", HOLD, locks[held]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        assert holder(locks) == holder(locks) != ""
        assert f"({other.pid}) holds {locks[held]}" in holder(locks)
        other.stdin.write("\n")
    assert holder(locks) == ""
