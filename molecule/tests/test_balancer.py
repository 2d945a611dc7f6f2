"""The edge behind load balancers that terminate TLS or use the PROXY protocol, asked from another address of its own host."""

import json

import pytest
from support.playbooks import converge_edge
from waits import wait_for

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.example, pytest.mark.group("edge")]
BALANCER = "127.0.0.2"
# Asks port 80 or 443 from an address; prints the status and where it leads, or 0 if the connection is closed.
ASK = """
import http.client, json, socket, ssl, sys
port, source, first, headers = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode(), json.loads(sys.argv[4])
try:
    raw = socket.create_connection(("127.0.0.1", port), 15, (source, 0))
    raw.sendall(first)
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.sock = ssl._create_unverified_context().wrap_socket(raw) if port == 443 else raw
    connection.putrequest("GET", sys.argv[5], skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    print(answer.status, answer.getheader("Location"), answer.getheader("Content-Encoding"))
except (OSError, http.client.HTTPException):
    print(0)
"""
PROXIED = "PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n"


@pytest.fixture(scope="module")
def converge(host, inventory, tmp_path_factory):
    """Run the role with other variables; at the end with the inventory's. When it returns, nginx has the new configuration."""
    folder = tmp_path_factory.mktemp("balancer")

    def serving():  # a process that ends after a reload has another title
        return set(host.run("pgrep -fx 'nginx: worker process'").stdout.split())

    def run(**variables):
        before = serving()
        result = converge_edge(inventory, folder, **variables)
        assert result.returncode == 0, result.stdout
        if "Reload nginx" in result.stdout:
            wait_for(lambda: not before & serving(), 30, "the processes before the reload take no more requests")

    yield run
    run()


@pytest.fixture(scope="module")
def ask(host, deployment):
    """Ask the edge from an address of its host, with a Host header unless there is another."""

    def ask(path, port=443, source=BALANCER, first="", **headers):
        said = {"Host": deployment.app_url.partition("://")[2]} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        status, *more = host.check_output(
            "python3 -c %s %s %s %s %s %s", ASK, str(port), source, first, json.dumps(said), path
        ).split()
        return int(status), *more

    return ask


def test_load_balancer_terminates_tls(deployment, converge, ask):
    converge(nginx_trusted_proxies=[BALANCER], nginx_tls_at_proxy=True, nginx_health_path="/healthz/")
    assert ask("/healthz/", port=80, X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.7")[0] == 200
    assert ask("/admin/login/", port=80, X_Forwarded_Proto="https")[0] == 200, "no redirect loop"
    for wrong in ({"X_Forwarded_Proto": "http"}, {}, {"source": "127.0.0.9", "X_Forwarded_Proto": "https"}):
        assert ask("/admin/login/", port=80, **wrong)[:2] == (301, f"{deployment.app_url}/admin/login/"), wrong
    assert ask("/healthz/", port=80, Host="10.0.0.5")[0] == 200 and ask("/healthz/", Host="10.0.0.5")[0] == 200
    assert ask("/admin/login/", port=80, Host="10.0.0.5")[0] == 0


def test_load_balancer_uses_the_proxy_protocol(converge, ask):
    locations = [{"path": "/admin/", "allow": ["203.0.113.7"]}]
    converge(nginx_trusted_proxies=[BALANCER], nginx_proxy_protocol=True, nginx_locations=locations)
    assert ask("/admin/login/", first=PROXIED)[0] == 200
    assert ask("/admin/login/", first=PROXIED.replace("203.0.113.7", "203.0.113.8"))[0] == 403
    assert ask("/admin/login/", first=PROXIED, source="127.0.0.9")[0] == 403, "a stranger is not believed"
    assert ask("/admin/login/")[0] == 0 and ask("/", port=80, first=PROXIED)[0] == 301


def test_brotli_is_loaded_in_the_sandbox_of_the_unit(host, converge, ask):
    packages = "libnginx-mod-http-brotli-filter libnginx-mod-http-brotli-static"
    converge(nginx_trusted_proxies=[BALANCER], nginx_brotli=True)
    try:
        assert ask("/admin/login/", Accept_Encoding="br")[2] == "br"
        assert host.check_output("systemctl is-active nginx") == "active"
    finally:
        converge()
        host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get purge --yes --autoremove {packages}")
