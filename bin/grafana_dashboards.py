"""Write the dashboards for Grafana: python bin/grafana_dashboards.py.

The first one has what the status page shows, from its panels.json. The second one has hosts, servers and the edge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PANELS = ROOT / "roles/monitoring/files/status/panels.json"
FOLDER = ROOT / "roles/monitoring/files/grafana/dashboards"
SOURCE = {"type": "prometheus", "uid": "coldframe"}
UNITS = {"number": "short", "count": "short", "seconds": "s", "ratio": "percentunit", "bytes": "bytes", "rate": "ops"}
WIDTH, HEIGHT = 24, 8  # of a dashboard, and of a panel, in Grafana's units

# Title, unit, and the queries: what the legend has, and the expression.
HOSTS: dict[str, list[tuple[str, str, dict[str, str]]]] = {
    "Hosts": [
        ("Processors in use", "ratio", {"{{instance}}": '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$window]))'}),
        ("Load", "number", {"{{instance}}": "node_load1"}),
        ("Memory in use", "ratio", {"{{instance}}": "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"}),
        ("Disks in use", "ratio", {"{{instance}} {{mountpoint}}": "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes"}),
        ("Disks, time in use", "ratio", {"{{instance}} {{device}}": "rate(node_disk_io_time_seconds_total[$window])"}),
        (
            "Network",
            "bytes",
            {
                "{{instance}} {{device}} received": 'rate(node_network_receive_bytes_total{device!="lo"}[$window])',
                "{{instance}} {{device}} sent": 'rate(node_network_transmit_bytes_total{device!="lo"}[$window])',
            },
        ),
    ],
    "Edge": [
        ("Requests per second", "rate", {"{{instance}}": "rate(nginx_http_requests_total[$window])"}),
        ("Connections", "count", {"{{instance}}": "nginx_connections_active"}),
        ("Answer to Prometheus", "seconds", {"{{instance}}": 'probe_duration_seconds{job="edge"}'}),
        ("Certificate expires in", "seconds", {"{{instance}}": "probe_ssl_earliest_cert_expiry - time()"}),
    ],
    "PostgreSQL": [
        ("Connections", "count", {"{{state}}": "sum by (state) (pg_stat_activity_count)"}),
        (
            "Transactions per second",
            "rate",
            {
                "{{datname}} committed": "sum by (datname) (rate(pg_stat_database_xact_commit[$window]))",
                "{{datname}} rolled back": "sum by (datname) (rate(pg_stat_database_xact_rollback[$window]))",
            },
        ),
        ("Size of databases", "bytes", {"{{datname}}": "max by (datname) (pg_database_size_bytes)"}),
    ],
    "Redis": [
        ("Memory", "bytes", {"{{redis}}": "redis_memory_used_bytes"}),
        ("Commands per second", "rate", {"{{redis}}": "rate(redis_commands_processed_total[$window])"}),
        ("Clients", "count", {"{{redis}}": "redis_connected_clients"}),
        ("Keys evicted per second", "rate", {"{{redis}}": "rate(redis_evicted_keys_total[$window])"}),
    ],
    "Beat and units": [
        ("Beat's last tick", "seconds", {"Beat": "coldframe_beat_tick_age_seconds"}),
        ("Units by state", "count", {"{{state}}": "count by (state) (coldframe_unit_state)"}),
        (
            "Restarts of units in an hour",
            "count",
            {"{{instance}} {{name}}": "increase(node_systemd_service_restart_total[1h]) > 0"},
        ),
        ("Certificates between servers expire in", "seconds", {"{{instance}} {{certificate}}": "coldframe_certificate_expiry_timestamp_seconds - time()"}),
    ],
}  # fmt: skip


def expression(text: str) -> str:
    """Write a query with Grafana's variables."""
    return text.replace("$window", "$__rate_interval").replace("$range", "$__range")


def target(text: str, legend: str, number: int, **more: Any) -> dict[str, Any]:
    """Make a query of a panel.

    :param legend: the name of a series, with labels in double braces.
    """
    name = chr(ord("A") + number)
    return {"refId": name, "datasource": SOURCE, "expr": expression(text), "legendFormat": legend, **more}


def panel(kind: str, title: str, unit: str, targets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Make a panel without its place."""
    ratio = {"min": 0, "max": 1} if unit == "ratio" else {"min": 0}
    defaults = {"unit": UNITS.get(unit, "short"), **ratio}
    return {
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    } | more


def chart(title: str, unit: str, queries: dict[str, str], text: str = "", logarithmic: bool = False) -> dict[str, Any]:
    """Make a panel with lines.

    :param queries: the legend of each expression, and the expression.
    """
    targets = [target(each, legend, number) for number, (legend, each) in enumerate(queries.items())]
    made = panel("timeseries", title, unit, targets, description=text)
    made["options"] = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "mean", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    if logarithmic:
        made["fieldConfig"]["defaults"]["custom"] = {"scaleDistribution": {"type": "log", "log": 10}}
        del made["fieldConfig"]["defaults"]["min"]
    return made


def table(given: dict[str, Any]) -> dict[str, Any]:
    """Make a panel with the columns of a table of the page."""
    columns = given["columns"]
    targets = [
        target(column["expr"], "", number, instant=True, format="table") for number, column in enumerate(columns)
    ]
    made = panel("table", given["title"], "short", targets, description=given.get("text", ""))
    # Each query has the value in a column of its own, and the label that is shown, if it has one.
    names = {f"Value #{chr(ord('A') + number)}": column for number, column in enumerate(columns)}
    hidden = {"Time": True} | {name: True for name, column in names.items() if "show" in column}
    renamed = {name: column["title"] for name, column in names.items() if "show" not in column}
    renamed |= {given["key"]: given["heading"]}
    renamed |= {column["show"]: column["title"] for column in columns if "show" in column}
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": renamed, "indexByName": {}}},
    ]
    made["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": column["title"]},
            "properties": [{"id": "unit", "value": UNITS.get(column["unit"], "short")}],
        }
        for column in columns
        if column.get("unit") in UNITS
    ]
    return made


def placed(rows: list[list[dict[str, Any]]], columns: int = 3) -> list[dict[str, Any]]:
    """Give panels their places: each list begins a new line, and has `columns` panels side by side."""
    found, top = [], 0
    for row in rows:
        single = row[0]["type"] in ("row", "table")
        wide = WIDTH if single else WIDTH // min(len(row), columns if row[0]["type"] != "stat" else len(row))
        tall = {"row": 1, "stat": 4}.get(row[0]["type"], HEIGHT)
        for number, each in enumerate(row):
            line, column = divmod(number * wide, WIDTH)
            found.append(
                {**each, "id": len(found) + 1, "gridPos": {"h": tall, "w": wide, "x": column, "y": top + line * tall}}
            )
        top += tall * -(-len(row) * wide // WIDTH)
    return found


def dashboard(uid: str, title: str, rows: list[list[dict[str, Any]]], annotations: list[Any]) -> dict[str, Any]:
    """Make a dashboard."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["coldframe"],
        "schemaVersion": 36,
        "editable": True,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "annotations": {"list": annotations},
        "templating": {"list": []},
        "panels": placed(rows),
    }


def application() -> dict[str, Any]:
    """Make the dashboard of what the page shows."""
    given = json.loads(PANELS.read_text())
    numbers = [
        panel(
            "stat", each["title"].replace(" in $range", ""), each["unit"], [target(each["expr"], "", 0, instant=True)]
        )
        for each in given["numbers"]
    ]
    charts = []
    for each in given["charts"]:
        queries = {query.get("name") or f"{{{{{query['label']}}}}}": query["expr"] for query in each["queries"]}
        charts.append(chart(each["title"], each["unit"], queries, each["text"], each.get("logarithmic", False)))
    alerts = panel(
        "table",
        "Alerts",
        "short",
        [
            target(
                'max by (alertname, severity, instance, queue, alertstate) (ALERTS{alertname!="Watchdog"})',
                "",
                0,
                instant=True,
                format="table",
            )
        ],
        transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True}}}],
    )
    releases = {
        "name": "Releases",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"{given['releases']} unless {given['releases'].replace('info)', 'info offset 1m)')}",
        "step": "60s",
        "titleFormat": "Release {{release}}",
    }
    rows = [numbers, [alerts], charts, *([table(each)] for each in given["tables"])]
    return dashboard("coldframe-application", "Coldframe: application", rows, [releases])


def hosts() -> dict[str, Any]:
    """Make the dashboard of hosts and servers."""
    rows = []
    for title, charts in HOSTS.items():
        rows += [[{"type": "row", "title": title, "collapsed": False, "panels": []}], [chart(*each) for each in charts]]
    return dashboard("coldframe-hosts", "Coldframe: hosts and servers", rows, [])


def render() -> dict[str, str]:
    """Return the text of each dashboard by its file's name."""
    made = {"application.json": application(), "hosts.json": hosts()}
    return {name: json.dumps(each, indent=2) + "\n" for name, each in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (FOLDER / name).write_text(text)
