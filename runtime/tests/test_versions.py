"""Versions that were not tried: no process starts with them."""

import subprocess
import sys

import pytest
from coldframe import versions

COMMANDS = {
    "worker": ["-m", "coldframe.process", "--app=project", "worker"],
    "beat": ["-m", "coldframe.process", "--app=project", "beat"],
    "manage.py": ["-m", "coldframe.manage", "manage.py", "check"],
    "Gunicorn": ["-c", "from coldframe.web import hooks; hooks.install()"],
}


def test_versions_of_this_environment_were_tried():
    assert list(versions.problems(versions.installed())) == []
    assert set(versions.installed()) == set(versions.TRIED), "all of them are installed"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_process_with_another_version_ends_at_once_and_says_so(environment, tmp_path, command):
    folder = tmp_path / "celery-5.3.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: celery\nVersion: 5.3.6\n")
    environment = environment | {"PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "It has celery==5.3.6, which was not tried. Install 'celery>=5.4,<5.5'." in done.stderr
