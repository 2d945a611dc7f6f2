"""What a host sends when something is wrong on it: to receivers on the host itself."""

import json
from pathlib import Path

import pytest
import support
from support.playbooks import deploy, output, play
from support.sandbox import SOCKETS, exposure
from support.units import current
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes]
HTTP, SMTP = 8099, 2526
CHANNELS = {
    "alerts_email": ["ops@example.com"],
    "alerts_webhook_url": f"http://127.0.0.1:{HTTP}/hook",
    "alerts_ping_url": f"http://127.0.0.1:{HTTP}/ping",
    "app_email": {"host": "127.0.0.1", "port": SMTP, "encryption": "none"},
}
PROGRAM = (Path(support.__file__).parent / "receiver.py").read_text()
FILE = "/run/received.json"


class Alerts:
    """The host's messages, and what receives them."""

    def __init__(self, host, app):
        """Remember the host and the application."""
        self.host, self.app, self.name = host, app, f"coldframe-alerts-{app}"

    def listen(self):
        """Start the receiver."""
        self.host.check_output(f"cat >/run/receiver.py <<'END'\n{PROGRAM}\nEND")
        run = f"systemd-run --quiet --unit=coldframe-receiver python3 /run/receiver.py {FILE} {HTTP} {SMTP}"
        self.host.check_output(run)
        wait_for(lambda: self.host.run(f"ss -Hltn | grep -q 127.0.0.1:{SMTP}").rc == 0, 30, "it listens")

    def end(self):
        """End the receiver."""
        self.host.check_output("systemctl stop coldframe-receiver && systemctl reset-failed 2>/dev/null || true")

    def turns(self, count=2):
        """Have the host look so many times."""
        for _ in range(count):
            self.host.check_output(f"systemctl start {self.name}.service")

    def received(self):
        """Return what was received."""
        file = self.host.file(FILE)
        return [json.loads(line) for line in file.content_string.splitlines()] if file.exists else []

    def events(self, problem=""):
        """Return the events of the webhook's messages, as pairs of event and problem; those about one alone if it is named."""
        sent = [json.loads(each["body"]) for each in self.received() if each.get("method") == "POST"]
        events = [(event["event"], event["problem"]) for message in sent for event in message["events"]]
        return [event for event in events if problem in ("", event[1])]


@pytest.fixture(scope="module")
def deployed(host, inventory, deployment):
    """Deploy the alerts, and remove them again."""
    result = deploy(inventory, "--tags=alerts", **CHANNELS)
    assert result.returncode == 0, result.stdout
    yield Alerts(host, deployment.app_name)
    deploy(inventory, "--tags=alerts")


@pytest.fixture
def alerts(deployed):
    """Give a host on which nothing is wrong that was sent, with receivers that have received nothing."""
    deployed.listen()
    deployed.turns()
    deployed.host.check_output(f"truncate --size=0 {FILE}")
    yield deployed
    deployed.end()
    deployed.host.check_output(f"rm -f {FILE}")


def test_a_worker_that_is_killed_is_sent_within_seconds_and_so_is_its_end(alerts, worker_unit, host):
    problem = f"unit:{worker_unit}"
    host.check_output(f"systemctl kill --signal=KILL {worker_unit}")
    wait_for(lambda: alerts.events(problem) == [("began", problem)], 20, "the webhook has it")
    wait_for(lambda: [each for each in alerts.received() if each["kind"] == "mail"], 20, "the mail server has it")
    (mail,) = [each for each in alerts.received() if each["kind"] == "mail" and worker_unit in each["subject"]]
    assert mail["to"] == CHANNELS["alerts_email"] and "code=killed, status=9/KILL" in mail["text"]
    assert "docs/runbooks/worker-killed.md" in mail["text"] and f"journalctl -u {worker_unit}" in mail["text"]
    assert "Failed with result 'signal'." in mail["text"], "the last entries of its journal"
    alerts.turns(3)
    assert alerts.events(problem) == [("began", problem)]
    host.check_output(f"systemctl restart {worker_unit}")
    alerts.turns()
    assert alerts.events(problem) == [("began", problem), ("ended", problem)]


def test_a_worker_that_ends_again_and_again_is_sent_once(alerts, worker_unit, host):
    problem, folder = f"unit:{worker_unit}", f"/run/systemd/system/{worker_unit}.d"
    host.check_output(
        f"mkdir -p {folder} && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{folder}/loop.conf"
    )
    host.check_output(f"systemctl daemon-reload && systemctl restart --no-block {worker_unit}")
    restarts = f"systemctl show --property=NRestarts --value {worker_unit}"
    wait_for(lambda: int(host.check_output(restarts)) > 5, 120, "it was started again some times")
    alerts.turns()
    assert alerts.events(problem) == [("began", problem)]


@pytest.mark.group("edge")
def test_a_service_that_is_stopped_is_sent_after_two_looks(alerts, host):
    problem = "unit:nginx.service"
    try:
        host.check_output("systemctl stop nginx")
        alerts.turns()
        assert alerts.events(problem) == [("began", problem)]
    finally:
        host.check_output("systemctl start nginx")
    alerts.turns()
    assert alerts.events(problem) == [("began", problem), ("ended", problem)]


@pytest.mark.group("redis")
def test_a_broker_that_is_down_is_sent(alerts, deployment, host):
    redis = f"redis-server@{deployment.prefix}broker.service"
    try:
        host.check_output(f"systemctl stop {redis}")
        alerts.turns()
        assert {("began", "broker"), ("began", f"unit:{redis}")} <= set(alerts.events())
    finally:
        host.check_output(f"systemctl start {redis}")
    alerts.turns()
    assert {("ended", "broker"), ("ended", f"unit:{redis}")} <= set(alerts.events())


@pytest.mark.group("redis")
def test_dead_letters_that_are_more_are_sent(alerts, deployment, redis):
    queue = next(iter(deployment.celery_queues))
    problem = f"dead:{queue}"
    try:
        redis(f'LPUSH dead:{queue} "1700000000 {{}}"')
        alerts.turns()
        assert alerts.events(problem) == [("began", problem)]
    finally:
        redis(f"DEL dead:{queue}")


def test_a_queue_that_is_paused_is_not_sent(alerts, inventory, deployment, worker_unit, host):
    app, queue = deployment.app_name, next(iter(deployment.celery_queues))
    confirmed = ("-e", f"queues_confirm={app}")
    try:
        assert play(inventory, "queues", "-e", f"queues_pause={queue}", *confirmed).returncode == 0
        wait_for(
            lambda: host.run(f"systemctl is-active {worker_unit}").stdout.strip() == "inactive", 60, "it has stopped"
        )
        alerts.turns(3)
        assert alerts.events(f"unit:{worker_unit}") == []
        host.check_output(f"rm /run/{alerts.name}/paused-{queue}")
        alerts.turns()
        assert alerts.events(f"unit:{worker_unit}") == [("began", f"unit:{worker_unit}")], "without the note it is"
    finally:
        assert play(inventory, "queues", "-e", f"queues_resume={queue}", *confirmed).returncode == 0


@pytest.mark.group("edge")
def test_during_maintenance_nothing_is_sent(alerts, inventory, host):
    try:
        assert play(inventory, "maintenance", "-e", "maintenance_state=on").returncode == 0
        host.check_output("systemctl stop nginx")
        alerts.turns(3)
        assert alerts.events("unit:nginx.service") == []
    finally:
        host.check_output("systemctl start nginx")
        assert play(inventory, "maintenance", "-e", "maintenance_state=off").returncode == 0
    assert not host.file(f"/run/{alerts.name}/maintenance").exists


@pytest.mark.group("web")
def test_a_deploy_and_a_rollback_are_not_sent(alerts, inventory, host, deployment):
    """Whether units start, drain or are stopped: the host looks all the time."""
    before = current(host, deployment.app_name)
    looking = f"while :; do systemctl start {alerts.name}.service; sleep 1; done"
    host.check_output(f"systemd-run --quiet --unit=coldframe-looking sh -c '{looking}'")
    try:
        result = deploy(inventory, app_environment={"ANOTHER": "release"}, **CHANNELS)
        assert result.returncode == 0, result.stdout
        alerts.turns(3)
        result = play(inventory, "rollback")
        assert result.returncode == 0, result.stdout
        alerts.turns(3)
    finally:
        host.check_output("systemctl stop coldframe-looking")
    assert (alerts.events(), current(host, deployment.app_name)) == ([], before)


def test_a_message_waits_for_a_channel_that_does_not_answer(alerts, host, worker_unit):
    alerts.end()
    since = host.check_output("date +%s")
    host.check_output(f"systemctl kill --signal=KILL {worker_unit}")
    errors = f"journalctl --no-pager --output=cat --priority=err --since=@{since} SYSLOG_IDENTIFIER={alerts.name}"
    for channel in ("email", "webhook"):
        refused = f"{channel}: not sent ([Errno 111] Connection refused), attempt 1; the next is in 60 s"
        wait_for(lambda text=refused: text in host.check_output(errors), 30, "an error is logged")
    alerts.listen()

    def sent():
        alerts.turns(1)
        return alerts.events(f"unit:{worker_unit}")

    assert wait_for(sent, 90, "it is sent") == [("began", f"unit:{worker_unit}")]


def test_a_test_message_is_sent_by_each_channel(alerts, inventory):
    arguments = ("-e", json.dumps(CHANNELS))
    result = play(inventory, "test_alert", *arguments)
    assert result.returncode == 0, result.stdout
    for answer in ("email: 250 queued as 7", "webhook: 200 OK", "ping: 200 OK"):
        assert answer in output(result)
    assert {each["kind"] for each in alerts.received()} == {"http", "mail"}
    alerts.end()
    result = play(inventory, "test_alert", *arguments)
    assert result.returncode != 0 and "email: failed: [Errno 111] Connection refused" in output(result)
    alerts.listen()


def test_a_good_turn_pings(alerts):
    alerts.turns(1)
    assert [each["path"] for each in alerts.received()] == ["/ping"]


def test_the_program_cannot_leave_its_sandbox(deployed, host, attempts):
    score, analysis = exposure(host, f"{deployed.name}.service")
    assert score <= SOCKETS, analysis
    results = attempts(f"{deployed.name}.service")
    done = {attempt for attempt, result in results.items() if result == "done"}
    assert done <= {"connect out", "what the machine is"}, done


def test_what_it_holds_is_what_it_needs(deployed, host):
    """And the secrets are root's."""
    folder = f"/etc/credstore/{deployed.name}"
    assert host.check_output(f"stat --format=%U:%a {folder}") == "root:700"
    names = ["ping_url", "redis_password", "smtp_password", "webhook_url"]
    assert host.check_output(f"ls {folder}").split() == names
    assert "8099" not in host.check_output(
        f"cat /etc/systemd/system/{deployed.name}.* /usr/local/lib/{deployed.name}/config.json"
    )


def test_without_channels_nothing_is_left(deployed, inventory, host):
    result = deploy(inventory, "--tags=alerts")
    assert result.returncode == 0, result.stdout
    left = f"find /etc /usr/local /var/lib /run/systemd -name '*{deployed.name}*' -o -name 'coldframe-alert-*'"
    assert host.check_output(left) == ""
    assert host.run(f"getent passwd {deployed.app}-alerts").rc != 0
    assert "coldframe-alert" not in host.check_output("systemctl show --property=OnFailure nginx redis-server@broker")
    assert "changed=0" in deploy(inventory, "--tags=alerts").stdout
