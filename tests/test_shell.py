"""`make lint-shell` finds every shell script by itself, templates too, and fails with any of them."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WRONG = "rm $1\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin/check-shell-scripts", tmp_path / "bin/check-shell-scripts")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def looked_at(project, **files):
    for name, text in files.items():
        (project / name.replace("_", ".")).write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    return subprocess.run([project / "bin/check-shell-scripts"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("plain", "#!/bin/sh"),
        ("plain", "#!/usr/bin/env bash"),
        ("plain", "#!/bin/bash -eu"),
        ("template_j2", "#!/bin/sh\necho {{ name }}"),
    ],
)
def test_a_mistake_in_a_script_is_found(project, name, first):
    found = looked_at(project, **{name: f"{first}\n{WRONG}", "zz_last": "#!/bin/sh\necho\n"})
    assert found.returncode == 1
    assert "SC2086" in found.stdout and "SC1083" not in found.stdout
    assert name.replace("_", ".") in found.stdout


def test_what_is_no_script_is_passed_over(project):
    found = looked_at(project, words=WRONG, python=f"#!/usr/bin/env python3\n# {WRONG}", good='#!/bin/sh\nrm "$1"\n')
    assert (found.returncode, found.stdout) == (0, "")
