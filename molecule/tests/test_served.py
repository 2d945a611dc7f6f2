"""What the edge makes of a release whose pages show it, which was deployed under a umask that is as strict as can be."""

import json
import re
import shutil
from urllib.parse import quote

import pytest
from support.playbooks import deploy, output, play
from support.units import current, running, wanted
from waits import wait_for

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


def named(request):
    return JsonResponse({"host": request.get_host(), "address": request.build_absolute_uri("/")})


def stored(request):
    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage

    return JsonResponse({"file": default_storage.save("test-served/a/bill \\u00fc.txt", ContentFile(b"0123456789"))})


def download(request):
    from urllib.parse import quote

    from django.http import HttpResponse

    response = HttpResponse(headers={"X-Accel-Redirect": quote(request.GET["file"]), "X-Robots-Tag": "noindex"})
    del response["Content-Type"]
    return response


urlpatterns += [path("seen/", seen), path("embedded/", embedded), path("styled/", styled), path("named/", named)]
urlpatterns += [path("stored/", stored), path("download/", download)]
"""
ALIAS, OLD = "shop.example.test", "old.example.test"
LOCATIONS = [
    {"path": "/test-exports/", "shared": "test-served"},
    {"path": "/test-old/", "redirect": "/named/"},
    {"path": "/test-office/", "allow": [BALANCER]},
    {"path": "/test-small/", "body_size": "1k"},
]
# Asks the edge from an address of its own host; prints status and body.
ASK = """
import http.client, socket, ssl, sys
address, source, netloc, path, forwarded, name = sys.argv[1:]
context = ssl._create_unverified_context()
connection = http.client.HTTPSConnection(netloc.partition(":")[0], context=context)
raw = socket.create_connection((address, 443), 15, (source, 0))
connection.sock = context.wrap_socket(raw, server_hostname=name or None)
connection.request("GET", path, headers={"Host": netloc} | ({"X-Forwarded-For": forwarded} if forwarded else {}))
answer = connection.getresponse()
print(answer.status, answer.getheader("Location") or answer.read().decode())
"""


@pytest.fixture(scope="module")
def ask(host, deployment):
    """Ask the edge from its own host, at an address, from another one; return the status and the JSON answer, or where it leads."""

    def ask(path, address="127.0.0.1", source="127.0.0.1", forwarded="", netloc="", name=None):
        netloc = netloc or deployment.app_url.partition("://")[2]
        name = netloc.partition(":")[0] if name is None else name
        words = (address, source, netloc, path, forwarded, name)
        answer = host.check_output("python3 -c %s" + len(words) * " %s", ASK, *words)
        status, _, body = answer.partition(" ")
        return int(status), json.loads(body) if body.startswith("{") else body

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
        (folder / "../errors").mkdir()
        (folder / "../errors/413.html").write_text("<p>too large</p>")
        (folder / "../nginx.conf").write_text('location = /test-snippet { return 200 "{{ $host }}"; }\n')
        result = deploy(
            inventory,
            app_source=str(folder),
            app_aliases=[ALIAS],
            nginx_trusted_proxies=[BALANCER],
            nginx_redirect_names=[OLD],
            nginx_locations=LOCATIONS,
            nginx_health_path="/healthz/",
            nginx_error_pages=str(folder.parent / "errors"),
            nginx_snippet=str(folder.parent / "nginx.conf"),
        )
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


def test_site_has_further_names_and_others_lead_to_it(deployment, ask, shown):
    site = deployment.app_url.partition("://")[2]
    port = "".join(site.partition(":")[1:])
    for netloc in (site, ALIAS + port):
        assert ask("/named/", netloc=netloc) == (200, {"host": netloc, "address": f"https://{netloc}/"})
    assert ask("/named/?a=%2F", netloc=OLD) == (301, f"{deployment.app_url}/named/?a=%2F")
    assert ask("/test-old/a?b", netloc=ALIAS) == (301, f"https://{ALIAS}{port}/named/a?b")


def test_load_balancer_needs_no_name(ask, shown):
    assert ask("/healthz/", netloc="10.0.0.5", name="")[0] == 200
    assert ask("/seen/", name="")[0] == 200, "what it sends on has the site's"


@pytest.fixture
def bill(host, deployment, ask, shown):
    """An upload by its name in MEDIA_ROOT, and a folder of its own in shared/; in each a link out of it."""
    shared = f"/srv/{deployment.app_name}/shared"
    media = f"{shared}/media"
    name = ask("/stored/")[1]["file"]
    host.check_output(
        f"ln -sf /etc/hostname {media}/test-served/a/link && install -d -m 0755 {shared}/test-served &&"
        f"install -m 0644 /etc/os-release {shared}/test-served/a.txt && ln -sfn /etc {shared}/test-served/etc"
    )
    yield name
    host.check_output(f"rm -rf {media}/test-served {shared}/test-served")


def test_application_has_an_upload_sent(deployment, bill):
    quoted = quote(bill)
    answer = deployment.request(f"/download/?file=/protected/{quoted}")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, "0123456789", "text/plain")
    assert (answer.headers["Cache-Control"], answer.headers["X-Robots-Tag"]) == ("private", "noindex")
    part = deployment.request(f"/download/?file=/protected/{quoted}", headers={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, "234")
    assert deployment.request(f"/protected/{quoted}").status == 404


@pytest.mark.parametrize(
    "path", ["test-served/a/link", "../../current/manage.py", "../secret", "", "test-served/a", "none"]
)
def test_nothing_else_is_sent(host, deployment, bill, path):
    answer = deployment.request(f"/download/?file=/protected/{path}")
    assert (
        answer.status in (404, 500) and "django" not in answer.body and host.check_output("hostname") not in answer.body
    )


def test_paths_have_entries_of_their_own(deployment, ask, shown, bill):
    assert "Debian" in deployment.request("/test-exports/a.txt").body
    assert deployment.request("/test-exports/etc/os-release").status == 404, "a link"
    assert (ask("/test-office/")[0], ask("/test-office/", source=BALANCER)[0]) == (403, 404)
    assert ask("/test-office/", source=BALANCER, forwarded="203.0.113.7")[0] == 403
    assert deployment.request("/test-snippet").body.startswith("{{ ")
    answer = deployment.request("/test-small/", data=b"x" * 2000)
    assert (answer.status, answer.body) == (413, "<p>too large</p>")


def test_what_nginx_refuses_ends_the_deploy_and_not_nginx(host, deployment, inventory, shown, tmp_path):
    before = host.check_output(
        "sha256sum /etc/nginx/nginx.conf /etc/nginx/coldframe/*; systemctl show --property=MainPID nginx"
    )
    (tmp_path / "nginx.conf").write_text("location = /a { return 204; }\nretrun 200;\n")
    result = play(inventory, "preflight", "-e", json.dumps({"nginx_snippet": str(tmp_path / "nginx.conf")}))
    assert result.returncode != 0
    assert 'unknown directive "retrun", line 2 of nginx_snippet' in output(result)
    assert (
        host.check_output(
            "sha256sum /etc/nginx/nginx.conf /etc/nginx/coldframe/*; systemctl show --property=MainPID nginx"
        )
        == before
    )
    assert deployment.request("/healthz/").status == 200
