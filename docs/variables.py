"""Write variables.md from the roles' argument specs: python docs/variables.py."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
HEAD = """# Variables

Set them in the inventory. Generated from `roles/*/meta/argument_specs.yml` by `python docs/variables.py`;
each role checks what it is given against the same file.
"""
QUEUES = """The profile gives the defaults. From the table follow each unit's `TimeoutStopSec` and one visibility timeout for all
processes, the seconds after which the broker delivers a message again that nobody acknowledged. It must be above

- each queue's `timeout_stop_sec`, and
- each queue's `longest_countdown` + `prefetch_multiplier` x `time_limit`: put off, then behind others, then run,

with 20 in reserve. What cannot hold is refused with the sum. `make preflight` shows all figures.
"""
SMOKE = """`smoke_request`, which must be there, `smoke_task_queue` and `smoke_validate_certs` say how a deploy sees that the application
works: [your-app.md](your-app.md#what-shows-that-it-works).
"""


def text(value: Any) -> str:
    """Make a value fit into a table's cell, and Ansible's markup into Markdown's."""
    return re.sub(r"\b[CO]\((.*?)\)", r"`\1`", " ".join(str(value).split()).replace("|", "\\|"))


def default(option: dict[str, Any]) -> str:
    """Say an option's default, or that it has none."""
    if option.get("required"):
        return "required"
    return f"`{text(option['default'])}`" if option.get("default") not in ("", None) else ""


def queues() -> Any:
    """Load the filter that has the options of a queue and the profiles."""
    spec = importlib.util.spec_from_file_location("queues", ROOT / "plugins/filter/queues.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def render() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text())["argument_specs"]["main"]
        lines += [f"## {path.parts[-3]}", "", f"{spec['short_description']}.", ""]
        if not spec["options"]:
            lines += ["No variables.", ""]
            continue
        lines += ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, option in spec["options"].items():
            choices = f" One of {', '.join(option['choices'])}." if "choices" in option else ""
            description = option["description"]
            meaning = text(" ".join(description) if isinstance(description, list) else description) + choices
            lines.append(f"| `{name}` | {option['type']} | {default(option)} | {meaning} |")
        lines.append("")
    table = queues()
    lines += ["## An entry of celery_queues", "", QUEUES, "| option | default | what is right |", "| --- | --- | --- |"]
    for name, (_, value, right) in table.OPTIONS.items():
        others = [f", {each}: `{options[name]}`" for each, options in table.PROFILES.items() if name in options]
        lines.append(f"| `{name}` | {'' if value is None else f'`{value}`'}{''.join(others)} | {right} |")
    lines += ["", "## The smoke", "", SMOKE.rstrip()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/variables.md").write_text(render())
