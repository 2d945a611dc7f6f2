"""Requests to addresses that a client chose: only to where they may go, and to nowhere else."""

import ipaddress
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest
from receivers import Receiver, receiver

from shop import outgoing

NAME = "receiver.example.org"


@pytest.fixture
def allowed(settings) -> Iterator[Receiver]:
    """A receiver that may be called."""
    with receiver("127.0.0.1") as server:
        settings.CALLBACK_SCHEMES = ["http"]
        settings.CALLBACK_PORTS = [server.port]
        settings.CALLBACK_NETWORKS = [ipaddress.ip_network("127.0.0.1/32")]
        yield server


@pytest.fixture
def internal(allowed) -> Iterator[Receiver]:
    """One at the same port that may not."""
    with receiver("127.0.0.2", allowed.port) as server:
        yield server


@pytest.fixture
def public(settings) -> None:
    """What a deployment has."""
    settings.CALLBACK_SCHEMES = ["https"]
    settings.CALLBACK_PORTS = [443]
    settings.CALLBACK_NETWORKS = []


@pytest.fixture
def names(monkeypatch):
    """Answers of a name server, one after the other; the last one stays."""
    answers: list[list[str]] = []
    asked: list[str] = []

    def look_up(host, port, type):
        asked.append(host)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6, type, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, type, 6, "", (address, port))
            for address in answer
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers, asked


def test_it_is_sent_to_the_address_with_the_name(allowed, names):
    names[0][:] = [["127.0.0.1"]]
    url = f"http://{NAME}:{allowed.port}/results?a=b#part"
    assert outgoing.post(url, b"body", {"X-Event-Id": "7"}) == 200
    [(path, headers, body)] = allowed.requests
    assert (path, body, headers["X-Event-Id"]) == ("/results?a=b", b"body", "7")
    assert headers["Host"] == f"{NAME}:{allowed.port}"


def test_a_name_whose_address_changes_is_looked_up_once(allowed, internal, names):
    names[0][:] = [["127.0.0.1"], ["127.0.0.2"]]
    assert outgoing.post(f"http://{NAME}:{allowed.port}/", b"", {}) == 200
    assert names[1] == [NAME]
    assert (len(allowed.requests), len(internal.requests)) == (1, 0)
    with pytest.raises(outgoing.Refused, match=r"127\.0\.0\.2 is no public address"):
        outgoing.post(f"http://{NAME}:{allowed.port}/", b"", {})
    assert not internal.requests


def test_one_address_that_is_not_allowed_is_enough(allowed, internal, names):
    names[0][:] = [["127.0.0.1", "127.0.0.2"]]
    with pytest.raises(outgoing.Refused):
        outgoing.post(f"http://{NAME}:{allowed.port}/", b"", {})
    assert not allowed.requests


def test_no_redirect_is_followed(allowed, internal):
    allowed.answers, allowed.location = [307], f"http://127.0.0.2:{allowed.port}/"
    assert outgoing.post(f"http://127.0.0.1:{allowed.port}/", b"", {}) == 307
    assert not internal.requests


def test_no_proxy_is_used(allowed, internal, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.2:{allowed.port}")
    assert outgoing.post(f"http://127.0.0.1:{allowed.port}/", b"", {}) == 200
    assert not internal.requests


@pytest.mark.parametrize(
    "host",
    [
        # 127.0.0.1 and 169.254.169.254 as the C library reads them
        "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001",
        "2852039166", "0xa9fea9fe", "127.0.0.1.", "127.0.0.01", "0", "0x", "1.2.3.0x4",
        "①②⑦.0.0.1", "127。0。0。1", "%31%32%37.0.0.1",
        # what they are called
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1",
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.88.99.1",
        "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a00:1]",
        "[fe80::1]",
        "[fe80::1%25lo]", "[fe80::1%lo]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
        "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[5f00::1]", "[100::1]",
        "[2606:4700::1111%25lo]", "[::1", "::1", "[v1.a]", "[127.0.0.1]", "[]",
        # what is no name
        "", "-a.example.org", "a..example.org", "example.org.", "a_b.example.org", ".", "a" * 64,
        "münchen.example.org", "exa mple.org", "a\t.example.org", "example.org\\@127.0.0.1",
        # what is said beside it
        "user@example.org", "user:password@example.org", ":@example.org", "example.org@127.0.0.1",
        "example.org:80", "example.org:22", "example.org:0", "example.org:65536", "example.org:x",
        "example.org:-1", "example.org:\uff14\uff14\uff13",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_host_that_could_lead_astray_is_refused_before_anybody_is_asked(public, names, host):
    with pytest.raises(outgoing.Refused):
        outgoing.post(f"https://{host}/", b"", {})
    assert not names[1]


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "//example.org/", "http://example.org/", "http://example.org:443/",
        "file:///etc/passwd", "gopher://example.org/", "https:example.org", "https:///x",
        "https://example.org/\r\nX: y", "https://example.org/ ", " https://example.org/",
        "https://example.org/\0", "https://example.org/ä", "https://example.org/" + "a" * 500,
    ],
    ids=ascii,
)  # fmt: skip
def test_another_url_is_refused(public, url):
    with pytest.raises(outgoing.Refused):
        outgoing.read(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:10.0.0.1",
        "::ffff:93.184.216.34", "64:ff9b::10.0.0.1", "fe80::1", "fd00::1", "ff02::1",
        "2002:a00:1::", "2001:db8::1", "2001::1", "3fff::1",
    ],
)  # fmt: skip
def test_a_name_of_an_address_that_is_not_public_is_refused(public, names, address):
    names[0][:] = [[address]]
    with pytest.raises(outgoing.Refused, match="is no public address"):
        outgoing.post("https://example.org/", b"", {})


@pytest.mark.parametrize("address", ["93.184.216.34", "172.32.0.1", "2606:4700::1111", "1.1.1.1"])
def test_a_public_address_may_be_called(public, names, address):
    names[0][:] = [[address]]
    for host in ("example.org", f"[{address}]" if ":" in address else address):
        to = outgoing.read(f"https://{host}")
        assert (to.port, to.target) == (443, "/")
        [(_, where)] = outgoing.resolve(to)
        assert where[:2] == (address, 443)


def test_what_ipaddress_does_not_call_global_is_refused(public):
    """Of each network that is special for Python, the first and the last address."""
    for constants in (ipaddress._IPv4Constants, ipaddress._IPv6Constants):
        for network in constants._private_networks:
            for address in (network[0], network[-1]):
                with pytest.raises(outgoing.Refused):
                    outgoing.refuse_special(address)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    file, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
         "-keyout", key, "-out", file],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return file, key


def test_the_certificate_must_have_the_name(allowed, names, certificate, settings, monkeypatch):
    settings.CALLBACK_SCHEMES = ["https"]
    indicated = allowed.with_certificate(*certificate)
    names[0][:] = [["127.0.0.1"]]
    with pytest.raises(outgoing.Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        outgoing.post(f"https://{NAME}:{allowed.port}/", b"", {})
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    assert outgoing.post(f"https://{NAME}:{allowed.port}/", b"", {}) == 200
    with pytest.raises(outgoing.Unreachable, match="Hostname mismatch"):
        outgoing.post(f"https://other.example.org:{allowed.port}/", b"", {})
    assert indicated == [NAME, NAME, "other.example.org"]
    assert [headers["Host"] for _, headers, _ in allowed.requests] == [f"{NAME}:{allowed.port}"]


def test_a_name_without_an_address_may_have_one_later(allowed, monkeypatch):
    def look_up(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(outgoing.Unreachable, match="is not found"):
        outgoing.post(f"http://{NAME}:{allowed.port}/", b"", {})


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK", b"hello\r\n\r\n"], ids=ascii)
def test_a_server_that_does_not_answer_is_unreachable(allowed, settings, monkeypatch, answer):
    """Nor one that says something else, and none is waited for longer than it may take."""
    monkeypatch.setattr(outgoing, "TIMEOUT", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        settings.CALLBACK_PORTS = [port := server.getsockname()[1]]

        def serve() -> None:
            client, _ = server.accept()
            client.sendall(answer)
            kept.append(client)

        kept: list[socket.socket] = []
        thread = Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(outgoing.Unreachable):
            outgoing.post(f"http://127.0.0.1:{port}/", b"", {})
        thread.join()
        kept[0].close()


def test_a_server_that_sends_byte_after_byte_is_left_at_the_deadline(
    allowed, settings, monkeypatch
):
    monkeypatch.setattr(outgoing, "DEADLINE", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        settings.CALLBACK_PORTS = [port := server.getsockname()[1]]

        def trickle() -> None:
            client, _ = server.accept()
            with closing(client):
                try:
                    while True:
                        client.sendall(b"H")
                        time.sleep(0.05)
                except OSError:
                    pass  # it is gone

        thread = Thread(target=trickle, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(outgoing.Unreachable):
            outgoing.post(f"http://127.0.0.1:{port}/", b"", {})
        assert 0.4 < time.monotonic() - began < 4
        thread.join()


def test_nobody_there_is_unreachable(allowed, settings):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        settings.CALLBACK_PORTS = [port := server.getsockname()[1]]
    with pytest.raises(outgoing.Unreachable, match="ConnectionRefusedError"):
        outgoing.post(f"http://127.0.0.1:{port}/", b"", {})
