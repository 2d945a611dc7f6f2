"""docs/your-app.md, word for word: each command succeeds, and prints what the page shows.

The copy of this checkout has what is committed in it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.playbooks import ROOT
from support.tutorial import missing, replaced, steps

PAGE = ROOT / "docs/your-app.md"
PROJECT = ROOT / "molecule/adopt/projects/mysite"
FOLDER = ROOT / ".cache/tutorial"  # create.yml copies the project to it
SSH = ROOT / ".sandbox/molecule-tutorial/ssh_config"
# A reader has none of what Molecule, pytest and the outer make set. The strategy is whoever runs this one's choice.
OF_THIS_RUN = re.compile(
    r"(?!ANSIBLE_STRATEGY$)(ANSIBLE|COLDFRAME|MAKE|MFLAGS|MOLECULE|PYTEST|PYTHONPATH|SANDBOX|VIRTUAL_ENV|ENV$)"
)
PATIENCE = 1800  # seconds for one command


# What is not as on the page, all of it: where Coldframe is cloned from, and so the name of its folder; the domain, which is a
# port of this machine, so the certificate stays self-signed; and how ssh reaches the server, which a reader's own
# configuration of ssh would say.


def different() -> dict[str, str]:
    """Map words of the page to what they are here."""
    ports = re.search(r"^# ports \d+ (\d+) \d+$", SSH.read_text(), re.MULTILINE)
    assert ports, SSH
    return {"https://git.example.com/coldframe.git": f"{ROOT} coldframe", "www.example.com": f"localhost:{ports[1]}"}


def ssh(folder: Path) -> None:
    """Write a program ssh into a folder, which knows the server by its name on the page."""
    configuration = folder / "ssh_config"
    configuration.write_text(re.sub(r"^Host server1$", "Host server1.example.com", SSH.read_text(), flags=re.MULTILINE))
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {shlex.quote(str(configuration))} "$@"\n')
    program.chmod(0o755)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a reader."""
    programs = tmp_path_factory.mktemp("bin")
    ssh(programs)
    path = [each for each in os.environ["PATH"].split(os.pathsep) if not Path(each).is_relative_to(ROOT)]
    kept = {name: value for name, value in os.environ.items() if not OF_THIS_RUN.match(name)}
    return kept | {"PATH": os.pathsep.join([str(programs), *path]), "ANSIBLE_NOCOLOR": "1"}


def test_each_command_succeeds_and_prints_what_the_page_shows(environment, tmp_path):
    values, folder, place = different(), FOLDER, tmp_path / "folder"
    for step in steps(PAGE.read_text()):
        command = replaced(step.command, values)
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", f"{command}\npwd >{shlex.quote(str(place))}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        where = f"{PAGE.name}:{step.line}, {step.heading}: {command}\n{done.stdout}"
        assert done.returncode == 0, where
        shown = tuple(replaced(line, values) for line in step.shown)
        assert not (line := missing(shown, done.stdout)), f"not printed: {line}\n{where}"
        folder = Path(place.read_text().strip())


def test_project_is_as_before_but_for_the_change_of_the_page():
    done = subprocess.run(
        ["diff", "--recursive", PROJECT, FOLDER / "mysite"], capture_output=True, text=True, check=False
    )
    assert re.findall(r"^(?:[<>]|Only).*", done.stdout, re.MULTILINE) == ["> # A change."]
