"""Which Python an environment gets when a version is asked for, as for the check on the controller."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import uv_venv

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Find an interpreter where uv may download none."""
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")

    def run_command(arguments, environ_update=None):
        done = subprocess.run(
            arguments, env=os.environ | (environ_update or {}), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def fail(msg):
        raise ValueError(msg)

    def run(python):
        module = SimpleNamespace(
            params={"python": python, "uv": shutil.which("uv")}, run_command=run_command, fail_json=fail
        )
        return uv_venv.interpreter(module, tmp_path / "environments/0")

    return run


def program(path, code):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_path_is_taken_as_it_is(find):
    assert find("/usr/bin/python3") == "/usr/bin/python3"


def test_version_of_this_machine_is_found(find):
    said = subprocess.run([find(HERE), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"Python {HERE}.")


def test_program_that_does_not_start_is_passed_over(find, tmp_path, monkeypatch):
    """As a shim of pyenv, for a version that is not chosen."""
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{os.environ['PATH']}")
    monkeypatch.setenv("PYENV_ROOT", f"{tmp_path}/pyenv")
    program(tmp_path / "shims/python3.99", 127)
    good = program(tmp_path / "pyenv/versions/3.99.1/bin/python", 0)
    assert find("3.99") == good


def test_version_that_nobody_has_is_named(find):
    with pytest.raises(ValueError, match=r"^There is no Python 3\.99 on this machine, and uv can get none\.$"):
        find("3.99")
