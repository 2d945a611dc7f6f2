"""Who meets a fault finds its runbook, and the test that shows what the runbook says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAULTS = set(re.findall(r'Fault\("([a-z-]+)"', (ROOT / "molecule/faults/tests/causes.py").read_text()))
RUNBOOKS = {path.stem: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README"}
PARTS = ["## What you see", "## Why", "## What to do", "## Shown by"]


def test_each_fault_has_a_runbook_and_each_runbook_a_fault():
    assert FAULTS and set(RUNBOOKS) == FAULTS


@pytest.mark.parametrize("name", RUNBOOKS)
def test_runbook_is_short_and_has_its_parts(name):
    text = RUNBOOKS[name]
    assert re.findall(r"^## .*$", text, re.MULTILINE) == PARTS
    assert len(text.splitlines()) <= 40
    assert f"`molecule/faults`, `{name}`" in text.split(PARTS[-1])[1]


def test_list_of_runbooks_is_complete():
    assert set(re.findall(r"\(([a-z-]+)\.md\)", (ROOT / "docs/runbooks/README.md").read_text())) == set(RUNBOOKS)
