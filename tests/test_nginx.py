"""What nginx does with the configuration that the role renders: nginx itself, real requests, a small application behind it."""

import json
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
import strategies
from real_nginx import BALANCER, NAME, Edge, Server, evaluate
from waits import wait_for

OTHER, WILD, OLD = "shop.example.org", "a.tenants.example.net", "old.example.com"
LONG = f"{'a' * 31}.{'b' * 28}.com"  # 64 characters, the most
MAIN = {"nginx_trusted_proxies": [f"{BALANCER}/32"]}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "crt", folder / "key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={NAME}"]
    where = ["-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", "req", "-x509", *kind, *where], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def served(certificate):
    """Start nginx with these variables, and the application behind it; the same variables are the same nginx."""
    running = {}

    def start(**variables):
        key = json.dumps(variables, sort_keys=True)
        if key not in running:
            edge = Edge(certificate, **variables)
            application = Server(edge.socket).__enter__()
            edge.seen = application.seen
            running[key] = edge, application
            edge.__enter__()
        return running[key][0]

    yield start
    for edge, application in running.values():
        edge.__exit__()
        application.__exit__()


def asked(answer):
    """What the application was asked."""
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_default_configuration_is_valid(certificate, served):
    edge = served()
    assert asked(edge.request("/any/page?a=1"))["path"] == "/any/page?a=1"
    assert "limit_req" in edge.text and edge.test() == ""


# Private uploads


@pytest.fixture
def private(served):
    """The default configuration, with files among the uploads and beside them."""
    edge = served(nginx_media_url="")
    media = edge.app / "shared/media"
    (media / "a b").mkdir(exist_ok=True)
    for name in ("bill.pdf", "a b/ü.txt", "page.html", "code.js", "100%.txt"):
        (media / name).write_text("0123456789")
    (edge.app / "shared/secret").write_text("secret")
    (edge.app / "releases/r1/settings.py").write_text("secret")
    for link, target in (("link", "/etc/hostname"), ("up", "../secret"), ("x.js", "/etc/hostname"), ("etc", "/etc")):
        if not (media / link).is_symlink():
            (media / link).symlink_to(target)
    return edge


def accel(path, **headers):
    """A request that the application answers with X-Accel-Redirect, and these headers."""
    said = {"X-Accel-Redirect": path, "Content-Type": ""} | headers
    return "/download/?" + "&".join(
        f"{name}={value.replace('%', '%25').replace(' ', '%20')}" for name, value in said.items()
    )


def test_application_has_a_file_sent(private):
    answer = private.request(accel("/protected/bill.pdf"))
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, "0123456789", "application/pdf")
    assert answer.get("Cache-Control") == "private" and answer.get("X-Accel-Redirect") is None
    assert private.request(accel("/protected/a%20b/%C3%BC.txt")).body == "0123456789"
    assert private.request(accel("/protected/100%25.txt")).body == "0123456789"
    assert private.request(accel("/protected/bill.pdf"), method="POST", body="x").body == "0123456789"
    assert private.request(accel("/protected/bill.pdf"), method="HEAD").get("Content-Length") == "10"


def test_file_that_is_sent_has_the_applications_headers(private):
    said = {
        "Content-Type": "application/x-bill",
        "Content-Disposition": 'attachment; filename="b.pdf"',
        "Cache-Control": "private, max-age=60",
        "Set-Cookie": "seen=1",
        "Content-Security-Policy": "default-src 'self'",
        "X-Frame-Options": "SAMEORIGIN",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": "max-age=7",
        "X-Robots-Tag": "noindex",
        "Access-Control-Allow-Origin": "https://a.example",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Vary": "Cookie",
    }
    path = accel("/protected/page.html", **{name: value.replace(";", "%3B") for name, value in said.items()})
    answer = private.request(path.replace("%253B", "%3B"))
    assert answer.body == "0123456789"
    assert {name: answer.all(name) for name in said} == {name: [value] for name, value in said.items()}


def test_file_that_is_sent_has_the_edges_headers_where_the_application_has_none(private):
    answer = private.request(accel("/protected/page.html"))
    assert answer.get("Content-Type") == "text/html" and answer.get("X-Content-Type-Options") == "nosniff"
    assert answer.get("Content-Security-Policy").endswith("sandbox") and answer.get("Referrer-Policy") == "same-origin"
    assert answer.get("Strict-Transport-Security") == "max-age=31536000"
    assert private.request(accel("/protected/code.js")).get("Content-Type") == "text/plain"
    assert (
        private.request(accel("/protected/code.js", **{"Content-Type": "text/javascript"})).get("Content-Type")
        == "text/javascript"
    )


def test_part_of_a_file_is_sent(private):
    part = private.request(accel("/protected/bill.pdf"), headers={"Range": "bytes=2-4"})
    assert (part.status, part.body, part.get("Content-Range")) == (206, "234", "bytes 2-4/10")
    etag = private.request(accel("/protected/bill.pdf")).get("ETag")
    assert private.request(accel("/protected/bill.pdf"), headers={"If-None-Match": etag}).status == 304


@pytest.mark.parametrize(
    "path",
    [
        "/protected/link",
        "/protected/up",
        "/protected/x.js",
        "/protected/etc/hostname",
        "/protected/../secret",
        "/protected/%2e%2e/secret",
        "/protected/..%2fsecret",
        "/protected../secret",
        "/protected/../../releases/r1/settings.py",
        "/protected/a b/../../secret",
        "/protected/",
        "/protected/a%20b",
        "/protected/none",
        "/protected/none.js",
    ],
)
def test_nothing_but_an_upload_is_sent(private, path):
    answer = private.request(accel(path))
    hostname = Path("/etc/hostname").read_text().strip()
    assert answer.status in (200, 404, 500) and answer.body.strip() not in ("secret", "0123456789", hostname)
    if answer.status == 200:
        assert asked(answer)["path"].startswith("/protected"), "the application answers what is not there"


@pytest.mark.parametrize(
    "path", ["/protected/bill.pdf", "/protected/code.js", "/protected/", "/protected/none", "/%70rotected/bill.pdf"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_client_does_not_get_a_file_by_its_path(private, path, method):
    answer = asked(private.request(path, method=method, body="x" if method == "POST" else None))
    assert answer["method"] == method and "rotected" in answer["path"]
    assert "0123456789" not in answer["body"]


def test_body_has_its_limit_at_the_paths_of_private_files_too(served):
    entries = [{"path": "/reports/", "shared": "reports", "internal": True}]
    edge = served(
        nginx_locations=[*entries, {"path": "/one", "shared": "one", "internal": True}], nginx_client_max_body_size="1k"
    )
    for path in ("/protected/a", "/protected/a.js", "/reports/a", "/reports/a.mjs", "/one", "/any"):
        assert asked(edge.request(path, method="POST", body="x" * 1000))["body"] == "x" * 1000, path
        assert edge.request(path, method="POST", body="x" * 2000).status == 413, path


def test_media_url_may_be_the_path_of_private_uploads(served):
    """The application has a view at MEDIA_URL, which decides."""
    edge = served(nginx_media_url="", nginx_private_media="/media/")
    (edge.app / "shared/media/a.txt").write_text("0123456789")
    assert asked(edge.request("/media/a.txt"))["path"] == "/media/a.txt"
    assert edge.request("/media/a.txt?X-Accel-Redirect=/media/a.txt").body == "0123456789"
    before = len(edge.seen)
    assert edge.request("/media/b.txt?X-Accel-Redirect=/media/b.txt").status == 404
    assert len(edge.seen) - before <= 2, "it is not asked again and again"


def test_only_the_application_has_files_sent(served, certificate):
    """Another service that answers with X-Accel-Redirect gets nothing."""
    other = Edge(certificate)  # for its folder
    with Server(other.socket):
        edge = served(nginx_media_url="", nginx_locations=[{"path": "/other/", "proxy": f"http://unix:{other.socket}"}])
        (edge.app / "shared/media/a.txt").write_text("0123456789")
        answer = edge.request("/other/?X-Accel-Redirect=/protected/a.txt")
        assert answer.status == 200 and "0123456789" not in answer.body
        groups = {"edge": ["one"], "web": ["one"], "flower": ["one"]}
        edge = served(groups=groups, __nginx_flower=f"unix:{other.socket}")
        (edge.app / "shared/media/a.txt").write_text("0123456789")
        for path in ("/flower/", "/flower/tasks/datatable"):
            answer = edge.request(f"{path}?X-Accel-Redirect=/protected/a.txt")
            assert asked(answer)["path"].startswith(path), "nor does Flower"


# Host names


@pytest.fixture(scope="module")
def named(served):
    return served(
        app_url=f"https://{NAME}:8443",
        app_aliases=[OTHER, "*.tenants.example.net", LONG],
        nginx_redirect_names=["example.com", OLD],
    )


@pytest.mark.parametrize("name", [NAME, OTHER, WILD, LONG])
def test_site_is_served_at_each_of_its_names(named, name):
    answer = named.request("/page", host=name)
    assert asked(answer)["headers"]["host"] == f"{name}:8443"
    assert answer.get("Strict-Transport-Security")
    assert asked(named.request("/page", host=f"{name.upper()}:8443", name=name))["headers"]["host"] == f"{name}:8443"
    plain = named.request("/a%20b/?x=1&y=%2F", host=name, tls=False)
    assert (plain.status, plain.get("Location")) == (301, f"https://{name}:8443/a%20b/?x=1&y=%2F")


@pytest.mark.parametrize("name", ["example.com", OLD])
@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("method, status", [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308)])
def test_name_that_redirects_keeps_path_query_and_method(named, name, tls, method, status):
    answer = named.request(
        "/a%20b/?x=1&y=%2F", host=name, tls=tls, method=method, body=None if method in ("GET", "HEAD") else "x"
    )
    assert (answer.status, answer.get("Location")) == (status, f"https://{NAME}:8443/a%20b/?x=1&y=%2F")


@pytest.mark.parametrize(
    "name", ["stranger.example", "tenants.example.net", "x.example.com", "www.example.com.evil.example"]
)
def test_other_names_get_no_answer(named, name):
    with pytest.raises(ssl.SSLError, match="unrecognized"):
        named.request("/", host=name)
    for wrong in ({"host": name, "name": NAME}, {"host": name, "tls": False}):
        with pytest.raises(ConnectionError):
            named.request("/", **wrong)


def test_name_in_another_header_is_not_believed(named):
    names = {"X-Forwarded-Host": "stranger.example", "Forwarded": "host=stranger.example", "X-Forwarded-Prefix": "/x"}
    assert "stranger" not in named.request("/", headers=names).body


# Paths


LOCATIONS = [
    {"path": "/files/", "shared": "exports"},
    {"path": "/internal/", "shared": "reports", "internal": True},
    {"path": "/feed.xml", "shared": "exports/feed.xml"},
    {"path": "/media/hidden/", "allow": []},
    {"path": "/office/", "allow": ["127.0.0.3", "2001:db8::/32"]},
    {"path": "/lists/", "shared": "exports", "allow": ["127.0.0.3"]},
    {"path": "/list.csv", "shared": "exports/a.csv", "allow": ["127.0.0.3"]},
    {"path": "/favicon.ico", "static": "site/favicon.ico"},
    {"path": "/docs/", "static": "docs", "headers": {"Cache-Control": "no-cache", "X-Docs": "a; b='c' {#}"}},
    {"path": "/old/", "redirect": "/new/"},
    {"path": "/moved/", "redirect": "https://other.example/", "status": 308},
    {"path": "/gone/", "redirect": "/sorry"},
    {"path": "/exact", "redirect": "/new/?from=exact", "status": 302},
    {
        "path": "/embed/",
        "headers": {
            "X-Frame-Options": "",
            "Content-Security-Policy": "frame-ancestors https://a.example",
            "X-Own": "1",
        },
    },
    {"path": "/upload/", "body_size": "2m"},
    {"path": "/slow/", "timeout": 1},
    {"path": "/login/", "limit": "3r/m"},
    {"path": "/once", "limit": "1r/m"},
    {"path": "/stream/", "buffering": False},
]


@pytest.fixture(scope="module")
def located(served):
    edge = served(nginx_locations=LOCATIONS, nginx_client_max_body_size="1m")
    for path in (
        "shared/exports/a.csv",
        "shared/exports/feed.xml",
        "shared/exports/run.js",
        "shared/reports/r.txt",
        "shared/media/hidden/x.js",
    ):
        (edge.app / path).parent.mkdir(exist_ok=True)
        (edge.app / path).write_text("0123456789")
    for path in ("site/favicon.ico", "docs/index.html", "docs/a.0123456789ab.css"):
        (edge.static / path).parent.mkdir(exist_ok=True)
        (edge.static / path).write_text("0123456789")
    (edge.app / "shared/exports/link").symlink_to("../media")
    return edge


def test_folder_of_the_shared_one_is_sent(located):
    answer = located.request("/files/a.csv")
    assert (answer.status, answer.body, answer.get("Content-Type")) == (200, "0123456789", "text/csv")
    assert answer.get("Content-Security-Policy").endswith("sandbox")
    assert located.request("/files/run.js").get("Content-Type") == "text/plain"
    assert located.request("/feed.xml").body == "0123456789"
    for path in ("/files/none", "/files/", "/files/link/hidden/x.js", "/files/../media/hidden/x.js", "/feed.xml/a"):
        answer = located.request(path)
        assert "0123456789" not in answer.body, path
    assert asked(located.request("/internal/r.txt"))["path"] == "/internal/r.txt"
    assert located.request(accel("/internal/r.txt")).body == "0123456789"


def test_static_file_at_a_path_of_its_own(located):
    assert (located.request("/favicon.ico").body, located.request("/favicon.ico").get("Cache-Control")) == (
        "0123456789",
        "public, max-age=3600",
    )
    answer = located.request("/docs/a.0123456789ab.css")
    assert (answer.body, answer.get("Cache-Control"), answer.get("X-Docs")) == (
        "0123456789",
        "no-cache",
        "a; b='c' {#}",
    )
    assert answer.get("X-Content-Type-Options") == "nosniff"
    assert located.request("/docs/none").status == 404


def test_path_that_only_some_may_request(located):
    assert located.request("/office/x").status == 403
    assert asked(located.request("/office/x", source="127.0.0.3"))["path"] == "/office/x"
    assert located.request("/office").status == 403 and located.request("/office", source="127.0.0.3").status == 200
    assert asked(located.request("/officer"))["path"] == "/officer", "which is another path"
    for path in ("/lists/a.csv", "/lists/run.js", "/list.csv"):
        assert (located.request(path).status, located.request(path, source="127.0.0.3").body) == (403, "0123456789"), (
            path
        )
    for path in (
        "/media/hidden/x.js",
        "/media/hidden/",
        "/media//hidden/x.js",
        "/media/x/../hidden/x.js",
        "/media/hidden/%78.js",
    ):
        assert located.request(path).status == 403, path


@pytest.mark.parametrize(
    "path, status, to",
    [
        ("/old/", 301, f"https://{NAME}/new/"),
        ("/old/a%20b/?x=1", 301, f"https://{NAME}/new/a%20b/?x=1"),
        ("/old?x=1", 301, f"https://{NAME}/new/?x=1"),
        ("//old/a", 301, f"https://{NAME}/new/"),
        ("/moved/a?b", 308, "https://other.example/a?b"),
        ("/gone/a?b=1", 301, f"https://{NAME}/sorry?b=1"),
        ("/exact?x=1", 302, f"https://{NAME}/new/?from=exact"),
    ],
)
def test_path_redirects(located, path, status, to):
    answer = located.request(path)
    assert (answer.status, answer.get("Location")) == (status, to)


def test_path_has_headers_of_its_own(located):
    said = "?X-Frame-Options=DENY&Content-Security-Policy=x&X-Content-Type-Options=nosniff"
    answer = located.request("/embed/" + said)
    assert answer.get("Content-Security-Policy") == "frame-ancestors https://a.example" and answer.get("X-Own") == "1"
    assert answer.get("X-Frame-Options") is None and answer.get("X-Content-Type-Options") == "nosniff"
    assert located.request("/other/" + said).get("X-Frame-Options") == "DENY"


def test_size_of_a_request_body_is_a_paths(located):
    sizes = {
        path: located.request(path, method="POST", body="x" * size).status
        for path, size in (("/", 1000000), ("/a", 1100000), ("/upload/a", 2000000), ("/upload/b", 2200000))
    }
    assert sizes == {"/": 200, "/a": 413, "/upload/a": 200, "/upload/b": 413}


def test_timeout_is_a_paths(located):
    assert located.request("/slow/?sleep=0.5").status == 200
    assert located.request("/slow/?sleep=2").status == 504
    assert located.request("/other/?sleep=2").status == 200


def test_limit_of_a_path_counts_for_each_client(located):
    for path, allowed in (("/login/", 3), ("/once", 1)):
        assert [located.request(path).status for _ in range(allowed + 2)] == [200] * allowed + [429] * 2, path
        assert located.request(path, source="127.0.0.9").status == 200, "another client"
    assert located.request("/other/").status == 200


def test_whole_application_may_have_an_entry(served):
    edge = served(nginx_locations=[{"path": "/", "allow": ["127.0.0.3"], "timeout": 60, "headers": {"X-All": "1"}}])
    (edge.static / "a.css").write_text("0123456789")
    assert edge.request("/any").status == 403 and edge.request("/any", source="127.0.0.3").get("X-All") == "1"
    assert edge.request("/static/a.css").body == "0123456789"


def test_another_service_answers_a_path(served, certificate):
    other = Edge(certificate)
    with Server(other.socket):
        entries = [
            {"path": "/as-it-is/", "proxy": f"http://unix:{other.socket}"},
            {
                "path": "/cut/",
                "proxy": f"http://unix:{other.socket}:/",
                "headers": {"X-Powered-By": ""},
                "body_size": "1k",
            },
        ]
        edge = served(nginx_locations=entries, nginx_websocket_paths=["/cut/ws/"])
        seen = asked(edge.request("/as-it-is/a?b=1"))
        assert (seen["path"], seen["headers"]["host"]) == ("/as-it-is/a?b=1", NAME)
        answer = edge.request("/cut/a?X-Powered-By=x", headers={"X-Forwarded-For": "192.0.2.1"})
        assert asked(answer)["path"] == "/a?X-Powered-By=x" and answer.get("X-Powered-By") is None
        assert asked(answer)["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert answer.get("X-Content-Type-Options") == "nosniff"
        assert edge.request("/cut/a", method="POST", body="x" * 2000).status == 413
        assert asked(edge.request("/cut"))["path"] == "/"
        assert switched(edge, "/cut/ws/room") == "HELLO"
    assert edge.request("/as-it-is/").status == 502 and edge.request("/").status == 200


# WebSockets, server-sent events, long polling


def switched(edge, path, upgrade="websocket"):
    """What comes back over a connection after its upgrade, or the status without one."""
    connection = edge.connect()
    try:
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {NAME}",
            f"Upgrade: {upgrade}",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "",
        ]
        connection.sendall("\r\n".join([*lines, ""]).encode())
        head = connection.recv(4096).decode()
        status = int(head.split()[1])
        if status != 101:
            return status
        connection.sendall(b"hello")
        return connection.recv(100).decode()
    finally:
        connection.close()


def test_websocket_is_opened_where_it_may_be(served):
    edge = served(nginx_websocket_paths=["/ws/", "/live"])
    assert switched(edge, "/ws/room/1") == "HELLO" and switched(edge, "/live") == "HELLO"
    assert switched(edge, "/other/") == 200 and switched(edge, "/static/ws/") == 404
    assert switched(edge, "/live/too") == switched(edge, "/lively") == 200, "this path alone"
    for upgrade in ("h2c", "websocket /ws/", "1/ws/"):
        assert switched(edge, "/ws/", upgrade=upgrade) == switched(edge, "/other/", upgrade=upgrade) == 200, (
            "no other protocol"
        )
    assert switched(edge, "/ws/", upgrade="WebSocket") == "HELLO"
    seen = asked(edge.request("/ws/", headers={"Upgrade": "h2c", "Connection": "Upgrade"}))
    assert "upgrade" not in seen["headers"] and "connection" not in seen["headers"]
    assert switched(served(nginx_websocket_paths=["/"]), "/any") == "HELLO"
    assert switched(served(), "/ws/") == 200


def test_path_that_is_denied_opens_no_websocket(served):
    edge = served(nginx_websocket_paths=["/"], nginx_locations=[{"path": "/admin/", "allow": []}])
    assert switched(edge, "/admin/ws") == 403 and switched(edge, "/ws") == "HELLO"


def first_event(edge, path):
    """How long the first event of a stream takes to arrive."""
    started = time.monotonic()
    with edge.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        received = b""
        while b"data: 0" not in received:
            received += connection.recv(4096)
        return time.monotonic() - started


def test_event_arrives_when_it_is_sent_where_the_application_asks_for_it(served, located):
    assert first_event(located, "/events?X-Accel-Buffering=no") < 0.9
    assert first_event(located, "/events") > 0.9, "nginx gathers what a page writes bit by bit"
    edge = served(nginx_locations=[{"path": "/events", "buffering": False}])
    assert first_event(edge, "/events") < 0.9


# Errors, compression


def test_error_pages_are_the_applications_also_without_it(served, certificate):
    variables = {"nginx_error_pages": "errors", "nginx_client_max_body_size": "1k", "nginx_locations": LOCATIONS[-4:]}
    edge = served(**variables)
    (edge.static / "errors").mkdir()
    for status in (413, 429, 502, 504):
        (edge.static / f"errors/{status}.html").write_text(f"sorry, {status}")
    too_large = edge.request("/", method="POST", body="x" * 2000)
    assert (too_large.status, too_large.body, too_large.get("Content-Type")) == (413, "sorry, 413", "text/html")
    assert (edge.request("/slow/?sleep=2").status, edge.request("/slow/?sleep=2").body) == (504, "sorry, 504")
    assert [edge.request("/once").status for _ in range(2)][-1] == 429 and edge.request("/once").body == "sorry, 429"
    assert edge.request("/?status=502").body.startswith("{"), "what the application answers itself is left as it is"
    for path in ("/.coldframe/502.html", "/.coldframe/none.html"):
        assert "sorry" not in edge.request(path).body
    with Edge(certificate, **variables) as alone:
        assert (alone.request("/").status, "sorry" in alone.request("/").body) == (502, False), (
            "a page that is not there"
        )
        (alone.static / "errors").mkdir()
        (alone.static / "errors/502.html").write_text("sorry, 502")
        answer = alone.request("/", method="POST", body="x")
        assert (answer.status, answer.body) == (502, "sorry, 502")
        assert answer.get("X-Content-Type-Options") == "nosniff"


def test_error_pages_are_the_inventorys(certificate, tmp_path):
    (tmp_path / "502.html").write_text("ours")
    (tmp_path / "readme.txt").touch()
    with Edge(certificate, nginx_error_pages=str(tmp_path)) as edge:
        (edge.folder / "error_pages").mkdir()
        (edge.folder / "error_pages/502.html").write_text("ours")
        assert edge.request("/").body == "ours"
    assert "503.html" not in edge.text, "which the folder does not have"


def test_compression_is_negotiated(served):
    edge = served(nginx_brotli=True)
    (edge.static / "a.css").write_text("body {} " * 500)
    (edge.static / "b.js").write_text("x")
    (edge.static / "b.js.br").write_text("compressed before")
    for accepted, coding in (("gzip, br", "br"), ("gzip", "gzip"), ("identity", None)):
        answer = edge.request("/static/a.css", headers={"Accept-Encoding": accepted})
        assert (answer.status, answer.get("Content-Encoding"), answer.get("Vary")) == (200, coding, "Accept-Encoding")
    assert edge.request("/static/b.js", headers={"Accept-Encoding": "br"}).body == "compressed before"
    plain = served()
    (plain.static / "a.css").write_text("body {} " * 500)
    answer = plain.request("/static/a.css", headers={"Accept-Encoding": "gzip, br"})
    assert (answer.get("Content-Encoding"), answer.get("Vary")) == ("gzip", "Accept-Encoding")


# A load balancer


def test_load_balancer_that_uses_tls_names_nobody(served):
    edge = served(**MAIN)
    answer = edge.request("/page", name=None, source=BALANCER, headers={"X-Forwarded-For": "203.0.113.7"})
    assert asked(answer)["headers"]["x-forwarded-for"] == "203.0.113.7"
    for host, name in (("stranger.example", None), ("10.0.0.5", None), ("stranger.example", NAME)):
        with pytest.raises(ConnectionError):
            edge.request("/", host=host, name=name)
    with pytest.raises(ssl.SSLError, match="unrecognized"):
        edge.request("/", host="stranger.example")
    with pytest.raises(ssl.SSLError, match="unrecognized"):
        served().request("/", name=None)


def test_load_balancer_that_terminates_tls_uses_plain_http(served):
    edge = served(
        **MAIN,
        nginx_tls_at_proxy=True,
        nginx_health_path="/healthz/",
        nginx_redirect_names=["example.com"],
        app_aliases=[OTHER],
    )
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    seen = asked(edge.request("/page?a=1", tls=False, source=BALANCER, headers=https))["headers"]
    assert (seen["x-forwarded-proto"], seen["x-forwarded-for"], seen["host"]) == ("https", "203.0.113.7", NAME)
    assert asked(edge.request("/", host=OTHER, tls=False, source=BALANCER, headers=https))["headers"]["host"] == OTHER
    for wrong in (
        {"source": BALANCER, "headers": {"X-Forwarded-Proto": "http"}},
        {"source": BALANCER, "headers": {"X-Forwarded-Proto": "https, http"}},
        {"source": BALANCER},
        {"headers": https},
        {"source": "127.0.0.9", "headers": https},
    ):
        answer = edge.request("/page?a=1", tls=False, **wrong)
        assert (answer.status, answer.get("Location")) == (301, f"https://{NAME}/page?a=1"), wrong
    moved = edge.request("/a?b", host="example.com", tls=False, source=BALANCER, headers=https)
    assert (moved.status, moved.get("Location")) == (301, f"https://{NAME}/a?b")
    assert asked(edge.request("/page"))["path"] == "/page", "TLS is served as before"
    (edge.static / "a.css").write_text("0123456789")
    assert edge.request("/static/a.css", tls=False, source=BALANCER, headers=https).body == "0123456789"


def test_load_balancer_that_terminates_tls_may_use_the_proxy_protocol(served):
    edge = served(**MAIN, nginx_tls_at_proxy=True, nginx_proxy_protocol=True)
    plain = {"tls": False, "first": proxied(1, "203.0.113.7", 80), "headers": {"X-Forwarded-Proto": "https"}}
    assert asked(edge.request("/", source=BALANCER, **plain))["headers"]["x-forwarded-for"] == "203.0.113.7"
    assert edge.request("/", source="127.0.0.9", **plain).status == 301


@pytest.mark.parametrize("more", [{}, {"nginx_tls_at_proxy": True}])
def test_health_check_needs_no_host_name(served, more):
    edge = served(**MAIN, **more, nginx_health_path="/healthz/")
    for host in ("10.0.0.5", "stranger.example", NAME):
        for connection in ({"tls": False}, {"name": None}):
            seen = asked(edge.request("/healthz/", host=host, **connection))
            assert (seen["path"], seen["headers"]["host"], seen["headers"]["x-forwarded-proto"]) == (
                "/healthz/",
                NAME,
                "https",
            )
    for path in ("/", "/healthz", "/healthz/x", "/x%20/healthz/"):
        with pytest.raises(ConnectionError):
            edge.request(path, host="10.0.0.5", tls=False)
    assert edge.request("/x%20/healthz/", tls=False).status == 301


def proxied(version, client, port=443):
    """What the PROXY protocol says first."""
    if version == 1:
        return f"PROXY TCP4 {client} 192.0.2.1 51234 {port}\r\n".encode()
    addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.1") + (51234).to_bytes(2) + port.to_bytes(2)
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + len(addresses).to_bytes(2) + addresses


@pytest.mark.parametrize("version", [1, 2])
def test_proxy_protocol_names_the_client(served, version):
    edge = served(**MAIN, nginx_proxy_protocol=True)
    first = proxied(version, "203.0.113.7")
    seen = asked(edge.request("/", source=BALANCER, first=first, headers={"X-Forwarded-For": "198.51.100.1"}))
    assert seen["headers"]["x-forwarded-for"] == "203.0.113.7"
    stranger = asked(edge.request("/", source="127.0.0.9", first=first))
    assert stranger["headers"]["x-forwarded-for"] == "127.0.0.9", "only a load balancer is believed"
    plain = edge.request("/a", tls=False, source=BALANCER, first=proxied(version, "203.0.113.7", 80))
    assert (plain.status, plain.get("Location")) == (301, f"https://{NAME}/a")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.request("/", source=BALANCER)


def known_id(answer):
    """The id of a request, which the application was told and the client is."""
    assert asked(answer)["headers"]["x-request-id"] == answer.get("X-Request-ID")
    return answer.get("X-Request-ID")


def test_request_has_an_id_in_the_log_for_the_application_and_for_the_client(served):
    edge = served(nginx_locations=[{"path": "/own/", "headers": {"X-A": "b"}}, {"path": "/gone/", "redirect": "/"}])
    (edge.static / "a.css").write_text("a")
    pages = ["/page", "/own/page", "/missing?status=404", "/page?X-Request-ID=the-applications-own"]
    ids = [known_id(edge.request(path)) for path in (pages[0], pages[1], pages[3])]
    ids += [edge.request(path).get("X-Request-ID") for path in ("/static/a.css", "/gone/", "/static/missing", pages[2])]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    logged = [line.rsplit(" ", 1)[1] for line in edge.access.read_text().splitlines()]
    assert logged[-len(ids) :] == ids
    assert known_id(edge.request("/", headers={"X-Request-ID": "from-a-client"})) != "from-a-client"


def test_id_of_a_load_balancer_is_the_requests_if_it_is_one(served):
    edge, given = served(**MAIN), {"X-Request-ID": "1-67891233:abc=/x@y"}
    assert known_id(edge.request("/", source=BALANCER, headers=given)) == given["X-Request-ID"]
    assert known_id(edge.request("/", source="127.0.0.9", headers=given)) != given["X-Request-ID"]
    for wrong in ("", "a b", "a;b", 'a"b', "a" * 129):
        seen = known_id(edge.request("/", source=BALANCER, headers={"X-Request-ID": wrong}))
        assert re.fullmatch("[0-9a-f]{32}", seen), wrong
    passing = served(**MAIN, nginx_proxy_protocol=True)
    first = proxied(1, "203.0.113.7")
    assert known_id(passing.request("/", source=BALANCER, first=first, headers=given)) != given["X-Request-ID"]


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def traces(edge, source="127.0.0.9", **headers):
    """What the application gets of the headers of a trace."""
    seen = asked(edge.request("/", source=source, headers=headers))["headers"]
    return seen.get("traceparent"), seen.get("tracestate")


def test_trace_of_a_load_balancer_goes_on_and_not_that_of_a_client(served):
    given = {"traceparent": TRACE, "tracestate": "a=b"}
    edge = served(**MAIN, app_otel_endpoint="http://192.0.2.7:4318")
    assert traces(edge, BALANCER, **given) == (TRACE, "a=b")
    assert traces(edge, BALANCER, traceparent=TRACE) == (TRACE, None)
    assert traces(edge, **given) == (None, None)
    for wrong in ("", "00-x", TRACE.upper(), f"{TRACE}-more", f"01{TRACE[2:]}"):
        assert traces(edge, BALANCER, traceparent=wrong, tracestate="a=b") == (None, None), wrong
    alone = served(app_otel_endpoint="http://192.0.2.7:4318")
    assert traces(alone, **given) == (None, None)
    passing = served(**MAIN, nginx_proxy_protocol=True, app_otel_endpoint="http://192.0.2.7:4318")
    answer = passing.request("/", source=BALANCER, first=proxied(1, "203.0.113.7"), headers=given)
    assert "traceparent" not in asked(answer)["headers"]
    assert traces(served(), **given) == (TRACE, "a=b"), "they are the application's where Coldframe reports nothing"


def test_limits_are_the_clients_behind_a_load_balancer(served):
    edge = served(
        **MAIN,
        nginx_proxy_protocol=True,
        nginx_locations=[{"path": "/once", "limit": "1r/m"}, {"path": "/office", "allow": ["203.0.113.8"]}],
    )
    ask = lambda path, client: edge.request(path, source=BALANCER, first=proxied(1, client)).status  # noqa: E731
    assert [ask("/once", client) for client in ("203.0.113.7", "203.0.113.7", "203.0.113.8")] == [200, 429, 200]
    assert [ask("/office", client) for client in ("203.0.113.7", "203.0.113.8")] == [403, 200]


# The snippet


def test_snippet_is_part_of_the_site(certificate, tmp_path):
    snippet = tmp_path / "nginx.conf"
    snippet.write_text('# {{ not a template }}\nlocation = /teapot { return 418 "{{ $host }} } \'"; }\n')
    with Edge(certificate, nginx_snippet=str(snippet)) as edge:
        assert (edge.request("/teapot").status, edge.request("/teapot").body) == (418, f"{{{{ {NAME} }}}} }} '")


def test_snippet_takes_nothing_from_the_other_paths(certificate, tmp_path):
    """Not by a location with a regular expression either, which nginx would prefer to a prefix."""
    snippet = tmp_path / "nginx.conf"
    snippet.write_text('location ~ [.]txt$ { return 200 "snippet"; }\n')
    entries = [{"path": "/closed/", "allow": []}, {"path": "/reports/", "shared": "reports", "internal": True}]
    with Edge(certificate, nginx_snippet=str(snippet), nginx_locations=entries) as edge, Server(edge.socket):
        assert edge.request("/any/a.txt").body == "snippet" and edge.request("/closed/a.txt").status == 403
        for path in ("/reports/a.txt", "/protected/a.txt", "/media/a.txt"):
            assert asked(edge.request(path))["path"] == path


def test_everything_together_is_a_valid_configuration(certificate, tmp_path):
    (tmp_path / "nginx.conf").write_text("")
    everything = {
        "app_aliases": [OTHER, "*.tenants.example.net"],
        "nginx_redirect_names": ["example.com", "*.example.com"],
        "nginx_locations": LOCATIONS,
        "nginx_websocket_paths": ["/ws/"],
        "nginx_error_pages": "errors",
        "nginx_snippet": str(tmp_path / "nginx.conf"),
        "nginx_proxy_protocol": True,
        "nginx_tls_at_proxy": True,
        "nginx_health_path": "/healthz/",
        "nginx_brotli": True,
        "nginx_ipv6": {"stat": {"exists": True}},
        "groups": {"edge": ["one"], "web": ["one"], "flower": ["one"]},
    }
    edge = Edge(certificate, **MAIN, **everything)
    assert edge.test() == "" and edge.text.count("listen [::]:443 ssl") == edge.text.count("listen 443 ssl")
    many = [f"customer-{number}.shop.example.org" for number in range(600)]
    assert Edge(certificate, app_aliases=many, nginx_redirect_names=[f"x.{name}" for name in many]).test() == ""
    several = {"one": "10.0.0.1", "two": "10.0.0.2"}
    assert Edge(certificate, **MAIN, app_addresses=several, nginx_locations=LOCATIONS).test() == ""


@pytest.mark.parametrize("values", ["LEAST", "MOST"])
def test_limits_of_what_is_valid_are_a_valid_configuration(certificate, values):
    limits = getattr(strategies, values)
    variables = {
        name: value for name, value in limits.items() if name.startswith("nginx_") or name in ("app_url", "app_aliases")
    }
    groups = {"edge": ["one"], "web": ["one"], "flower": ["one"]}
    assert Edge(certificate, groups=groups, **variables).test() == ""


def test_request_under_way_survives_a_reload(served, certificate):
    """A request under way survives a reload with other variables."""
    edge = Edge(certificate)
    with Server(edge.socket) as application, edge:
        answers = []
        slow = threading.Thread(target=lambda: answers.append(edge.request("/?sleep=1").status))
        slow.start()
        wait_for(lambda: application.seen, 10, "the request has arrived")
        other = Edge(certificate, nginx_locations=[{"path": "/new/", "redirect": "/"}])
        other.folder, other.http, other.https, other.log = edge.folder, edge.http, edge.https, edge.log
        edge.text = other.text
        subprocess.run(edge.command("-s", "reload"), check=True, capture_output=True)
        wait_for(lambda: edge.request("/new/").get("Location"), 10, "the new configuration serves")
        slow.join()
        assert answers == [200]


# Maintenance


@pytest.fixture(params=[{}, {"app_additional": True}], ids=["first", "additional"])
def in_maintenance(certificate, tmp_path, request):
    """A site with the page of maintenance for everybody but 127.0.0.3, as make maintenance writes it."""
    variables = request.param | {"__nginx_files": str(tmp_path), "nginx_health_path": "/health"}
    given = variables | {"nginx_maintenance_networks": ["127.0.0.3/32", "2001:db8::/32"]}
    for name, file in (("maintenance_who", "site.maintenance-who"), ("maintenance", "site.maintenance")):
        text = f"{{{{ lookup('ansible.builtin.template', '{name}.j2') }}}}"
        (tmp_path / file).write_text(evaluate(text, **given))
    (tmp_path / "site.maintenance.html").write_text("<p>Back at noon, ü")
    if request.param:
        variables |= {"app_state": {"others": {"first": {}}}}
    with Edge(certificate, **variables) as edge, Server(edge.socket) as application:
        edge.seen = application.seen
        yield edge


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/static/site.css", "/flower/", "/a?b=1"])
def test_visitors_get_the_page_of_maintenance(in_maintenance, method, path):
    answer = in_maintenance.request(path, method=method, body="x" if method == "POST" else None)
    assert (answer.status, answer.get("Retry-After"), answer.get("Cache-Control")) == (503, "300", "no-store")
    assert answer.get("Content-Type") == "text/html; charset=utf-8"
    assert answer.body == ("" if method == "HEAD" else "<p>Back at noon, ü") and in_maintenance.seen == []


def test_who_is_let_through_and_health_checks_get_the_site(in_maintenance):
    assert asked(in_maintenance.request("/page", source="127.0.0.3"))["path"] == "/page"
    assert asked(in_maintenance.request("/health"))["path"] == "/health"
    assert in_maintenance.request("/health/more").status == 503
    assert in_maintenance.request("/.coldframe/maintenance.html", source="127.0.0.3").status == 404, (
        "by itself it is no page"
    )
