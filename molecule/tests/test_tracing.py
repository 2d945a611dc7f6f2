"""Errors and spans of a release whose units are sealed, at a receiver on the same host. These tests change the host."""

import gzip
import json
import subprocess
import uuid

import pytest
from support.playbooks import ROOT, deploy, output
from support.units import current, instances, running, wanted
from waits import wait_for

pytestmark = [
    pytest.mark.deploys,
    pytest.mark.one_host,
    pytest.mark.changes,
    pytest.mark.example,
    pytest.mark.group("web"),
]

KEY = "8f3k2m9qx7w1zz5v"  # of the project in Sentry  # pragma: allowlist secret
PORT, FOLDER = 14318, "/run/receiver"
DSN, ENDPOINT = f"http://{KEY}@127.0.0.1:{PORT}/7", f"http://127.0.0.1:{PORT}"
# Keeps the body of each request in a file, and answers.
RECEIVER = """
import itertools, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

numbers = itertools.count()

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = "spans" if self.path == "/v1/traces" else "events"
        name = f"{folder}/{kind}-{next(numbers)}"
        with open(name + ".new", "wb") as file:
            file.write(body)
        os.rename(name + ".new", name)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
""".replace("{folder}", FOLDER).replace("{port}", str(PORT))


@pytest.fixture(scope="module")
def original(host, deployment, inventory):
    """The release that runs. It runs again after the tests."""
    app = deployment.app_name
    before = current(host, app)
    yield before
    if current(host, app) != before:
        result = deploy(inventory)
        assert result.returncode == 0 and current(host, app) == before, result.stdout
    wait_for(lambda: running(host, app) == wanted(deployment, before), 60, f"only {before} runs")


@pytest.fixture(scope="module")
def receiver(host):
    """Run a receiver; return a function that gives what came of a kind, `spans` or `events`, as hexadecimal digits."""
    host.check_output(f"mkdir -p {FOLDER} && rm -f {FOLDER}/* && printf %%s %s >{FOLDER}/receiver.py", RECEIVER)
    host.check_output(f"systemd-run --quiet --collect --unit=receiver python3 {FOLDER}/receiver.py")
    wait_for(lambda: host.run(f"ss -ltn | grep :{PORT}").rc == 0, 20, "the receiver listens")

    def came(kind):
        lines = host.run(
            f"for file in {FOLDER}/{kind}-*[0-9]; do od -An -v -tx1 $file | tr -d ' \\n'; echo; done"
        ).stdout
        return [bytes.fromhex(line) for line in lines.split() if line]

    yield came
    host.run(f"systemctl stop receiver; rm -rf {FOLDER}")


@pytest.fixture(scope="module")
def lock(tmp_path_factory):
    """A lock file of the example's packages, and of those that it reports with."""
    path = tmp_path_factory.mktemp("lock") / "requirements.txt"
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    sources = [ROOT / "app_stub/requirements.in", ROOT / "requirements/optional.in"]
    locked = ["--constraint", ROOT / "app_stub/requirements.txt"]
    subprocess.run([ROOT / ".venv/bin" / command[0], *command[1:], *locked, *sources, "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def example(deployment, lock, tmp_path_factory):
    """A copy of the example with that lock file."""
    folder = tmp_path_factory.mktemp("source") / "app"
    subprocess.run(["cp", "-a", deployment.app_source, folder], check=True)
    (folder / "requirements.txt").write_text(lock.read_text())
    return str(folder)


@pytest.fixture(scope="module")
def reporting(host, deployment, inventory, original, receiver, example):
    """A release that reports; return its id."""
    result = deploy(inventory, app_source=example, app_otel_endpoint=ENDPOINT, app_secrets={"sentry_dsn": DSN})
    assert result.returncode == 0, result.stdout
    release = current(host, deployment.app_name)
    assert release != original
    return release


def events(receiver):
    """The events that Sentry got."""
    found = []
    for body in receiver("events"):
        plain = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        lines = [json.loads(line) for line in plain.split(b"\n") if line.startswith(b"{")]
        found += [line for line in lines if "exception" in line]
    return found


def test_lock_file_without_the_sdks_is_refused_with_the_lines(host, deployment, inventory, original):
    result = deploy(inventory, app_otel_endpoint=ENDPOINT, app_secrets={"sentry_dsn": DSN})
    said = output(result)
    assert (
        result.returncode and "app_otel_endpoint is set, and requirements.txt does not lock opentelemetry-sdk" in said
    )
    assert "app_secrets.sentry_dsn is set, and requirements.txt does not lock sentry-sdk" in said
    assert "opentelemetry-instrumentation-celery>=0.51,<1" in said and KEY not in said
    assert current(host, deployment.app_name) == original


def test_one_trace_leads_from_nginx_to_the_task(host, deployment, reporting, receiver):
    content = {"sku": "traced", "quantity": 1, "email": "a@example.com", "idempotency_key": str(uuid.uuid4())}
    forged = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = deployment.request("/orders/", content, headers={"traceparent": forged})
    assert answer.status == 201
    trace, app = bytes.fromhex(answer.headers["X-Request-ID"]), deployment.app_name
    found = lambda: [body for body in receiver("spans") if trace in body]  # noqa: E731
    wait_for(lambda: any(b"run/orders.tasks.charge_order" in body for body in found()), 40, "the task is reported")
    bodies = b"".join(
        wait_for(lambda: found() if any(b"orders/" in each for each in found()) else [], 40, "the request")
    )
    assert f"{app}-web".encode() in bodies and f"{app}-worker-".encode() in bodies and reporting.encode() in bodies
    assert bytes.fromhex("a" * 32) not in b"".join(receiver("spans")), "a client begins no trace"


@pytest.mark.group("workers")
def test_error_of_a_task_names_release_queue_task_and_request(host, deployment, reporting, receiver, manage):
    task = manage(
        "import uuid; from celery import current_app as app; "
        "print(app.send_task('orders.tasks.charge_order', [str(uuid.uuid4())]).id)"
    )
    find = lambda: [event for event in events(receiver) if event["tags"].get("task_id") == task]  # noqa: E731
    event = wait_for(find, 60, "its error is reported")[0]
    assert event["release"] == reporting and event["environment"]
    assert event["tags"]["task_name"] == "orders.tasks.charge_order" and event["tags"]["request_id"]
    assert event["tags"]["service"] == f"{deployment.app_name}-worker-{event['tags']['queue']}"
    manage(f"from orders.models import DeadLetter; DeadLetter.objects.filter(task_id={task!r}).delete()")


def test_sealed_units_reach_the_receiver_alone_and_have_no_key(host, deployment, reporting):
    app = deployment.app_name
    units = [
        f"{app}-web@{reporting}",
        *(unit for q in deployment.celery_queues for unit in instances(host, app, f"worker-{q}")),
    ]
    assert len(units) > 1
    for unit in units:
        shown = host.check_output(f"systemctl show {unit} --property=IPAddressAllow,IPAddressDeny,Environment")
        allowed = [line for line in shown.splitlines() if line.startswith("IPAddressAllow=")]
        assert "127.0.0.1/32" in allowed[0] or "127.0.0.1" in allowed[0]
        assert len(allowed[0].partition("=")[2].split()) == 1 and KEY not in shown
        assert KEY not in host.check_output(f"systemctl cat {unit}")
    assert KEY not in host.check_output(f"cat /srv/{app}/releases/{reporting}/.release/overlay.json")


def test_a_receiver_that_is_away_fails_nothing(host, deployment, reporting, receiver):
    host.check_output("systemctl kill --signal=SIGSTOP receiver")
    try:
        content = {"sku": "untraced", "quantity": 1, "email": "a@example.com", "idempotency_key": str(uuid.uuid4())}
        answer = deployment.request("/orders/", content)
        assert answer.status == 201
        app = deployment.app_name
        done = f"Task orders.tasks.charge_order[{answer.json['task_id']}] succeeded"
        log = f"journalctl --no-pager --since=-5min --output=cat --unit '{app}-worker-*'"
        wait_for(lambda: done in host.run(log).stdout, 40, "the task is done")
        unit = next(iter(instances(host, app, f"worker-{deployment.celery_default_queue or 'default'}")))
        host.check_output(f"timeout 60 systemctl restart {unit}")
    finally:
        host.check_output("systemctl kill --signal=SIGCONT receiver")
