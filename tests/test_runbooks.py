"""Who meets a fault finds its runbook, and the test that shows what the runbook says."""

import re
from pathlib import Path

import pytest
from alert_rules import alert_rules
from queues import celery_queue_table

ROOT = Path(__file__).parents[1]
FAULTS = set(re.findall(r'Fault\(\s*"([a-z-]+)"', (ROOT / "molecule/faults/tests/causes.py").read_text()))
RUNBOOKS = {path.stem: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README"}
PARTS = ["## What you see", "## Why", "## What to do", "## Shown by"]


def alerts():
    """Each runbook that an alert names, to the names of its alerts."""
    found: dict[str, set[str]] = {}
    for group in alert_rules(celery_queue_table({"default": {}}), 500, 100, "")["groups"]:
        for rule in group["rules"]:
            page = rule["annotations"]["runbook_url"].partition(".md")[0]
            found.setdefault(page, set()).add(rule["alert"])
    return found


def test_each_fault_has_a_runbook_and_each_runbook_a_fault_or_an_alert():
    assert FAULTS and set(RUNBOOKS) == FAULTS | set(alerts()) - {"README"}


@pytest.mark.parametrize("name", RUNBOOKS)
def test_runbook_is_short_and_has_its_parts(name):
    text = RUNBOOKS[name]
    assert re.findall(r"^## .*$", text, re.MULTILINE) == PARTS
    assert len(text.splitlines()) <= 40
    shown = text.split(PARTS[-1])[1]
    if name in FAULTS:
        assert f"`molecule/faults`, `{name}`" in shown
    else:
        assert "`tests/test_alert_rules.py`" in shown and set(re.findall(r"`(\w+)`", shown)) == alerts()[name]


def test_list_of_runbooks_is_complete():
    assert set(re.findall(r"\(([a-z-]+)\.md\)", (ROOT / "docs/runbooks/README.md").read_text())) == set(RUNBOOKS)
