"""Prometheus sees every part of the application, tells what is wrong, and costs little."""

import re
import urllib.parse

import pytest
from support.queries import names, of_dashboards, of_page
from support.units import current, instances
from waits import wait_for

SETTLE = 90  # seconds: a scrape every 15 s, and the alert's own delay
MEMORY = 250  # MiB
HERE = pytest.mark.group("monitoring")


@pytest.fixture(autouse=True)
def monitored(deployment):
    """Skip everything where no host is in the group."""
    if not deployment.groups.get("monitoring"):
        pytest.skip("no host is in the group monitoring")


@pytest.fixture
def login(deployment):
    """The login of the pages."""
    return f"ops:{deployment.app_flower_password}"


@pytest.fixture
def prometheus(deployment, login):
    """Ask Prometheus through the edge; returns the data of its answer."""

    def ask(path, **parameters):
        answer = deployment.request(f"/prometheus/api/v1/{path}?{urllib.parse.urlencode(parameters)}", login=login)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    return ask


@pytest.fixture
def query(prometheus):
    """Evaluate an expression; returns the labels and the value of each sample."""

    def run(expression):
        return [(each["metric"], float(each["value"][1])) for each in prometheus("query", query=expression)["result"]]

    return run


def firing(prometheus):
    """The names of the alerts that fire."""
    return {alert["labels"]["alertname"] for alert in prometheus("alerts")["alerts"] if alert["state"] == "firing"}


@HERE
@pytest.mark.parametrize("path", ["/prometheus/api/v1/alerts", "/alertmanager/api/v2/status"])
def test_pages_are_behind_the_login(deployment, login, path):
    assert deployment.request(path).status == 401
    assert deployment.request(path, login="ops:wrong").status == 401
    assert deployment.request(path, login=login).status == 200


@HERE
def test_every_target_is_up(deployment, prometheus):
    def targets():
        return {
            (target["labels"]["job"], target["labels"]["instance"]): target["lastError"] or target["health"]
            for target in prometheus("targets", state="active")["activeTargets"]
        }

    wait_for(lambda: set(targets().values()) == {"up"}, SETTLE, lambda: str(targets()))
    groups = {"redis": "redis", "redis_cache": "redis", "postgresql": "postgresql", "nginx": "edge", "edge": "edge"}
    groups |= {"flower": "flower", "prometheus": "monitoring", "alertmanager": "monitoring"}
    expected = {(job, name) for job, group in groups.items() for name in deployment.groups.get(group, [])}
    assert set(targets()) == expected | {(job, name) for job in ("coldframe", "node") for name in deployment.hosts}


@HERE
def test_metrics_are_of_what_is_there(deployment, query):
    queues = set(deployment.celery_queues)
    for name in ("waiting", "unacked", "parked", "dead_letters", "oldest_seconds", "probe_wait_seconds"):
        wait_for(lambda name=name: queues <= {m["queue"] for m, _ in query(f"coldframe_queue_{name}")}, SETTLE, name)
    assert {value for _, value in query("coldframe_beat_lease")} == {1}
    assert max(value for _, value in query("coldframe_beat_tick_age_seconds")) < 20
    for name in ("redis_up", "pg_up", "nginx_up", "probe_http_status_code", "node_memory_MemAvailable_bytes"):
        assert query(name) and all(value > 0 for _, value in query(name)), name
    # Every rule reads metrics that there are, but those of what has not happened yet.
    for name in ("node_systemd_unit_state", "node_systemd_service_restart_total", "node_filesystem_avail_bytes",
                 "redis_memory_max_bytes", "redis_aof_last_write_status", "pg_stat_activity_count",
                 "alertmanager_notifications_failed_total", "probe_ssl_earliest_cert_expiry"):  # fmt: skip
        assert query(name), name


# What is there only after something has happened.
SOMETIMES = {"coldframe_unit_draining_seconds"}


@HERE
@pytest.mark.parametrize("queries", [of_page, of_dashboards])
def test_queries_of_the_page_and_the_dashboards_read_metrics_that_there_are(prometheus, queries):
    def missing():
        shown = set(prometheus("label/__name__/values"))
        return {name for query in queries() for name in names(query)} - SOMETIMES - shown

    wait_for(lambda: not missing(), SETTLE, lambda: f"Prometheus has no {', '.join(sorted(missing()))}")
    for query in queries():
        prometheus("query", query=query)


@HERE
def test_status_page_is_behind_the_login(deployment, login):
    page = deployment.nginx_status_path or "/status/"
    for path in (page, f"{page}status.js", f"{page}panels.json"):
        assert deployment.request(path).status == 401, path
        assert deployment.request(path, login=login).status == 200, path


@pytest.mark.group("web", "workers", "beat")
def test_units_and_release_of_the_host(host, deployment, query):
    name = host.backend.get_hostname()
    release = current(host, deployment.app_name)
    wait_for(lambda: query(f'coldframe_release_info{{instance="{name}",release="{release}"}}'), SETTLE, "its release")
    active = instances(host, deployment.app_name, state="active")
    shown = {m["unit"] for m, _ in query(f'coldframe_unit_state{{instance="{name}",state="active"}}')}
    assert shown == active


@HERE
def test_rules_are_valid_and_nothing_fires_that_should_not(host, deployment, prometheus):
    host.check_output("promtool check config /etc/prometheus/coldframe.yml")
    host.check_output("amtool check-config /etc/prometheus/coldframe-alertmanager.yml")
    rules = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
    assert rules and {rule["health"] for rule in rules} == {"ok"}, [
        rule["lastError"] for rule in rules if "lastError" in rule
    ]
    for queue in deployment.celery_queues:
        assert any(f'queue="{queue}"' in rule["query"] for rule in rules), queue
    # Tests that stop units have gone before: what they did resolves.
    wait_for(lambda: firing(prometheus) == {"Watchdog"}, 420, lambda: str(prometheus("alerts")))


@HERE
def test_alertmanager_knows_the_alert_that_always_fires(deployment, login):
    def known():
        return {
            alert["labels"]["alertname"]
            for alert in deployment.request("/alertmanager/api/v2/alerts", login=login).json
        }

    wait_for(lambda: "Watchdog" in known(), SETTLE, "Prometheus has sent it")


@pytest.mark.changes
@pytest.mark.group("workers")
def test_a_unit_that_is_stopped_fires_within_two_minutes_and_resolves(host, deployment, query):
    name, queue = host.backend.get_hostname(), next(iter(deployment.celery_queues))
    if name != deployment.groups["workers"][0]:
        pytest.skip("one host shows it")
    unit = sorted(instances(host, deployment.app_name, f"worker-{queue}", "active"))[0]
    alert = f'ALERTS{{alertname="UnitDown",alertstate="firing",instance="{name}",part="worker-{queue}"}}'
    assert not query(alert)
    host.check_output(f"systemctl stop {unit}")
    try:
        wait_for(lambda: query(alert), 120, "it fires")
    finally:
        host.check_output(f"systemctl start {unit}")
    wait_for(lambda: not query(alert), 120, "it has resolved")


@HERE
def test_memory_of_all_of_it(host, deployment):
    """The proportional set size, as the kernel tells it: shared pages count once."""
    units = ["prometheus*.service", f"{deployment.app_name}-metrics.service"]
    shown = host.check_output("systemctl show --property=Id,MainPID " + " ".join(f"'{unit}'" for unit in units))
    found = [dict(re.findall(r"^(Id|MainPID)=(.*)$", block, re.MULTILINE)) for block in shown.split("\n\n")]
    processes = {unit["MainPID"]: unit["Id"] for unit in found}
    sizes = {
        name: int(host.check_output(f"awk '/^Pss:/ {{ n += $2 }} END {{ print n }}' /proc/{pid}/smaps_rollup")) / 1024
        for pid, name in processes.items()
        if pid not in ("", "0")
    }
    exporters = sum(host.backend.get_hostname() in deployment.groups[name] for name in ("redis", "postgresql", "edge"))
    assert len(sizes) == exporters + 5, (
        sizes
    )  # and Prometheus, Alertmanager, those of the host, the edge and the application
    assert sum(sizes.values()) < MEMORY, sizes


def test_exporters_listen_on_loopback_alone(host, deployment):
    listening = [line.split() for line in host.check_output("ss -Hltnp").splitlines()]
    own = deployment.app_private_address
    allowed = {"9469"} | (
        {"9090", "9093"} if set(deployment.groups["edge"]) - set(deployment.groups["monitoring"]) else set()
    )
    for line in listening:
        if '"prometheus' in line[-1] or line[3].endswith(":9469"):
            address, _, port = line[3].rpartition(":")
            assert address in ("127.0.0.1", "[::1]") or (address == own and port in allowed), line


def asked(host, deployment, plain=False, what="status"):
    """Ask the exporter of the application on a host; it has TLS where other hosts ask it, unless plain text is tried.

    :param what: `status`, or `read().decode()` for its metrics.
    """
    url, ca = "http://127.0.0.1:9469/metrics", ""
    if len(deployment.hosts) > 1:
        url = f"http{'' if plain else 's'}://{deployment.app_private_address}:9469/metrics"
        ca = f"/etc/ssl/{deployment.app_name}-ca.pem"
    code = (
        "import ssl, urllib.request, sys; context = ssl.create_default_context(cafile=sys.argv[2] or None);"
        f"print(urllib.request.urlopen(sys.argv[1], context=context, timeout=10).{what})"
    )
    return host.run("python3 -c %s %s %s", code, url, ca).stdout.strip()


@pytest.mark.cluster
def test_metrics_are_shown_by_tls_with_a_certificate_of_the_hosts_own(host, deployment):
    assert asked(host, deployment) == "200"
    assert asked(host, deployment, plain=True) == ""


@pytest.mark.changes
def test_what_is_stopped_on_purpose_is_told(host, deployment, shell):
    """As make queues PAUSE= and make maintenance mark it; the exporter's sandbox lets it look."""
    marks = f"/run/coldframe-alerts-{deployment.app_name}"
    try:
        shell(f"mkdir -p {marks} && touch {marks}/paused-another {marks}/maintenance")
        told = asked(host, deployment, what="read().decode()").splitlines()
    finally:
        shell(f"rm -f {marks}/paused-another {marks}/maintenance")
    assert 'coldframe_queue_paused{part="worker-another",queue="another"} 1.0' in told
    assert "coldframe_maintenance 1.0" in told
    assert "coldframe_maintenance 0.0" in asked(host, deployment, what="read().decode()").splitlines()


@pytest.mark.group("postgresql")
def test_login_of_the_exporter_reads_statistics_and_no_table(shell, deployment):
    app = deployment.app_name
    login = f"PGPASSWORD=$(cat /etc/credstore/{app}-metrics/postgresql_password)"

    def ask(database, what):
        return shell(
            f"{login} psql -h /run/postgresql -U coldframe_exporter -At -d {database} -c '{what}' 2>&1 || true"
        )

    assert ask("postgres", "select count(*) > 0 from pg_stat_activity").strip() == "t"
    assert "no pg_hba.conf entry" in ask(app, "select 1")
    assert "permission denied" in ask("postgres", "select rolpassword from pg_authid")


@pytest.mark.group("edge")
def test_nginx_shows_its_counters_behind_a_socket(host):
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/nginx/status.sock');"
        "s.sendall(b'GET /stub_status HTTP/1.0\\r\\n\\r\\n'); print(s.recv(9999).decode())"
    )
    assert "Active connections" in host.check_output("python3 -c %s", code)


@pytest.mark.changes
def test_exporter_serves_again_after_it_was_killed(host, deployment):
    host.check_output(f"systemctl kill --signal=KILL {deployment.app_name}-metrics")
    wait_for(lambda: asked(host, deployment) == "200", 120, "it serves again")
