"""A lock file whose packages have no wheels: all of them are named at once."""

import re

import pytest
from uv_venv import without_wheels

LOCK = "six==1.17.0 \\\n    --hash=sha256:00\ndoc-opt[x]==0.6.2 \\\n    --hash=sha256:11 \\\n    --hash=sha256:22\n    # via x\nold==2.3 --hash=sha256:33\n"
MARKED = "{implementation_name != 'pypy'}"  # as uv shows a marker


class Installer:
    """An installer that names the first package without a wheel, as uv does."""

    def __init__(self, file, without):
        """Remember the requirements, and what has no wheel."""
        self.file, self.without = file, without

    def run_command(self, arguments, environ_update):
        """Answer as the program would."""
        left = [package for package in self.without if re.split("{|==", package)[0] in self.file.read_text()]
        return (1, "", f"Because {left[0]} has no usable wheels and you require it") if left else (0, "", "")


@pytest.mark.parametrize(
    "without", [["doc-opt==0.6.2"], ["old==2.3"], ["doc-opt==0.6.2", "old==2.3"], ["six==1.17.0", "old==2.3"]]
)
def test_every_package_without_a_wheel_is_named(tmp_path, without):
    file = tmp_path / "requirements.txt"
    file.write_text(LOCK)
    installer = Installer(file, without)
    _, _, errors = installer.run_command([], None)
    assert without_wheels(installer, ["install"], file, errors, {}) == without
    assert "six" in file.read_text() or "six==1.17.0" in without


def test_a_package_with_a_marker_is_named_without_it(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text(f"psycopg-c==3.3.4 ; implementation_name != 'pypy' \\\n    --hash=sha256:44\n{LOCK}")
    installer = Installer(file, [f"psycopg-c{MARKED}==3.3.4", "old==2.3"])
    _, _, errors = installer.run_command([], None)
    assert without_wheels(installer, ["install"], file, errors, {}) == ["psycopg-c==3.3.4", "old==2.3"]
    assert file.read_text().startswith("six==")


def test_other_errors_name_none(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text(LOCK)
    assert without_wheels(Installer(file, []), ["install"], file, "error: Failed to fetch", {}) == []
