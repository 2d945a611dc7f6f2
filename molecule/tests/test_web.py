"""The front door."""

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import pytest

edge = pytest.mark.group("edge")


@pytest.mark.example
@edge
def test_alive_and_ready(deployment):
    assert deployment.request("/healthz/").json["status"] == "ok"
    ready = deployment.request("/readyz/")
    assert (ready.status, ready.json) == (200, {"database": "ok", "broker": "ok"})


@edge
def test_plain_http_leads_to_https(host, deployment):
    answer = host.check_output(
        "python3 -c %s",
        (
            "import http.client; c = http.client.HTTPConnection('127.0.0.1', 80); "
            f"c.request('GET', '/some/page?a=1', headers={{'Host': '{urlsplit(deployment.app_url).hostname}'}}); "
            "r = c.getresponse(); print(r.status, r.headers['Location'])"
        ),
    )
    assert answer == f"301 {deployment.app_url}/some/page?a=1"


@pytest.mark.example
@edge
def test_static_files_come_from_nginx(deployment):
    page = deployment.request("/admin/login/")
    assert page.status == 200
    style = page.body.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = deployment.request(style)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/css")
    assert answer.headers["Server"] == "nginx"
    assert "Cache-Control" in answer.headers


@pytest.mark.example
@edge
def test_admin_has_the_beat_schedule(manage):
    code = (
        "from django.contrib import admin; "
        "print(sorted(m._meta.label for m in admin.site._registry if m._meta.app_label == 'django_celery_beat'))"
    )
    assert "django_celery_beat.PeriodicTask" in manage(code)


@edge
@pytest.mark.one_host
@pytest.mark.parametrize("name", ["stranger.example", "127.0.0.1"])
def test_unknown_name_gets_no_page(deployment, name):
    address = urlsplit(deployment.app_url)
    context = ssl._create_unverified_context()
    refused = pytest.raises((ssl.SSLError, ConnectionError))
    with socket.create_connection((address.hostname, address.port or 443), timeout=10) as raw, refused:
        context.wrap_socket(raw, server_hostname=name).close()


@edge
def test_host_header_of_another_name_gets_no_answer(deployment):
    with pytest.raises(http.client.RemoteDisconnected):
        deployment.request("/", headers={"Host": "stranger.example"})


def test_nothing_listens_but_ssh_and_the_edge(host, deployment):
    """Beside what listens on a private address alone."""
    private = f"{deployment.app_private_address}:"
    listening = [line.split()[3] for line in host.check_output("ss -Hltn").splitlines()]
    open_to_all = {at.rsplit(":", 1)[1] for at in listening if not at.startswith(("127.", "[::1]", private))}
    assert open_to_all == ({"22", "80", "443"} if "edge" in deployment.group_names else {"22"})
