"""What the role renders for Prometheus, Alertmanager and their units: on one host, and on several."""

import contextlib
import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
import send_test
import yaml
from alert_rules import THRESHOLDS
from applications import GROUPS, evaluate, rendered
from debian import program, unpacked
from real_nginx import free_port
from support.receiver import Receiver
from waits import wait_for

ROOT = Path(__file__).parents[1]
MAIL = {"host": "mail.example.com", "user": "shop", "sender": "shop@example.com"}
TEMPLATES = "/usr/share/prometheus/alertmanager/default.tmpl"  # Debian's
ADDRESSES = {"data": "10.0.0.4", "web1": "fd00::7"}
PASSWORDS = dict.fromkeys(["admin", "exporter", "metrics", "flower", "web", "worker", "beat", "cache"], "x" * 20)


def variables(several, **more):
    """The variables of the monitoring host."""
    given = {"groups": {group: ["one"] for group in (*GROUPS, "monitoring")}, "group_names": [*GROUPS, "monitoring"]}
    given |= {
        "app_redis_passwords": PASSWORDS,
        "app_addresses": {},
        "app_tls": "own",
        "smoke_request": {"path": "/shop/"},
    }
    if several:
        groups = {group: ["data"] for group in (*GROUPS, "monitoring")} | {
            group: ["web1"] for group in ("edge", "web", "workers")
        }
        given |= {"groups": groups, "inventory_hostname": "data", "app_addresses": ADDRESSES}
        given |= {"hostvars": {name: {} for name in ADDRESSES}}
        given |= {"group_names": [group for group, hosts in groups.items() if hosts == ["data"]]}
    return given | more


def template(name, several=False, **more):
    """Render a template of the role."""
    return rendered("shop", f"roles/monitoring/templates/{name}.yml.j2", **variables(several, **more))


def unit(name, several=False, **more):
    """Render a unit or a drop-in."""
    return rendered("shop", f"systemd/{name}.j2", **variables(several, **more))


def jobs(text):
    """The configuration of each job, by its name."""
    return {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}


@pytest.mark.parametrize("several", [False, True])
def test_configuration_of_prometheus_is_valid(tmp_path, several):
    (tmp_path / "rules.yml").write_text(template("rules", several))
    (tmp_path / "ca.pem").touch()
    text = template("prometheus", several).replace("/etc/prometheus/coldframe-rules.yml", "rules.yml")
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/ssl/shop-ca.pem", "ca.pem"))
    check = [program("promtool", "prometheus"), "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_host_is_asked_on_loopback():
    found = jobs(template("prometheus"))
    assert set(found) == {"coldframe", "node", "redis", "redis_cache", "postgresql", "nginx", "flower", "edge", "prometheus", "alertmanager"}  # fmt: skip
    targets = {target for job in found.values() for config in job["static_configs"] for target in config["targets"]}
    assert targets == {"127.0.0.1:9469", "127.0.0.1:9090", "127.0.0.1:9093", "127.0.0.1:9115"}
    assert "https" not in {job.get("scheme") for job in found.values()}
    (edge,) = found["edge"]["static_configs"]
    assert edge["labels"]["__param_target"] == "https://127.0.0.1:443/shop/"


def test_other_hosts_are_asked_at_their_private_addresses_by_tls():
    found = jobs(template("prometheus", several=True))
    node = {config["labels"]["instance"]: config["targets"] for config in found["node"]["static_configs"]}
    assert node == {"data": ["10.0.0.4:9469"], "web1": ["[fd00::7]:9469"]}
    assert found["nginx"]["static_configs"][0]["targets"] == ["[fd00::7]:9469"]
    assert found["prometheus"]["static_configs"][0]["targets"] == ["10.0.0.4:9090"]
    for name in set(found) - {"edge"}:
        assert found[name]["scheme"] == "https" and found[name]["tls_config"] == {"ca_file": "/etc/ssl/shop-ca.pem"}
    (alertmanager,) = yaml.safe_load(template("prometheus", several=True))["alerting"]["alertmanagers"]
    assert alertmanager["scheme"] == "https" and alertmanager["static_configs"] == [{"targets": ["10.0.0.4:9093"]}]


def test_without_tls_between_hosts_there_is_none_here():
    assert "https" not in {
        job.get("scheme") for job in jobs(template("prometheus", several=True, app_tls="none")).values()
    }
    assert "tls_key" not in unit("metrics.service", several=True, app_tls="none")


def test_edge_behind_the_proxy_protocol_is_not_asked():
    assert "edge" not in jobs(template("prometheus", nginx_proxy_protocol=True))


TOLD = {
    "nobody": {},
    "mail": {"alerts_email": ["ops@example.com", "boss@example.com"], "app_email": MAIL, "app_secrets": {"EMAIL_HOST_PASSWORD": "x" * 16}},
    "mail without a login": {"alerts_email": ["ops@example.com"], "app_email": {"host": "fd00::9", "encryption": "none"}},
    "webhook": {"alerts_webhook_url": "https://hooks.example.com/a?b=c#d"},
    "chat": {"alerts_webhook_url": "https://hooks.example.com/services/T0", "alerts_webhook_format": "slack"},
    "ping": {"alerts_ping_url": "https://ping.example.com/uuid"},
}  # fmt: skip


@pytest.mark.parametrize("who", TOLD)
def test_configuration_of_alertmanager_is_valid(tmp_path, who):
    (tmp_path / "alertmanager.yml").write_text(template("alertmanager", **TOLD[who]))
    done = subprocess.run(
        [program("amtool", "prometheus-alertmanager"), "check-config", tmp_path / "alertmanager.yml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_go_where_the_variables_say():
    def receivers(who):
        return {each.pop("name"): each for each in yaml.safe_load(template("alertmanager", **TOLD[who]))["receivers"]}

    assert receivers("nobody") == {"told": {}, "ping": {}}
    assert [each["to"] for each in receivers("mail")["told"]["email_configs"]] == TOLD["mail"]["alerts_email"]
    assert receivers("webhook")["told"]["webhook_configs"][0]["url"] == TOLD["webhook"]["alerts_webhook_url"]
    assert receivers("ping")["ping"]["webhook_configs"][0]["url"] == TOLD["ping"]["alerts_ping_url"]
    text = template("alertmanager", **TOLD["mail"])
    assert "mail.example.com:587" in text and "smtp_password" in text and "x" * 16 not in text
    assert "[fd00::9]:25" in template("alertmanager", **TOLD["mail without a login"])


@contextlib.contextmanager
def alertmanager(folder, **variables):
    """Run Alertmanager as the role configures it; gives what sends it alerts, a mapping of their names to more labels."""
    (folder / "alertmanager.yml").write_text(template("alertmanager", **variables))
    at = f"127.0.0.1:{free_port()}"
    options = {"config.file": folder / "alertmanager.yml", "storage.path": folder / "data", "cluster.listen-address": "", "web.listen-address": at}  # fmt: skip
    command = [program("prometheus-alertmanager", "prometheus-alertmanager"), *(f"--{name}={value}" for name, value in options.items())]  # fmt: skip
    # The program reads its package's templates there, and has no option for another place.
    if not Path(TEMPLATES).exists():
        share = unpacked("prometheus-alertmanager") / "usr/share"
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', share, *command]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def send(alerts):
        body = [{"labels": {"alertname": name, **labels}} for name, labels in alerts.items()]
        request = urllib.request.Request(
            f"http://{at}/api/v2/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status == 200
        assert process.poll() is None, (folder / "log").read_text()
        return False

    send.url = f"http://{at}"
    try:
        yield send
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_alertmanager_reaches_everybody_by_each_channel_and_names_the_cause_alone(tmp_path):
    labels = {"severity": "critical", "instance": "data"}
    with Receiver() as receiver:
        channels = {
            "alerts_email": ["ops@example.com", "boss@example.com"],
            "app_email": {"host": "127.0.0.1", "port": receiver.port, "encryption": "none", "sender": "shop@example.com"},
            "alerts_webhook_url": f"{receiver.url}/hook?key=k",
            "alerts_ping_url": f"{receiver.url}/ping",
        }  # fmt: skip
        with alertmanager(tmp_path, **channels) as send:
            alerts = {"HostDown": labels, "PartDown": labels, "Watchdog": {}}
            wait_for(lambda: send(alerts), 60, "Alertmanager answers")

            def received():
                mails = {
                    (to, each["subject"]) for each in receiver.received if each["kind"] == "mail" for to in each["to"]
                }
                posts = {(each["path"], json.loads(each["body"])["commonLabels"]["alertname"]) for each in receiver.received if each["kind"] == "http"}  # fmt: skip
                return mails, posts

            wanted = {(to, "[FIRING:1] HostDown (data critical)") for to in channels["alerts_email"]}
            said = {("/hook?key=k", "HostDown"), ("/ping", "Watchdog")}
            wait_for(
                lambda: received() >= (wanted, said) and len(received()[0]) == 2, 60, lambda: str(receiver.received)
            )
    assert received() == (wanted, said), "PartDown follows from HostDown"


def test_thresholds_are_those_of_the_role_alerts():
    """Also where that role is not loaded."""
    assert evaluate("shop", "{{ __monitoring_thresholds }}", **variables(False)) == THRESHOLDS
    own = {"alerts_disk_free_percent": 25, "alerts_certificate_days": 2}
    assert "< 0.25" in template("rules", **own) and "< 172800" in template("rules", **own)


@pytest.mark.parametrize("kind", ["json", "slack"])
def test_test_message_goes_by_each_channel_and_one_that_fails_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(send_test, "TRIES", 20.0)
    with Receiver() as receiver:
        channels = {
            "alerts_email": ["ops@example.com"],
            "app_email": {"host": "127.0.0.1", "port": receiver.port, "encryption": "none", "sender": "shop@example.com"},
            "alerts_webhook_url": f"{receiver.url}/hook",
            "alerts_webhook_format": kind,
        }  # fmt: skip
        told = evaluate("shop", "{{ __monitoring_channels }}", **variables(False, **channels))
        with alertmanager(tmp_path, **channels) as send:
            wait_for(lambda: send({}), 60, "Alertmanager answers")
            one = send_test.Alertmanager(send.url, "")
            assert send_test.send(one, told, "A test.") == dict.fromkeys(told, "sent") and len(told) == 2
            (mail,) = [each for each in receiver.received if each["kind"] == "mail"]
            (post,) = [json.loads(each["body"]) for each in receiver.received if each["kind"] == "http"]
            assert "TestAlert" in mail["subject"]
            if kind == "slack":
                assert post["attachments"][0]["text"].startswith("A test.")
            else:
                assert post["alerts"][0]["annotations"]["summary"] == "A test."
            receiver.__exit__(None, None, None)
            wait_for(
                lambda: send_test.send(one, told, "Another.") == dict.fromkeys(told, "failed"), 60, "both have failed"
            )


def test_host_with_the_broker_alone_asks_it():
    assert "LoadCredential=redis_password" in unit("metrics.service", several=True)
    other = variables(True) | {"inventory_hostname": "web1", "group_names": ["edge", "web", "workers"]}
    assert "redis_password" not in rendered("shop", "systemd/metrics.service.j2", **other)
    assert evaluate("shop", "{{ __monitoring_configuration.broker }}", **other) == {}
    exporters = evaluate("shop", "{{ __monitoring_exporters | list }}", **other)
    assert exporters == ["prometheus-node-exporter", "prometheus-nginx-exporter"]


@pytest.mark.parametrize("several", [False, True])
def test_no_secret_is_in_a_unit(several):
    table = evaluate("shop", "{{ __monitoring_exporters | list }}", **variables(several))
    texts = [unit("metrics.service", several), *(unit("exporter.service.d", several, item=name) for name in table)]
    texts += [unit("prometheus.service.d", several, item=name) for name in ("prometheus", "prometheus-alertmanager")]
    for text in texts:
        assert "x" * 20 not in text and "NoNewPrivileges=yes" in text
        (start,) = re.findall(r"^ExecStart=(/.*)$", text, re.M)
        assert "{{" not in start


@pytest.mark.parametrize("several", [False, True])
def test_what_an_exporter_reaches(several):
    loopback = unit("exporter.service.d", several, item="prometheus-redis-exporter")
    assert "IPAddressDeny=any\nIPAddressAllow=localhost\n" in loopback
    prometheus = unit("prometheus.service.d", several, item="prometheus")
    assert f"IPAddressAllow=localhost{' 10.0.0.4 fd00::7' if several else ''}\n" in prometheus
    assert "IPAddressDeny" not in unit("prometheus.service.d", several, item="prometheus-alertmanager")


def test_firewall_opens_metrics_for_the_monitoring_host_alone():
    def services(**more):
        return evaluate("shop", "{{ __firewall_services }}", **variables(True, **more))

    assert [each["from"] for each in services() if 9469 in each["ports"]] == [["data"]]
    assert [each["from"] for each in services() if 9090 in each["ports"]] == [["web1"]]
    web1 = services(inventory_hostname="web1", group_names=["edge", "web", "workers"])
    assert [each["from"] for each in web1 if 9469 in each["ports"]] == [["data"]]
    assert not [each for each in web1 if 9090 in each["ports"]]


def test_host_without_the_firewall_is_told_which_ports_are_open():
    def notes(several, **more):
        return evaluate("shop", "{{ __firewall_notes }}", **variables(several, **more))

    (note,) = notes(True, firewall_enabled=False)
    assert note.startswith("firewall_enabled is false: who reaches 10.0.0.") and "9469" in note and "9090" in note
    assert notes(True) == notes(False, firewall_enabled=False) == []


def test_additional_application_has_no_monitoring():
    (problem,) = evaluate("blog", "{{ __monitoring_problems }}", **variables(False))
    assert "app_additional is true" in problem and "'monitoring' has one" in problem
    assert evaluate("shop", "{{ __monitoring_problems }}", **variables(False)) == []
    assert evaluate("blog", "{{ __monitoring_problems }}") == []


def test_pages_are_removed_with_monitoring():
    *_, task = yaml.safe_load((ROOT / "roles/monitoring/tasks/remove.yml").read_text())
    removed = evaluate("shop", task["loop"])
    assert evaluate("shop", "{{ __nginx_status_files }}") == "/etc/nginx/coldframe/shop.status"
    assert {"/etc/nginx/coldframe/shop.status", "/etc/nginx/coldframe/shop.login"} <= set(removed)
    down = yaml.safe_load((ROOT / "roles/nginx/tasks/down.yml").read_text())[1]
    assert "/etc/nginx/coldframe/shop.status" in evaluate(
        "shop", down["loop"], nginx_down_certificates={"files": [{"path": "/etc/nginx/tls/x.crt"}]}
    )
