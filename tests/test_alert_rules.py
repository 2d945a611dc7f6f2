"""When an alert fires and when it does not, asked of Prometheus' own promtool."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from alert_rules import THRESHOLDS, alert_rules
from debian import program
from queues import celery_queue_table

ROOT = Path(__file__).parents[1]
TABLE = celery_queue_table(
    {"mail": {"time_limit": 60}, "video": {"time_limit": 900}, "sms": {"time_limit": 60, "wait_slo": 5}}
)
RULES = alert_rules(TABLE, visibility_timeout=1100, connections=100)
NAMES = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}

EVERY = 15  # seconds from one value to the next
BEFORE, FAULT, AFTER = 8, 30, 56  # values: all is well, then it is not, then it is again
UP = 'up{job="coldframe",instance="a"}'
WORKER = 'coldframe_unit_state{instance="a",job="coldframe",unit="w@1",part="worker-mail",release="1",state="%s"}'
PROBE = 'coldframe_queue_probe_wait_seconds{queue="%s"}'
EXPIRY = 'coldframe_certificate_expiry_timestamp_seconds{instance="a",certificate="redis"}'
SITE = 'probe_ssl_earliest_cert_expiry{instance="a",job="edge",certificate="shop.example.com"}'
AVAILABLE = 'node_filesystem_avail_bytes{instance="a",mountpoint="/"}'
EVENTS = 'flower_events_total{task="shop.pay",type="task-%s"}'
FAST = 120  # seconds in which an alert fires whose fault users notice
# Each metric as it is when all is well, and always.
WELL = {
    UP: "1",
    'up{job="node",instance="a"}': "1",
    WORKER % "active": "1",
    'coldframe_broker_up{instance="a"}': "1",
    'coldframe_beat_lease{instance="a"}': "1",
    'coldframe_queue_waiting{queue="mail"}': "500",
    'coldframe_queue_parked{queue="mail"}': "0",
    'coldframe_queue_dead_letters{queue="mail"}': "0",
    "coldframe_unacked_oldest_seconds": "900",
    'coldframe_release_info{instance="a",release="1"}': "1",
    'coldframe_release_info{instance="b",release="1"}': "1",
    PROBE % "mail": "1",
    PROBE % "video": "80",
    PROBE % "sms": "4",
    EXPIRY: str(90 * 86400),
    SITE: str(90 * 86400),
    AVAILABLE: "30",
    'node_filesystem_size_bytes{instance="a",mountpoint="/"}': "100",
    'node_memory_MemAvailable_bytes{instance="a"}': "20",
    'node_memory_MemTotal_bytes{instance="a"}': "100",
    'node_systemd_unit_state{name="nginx.service",instance="a",state="failed"}': "0",
    'node_systemd_service_restart_total{name="nginx.service",instance="a"}': "3",
    'redis_up{redis="cache"}': "1",
    'redis_memory_used_bytes{redis="broker"}': "60",
    'redis_memory_max_bytes{redis="broker"}': "100",
    'redis_aof_last_write_status{redis="broker"}': "1",
    'pg_up{instance="a"}': "1",
    'pg_stat_activity_count{instance="a",state="idle"}': "80",
    'probe_http_status_code{job="edge",instance="a"}': "302",
    'alertmanager_notifications_failed_total{integration="email"}': "7",
}
# Alert: the metrics that differ meanwhile ("_" is none), and within how many seconds it fires.
FIRES = {
    "HostDown": ({UP: "0"}, FAST),
    "ExporterDown": ({'up{job="node",instance="a"}': "0"}, 240),
    "DiskFills": ({AVAILABLE: "9"}, 360),
    "DiskFull": ({AVAILABLE: "2"}, FAST),
    "MemoryLow": ({'node_memory_MemAvailable_bytes{instance="a"}': "4"}, 360),
    "UnitFailed": ({'node_systemd_unit_state{name="nginx.service",instance="a",state="failed"}': "1"}, FAST),
    "UnitRestarted": ({'node_systemd_service_restart_total{name="nginx.service",instance="a"}': "4"}, FAST),
    "CertificateExpires": ({EXPIRY: str(13 * 86400)}, 360),
    "CertificateExpiresSoon": ({SITE: str(2 * 86400)}, 360),
    "BrokerDown": ({'coldframe_broker_up{instance="a"}': "0"}, FAST),
    "BrokerMemoryFills": ({'redis_memory_used_bytes{redis="broker"}': "80"}, 180),
    "BrokerMemoryFull": ({'redis_memory_used_bytes{redis="broker"}': "99"}, FAST),
    "BrokerLogFails": ({'redis_aof_last_write_status{redis="broker"}': "0"}, FAST),
    "CacheDown": ({'redis_up{redis="cache"}': "0"}, FAST),
    "DatabaseDown": ({'pg_up{instance="a"}': "0"}, FAST),
    "DatabaseConnections": ({'pg_stat_activity_count{instance="a",state="idle"}': "90"}, 360),
    "WebDown": ({'probe_http_status_code{job="edge",instance="a"}': "502"}, FAST),
    "QueueWaits": ({PROBE % "mail": "120"}, 180),
    "QueueNotServed": ({PROBE % "mail": "151"}, FAST),
    "DrainLong": ({'coldframe_unit_draining_seconds{unit="w@0",part="worker-mail"}': "61"}, FAST),
    "QueueUnknown": (
        {'coldframe_queue_waiting{queue="old"}': "1", 'coldframe_queue_parked{queue="old"}': "0"},
        FAST,
    ),
    "TasksParked": ({'coldframe_queue_parked{queue="mail"}': "1"}, 360),
    "DeadLetters": ({'coldframe_queue_dead_letters{queue="mail"}': "1"}, FAST),
    "MessageHeld": ({"coldframe_unacked_oldest_seconds": "1101"}, FAST),
    "PartDown": ({WORKER % "active": "_", WORKER % "restarting": "1"}, FAST),
    "UnitDown": ({WORKER % "active": "_", WORKER % "inactive": "1"}, FAST),
    "BeatDown": ({'coldframe_beat_lease{instance="a"}': "0"}, FAST),
    "ReleasesDiffer": (
        {
            'coldframe_release_info{instance="b",release="1"}': "_",
            'coldframe_release_info{instance="b",release="2"}': "1",
        },
        # A deploy takes minutes; it fires in the case of its own below.
        None,
    ),
    "TasksFail": ({EVENTS % "failed": f"1+1x{FAULT - 1}"}, 300),
    "AlertsNotSent": ({'alertmanager_notifications_failed_total{integration="email"}': f"8+1x{FAULT - 1}"}, 240),
}
# What looks like a fault and is none: alert to metrics.
QUIET = {
    "QueueNotServed": {PROBE % "video": "900"},  # two tasks that take what they may
    "QueueUnknown": {'coldframe_queue_waiting{queue="old"}': "0", 'coldframe_queue_parked{queue="old"}': "0"},
    "ExporterDown": {'up{job="node",instance="a"}': "0", UP: "0"},  # HostDown says it
    "PartDown": {'coldframe_unit_state{unit="t@1",part="timer-night",state="inactive"}': "1"},
    "BrokerMemoryFull": {'redis_memory_max_bytes{redis="broker"}': "0"},
    "ReleasesDiffer": FIRES["ReleasesDiffer"][0],  # for some minutes
    "WebDown": {'probe_http_status_code{job="edge",instance="a"}': "404"},
    "TasksFail": {EVENTS % "failed": f"1+1x{FAULT - 1}", EVENTS % "succeeded": f"1+100x{FAULT - 1}"},
    "DrainLong": {'coldframe_unit_draining_seconds{unit="w@0",part="worker-video"}': "600"},
}

# What is stopped on purpose: alert, its fault, and the metric that says so.
PAUSED = 'coldframe_queue_paused{instance="%s",queue="%s",part="worker-%s"}'
MAINTENANCE = 'coldframe_maintenance{instance="b"}'
PLANNED = [
    *((alert, PAUSED % ("a", "mail", "mail")) for alert in ("PartDown", "UnitDown", "QueueWaits", "QueueNotServed")),
    *(
        (alert, MAINTENANCE)
        for alert in (
            *("PartDown", "UnitDown", "UnitFailed", "UnitRestarted", "QueueWaits", "QueueNotServed", "WebDown"),
            *("BrokerDown", "BeatDown", "CacheDown", "DatabaseDown"),
        )
    ),
]


def values(well, fault):
    """A series' values before, during and after a fault, as promtool reads them."""
    return " ".join(repeated(value, count) for value, count in ((well, BEFORE), (fault, FAULT), (well, AFTER)))


def repeated(value, count):
    """So many times a value; "_" is a series that an exporter does not show any more."""
    if value == "_":
        return f"stale _x{count - 1}"
    return value if "x" in value else f"{value}x{count - 1}"


def promtool(tmp_path, *tests):
    """Run tests of the rules; return what promtool said of those that fail, empty if none does."""
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    what = {"rule_files": ["rules.yml"], "evaluation_interval": f"{EVERY}s", "tests": list(tests)}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(what))
    done = subprocess.run(
        [program("promtool", "prometheus"), "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def case(fault, alert, moments):
    """A test: what is different meanwhile, and at which seconds the alert fires."""
    series = WELL | {name: WELL.get(name, "_") for name in fault}
    return {
        "interval": f"{EVERY}s",
        "input_series": [
            {"series": name, "values": values(value, fault.get(name, value))} for name, value in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > 0',
                "eval_time": f"{second}s",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
            for second, fires in moments.items()
        ],
    }


BEGIN, END = BEFORE * EVERY, (BEFORE + FAULT) * EVERY  # seconds


def test_rules_are_valid(tmp_path):
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried():
    assert set(FIRES) == NAMES - {"Watchdog"}


@pytest.mark.parametrize("alert", [alert for alert, (_, within) in FIRES.items() if within])
def test_alert_fires_in_time_and_resolves(tmp_path, alert):
    fault, within = FIRES[alert]
    assert not promtool(tmp_path, case(fault, alert, {BEGIN - EVERY: False, BEGIN + within: True, END + 750: False}))


@pytest.mark.parametrize("alert", QUIET)
def test_what_is_no_fault_fires_nothing(tmp_path, alert):
    moments = dict.fromkeys(range(BEGIN, END, 150), False)
    assert not promtool(tmp_path, case(QUIET[alert], alert, moments))


@pytest.mark.parametrize(("alert", "planned"), PLANNED, ids=lambda value: value.partition("{")[0])
def test_what_is_stopped_on_purpose_fires_nothing_until_it_runs_again(tmp_path, alert, planned):
    moments = dict.fromkeys(range(BEGIN, END + 750, 60), False)
    assert not promtool(tmp_path, case(FIRES[alert][0] | {planned: "1"}, alert, moments))


@pytest.mark.parametrize("alert", ["PartDown", "UnitDown", "QueueWaits", "QueueNotServed"])
def test_another_queue_that_is_paused_hides_nothing(tmp_path, alert):
    fault = FIRES[alert][0] | {PAUSED % ("a", "video", "video"): "1"}
    assert not promtool(tmp_path, case(fault, alert, {BEGIN + 180: True}))


@pytest.mark.parametrize("alert", ["DiskFull", "MemoryLow", "HostDown", "CertificateExpires", "BrokerMemoryFull"])
def test_maintenance_hides_no_fault_of_a_server(tmp_path, alert):
    fault, within = FIRES[alert]
    assert not promtool(tmp_path, case(fault | {MAINTENANCE: "1"}, alert, {BEGIN + within: True}))


def test_budget_of_a_queue_takes_the_place_of_the_usual_one(tmp_path):
    assert not promtool(tmp_path, case({PROBE % "sms": "6"}, "QueueWaits", {BEGIN - EVERY: False, BEGIN + 180: True}))


def test_hosts_that_stay_at_two_releases_are_told(tmp_path):
    fault = FIRES["ReleasesDiffer"][0]
    test = case(fault, "ReleasesDiffer", {1795: False, 1815: True})
    for each in test["input_series"]:
        each["values"] = repeated({**WELL, **fault}[each["series"]], 200)
    assert not promtool(tmp_path, test)


def test_an_hour_without_a_fault_has_no_alert_but_the_one_that_always_fires(tmp_path):
    series = [{"series": name, "values": f"{value}x240"} for name, value in WELL.items()]
    alerts = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []}
        for name in NAMES - {"Watchdog"}
        for minute in (1, 15, 30, 60)
    ]
    watchdog = {
        "expr": 'ALERTS{alertname="Watchdog"} == 1',
        "eval_time": "1m",
        "exp_samples": [
            {"labels": 'ALERTS{alertname="Watchdog",alertstate="firing",severity="none"}', "value": 1},
        ],
    }
    test = {"interval": f"{EVERY}s", "input_series": series, "alert_rule_test": alerts, "promql_expr_test": [watchdog]}
    assert not promtool(tmp_path, test)


def test_thresholds_follow_from_the_queue_table():
    expressions = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    for queue, seconds in (("mail", 150), ("video", 990)):
        wait = f'(coldframe_queue_probe_wait_seconds{{queue="{queue}"}} > {seconds})'
        assert [each for each in expressions if each.startswith(wait)]


def test_thresholds_of_a_server_are_those_of_the_role_alerts():
    defaults = yaml.safe_load((ROOT / "roles/alerts/defaults/main.yml").read_text())
    assert {f"alerts_{name}": value for name, value in THRESHOLDS.items()}.items() <= defaults.items()
    own = {"disk_free_percent": 25, "memory_available_percent": 1, "certificate_days": 2}
    rules = {rule["alert"]: rule["expr"] for rule in alert_rules(TABLE, 1100, 100, "", own)["groups"][0]["rules"]}
    assert rules["DiskFills"].endswith("< 0.25") and rules["MemoryLow"].endswith("< 0.01")
    assert rules["CertificateExpires"].endswith(f"< {2 * 86400}") and rules["CertificateExpiresSoon"].endswith(
        f"< {2 * 86400}"
    )


@pytest.mark.parametrize(
    "rule", [rule for group in RULES["groups"] for rule in group["rules"]], ids=lambda rule: rule["alert"]
)
def test_every_alert_has_a_severity_a_sentence_and_a_runbook(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "none")
    assert rule["annotations"]["summary"].endswith((".", ")."))
    page, _, heading = rule["annotations"]["runbook_url"].partition("#")
    text = (ROOT / page).read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }
    assert not heading or heading in headings


def test_runbooks_may_be_elsewhere():
    rules = alert_rules(TABLE, 1100, 100, "https://wiki.example.com/")["groups"][0]["rules"]
    assert rules[0]["annotations"]["runbook_url"] == "https://wiki.example.com/host-down.md"


def test_page_names_every_alert_and_every_metric():
    page = (ROOT / "docs/monitoring.md").read_text()
    assert {name for name in NAMES if f"`{name}`" not in page} == set()
    program = (ROOT / "roles/monitoring/files/metrics.py").read_text()
    shown = set(re.findall(r'gauge\(\s*"(\w+)"', program)) | {
        f"queue_{name}" for name in re.findall(r'^            "(\w+)": \(', program, re.M)
    }
    assert len(shown) > 12
    assert {
        name for name in shown if f"`coldframe_{name}`" not in page and f"`_{name.removeprefix('queue_')}`" not in page
    } == set()
