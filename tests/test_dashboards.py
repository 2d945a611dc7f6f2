"""The queries of the status page and of Grafana's dashboards: Prometheus accepts them, and they read metrics that there are."""

import itertools
import json
import re
import subprocess
from pathlib import Path

import grafana_dashboards
import pytest
import yaml
from alert_rules import alert_rules
from debian import program
from queues import celery_queue_table
from support.queries import names, of_dashboard, of_page

ROOT = Path(__file__).parents[1]
GRAFANA = ROOT / "roles/monitoring/files/grafana"
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").iterdir())}
QUERIES = [*of_page(), *itertools.chain.from_iterable(map(of_dashboard, DASHBOARDS.values()))]
# What exporters show beside the metrics of which an alert is made. The host test asks a deployed Prometheus for all of them.
SHOWN = {
    "ALERTS",
    "flower_task_runtime_seconds_bucket",
    "nginx_connections_active",
    "nginx_http_requests_total",
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_load1",
    "node_network_receive_bytes_total",
    "node_network_transmit_bytes_total",
    "pg_database_size_bytes",
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "probe_duration_seconds",
    "probe_ssl_earliest_cert_expiry",
    "redis_commands_processed_total",
    "redis_connected_clients",
    "redis_evicted_keys_total",
}


def test_prometheus_accepts_every_query(tmp_path):
    rules = [{"record": f"query:{number}", "expr": each} for number, each in enumerate(dict.fromkeys(QUERIES))]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    check = [program("promtool", "prometheus"), "check", "rules", tmp_path / "rules.yml"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0 and len(rules) > 40, done.stdout + done.stderr


def test_every_metric_is_one_that_is_shown():
    own = (ROOT / "roles/monitoring/files/metrics.py").read_text()
    shown = set(re.findall(r'gauge\(\s*"(\w+)"', own)) | {
        f"queue_{name}" for name in re.findall(r'^            "(\w+)": \(', own, re.MULTILINE)
    }
    known = {f"coldframe_{name}" for name in shown} | SHOWN
    rules = alert_rules(celery_queue_table({"default": {}}), 1100, 100)["groups"]
    known |= {name for group in rules for rule in group["rules"] for name in names(rule["expr"])}
    used = {name for each in QUERIES for name in names(each)}
    assert len(used) > 30 and used - known == set()
    assert used >= SHOWN, "each is in use"


def test_names_are_read_out_of_a_query():
    query = 'sum by (task, le) (rate(a_total{task=~"b_c|d(e)",type!="f_g"}[5m])) / on (h_i) (1 - x:y_z offset 1m) > 0.5 or vector(1)'
    assert names(query) == {"a_total", "x:y_z"}
    assert names("histogram_quantile(0.5, sum by (le) (rate(a_bucket[1h]))) unless (count by (b) (c_info)) and a") == {
        "a_bucket",
        "c_info",
        "a",
    }


def test_dashboards_are_current():
    wanted = {name: json.loads(text) for name, text in grafana_dashboards.render().items()}
    assert wanted == DASHBOARDS, "run: python bin/grafana_dashboards.py"


def test_dashboard_has_every_query_of_the_page():
    shown = set(of_dashboard(DASHBOARDS["application.json"]))
    releases = json.loads((ROOT / "roles/monitoring/files/status/panels.json").read_text())["releases"]
    missing = set(of_page()) - shown - {'up{job="flower"}', "max by (queue) (coldframe_queue_dead_letters)", releases}
    assert missing == set() and any(releases in each for each in shown)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_names_and_places_of_their_own(name):
    dashboard = DASHBOARDS[name]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x, y in itertools.product(range(place["w"]), range(place["h"]))}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]


def test_dashboards_ask_the_source_that_is_provisioned():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/coldframe.yml").read_text())["datasources"]
    text = "".join(json.dumps(dashboard) for dashboard in DASHBOARDS.values())
    assert set(re.findall(r'"datasource": (\{.*?\})', text)) == {
        json.dumps({"type": source["type"], "uid": source["uid"]})
    }
    assert source["url"] == "$COLDFRAME_URL/prometheus/" and source["basicAuth"]
    assert source["secureJsonData"]["basicAuthPassword"].startswith("$"), "no secret is in the file"
