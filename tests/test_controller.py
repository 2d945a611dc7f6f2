"""What the verbs need of the machine that they are typed on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("locale", [{"LANG": "de_DE.UTF-8"}, {"LC_ALL": "C"}, {"LC_ALL": "tr_TR.ISO-8859-9"}, {}])
def test_verbs_work_in_any_locale(locale):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    make = ["make", "--silent", "--eval=version: ; @ansible --version", "version"]
    done = subprocess.run(make, cwd=ROOT, env=environment | locale, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("ansible"), done.stderr


def test_secrets_without_their_packages_say_what_to_do():
    bare = [sys.executable, "-S", "bin/secrets", "make", "sandbox"]
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "No module named 'ansible': run 'make secrets' instead, or 'make setup' once and then" in done.stderr
