"""What a stranger sends to the front door, and what becomes of it."""

import http.client
import re
import socket
import ssl
import time
import warnings
from urllib.parse import urlsplit

import pytest
from waits import wait_for

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
@pytest.mark.parametrize(
    "path", ["/healthz/", "/admin/login/", "/nowhere/", "/static/nothing", "/media/nothing", "/flower/"]
)
def test_every_answer_has_the_headers_once(deployment, send, path):
    head = send(request(deployment, line=f"GET {path} HTTP/1.1")).split("\r\n\r\n")[0]
    for name, value in SECURITY_HEADERS.items():
        unsaid = name == "X-Frame-Options" and path.startswith("/static/")  # which is not the edge's to say
        assert re.findall(rf"(?im)^{name}: (.*?)\r?$", head) == ([] if unsaid else [value]), head
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


UPLOADS = {
    "photo.jpg": ("image/jpeg", "sandbox"),
    "page.html": ("text/html", "sandbox"),
    "drawing.svg": ("image/svg+xml", "sandbox"),
    "feed.xml": ("text/xml", "sandbox"),
    "paper.pdf": ("application/pdf", ""),
    "script.js": ("text/plain", "sandbox"),
    "a b/module.mjs": ("text/plain", "sandbox"),
    "nothing": ("application/octet-stream", "sandbox"),
    "words.vtt": ("text/vtt", "sandbox"),
}


@pytest.fixture
def uploads(host, deployment):
    """Uploads of many types, below the path that is returned; and what is none."""
    if "web" not in deployment.group_names:
        pytest.skip("uploads are on the hosts with web")
    folder = f"/srv/{deployment.app_name}/shared/media/test-edge"
    names = " ".join(f"'{folder}/{name}'" for name in UPLOADS)
    host.check_output(
        f"install -d '{folder}/a b' {folder}/below && for f in {names}; do printf 0123456789 >\"$f\"; done"
    )
    host.check_output(
        f"ln -s /etc/hostname {folder}/file.txt && ln -s /etc {folder}/folder && ln -s /etc/hostname {folder}/x.js"
    )
    yield "/media/test-edge/"
    host.check_output(f"rm -rf {folder}")


@pytest.mark.changes
def test_uploads_are_served_and_do_no_harm(deployment, uploads):
    for name, (type_, policy) in UPLOADS.items():
        answer = deployment.request(uploads + name.replace(" ", "%20"))
        assert (answer.status, answer.body) == (200, "0123456789"), name
        assert answer.headers["Content-Type"] == type_ and answer.headers["X-Content-Type-Options"] == "nosniff", name
        assert answer.headers.get("Content-Security-Policy", "").endswith(policy), name
    part = deployment.request(f"{uploads}photo.jpg", headers={"Range": "bytes=2-4"})
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, "234", "bytes 2-4/10")


@pytest.mark.changes
@pytest.mark.parametrize(
    "path",
    [
        "",
        "below",
        "below/",
        "file.txt",
        "x.js",
        "folder/hostname",
        "../../../current/manage.py",
        "%2e%2e/%2e%2e/x.js",
        "none.js",
    ],
)
def test_what_is_no_upload_is_answered_by_the_application(host, deployment, send, uploads, path):
    answer = send(request(deployment, line=f"GET {uploads}{path} HTTP/1.1"))
    assert status(answer) in (400, 404) and host.check_output("hostname") not in answer and "django" not in answer
    assert send(request(deployment, line=f"GET {uploads}nowhere HTTP/1.1")).endswith(
        send(request(deployment, line="GET /nowhere/ HTTP/1.1")).split("\r\n\r\n", 1)[1]
    )


TYPES = {
    "mjs": "text/javascript",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "map": "application/json",
    "avif": "image/avif",
    "webp": "image/webp",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "jsonld": "application/ld+json",
    "csv": "text/csv",
}
YEAR, HOUR = "public, max-age=31536000, immutable", "public, max-age=3600"
CACHED = {
    "page.0123456789ab.css": YEAR,
    "page.css.0123456789ab.map": YEAR,
    "main.0123456789abcdef0123.js": YEAR,
    "index-B1x3rT9_.js": YEAR,
    "page.css": HOUR,
    "theme-defaults.css": HOUR,
    "page-20261126.css": HOUR,
    "jquery-3.7.1.min.js": HOUR,
    "font-Awesome6.0.css": HOUR,
}


@pytest.fixture
def static(host, deployment):
    """Write empty files beside the current release's static ones; they go after the test."""
    folder = f"/srv/{deployment.app_name}/current/.release/static/test-edge"

    def write(*names):
        files = " ".join(f"{folder}/{name}" for name in names)
        host.check_output(f"install -d -m 755 {folder} && touch {files} && chmod 644 {files}")
        return "/static/test-edge/"

    yield write
    host.check_output(f"rm -rf {folder}")


@pytest.mark.changes
def test_static_files_have_their_types(deployment, static):
    path = static(*(f"file.{ending}" for ending in TYPES))
    seen = {ending: deployment.request(f"{path}file.{ending}").headers["Content-Type"] for ending in TYPES}
    assert {ending: type_.removesuffix("; charset=utf-8") for ending, type_ in seen.items()} == TYPES


@pytest.mark.changes
def test_static_files_are_cached_by_their_names(deployment, static):
    path = static(*CACHED)
    assert {name: deployment.request(path + name).headers["Cache-Control"] for name in CACHED} == CACHED
    assert "Cache-Control" not in deployment.request(f"{path}gone.0123456789ab.css").headers


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
    # With the pause between two tries, these requests are fewer than the limit lets through.
    wait_for(lambda: {deployment.request("/healthz/").status for _ in range(5)} == {200}, 20, "it is served again")
