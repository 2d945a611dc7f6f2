"""What a stranger sends to the front door, and what becomes of it."""

import http.client
import re
import socket
import ssl
import time
import warnings
from urllib.parse import urlsplit

import pytest
from conftest import wait_for

pytestmark = pytest.mark.group("edge")
SECURITY_HEADERS = {
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


@pytest.fixture
def send(deployment):
    """Send bytes over TLS as they are; return all that is answered until the server closes or `seconds` have passed."""
    address = urlsplit(deployment.app_url)

    def send(request, seconds=10.0, versions=None, ciphers=""):
        context = ssl._create_unverified_context()
        if versions:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                context.minimum_version, context.maximum_version = versions
        if ciphers:
            context.set_ciphers(ciphers)
        with (
            socket.create_connection((address.hostname, address.port or 443), timeout=seconds) as raw,
            context.wrap_socket(raw, server_hostname=address.hostname) as connection,
        ):
            connection.sendall(request)
            answer = b""
            try:
                while chunk := connection.recv(65536):
                    answer += chunk
            except (TimeoutError, ConnectionError):
                pass
            return answer.decode(errors="replace")

    return send


def request(deployment, *lines, line="GET / HTTP/1.1", body="", host=True):
    """A request with the right host and the connection closed after it, and what else is said."""
    head = [line, *([f"Host: {urlsplit(deployment.app_url).netloc}"] if host else []), "Connection: close", *lines]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def status(answer):
    """The status of the first answer, 0 without one."""
    match = re.match(r"HTTP/1\.[01] (\d+)", answer)
    return int(match[1]) if match else 0


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_tls_is_refused(deployment, send, version):
    version = ssl.TLSVersion[version]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        send(request(deployment), versions=(version, version), ciphers="ALL:@SECLEVEL=0")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_today_s_tls_is_spoken(deployment, send, version):
    version = ssl.TLSVersion[version]
    assert status(send(request(deployment), versions=(version, version))) > 0


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE+AES+SHA", "AES256-GCM-SHA384"])
def test_weak_ciphers_are_refused(deployment, send, ciphers):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        send(request(deployment), versions=(ssl.TLSVersion.TLSv1_2,) * 2, ciphers=f"{ciphers}:@SECLEVEL=0")


@pytest.mark.example
@pytest.mark.parametrize("path", ["/healthz/", "/admin/login/", "/nowhere/", "/static/nothing", "/flower/"])
def test_every_answer_has_the_headers_once(deployment, send, path):
    head = send(request(deployment, line=f"GET {path} HTTP/1.1")).split("\r\n\r\n")[0]
    for name, value in SECURITY_HEADERS.items():
        assert re.findall(rf"(?im)^{name}: (.*?)\r?$", head) == [value], head
    assert re.search(r"(?m)^Server: nginx\r?$", head), "no version"


SMUGGLED = "0\r\n\r\nGET /admin/ HTTP/1.1\r\nX: "
FORGED = {
    "length and chunks": (["Content-Length: 6", "Transfer-Encoding: chunked"], SMUGGLED),
    "two lengths": (["Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"], SMUGGLED),
    "unknown coding": (["Transfer-Encoding: xchunked"], SMUGGLED),
    "two codings": (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], SMUGGLED),
    "length is no number": (["Content-Length: +6"], SMUGGLED),
    "space before the colon": (["Transfer-Encoding : chunked"], SMUGGLED),
    "chunk of no size": (["Transfer-Encoding: chunked"], "zz\r\n"),
}


@pytest.mark.attack
@pytest.mark.parametrize("case", FORGED)
def test_forged_lengths_are_refused_and_nothing_is_smuggled(deployment, send, case):
    lines, body = FORGED[case]
    answer = send(request(deployment, *lines, line="POST /orders/ HTTP/1.1", body=body))
    assert status(answer) in (400, 501), answer
    assert answer.count("HTTP/1.1 ") == 1, answer


@pytest.mark.attack
@pytest.mark.parametrize(
    "line, allowed",
    [
        ("GET /healthz/ HTTP/9.9", {400, 505}),
        ("GET /" + 20000 * "a" + " HTTP/1.1", {414}),
        ("GET /%00 HTTP/1.1", {400, 404}),
        ("GET /healthz/\x01 HTTP/1.1", {400, 404}),
        ("TRACE / HTTP/1.1", {405}),
        ("CONNECT localhost:6379 HTTP/1.1", {400, 405}),
        ("GET http://stranger.example/ HTTP/1.1", {0}),
        ("nonsense", {400}),
    ],
)
def test_malformed_requests_are_refused(deployment, send, line, allowed):
    assert status(send(request(deployment, line=line))) in allowed


@pytest.mark.attack
@pytest.mark.parametrize(
    "lines, allowed",
    [
        (["X-Long: " + 40000 * "a"], {400, 431}),
        ([f"X-{n}: {500 * 'a'}" for n in range(200)], {400, 431}),
        (["Content-Length: 20000000"], {413}),
        (["Host: stranger.example"], {400}),  # a second one
    ],
)
def test_oversized_and_doubled_headers_are_refused(deployment, send, lines, allowed):
    assert status(send(request(deployment, *lines, line="POST /orders/ HTTP/1.1"))) in allowed


@pytest.mark.example
@pytest.mark.parametrize("name", ["X-Forwarded-Host", "Forwarded", "X-Forwarded-Prefix", "X-Script-Name"])
def test_name_of_another_host_reaches_no_page(deployment, name):
    answer = deployment.request("/admin/login/", headers={name: "host=stranger.example"})
    assert answer.status == 200 and "stranger" not in answer.body + str(answer.headers)


@pytest.mark.example
@pytest.mark.parametrize(
    "path",
    [
        "/static../settings.py",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/manage.py",
        "/static/..%2f..%2fmanage.py",
        "/static/.%2e/.%2e/manage.py",
        "/.git/config",
        "/.release/environment",
        "/manage.py",
    ],
)
def test_no_path_leads_to_code_or_settings(deployment, send, path):
    answer = send(request(deployment, line=f"GET {path} HTTP/1.1"))
    assert status(answer) in (400, 403, 404) and "root:" not in answer and "django" not in answer.lower()


@pytest.mark.example
def test_error_pages_tell_nothing(deployment):
    answer = deployment.request("/nowhere/")
    assert answer.status == 404
    assert not re.search(r"DEBUG|Traceback|urlconf|\.py\b", answer.body)


@pytest.mark.attack
def test_client_that_sends_too_slowly_is_cut_off(deployment, send):
    started = time.monotonic()
    assert status(send(b"GET /healthz/ HTTP/1.1\r\nX-Slow: ", seconds=20)) in (0, 408)
    assert time.monotonic() - started < 15


CONTROL = {
    "/flower/api/worker/shutdown/celery@x": {},
    "/flower/api/worker/pool/restart/celery@x": {},
    "/flower/api/worker/pool/shrink/celery@x": {"n": 1},
    "/flower/api/worker/queue/cancel-consumer/celery@x": {"queue": "default"},
    "/flower/api/task/send-task/orders.tasks.echo": {"args": [1]},
    "/flower/api/task/async-apply/orders.tasks.echo": {"args": [1]},
    "/flower/api/task/revoke/x": {"terminate": True},
    "/flower/api/task/rate-limit/orders.tasks.echo": {"ratelimit": 1},
    "//flower/api/task/revoke/x": {},
    "/flower/%61pi/task/revoke/x": {},
    "/static/../flower/api/task/revoke/x": {},
}


@pytest.mark.attack
@pytest.mark.parametrize("path", CONTROL)
def test_flower_controls_nothing_for_who_logs_in(deployment, path):
    if not deployment.groups.get("flower"):
        pytest.skip("there is no Flower")
    login = f"ops:{deployment.app_flower_password}"
    answer = deployment.request(path, CONTROL[path], login=login)
    assert answer.status == 403, answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/flower/metrics",
        "//flower/metrics",
        "/flower//metrics",
        "/flower/./metrics",
        "/flower/%6detrics",
        "/flower/x/../metrics",
        "/flower/%2e%2e/flower/metrics",
        "/flower/metrics/",
        "/flower/metrics?x=/",
        "/flower/healthcheck",
        "/flower/health%63heck",
    ],
)
def test_no_path_leads_to_flowers_open_pages(deployment, send, path):
    assert status(send(request(deployment, line=f"GET {path} HTTP/1.1"))) in (403, 401, 404)
    assert "flower_" not in send(request(deployment, line=f"GET {path} HTTP/1.1"))


@pytest.mark.attack
def test_flood_of_one_client_is_bounded_and_passes(deployment):
    address = urlsplit(deployment.app_url)
    connection = http.client.HTTPSConnection(
        address.hostname, address.port, timeout=15, context=ssl._create_unverified_context()
    )
    seen = []
    for _ in range(1500):
        connection.request("GET", "/static/nothing")
        answer = connection.getresponse()
        answer.read()
        seen.append(answer.status)
        if answer.status == 429:
            break
        if answer.getheader("Connection") == "close":
            connection.close()
    assert seen[-1] == 429 and set(seen) == {404, 429}
    wait_for(lambda: {deployment.request("/healthz/").status for _ in range(50)} == {200}, 20, "it is served again")
