"""Between hosts Redis and PostgreSQL talk TLS alone, and their clients refuse whom they cannot verify."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from support.deployment import deployed
from support.playbooks import ansible
from support.units import RELEASED

PORTS = {6379: "redis", 6380: "redis", 5432: "postgresql"}
OTHER_CA = "/etc/ssl/certs/ca-certificates.crt"  # the world's authorities: the project's own is not among them
# Shake hands as asked for in JSON; print the answer in JSON: the certificate and the version, or the error.
SHAKE = """
import json, socket, ssl, sys
want = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=want["ca"])
if want["version"]:
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[want["version"]]
try:
    with socket.create_connection((want["address"], want["port"]), timeout=5) as raw:
        if want["port"] == 5432:
            raw.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # PostgreSQL's request for TLS
            raw.recv(1)
        with context.wrap_socket(raw, server_hostname=want["name"] or want["address"]) as s:
            print(json.dumps({"version": s.version(), "certificate": s.getpeercert()}))
except OSError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(autouse=True)
def encrypted(deployment):
    if len(deployment.hosts) < 2 or deployment.app_tls == "none":
        pytest.skip("nothing is encrypted: one host, or app_tls is none")


@pytest.fixture
def server(inventory, deployment):
    """The private address of the host that serves a port, and its name."""

    def find(port):
        name = deployment.groups[PORTS[port]][0]
        return deployed(inventory, name).app_private_address, name

    return find


@pytest.fixture
def shake(host, server, deployment):
    """Shake hands with the server of a port, from the host."""

    def run(port, ca="", name="", version=""):
        ca = ca or f"/etc/ssl/{deployment.app_name}-ca.pem"
        want = {"address": server(port)[0], "port": port, "ca": ca, "name": name, "version": version}
        return json.loads(host.check_output("python3 -c %s %s", SHAKE, json.dumps(want)))

    return run


every_port = pytest.mark.parametrize("port", PORTS)


@every_port
def test_server_shows_a_certificate_of_the_authority_for_its_address_and_name(shake, server, port):
    address, name = server(port)
    for shown_for in (address, name):
        answer = shake(port, name=shown_for)
        assert answer.get("version") == "TLSv1.3", answer
    assert dict(answer["certificate"]["subject"][0])["commonName"] == PORTS[port]
    assert ["IP Address", address] in answer["certificate"]["subjectAltName"]


@every_port
def test_who_trusts_another_authority_or_wants_another_name_hangs_up(shake, port):
    assert "unable to get local issuer" in shake(port, ca=OTHER_CA)["error"]
    assert "Hostname mismatch" in shake(port, name="elsewhere")["error"]


@every_port
def test_old_versions_are_refused_by_the_server(shake, port):
    assert shake(port, version="TLSv1_2")["version"] == "TLSv1.2"
    for version in ("TLSv1", "TLSv1_1"):
        assert "alert protocol version" in shake(port, version=version)["error"].lower()


@every_port
def test_certificate_is_valid_for_long(shake, host, port):
    until = host.check_output("date --utc --date=%s +%%s", shake(port)["certificate"]["notAfter"])
    assert int(until) - int(host.check_output("date +%s")) > 30 * 86400, "the next deploy renews it"


PING = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as s:
    s.sendall(b"PING\\r\\n")
    try:
        print(s.recv(100))
    except ConnectionResetError:
        print(b"")
"""


@pytest.mark.parametrize("port", [6379, 6380])
def test_redis_hangs_up_on_clear_text(host, deployment, server, port):
    if not RELEASED & set(deployment.group_names):
        pytest.skip("the firewall keeps this host out")
    assert host.check_output("python3 -c %s %s %s", PING, server(port)[0], str(port)) == "b''"


def test_postgresql_refuses_the_right_password_in_clear_text(manage):
    code = (
        "import psycopg; from django.db import connection\n"
        "own = connection.get_connection_params()\n"
        "login = {name: own[name] for name in ('host', 'port', 'user', 'password', 'dbname')}\n"
        "print(psycopg.connect(**login, sslmode='require').info.status.name)\n"
        "try: psycopg.connect(**login, sslmode='disable')\n"
        "except psycopg.OperationalError as error: print(error)"
    )
    answer = manage(code)
    assert answer.startswith("OK") and "no pg_hba.conf entry" in answer and "no encryption" in answer


# Each way in which the application's processes connect: to a server that calls itself `name`, trusting `ca`.
CLIENTS = {
    "broker": """
    broker = current_app.connection_for_write()
    url = current_app.conf.broker_url.replace(address, name)
    tls = broker.ssl | {"ssl_ca_certs": ca}
    Connection(url, ssl=tls, transport_options=broker.transport_options).ensure_connection(max_retries=1, timeout=2)
""",
    "locks": """
    url = os.environ["LOCKS_URL"].replace(address, name).replace(own, ca)
    redis.Redis.from_url(url, credential_provider=Redis()).set("lock:tls", 1, ex=1)
""",
    "cache": """
    settings = dict(caches.settings["default"])
    url = settings["LOCATION"].replace(address, name).replace(own, ca)
    RedisCache(url, settings).set("tls", 1, 1)
""",
    "database": """
    parameters = connection.get_connection_params() | {"host": name, "hostaddr": address, "sslrootcert": ca}
    parameters.pop("cursor_factory")
    parameters.pop("context")
    with psycopg.connect(**parameters) as opened:
        assert opened.pgconn.ssl_in_use
""",
}
CONNECT = """
import json, os, socket, psycopg, redis
from celery import current_app
from coldframe.credentials import Redis
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.db import connection
from kombu import Connection
lookup = socket.getaddrinfo
address, own, other = ADDRESS, OWN, OTHER
socket.getaddrinfo = lambda name, *rest, **more: lookup(address if name == "elsewhere" else name, *rest, **more)
def connect(name, ca):
CLIENT
answers = []
for name, ca in ((address, own), (address, other), ("elsewhere", own)):
    try:
        connect(name, ca)
        answers.append("connected")
    except Exception as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


@pytest.mark.group("web", "workers", "beat")
@pytest.mark.parametrize("client", CLIENTS)
def test_clients_verify_the_authority_and_the_address(manage, server, deployment, client):
    words = {"ADDRESS": server(5432 if client == "database" else 6379)[0], "OTHER": OTHER_CA}
    code = CONNECT.replace("CLIENT", CLIENTS[client])
    for word, value in (words | {"OWN": f"/etc/ssl/{deployment.app_name}-ca.pem"}).items():
        code = code.replace(word, repr(value))
    right, other, elsewhere = json.loads(manage(code).splitlines()[-1])
    assert right == "connected"
    assert "certificate verify failed" in other
    assert "Hostname mismatch" in elsewhere or 'does not match host name "elsewhere"' in elsewhere


@pytest.mark.group("flower")
def test_flower_verifies_the_broker(host, deployment):
    path = f"/etc/{deployment.app_name}-flower/celery.json"
    settings = json.loads(host.file(path).content_string)
    assert settings["broker_url"].startswith("rediss://")
    assert settings["broker_use_ssl"]["ssl_cert_reqs"] == "required"
    assert settings["broker_use_ssl"]["ssl_check_hostname"] is True


KEYS = {"redis": ("redis", "/etc/redis/tls.key"), "postgresql": ("postgres", "/etc/postgresql/*/main/tls.key")}


@pytest.mark.parametrize("service", KEYS)
def test_key_is_read_by_its_service_alone(host, deployment, service):
    if service not in deployment.group_names:
        pytest.skip(f"no {service} on this host")
    user, path = KEYS[service]
    (key,) = host.check_output(f"ls {path}").split()
    assert host.check_output(f"stat --format='%U %G %a' {key}") == f"root {user} 640"
    assert "PRIVATE KEY" in host.check_output(f"runuser -u {user} -- cat {key}")
    others = {"nobody", "redis", "postgres", f"{deployment.app_name}-beat"} - {user}
    for other in others & set(host.check_output("cut -d: -f1 /etc/passwd").split()):
        assert "Permission denied" in host.run(f"runuser -u {other} -- cat {key}").stderr, other


def test_authoritys_key_is_on_no_host(shell, deployment):
    """One line of it, searched for wherever a deploy writes."""
    if not deployment.app_tls_authority:
        pytest.skip("there is no own authority")
    line = deployment.app_tls_authority["key"].splitlines()[1]
    places = "/etc /root /home /opt /srv /tmp /var/tmp /var/lib /var/log /run /dev/shm"
    pipe = "grep --recursive --files-with-matches --fixed-strings --devices=skip --file=-"
    found = shell(f"{pipe} {places} 2>/dev/null <<'END'\n{line}\nEND\necho searched\n")
    assert found.strip() == "searched"


def ending(certificate, authority):
    """The same certificate for another key, signed by the authority; it ends in a month."""
    old, ca = (x509.load_pem_x509_certificate(pem.encode()) for pem in (certificate, authority["certificate"]))
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(ca.subject, old.subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(old.not_valid_before_utc).not_valid_after(datetime.now(UTC) + timedelta(days=30))
    for extension in old.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signer = load_pem_private_key(authority["key"].encode(), None)
    signed = builder.add_extension(identifier, critical=False).sign(signer, SHA256())
    return {
        "ca": authority["certificate"],
        "certificate": signed.public_bytes(Encoding.PEM).decode(),
        "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }


@pytest.mark.changes
@pytest.mark.group("redis")
def test_given_certificate_is_taken_and_own_one_renewed_and_no_connection_is_lost(
    host, deployment, inventory, shake, redis, tmp_path
):
    """A given one is put in place; when the hosts have their own again, it ends so soon that it is made anew."""
    if not deployment.app_tls_authority or "postgresql" not in deployment.group_names:
        pytest.skip("there is no own authority, or PostgreSQL is elsewhere")
    units = "redis-server@broker redis-server@cache 'postgresql@*'"

    def consumers():
        return set(re.findall(r"^id=(\d+) .* cmd=brpop", redis("CLIENT LIST"), re.M))

    roles = [{"name": "app", "tasks_from": "state.yml"}, {"name": "redis"}, {"name": "postgresql"}]
    tasks = [{"ansible.builtin.import_role": role} for role in roles]
    playbook = tmp_path / "data.json"
    playbook.write_text(json.dumps([{"hosts": host.backend.get_hostname(), "become": True, "tasks": tasks}]))

    def converged(**variables):
        result = ansible("ansible-playbook", "-i", inventory, str(playbook), "-e", json.dumps(variables))
        assert result.returncode == 0, result.stdout
        return {port: shake(port)["certificate"] for port in PORTS}

    processes, before = host.check_output(f"systemctl show --property=MainPID {units}"), consumers()
    given = ending(host.file("/etc/redis/tls.crt").content_string, deployment.app_tls_authority)
    serial = x509.load_pem_x509_certificate(given["certificate"].encode()).serial_number
    shown = converged(app_tls="given", app_tls_given=given)
    assert {int(certificate["serialNumber"], 16) for certificate in shown.values()} == {serial}
    shown = converged()
    assert serial not in {int(certificate["serialNumber"], 16) for certificate in shown.values()}
    years = {certificate["notAfter"].split()[3] for certificate in shown.values()}
    assert years == {str((datetime.now(UTC) + timedelta(days=730)).year)}
    assert host.check_output(f"systemctl show --property=MainPID {units}") == processes
    assert before and before <= consumers()
