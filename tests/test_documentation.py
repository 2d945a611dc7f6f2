"""ansible-doc prints every module, filter and role, and filters are documented as they are called."""

import importlib
import inspect
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILTERS = {
    name: function
    for path in sorted((ROOT / "plugins/filter").glob("*.py"))
    for name, function in importlib.import_module(path.stem).FilterModule().filters().items()
}
NAMES = {
    "module": [path.stem for path in sorted((ROOT / "plugins/modules").glob("*.py"))],
    "filter": sorted(FILTERS),
    "role": [path.name for path in sorted((ROOT / "roles").iterdir()) if path.is_dir()],
    "callback": [path.stem for path in sorted((ROOT / "plugins/callback").glob("*.py"))],
}


@pytest.mark.parametrize("kind", NAMES)
def test_ansible_doc_prints_them_all(kind):
    """One run for all of a kind: it ends at the first that it cannot print."""
    done = subprocess.run(
        ["ansible-doc", "--type", kind, *NAMES[kind]],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "PAGER": "cat"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "[ERROR]" not in done.stderr, done.stderr
    printed = dict(re.findall(r"^> [A-Z]+:? \*?([^\s*]+)\*? \((.*)\)$", done.stdout, re.MULTILINE))
    assert sorted(printed) == NAMES[kind], done.stderr
    assert [name for name, path in printed.items() if not path.startswith(f"{ROOT}/")] == []


def test_no_documentation_is_left_of_a_filter_that_is_gone():
    assert sorted(path.stem for path in (ROOT / "plugins/filter").glob("*.yml")) == NAMES["filter"]


@pytest.mark.parametrize("name", NAMES["filter"])
def test_documented_parameters_are_the_filters_own(name):
    page = yaml.safe_load((ROOT / f"plugins/filter/{name}.yml").read_text())
    documentation, result = page["DOCUMENTATION"], page["RETURN"]["_value"]
    options = documentation["options"]
    first, *others = inspect.signature(FILTERS[name]).parameters.values()
    assert documentation["name"] == name
    assert list(options) == ["_input", *(parameter.name for parameter in others)]
    assert documentation.get("positional", "") == ", ".join(parameter.name for parameter in others)
    for parameter, option in zip([first, *others], options.values(), strict=True):
        demanded = parameter.default is inspect.Parameter.empty
        assert option["description"] and option["type"], parameter.name
        assert option.get("required", False) == demanded, parameter.name
        assert demanded or option.get("default") == parameter.default, parameter.name
    assert result["description"] and result["type"]
    assert f"| {name}" in page["EXAMPLES"]
