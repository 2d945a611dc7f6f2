"""The queries of the status page and of Grafana's dashboards, and the metrics in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MONITORING = Path(__file__).parents[2] / "roles/monitoring/files"
# What stands for a time there, and a time for it.
TIMES = {"$__rate_interval": "5m", "$__range": "6h", "$window": "5m", "$range": "6h"}
KEYWORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "offset", "bool", "group_left", "group_right"}


def _complete(expression: str) -> str:
    """Put times into a query."""
    for name, time in TIMES.items():
        expression = expression.replace(name, time)
    return expression


def of_page() -> list[str]:
    """Return the queries of the page."""
    panels = json.loads((MONITORING / "status/panels.json").read_text())
    found = [panels[name] for name in ("flower", "dead", "releases")]
    found += [each["expr"] for each in panels["numbers"]]
    found += [query["expr"] for chart in panels["charts"] for query in chart["queries"]]
    found += [column["expr"] for table in panels["tables"] for column in table["columns"]]
    return [_complete(each) for each in found]


def of_dashboard(dashboard: Any) -> Iterator[str]:
    """Yield the queries in a dashboard's JSON, wherever they are."""
    for key, value in dashboard.items() if isinstance(dashboard, dict) else enumerate(dashboard):
        if key == "expr":
            yield _complete(value)
        elif isinstance(value, dict | list):
            yield from of_dashboard(value)


def of_dashboards() -> list[str]:
    """Return the queries of all dashboards."""
    files = sorted((MONITORING / "grafana/dashboards").glob("*.json"))
    return [each for path in files for each in of_dashboard(json.loads(path.read_text()))]


def names(expression: str) -> set[str]:
    """Return the names of the metrics in a query: what is no function, no label, no keyword and no text."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = re.findall(r"(?<![\w.:])([A-Za-z_:][\w:]*)(?!\s*\(|[\w:])", text)
    return {name for name in found if name not in KEYWORDS}
