"""What the controller collects is what the host needs, whatever Python the controller has."""

import hashlib
import importlib.util
import os
import platform
import zipfile
from pathlib import Path

import pytest
from packaging import tags

spec = importlib.util.spec_from_file_location("uv_venv_action", Path(__file__).parents[1] / "plugins/action/uv_venv.py")
action = importlib.util.module_from_spec(spec)
spec.loader.exec_module(action)

BOOKWORM = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "platform_machine": "x86_64",
    "sys_platform": "linux",
    "glibc": "2.36",
}
TRIXIE = BOOKWORM | {"python_version": "3.13", "python_full_version": "3.13.5", "glibc": "2.41"}


def wheel(folder, tag, content=""):
    """Make a wheel of the package `native`; return its hash as a lock file has it."""
    path = folder / f"native-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr("native.py", content)
        whole.writestr("native-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: native\nVersion: 1.0\n")
        whole.writestr("native-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        whole.writestr("native-1.0.dist-info/RECORD", "")
    return "--hash=sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Be the only place that pip on this machine looks in."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def names(archive):
    with zipfile.ZipFile(archive) as whole:
        return whole.namelist()


def test_markers_are_the_hosts():
    lock = (
        "# a comment\n--index-url nowhere\nold==1 ; python_full_version < '3.11.3' \\\n    --hash=sha256:00 \\\n"
        "    --hash=sha256:11\n    # via x\nwin==1 ; sys_platform == 'win32' \\\n    --hash=sha256:22\n"
        "extra[some]==2.0.1 --hash=sha256:33  # why\n"
    )
    assert action.wanted(lock, TRIXIE) == "extra[some]==2.0.1 --hash=sha256:33\n"
    assert action.wanted(lock, BOOKWORM).splitlines() == [
        "old==1 --hash=sha256:00 --hash=sha256:11",
        "extra[some]==2.0.1 --hash=sha256:33",
    ]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the list is of machines with glibc")
def test_platforms_are_those_that_installers_take_on_such_a_machine():
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    known = list(tags.platform_tags())
    assert [name for name in action.platforms(platform.machine(), glibc) if name in known] == known


def test_each_host_gets_its_own_wheels_and_the_controller_asks_once(index, tmp_path):
    lock = "native==1.0 \\\n    " + " \\\n    ".join(
        wheel(index, tag, tag)
        for tag in (
            "cp311-cp311-manylinux_2_17_x86_64",
            "cp313-cp313-manylinux_2_41_x86_64",
            "cp313-cp313-manylinux_2_28_aarch64",
        )
    )
    cache = tmp_path / "cache"
    archive = action.collect(lock, BOOKWORM, cache)
    assert names(archive) == ["native-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"]
    assert names(action.collect(lock, TRIXIE, cache)) == ["native-1.0-cp313-cp313-manylinux_2_41_x86_64.whl"]
    arm = action.collect(lock, TRIXIE | {"platform_machine": "aarch64"}, cache)
    assert names(arm) == ["native-1.0-cp313-cp313-manylinux_2_28_aarch64.whl"]
    for path in index.iterdir():
        path.unlink()
    assert action.collect(lock, BOOKWORM, cache) == archive


def test_missing_wheel_and_wrong_hash_name_the_variable(index, tmp_path):
    lock = "native==1.0 " + wheel(index, "cp313-cp313-manylinux_2_41_x86_64")
    with pytest.raises(ValueError, match=r"app_packages_from is 'controller'.*Python 3\.11 on x86_64 with glibc 2\.36"):
        action.collect(lock, BOOKWORM, tmp_path / "cache")
    wheel(index, "cp313-cp313-manylinux_2_41_x86_64", "another")
    with pytest.raises(ValueError, match=r"(?s)HASHES|hash"):
        action.collect(lock, TRIXIE, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.zip"))


def test_warnings_and_versions_for_other_pythons_do_not_hide_what_is_missing(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", f"{index} {tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="Packages without wheels") as refused:
        action.collect("native==1.0 --hash=sha256:00", TRIXIE, tmp_path / "cache")
    assert "No matching distribution found for native==1.0" in str(refused.value)
    assert "WARNING" not in str(refused.value)
    assert action.told("ERROR: Ignored the following versions for another Python: 1\nERROR: x") == "ERROR: x"
