"""docs/limits.md: the messages that it quotes are those of the code, and the variables that it names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| (?!what |---)", line)
]
CODE = re.compile(r"`([^`]+)`")
VARIABLE = re.compile(r"\b(?:app|base|celery|firewall|flower|nginx|postgresql|redis|release)_\w+")


def texts():
    """What the code may print: the literal parts of its texts, the titles of variables' values, and what playbooks say."""
    for folder in ("bin", "plugins", "runtime/coldframe"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    for path in (*ROOT.glob("roles/*/meta/schema.yml"), *ROOT.glob("playbooks/tasks/*.yml")):
        yield path.read_text()


TEXTS = list(texts())


def quoted():
    """The messages of the page, in their parts: what has a blank in it, in the first column of a table with reasons."""
    for row in ROWS:
        for message in CODE.findall(row[0]) if len(row) == 3 else ():
            if " " in message and message != "check --deploy":
                yield from (part.strip() for part in message.split("..."))


def test_rows_are_found():
    assert len(ROWS) > 40 and {len(row) for row in ROWS} == {2, 3}


@pytest.mark.parametrize("part", sorted({part for part in quoted() if part}))
def test_message_is_one_of_the_code(part):
    assert any(part in text for text in TEXTS)


def test_message_that_the_code_does_not_have_would_be_found():
    assert not any("no such message of the code" in text for text in TEXTS)
    assert len(list(quoted())) > 25


def test_variables_exist():
    known = set(re.findall(r"^### (\w+)$", (ROOT / "docs/variables.md").read_text(), re.MULTILINE))
    named = {name for code in CODE.findall(PAGE) for name in VARIABLE.findall(code)}
    assert len(named) > 30 and sorted(named - known) == []


def test_each_row_has_a_way_to_go():
    assert [row[0] for row in ROWS if not row[-1].strip()] == []
