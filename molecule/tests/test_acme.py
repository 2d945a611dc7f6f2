"""The edge's certificate from an authority: Pebble, Let's Encrypt's small one for tests, on the host itself."""

import functools
import http.client
import json
import socket
import ssl
import threading

import pytest
from support.playbooks import converge_edge
from support.sandbox import SOCKETS, exposure
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.group("edge"), pytest.mark.changes]
NAME = "www.example.test"
ALIAS, REDIRECTED = "shop.example.test", "old.example.test"
UNIT = "coldframe-acme.service"
DIRECTORY = "https://localhost:14000/dir"
CHALLENGE = "/.well-known/acme-challenge/"
PEBBLE = "/run/coldframe-pebble"
START = f"""
mkdir -p {PEBBLE} && cd {PEBBLE}
test -e cert.pem || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext keyUsage=critical,keyCertSign,digitalSignature 2>&1
cat >config.json <<'END'
%s
END
systemd-run --quiet --unit=coldframe-pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_AUTHZREUSE=0 \
    pebble -config {PEBBLE}/config.json
"""
TRUSTED = f"""
grep -q {NAME} /etc/hosts || echo 127.0.0.1 {NAME} >>/etc/hosts
mkdir -p /run/systemd/system/{UNIT}.d
printf '[Service]\\nEnvironment=SSL_CERT_FILE={PEBBLE}/cert.pem\\n' >/run/systemd/system/{UNIT}.d/pebble.conf
systemctl daemon-reload
"""
REMOVE = f"""
systemctl stop coldframe-pebble; systemctl reset-failed {UNIT}
grep -v {NAME} /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts
rm -rf {PEBBLE} /run/hosts /run/systemd/system/{UNIT}.d
rm -rf /var/lib/coldframe-acme /etc/credstore/coldframe-acme /etc/nginx/tls/acme-*
userdel coldframe-acme; systemctl daemon-reload
"""
INSTALLED = "dpkg-query --show --showformat='${Package}\\n'"


class Authority:
    """Pebble, started and stopped."""

    def __init__(self, host):
        """Stand on this host."""
        self.host = host

    def start(self, days):
        """Start afresh; its certificates are good for so long."""
        config = {
            "listenAddress": "127.0.0.1:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": f"{PEBBLE}/cert.pem",
            "privateKey": f"{PEBBLE}/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "certificateValidityPeriod": days * 86400,
        }
        self.stop()
        self.host.check_output(START % json.dumps({"pebble": config}))
        wait_for(self.root, 10, "Pebble answers")

    def stop(self):
        """Be out of reach."""
        self.host.run("systemctl stop coldframe-pebble")

    def root(self):
        """The certificate that everything it issues follows from; it has another after each start."""
        script = "import ssl, urllib.request as u; c = ssl._create_unverified_context(); "
        script += "print(u.urlopen('https://localhost:15000/roots/0', context=c).read().decode())"
        result = self.host.run("python3 -c %s", script)
        return result.stdout if result.rc == 0 else ""


@pytest.fixture(scope="module")
def address(host):
    """Where the controller reaches nginx's own ports."""
    return host.check_output("hostname --all-ip-addresses").split()[0]


@pytest.fixture(scope="module")
def converge(inventory, tmp_path_factory):
    """Run the role with other variables."""
    return functools.partial(converge_edge, inventory, tmp_path_factory.mktemp("acme"))


@pytest.fixture(scope="module")
def acme():
    """The variables that have the certificate come from Pebble."""
    return {
        "nginx_server_name": NAME,
        "nginx_acme": True,
        "nginx_acme_terms_agreed": True,
        "nginx_acme_directory": DIRECTORY,
    }


@pytest.fixture(scope="module")
def authority(host, converge):
    """Pebble, whose certificates are due from the first day; afterwards the host is as it was."""
    before = set(host.check_output(INSTALLED).split())
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends pebble")
    pebble = Authority(host)
    try:
        pebble.start(days=20)
        host.check_output(TRUSTED)
        yield pebble
    finally:
        if host.file("/etc/systemd/system/coldframe-acme.timer").exists:
            converge()
        host.run(REMOVE)
        new = set(host.check_output(INSTALLED).split()) - before
        host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get purge --yes {' '.join(sorted(new))}")


@pytest.fixture(scope="module")
def issued(authority, converge, acme):
    """Pebble, and nginx with a certificate from it."""
    result = converge(**acme)
    assert result.returncode == 0, result.stdout
    return authority


def served(address, root="", name=NAME):
    """The certificate that nginx shows; with a root it must follow from that and be for the name."""
    context = ssl.create_default_context(cadata=root) if root else ssl._create_unverified_context()
    with (
        socket.create_connection((address, 443), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def processes(host):
    """The processes of nginx that accept connections; while it reloads, those of the old configuration do too."""
    return set(host.check_output("pgrep --full '^nginx: worker process$'").split())


def get(address, path, name=NAME):
    """What port 80 answers: status, body and where it leads."""
    connection = http.client.HTTPConnection(address, 80, timeout=10)
    connection.request("GET", path, headers={"Host": name})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.getheader("Location")


def test_certificate_is_the_authoritys(issued, address):
    assert served(address, issued.root())


def test_keys_are_read_by_root_alone(host, issued):
    for path in (f"/etc/nginx/tls/acme-{NAME}.key", "/etc/credstore/coldframe-acme/account_key"):
        assert host.check_output(f"stat --format='%U %a' {path}") == "root 600"
        for user in ("coldframe-acme", "www-data"):
            assert "Permission denied" in host.run(f"runuser -u {user} -- cat {path}").stderr


def test_unit_is_sandboxed_and_not_root(host, issued):
    score, analysis = exposure(host, UNIT)
    assert score <= SOCKETS, analysis
    assert host.check_output(f"systemctl show --property=User --value {UNIT}") == "coldframe-acme"


def test_no_way_out_of_the_client(issued, attempts):
    ways = {attempt for attempt, result in attempts(UNIT).items() if result == "done"}
    assert ways <= {"connect out"}, "the authority is out there"


def test_client_is_started_every_day(host, issued):
    assert host.check_output("systemctl is-active coldframe-acme.timer") == "active"
    assert host.check_output("systemctl is-enabled coldframe-acme.timer") == "enabled"
    assert host.check_output("systemctl show --property=NextElapseUSecRealtime --value coldframe-acme.timer")


def test_renewed_certificate_is_served_and_no_connection_cut(host, issued, deployment, address):
    before, old = served(address), processes(host)
    master = host.check_output("systemctl show --property=MainPID nginx")
    line = f"GET /healthz/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n".encode()
    done, answers = threading.Event(), []

    def ask(pause):
        with (
            socket.create_connection((address, 443), timeout=10) as raw,
            ssl._create_unverified_context().wrap_socket(raw, server_hostname=NAME) as connection,
        ):
            connection.sendall(line)
            pause()
            connection.sendall(b"\r\n")
            answers.append(connection.recv(100).split(b"\r\n")[0].decode())

    def ask_on():
        while not done.is_set():
            try:
                ask(lambda: None)
            except OSError as error:
                answers.append(repr(error))

    others = threading.Thread(target=ask_on)
    others.start()
    try:
        ask(lambda: host.check_output(f"systemctl start {UNIT}"))
        wait_for(lambda: not old & processes(host), 10, "nginx has reloaded")
    finally:
        done.set()
        others.join()
    assert set(answers) == {"HTTP/1.1 200 OK"} and len(answers) > 10, answers
    assert served(address, issued.root()) != before
    assert host.check_output("systemctl show --property=MainPID nginx") == master


def test_answers_to_the_authority_are_all_that_port_80_shows(host, issued, address):
    folder = "/run/coldframe-acme"
    assert not host.file(folder).exists, "it is there only while the client runs"
    assert get(address, CHALLENGE + "tok-en_1")[0] == 404
    host.check_output(
        f"mkdir {folder} && echo answer >{folder}/tok-en_1 && echo no >/run/coldframe-outside && "
        f"ln -s ../coldframe-outside {folder}/link && mkdir {folder}/sub && echo no >{folder}/sub/file"
    )
    try:
        assert get(address, CHALLENGE + "tok-en_1") == (200, "answer\n", None)
        ways = ["", ".", "..", "link", "sub", "sub/", "sub/file", "../coldframe-outside", "..%2fcoldframe-outside"]
        ways += ["%2e%2e/coldframe-outside", "tok-en_1/../../coldframe-outside", "tok-en_1%00", "tok-en_1/"]
        for way in ways:
            status, body, _ = get(address, CHALLENGE + way)
            assert status in (301, 400, 403, 404) and "no\n" not in body, way
        with pytest.raises(ConnectionError):
            get(address, CHALLENGE + "tok-en_1", name="stranger.example")
    finally:
        host.check_output(f"rm -r {folder} /run/coldframe-outside")


def test_all_else_on_port_80_leads_to_https(deployment, issued, address):
    assert get(address, "/orders/?x=1")[::2] == (301, f"{deployment.app_url}/orders/?x=1")


def test_certificate_stays_when_the_authority_is_out_of_reach(host, issued, address):
    before = served(address)
    issued.stop()
    try:
        assert host.run(f"systemctl start {UNIT}").rc != 0
        assert host.run(f"systemctl is-failed {UNIT}").stdout.strip() == "failed"
        assert "Connection refused" in host.check_output(f"journalctl --no-pager --lines=20 --unit={UNIT}")
        assert served(address) == before
    finally:
        host.run(f"systemctl reset-failed {UNIT}")
        issued.start(days=20)


def test_certificate_that_is_good_for_long_is_left_alone(host, issued, address):
    issued.start(days=90)
    host.check_output(f"systemctl start {UNIT}")

    def trusted():
        try:
            return served(address, issued.root())
        except ssl.SSLCertVerificationError:
            return b""

    wait_for(trusted, 10, "nginx shows the new certificate")
    before = served(address)
    issued.stop()
    host.check_output(f"systemctl start {UNIT}")
    assert host.check_output(f"systemctl show --property=Result --value {UNIT}") == "exec-condition"
    assert served(address) == before


def test_further_name_is_added_to_the_certificate(host, issued, converge, acme, address):
    """Until the new certificate is there the old one is served: with an alias that the authority cannot reach it stays."""
    issued.start(days=90)
    assert converge(**acme).returncode == 0
    before, key = served(address), host.check_output(f"sha256sum /etc/nginx/tls/acme-{NAME}.key")
    try:
        result = converge(**acme, app_aliases=["nowhere.example.test"])
        assert result.returncode != 0 and "nowhere.example.test" in result.stdout
        assert served(address) == before and get(address, "/", name="nowhere.example.test")[0] == 301
        host.check_output(f"echo 127.0.0.1 {ALIAS} {REDIRECTED} >>/etc/hosts")
        old = processes(host)
        result = converge(**acme, app_aliases=[ALIAS], nginx_redirect_names=[REDIRECTED])
        assert result.returncode == 0, result.stdout
        wait_for(lambda: not old & processes(host), 10, "nginx has reloaded")
        assert served(address) != before
        for name in (NAME, ALIAS, REDIRECTED):
            assert served(address, issued.root(), name), name
        assert host.check_output(f"sha256sum /etc/nginx/tls/acme-{NAME}.key") == key
        assert get(address, "/a?b", name=REDIRECTED)[0] == 301
        host.check_output(f"systemctl start {UNIT}")
        assert host.check_output(f"systemctl show --property=Result --value {UNIT}") == "exec-condition", (
            "it is not due"
        )
    finally:
        host.check_output(f"grep -v {ALIAS} /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts")
        assert converge(**acme).returncode == 0


def test_client_goes_when_it_is_switched_off(host, issued, converge):
    result = converge()
    assert result.returncode == 0, result.stdout
    for what in ("list-unit-files", "list-units --all"):
        assert host.run(f"systemctl {what} --no-legend 'coldframe-acme*'").stdout == ""
