"""The application spread over several hosts: they reach each other, and nobody else reaches them."""

import socket
import struct
import uuid

import pytest
from support.deployment import deployed
from support.units import RELEASED, current, instances
from waits import wait_for

# Send a text to an address and port, to Redis over TLS if it talks that; print the answer, or the error's name.
CONNECT = """
import os, socket, ssl, sys
ca = sys.argv[4]
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as s:
        if sys.argv[2] in ("6379", "6380") and os.path.exists(ca):
            s = ssl.create_default_context(cafile=ca).wrap_socket(s, server_hostname=sys.argv[1])
        s.sendall(sys.argv[3].encode())
        print(s.recv(1000).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(autouse=True)
def several_hosts(deployment):
    if len(deployment.hosts) < 2:
        pytest.skip("everything runs on one host")


@pytest.fixture
def address(inventory, deployment):
    """The private address of the first host of a group."""
    return lambda group: deployed(inventory, deployment.groups[group][0]).app_private_address


@pytest.fixture
def ask(host, deployment):
    """Send a text from the host, or from within a control group of it; return the answer, or the error's name."""

    def run(address, port, text, group=""):
        join = f"echo $$ >/sys/fs/cgroup{group}/cgroup.procs && " if group else ""
        script = join + 'exec python3 -c "$@"'
        ca = f"/etc/ssl/{deployment.app_name}-ca.pem"
        return host.check_output("sh -c %s sh %s %s %s %s %s", script, CONNECT, address, str(port), text, ca)

    return run


def test_only_what_others_need_listens_on_the_private_address(host, deployment):
    groups, edges = deployment.groups, set(deployment.groups["edge"])
    ports = {
        "redis": {"6379", "6380"},
        "postgresql": {"5432"},
        "web": {"8000"} if edges - {host.backend.get_hostname()} else set(),
        "flower": {"5555"} if edges - set(groups.get("flower", [])) else set(),
        "monitoring": {"9090", "9093"} if edges - set(groups.get("monitoring", [])) else set(),
    }
    metrics = {"9469"} if groups.get("monitoring") else set()
    own = f"{deployment.app_private_address}:"
    listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines()]
    private = {at.removeprefix(own) for at in listening if at.startswith(own)}
    assert private == metrics.union(*(ports.get(group, set()) for group in deployment.group_names))


@pytest.mark.group("web")
@pytest.mark.parametrize("port", [6379, 6380])
def test_redis_refuses_a_stranger(ask, address, port):
    assert ask(address("redis"), port, "PING\r\n").startswith("-NOAUTH")
    for user in ("default", "web", "cache", "nobody"):
        assert ask(address("redis"), port, f"AUTH {user} wrong\r\n").startswith("-WRONGPASS"), user


@pytest.mark.group("web")
def test_postgresql_refuses_a_wrong_password_and_another_database(host, deployment, address):
    app, login = deployment.app_name, f"{deployment.app_name}_{deployment.app_database_login or 'a'}"
    connect = "import psycopg, sys; psycopg.connect(sys.argv[1])"
    for database, refusal in {app: "password authentication failed", "postgres": "no pg_hba.conf entry"}.items():
        target = f"host={address('postgresql')} user={login} dbname={database} password=wrong"
        assert refusal in host.run(f"/srv/{app}/current/.venv/bin/python -c %s %s", connect, target).stderr


@pytest.mark.group("postgresql")
def test_postgresql_refuses_a_host_that_is_not_in_the_inventory(deployment):
    """The controller: a firewall keeps it out, or PostgreSQL says that it does not know it."""
    names = f"user\0{deployment.app_name}\0database\0{deployment.app_name}\0\0".encode()
    try:
        with socket.create_connection((deployment.app_private_address, 5432), timeout=3) as connection:
            connection.sendall(struct.pack("!II", 8 + len(names), 3 << 16) + names)
            answer = connection.recv(1000)
    except OSError:
        return
    assert answer.startswith(b"E") and b"no pg_hba.conf entry" in answer


def test_gunicorn_answers_the_edges_and_no_other_host(ask, inventory, deployment):
    for web in set(deployment.groups["web"]) - set(deployment.groups["edge"]):
        answer = ask(deployed(inventory, web).app_private_address, 8000, "GET / HTTP/1.0\r\n\r\n")
        if "edge" in deployment.group_names:
            assert answer.startswith("HTTP/1."), web
        else:
            assert answer == "TimeoutError", web


def test_sealed_units_reach_the_inventorys_hosts_and_no_other(host, deployment, address, ask):
    """A process in the unit's control group is what the unit's processes are to the kernel's filter."""
    units = host.check_output(f"systemctl list-units --plain --no-legend --full '{deployment.app_name}-*@*.service'")
    if deployment.app_network != "sealed" or not units:
        pytest.skip("no sealed unit on this host")
    router = host.check_output("ip route show default").split()[2]
    if ask(router, 1, "") == "TimeoutError":
        pytest.skip("the router does not answer unsealed processes either")
    for unit in (line.split()[0] for line in units.splitlines()):
        group = host.check_output(f"systemctl show --property=ControlGroup --value {unit}")
        assert ask(router, 1, "", group) == "TimeoutError", unit
        assert ask(address("redis"), 6379, "PING\r\n", group).startswith("-NOAUTH"), unit


def test_host_has_the_secrets_that_it_needs_and_no_others(host, deployment):
    app, groups = deployment.app_name, set(deployment.group_names)
    release = host.run(f"ls /etc/credstore/{app}/{current(host, app)}").stdout.split() if groups & RELEASED else []
    assert ("redis_worker" in release) == ("workers" in groups)
    assert ("redis_beat" in release) == ("beat" in groups)
    assert ("secret_key" in release) == bool(groups & RELEASED)


@pytest.mark.example
@pytest.mark.group("web")
def test_beats_task_is_done(manage):
    code = "from orders.models import Heartbeat; print(Heartbeat.objects.exists())"
    wait_for(lambda: manage(code) == "True", 75, "a heartbeat")


def asked(host, deployment):
    """Ask the front door until this host has answered; each request must be."""
    mark = uuid.uuid4().hex
    answers = [deployment.request(f"/healthz/?{mark}").status for _ in range(6)]
    assert set(answers) == {200}
    return mark in host.check_output(f"journalctl --unit='{deployment.app_name}-web@*' --since=-1min --output=cat")


@pytest.mark.changes
@pytest.mark.group("web")
def test_others_answer_while_a_web_host_is_stopped(host, deployment):
    app = deployment.app_name
    (unit,) = instances(host, app, "web")
    wait_for(lambda: asked(host, deployment), 15, "the edge asks this host")
    host.check_output(f"systemctl stop {app}-web.socket")
    try:
        assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive"
        answers = [deployment.request("/healthz/").status for _ in range(40)]
        assert answers == [200] * 40
        order = {"sku": "one-left", "quantity": 1, "email": "a@example.com", "idempotency_key": str(uuid.uuid4())}
        assert deployment.request("/orders/", order).status == 201
    finally:
        host.check_output(f"systemctl start {app}-web.socket {unit}")
    wait_for(lambda: asked(host, deployment), 15, "the edge asks this host again")
