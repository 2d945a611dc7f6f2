"""What the edge makes of a release whose pages show it, which was deployed under a umask that is as strict as can be."""

import json
import re
import shutil

import pytest
from support.hosts import wait_for
from support.playbooks import deploy
from support.units import current, running, wanted

pytestmark = [pytest.mark.one_host, pytest.mark.changes, pytest.mark.example, pytest.mark.group("edge")]
BALANCER = "127.0.0.2"  # asks the edge for others, on its own host
VIEWS = """

def seen(request):
    response = JsonResponse({name: request.META.get(name) for name in ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR")})
    response["X-Big"] = int(request.GET.get("bytes", 1)) * "x"
    return response


def embedded(request):
    response = JsonResponse({})
    response.xframe_options_exempt = True
    return response


def styled(request):
    from django.http import HttpResponse
    from django.templatetags.static import static

    return HttpResponse(static("orders/served.css"))


urlpatterns += [path("seen/", seen), path("embedded/", embedded), path("styled/", styled)]
"""
# Asks the edge from an address of its own host; prints status and body.
ASK = """
import http.client, socket, ssl, sys
address, source, netloc, path, forwarded = sys.argv[1:]
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection(netloc.partition(":")[0], context=context)
raw = socket.create_connection((address, 443), 15, (source, 0))
connection.sock = context.wrap_socket(raw, server_hostname=netloc.partition(":")[0])
connection.request("GET", path, headers={"Host": netloc} | ({"X-Forwarded-For": forwarded} if forwarded else {}))
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def ask(host, deployment):
    """Ask the edge from its own host, at an address, from another one; return the status and the JSON answer."""

    def ask(path, address="127.0.0.1", source="127.0.0.1", forwarded=""):
        netloc = deployment.app_url.partition("://")[2]
        answer = host.check_output("python3 -c %s %s %s %s %s %s", ASK, address, source, netloc, path, forwarded or "")
        status, _, body = answer.partition(" ")
        return int(status), json.loads(body)

    return ask


@pytest.fixture(scope="module")
def shown(host, deployment, inventory, tmp_path_factory):
    """A release with those views, deployed while root's umask is 077; the one before runs again after the tests."""
    app, folder = deployment.app_name, tmp_path_factory.mktemp("served") / "app"
    if deployment.hosts != {host.backend.get_hostname()}:
        pytest.skip("for one host")
    before = current(host, app)
    shutil.copytree(deployment.app_source, folder)
    (folder / "orders/static/orders").mkdir(parents=True, exist_ok=True)
    (folder / "orders/static/orders/served.css").write_text("/* served */")
    with (folder / "shop/urls.py").open("a") as file:
        file.write(VIEWS)
    # sudo's own option holds for each command; login.defs' only for connections that are made afterwards.
    host.check_output("echo 'Defaults umask=0077, umask_override' >/etc/sudoers.d/umask")
    try:
        result = deploy(inventory, app_source=str(folder), nginx_trusted_proxies=[BALANCER])
        assert result.returncode == 0, result.stdout
        yield current(host, app)
    finally:
        host.check_output("rm /etc/sudoers.d/umask")
        result = deploy(inventory)
    assert result.returncode == 0 and current(host, app) == before, result.stdout
    wait_for(lambda: running(host, app) == wanted(deployment, before), 60, f"only {before} runs")


def test_release_of_a_strict_umask_is_whole_and_not_everybodys(host, deployment, shown):
    path = f"/srv/{deployment.app_name}/releases/{shown}"
    assert host.check_output("sudo sh -c umask") == "0077", "so it was deployed"
    modes = f"stat --format=%a {path} {path}/.release {path}/shop/settings.py {path}/shop {path}/.release/environment"
    assert host.check_output(modes).split() == ["751", "751", "640", "750", "640"]
    for code in (f"{path}/manage.py", f"{path}/.release/environment", f"{path}/.release/runtime"):
        assert host.run(f"setpriv --reuid=www-data --regid=www-data --init-groups ls {code}/ {code}").rc != 0
        assert host.run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups cat {code}").rc != 0


def test_application_and_limits_know_the_client(ask, shown):
    assert ask("/seen/")[1] == {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"}
    assert ask("/seen/", source="127.0.0.9", forwarded="203.0.113.7")[1]["REMOTE_ADDR"] == "127.0.0.9", "a stranger"
    for forwarded, client in (
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.8", "203.0.113.8"),  # the first was the client's own word
        (f"203.0.113.9, {BALANCER}", "203.0.113.9"),
        ("2001:db8:0:5::7", "2001:db8:0:5::7"),
    ):
        seen = ask("/seen/", source=BALANCER, forwarded=forwarded)[1]
        assert seen == {"REMOTE_ADDR": client, "HTTP_X_FORWARDED_FOR": client}, forwarded


def test_edge_is_reached_by_ipv6(host, ask, shown):
    assert ask("/seen/", address="::1", source="::1")[1]["REMOTE_ADDR"] == "::1"


@pytest.mark.parametrize("size", [3500, 9000, 15000])
def test_large_headers_of_an_answer_pass(deployment, shown, size):
    answer = deployment.request(f"/seen/?bytes={size}")
    assert answer.status == 200 and len(answer.headers["X-Big"]) == size


def test_large_headers_of_a_request_pass(deployment, shown):
    cookie = {"Cookie": "sso=" + 12000 * "c"}
    assert deployment.request("/healthz/", headers=cookie).status == 200
    assert deployment.request("/seen/?q=" + 7000 * "q").status == 200


def test_page_that_may_be_embedded_is_so(deployment, shown):
    assert "X-Frame-Options" not in deployment.request("/embedded/").headers
    assert deployment.request("/admin/login/").headers["X-Frame-Options"] == "DENY"


def test_static_file_of_a_release_outlives_its_turn(host, deployment, inventory, shown):
    app = deployment.app_name
    file = deployment.request("/styled/").body
    assert re.fullmatch(r"/static/orders/served\.[0-9a-f]{12}\.css", file)
    assert deployment.request(file).status == 200
    host.check_output(f"test -e /srv/{app}/assets{file}")
    host.check_output(f"ln -sfn releases/nowhere /srv/{app}/current")
    try:
        answer = deployment.request(file)
    finally:
        host.check_output(f"ln -sfn releases/{shown} /srv/{app}/current")
    assert answer.status == 200 and answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
