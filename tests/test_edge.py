"""What is refused of the edge's variables, before a host is changed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from edge import edge_problems, maintenance_problems, nginx_refusal
from inventory import PROJECT, variable_problems
from real_nginx import NAME, evaluate, keep_files_in, nginx
from strategies import ROOT

GOOD = {
    "app_url": "https://www.example.com",
    "nginx_server_name": "www.example.com",
    "app_aliases": ["shop.example.org", "*.tenants.example.net"],
    "nginx_redirect_names": ["example.com"],
    "nginx_acme": False,
    "nginx_media_url": "/media/",
    "nginx_private_media": "/protected/",
    "nginx_locations": [
        {"path": "/", "timeout": 60},
        {"path": "/a", "redirect": "/b/", "status": 302},
        {"path": "/a/", "redirect": "/b/"},
        {"path": "/new", "redirect": "/new/"},
        {"path": "/media/private/", "shared": "media/private", "internal": True},
        {"path": "/static/fonts/", "static": "fonts", "headers": {"Access-Control-Allow-Origin": "*"}},
        {"path": "/grafana/", "proxy": "http://10.0.0.5:3000"},
        {"path": "/six/", "proxy": "http://[fd00::5]:3000/", "buffering": False},
        {"path": "/office/", "allow": ["10.0.0.0/8", "2001:db8::1"], "limit": "10r/m"},
    ],
    "nginx_snippet": "",
    "nginx_error_pages": "errors",
    "nginx_trusted_proxies": [],
    "nginx_proxy_protocol": False,
    "nginx_tls_at_proxy": False,
    "nginx_health_path": "/",
    "nginx_status_path": "/status/",
}
# Of the variables that the roles need.
NEEDED = {
    "app_name": "site",
    "app_source": "/srv",
    "app_settings_module": "site.settings",
    "app_wsgi": "site.wsgi:application",
    "app_celery": "site.celery:app",
    "celery_queues": {"default": {}},
}


def problems(**changed):
    return edge_problems(GOOD | changed)


def location(**entry):
    return problems(nginx_locations=[{"path": "/a/"} | entry])


def test_what_is_good_has_no_problem():
    assert problems() == []
    assert variable_problems(NEEDED | GOOD, str(PROJECT)) == []
    assert problems(nginx_trusted_proxies=["10.0.0.0/8"], nginx_proxy_protocol=True, nginx_tls_at_proxy=True) == []
    assert problems(nginx_media_url="", nginx_private_media="/media/") == problems(nginx_private_media="") == []


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"app_aliases": ["example.com"]}, "nginx_redirect_names has 'example.com' and app_aliases too: remove one."),
        ({"app_aliases": ["www.example.com"]}, "app_aliases has 'www.example.com' and app_url too"),
        ({"nginx_redirect_names": ["a.example", "a.example"]}, "nginx_redirect_names has 'a.example' twice"),
        (
            {"nginx_server_name": "a.example", "app_aliases": ["a.example"]},
            "app_aliases has 'a.example' and nginx_server_name too",
        ),
        (
            {"nginx_proxy_protocol": True},
            "nginx_proxy_protocol is true and nginx_trusted_proxies is empty: name the networks",
        ),
        ({"nginx_tls_at_proxy": True}, "nginx_tls_at_proxy is true and nginx_trusted_proxies is empty"),
        (
            {"nginx_tls_at_proxy": True, "nginx_trusted_proxies": ["10.0.0.0/8"], "nginx_acme": True},
            "nginx_tls_at_proxy and nginx_acme are true: the load balancer has the certificate",
        ),
        (
            {"nginx_private_media": "/media/"},
            "nginx_private_media is '/media/', at which nginx_media_url lets everybody read",
        ),
        (
            {"nginx_private_media": "/media/private/", "nginx_locations": []},
            "use nginx_locations: {path: /media/private/, shared: media/private, internal: true}",
        ),
        (
            {"nginx_locations": [{"path": "/media/", "allow": []}]},
            "nginx_locations[0].path is '/media/', which is nginx_media_url",
        ),
        (
            {"nginx_locations": [{"path": "/a/", "allow": []}, {"path": "/a/", "timeout": 5}]},
            "nginx_locations[1].path is '/a/', which is nginx_locations[0].path: one path has one entry",
        ),
        (
            {"nginx_snippet": "/nowhere/x.conf"},
            "nginx_snippet is '/nowhere/x.conf', which cannot be read on the controller: No such file",
        ),
        (
            {"nginx_media_url": "/status/media/"},
            "nginx_status_path is '/status/', and nginx_media_url is '/status/media/': the status page of monitoring needs a path",
        ),
        ({"nginx_status_path": "/protected/status/"}, "and nginx_private_media is '/protected/'"),
        ({"nginx_health_path": "/status/"}, "and nginx_health_path is '/status/'"),
        ({"nginx_status_path": "/office/"}, "and nginx_locations[8].path is '/office/'"),
        ({"nginx_error_pages": "/nowhere"}, "nginx_error_pages is '/nowhere', and the controller has no such folder"),
    ],
)
def test_what_does_not_go_together_is_refused(changed, said):
    (problem,) = problems(**changed)
    assert said in problem


@pytest.mark.parametrize(
    "entry, said",
    [
        ({}, "nginx_locations[0] has a path and nothing else"),
        ({"shared": "a", "proxy": "http://10.0.0.5"}, "nginx_locations[0] has shared and proxy: choose one"),
        ({"redirect": "/b/", "timeout": 5}, "has timeout and redirect: timeout is only for the application and proxy"),
        ({"redirect": "/b/", "allow": []}, "has allow and redirect"),
        (
            {"internal": True},
            "has internal and nothing of shared, static, proxy and redirect: internal is only for shared",
        ),
        ({"static": "a", "body_size": "1m"}, "has body_size and static"),
        ({"timeout": 5, "status": 301}, "status is only for redirect"),
        ({"redirect": "/a/b"}, "nginx_locations[0].redirect is '/a/b', which this entry redirects again"),
        ({"redirect": "/a"}, "which this entry redirects again"),
        ({"path": "/a", "redirect": "/a?x=1"}, "which this entry redirects again"),
        ({"allow": ["10.0.7.1/24"]}, "nginx_locations[0].allow has '10.0.7.1/24': 10.0.7.1/24 has host bits set"),
        ({"proxy": "http://300.0.0.1:80"}, "nginx_locations[0].proxy is 'http://300.0.0.1:80'"),
        ({"proxy": "http://10.0.0.1:99999"}, "Port out of range 0-65535"),
    ],
)
def test_entry_whose_options_do_not_fit_is_refused(entry, said):
    (problem,) = location(**entry)
    assert said in problem


@pytest.mark.parametrize(
    "name, value, said",
    [
        (
            "app_aliases",
            ["https://a.example/"],
            "app_aliases[0] is 'https://a.example/'; it must be a host name in lower case",
        ),
        ("app_aliases", ["A.example"], "app_aliases[0]"),
        ("app_aliases", "a.example", "app_aliases is 'a.example'; it must be a list."),
        ("nginx_redirect_names", ["a.example b.example"], "nginx_redirect_names[0]"),
        ("nginx_redirect_names", ["*"], "nginx_redirect_names[0]"),
        ("nginx_redirect_names", ["192.0.2.1"], "nginx_redirect_names[0]"),
        (
            "nginx_private_media",
            "/protected",
            "nginx_private_media is '/protected'; it must be empty, or a path that begins and ends",
        ),
        ("nginx_private_media", "/static/x/", "outside /static/ and /flower/"),
        ("nginx_locations", {"/a/": {}}, "nginx_locations is {'/a/': {}}; it must be a list."),
        ("nginx_locations", ["/a/"], "nginx_locations[0] is '/a/'; it must be a mapping."),
        ("nginx_locations", [{"allow": []}], "nginx_locations[0].path is missing; it must be a path such as /api/"),
        (
            "nginx_locations",
            [{"path": "a/"}],
            "nginx_locations[0].path is 'a/'; it must be a path such as /api/ or /robots.txt",
        ),
        ("nginx_locations", [{"path": "/flower/"}], "outside /flower/"),
        ("nginx_locations", [{"path": "/static/"}], "nginx_locations[0].path"),
        ("nginx_locations", [{"path": "/a/../b/"}], "nginx_locations[0].path"),
        ("nginx_locations", [{"path": "~ ^/a"}], "nginx_locations[0].path"),
        (
            "nginx_locations",
            [{"path": "/a/", "alias": "/srv"}],
            "nginx_locations[0].alias is unknown. Known options: allow, body_size",
        ),
        ("nginx_locations", [{"path": "/a/", "shared": "../current"}], "nginx_locations[0].shared is '../current'"),
        ("nginx_locations", [{"path": "/a/", "shared": "/etc"}], "nginx_locations[0].shared is '/etc'"),
        ("nginx_locations", [{"path": "/a/", "shared": "a/"}], "without a slash at its beginning and its end"),
        (
            "nginx_locations",
            [{"path": "/a/", "proxy": "http://grafana.internal:3000"}],
            "it must be http://ADDRESS:PORT or http://unix:",
        ),
        ("nginx_locations", [{"path": "/a/", "proxy": "http://10.0.0.5:3000; deny all"}], "nginx_locations[0].proxy"),
        ("nginx_locations", [{"path": "/a/", "redirect": "//evil.example/"}], "nginx_locations[0].redirect"),
        ("nginx_locations", [{"path": "/a/", "redirect": "/b/$x"}], "nginx_locations[0].redirect"),
        ("nginx_locations", [{"path": "/a/", "status": 200}], "it must be 301, 302, 303, 307 or 308."),
        (
            "nginx_locations",
            [{"path": "/a/", "timeout": "5m"}],
            "nginx_locations[0].timeout is '5m'; it must be a number of seconds",
        ),
        (
            "nginx_locations",
            [{"path": "/a/", "body_size": 10}],
            "nginx_locations[0].body_size is 10; it must be a text, in quotes",
        ),
        ("nginx_locations", [{"path": "/a/", "limit": 10}], "such as 10r/m"),
        (
            "nginx_locations",
            [{"path": "/a/", "headers": {"X A": "b"}}],
            "The header 'X A' in nginx_locations[0].headers",
        ),
        ("nginx_locations", [{"path": "/a/", "headers": {"Content-Length": "5"}}], "not of one that HTTP itself needs"),
        ("nginx_locations", [{"path": "/a/", "headers": {"X-A": 'b"; deny all; #'}}], "nginx_locations[0].headers.X-A"),
        ("nginx_locations", [{"path": "/a/", "headers": {"X-A": "$host"}}], "nginx_locations[0].headers.X-A"),
        ("nginx_locations", [{"path": "/a/", "headers": {"X-A": "a\nb"}}], "cannot be printed"),
        ("nginx_websocket_paths", ["ws"], "nginx_websocket_paths[0] is 'ws'; it must be a path such as / or /ws/."),
        (
            "nginx_health_path",
            "healthz",
            "nginx_health_path is 'healthz'; it must be empty or a path such as /healthz/.",
        ),
        ("nginx_snippet", "nginx.conf", "it must be empty or the absolute path of a file on the controller"),
        ("nginx_error_pages", "../errors", "nginx_error_pages"),
        ("nginx_proxy_protocol", "on", "nginx_proxy_protocol is 'on'; it must be true or false, without quotes."),
        (
            "nginx_location",
            [],
            "nginx_location is no variable of the roles (docs/variables.md). Is nginx_locations meant?",
        ),
    ],
)
def test_value_that_is_not_valid_is_refused(name, value, said):
    found = variable_problems(NEEDED | {"app_url": GOOD["app_url"], name: value}, str(PROJECT))
    assert len(found) == 1 and said in found[0], found


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    found = problems(
        app_aliases=["www.example.com"],
        nginx_proxy_protocol=True,
        nginx_private_media="/media/",
        nginx_locations=[{"path": "/a/"}, {"path": "/a/", "redirect": "/a/"}],
        nginx_error_pages=str(tmp_path),
        nginx_snippet=str(tmp_path),
    )
    assert len(found) == 8 and len(set(found)) == 8


@pytest.mark.parametrize("proxy", ["0.0.0.0/0", "::/0", "::/00", "10.0.7.1/24", "balancer", "10.0.7", ""])
def test_load_balancers_that_are_no_network_or_everybody_are_refused(proxy):
    assert problems(nginx_trusted_proxies=["10.0.7.0/24", "192.0.2.1", "2001:db8::/32"]) == []
    (problem,) = problems(nginx_trusted_proxies=["10.1.0.0/16", proxy])
    assert problem.startswith(f"nginx_trusted_proxies has {proxy!r}")


@pytest.mark.parametrize(
    "text, said",
    [
        ("location / {\n  return 404;\n}\n}\n", "line 4: a } has no { before it."),
        ("location /a {\n  return 404;\n", "1 { without a } after it."),
        ("# }\nlocation /a { return 200 '}'; }\nadd_header X \"}}\n}\";\n", ""),
        ("server {\n  listen 80;\n}\n", "line 1: 'server' cannot be used there"),
        ("\nhttp { }\n", "line 2: 'http' cannot be used there"),
        ("map $uri $x { default 1; }\n", "line 1: 'map' cannot be used there"),
        ("location /a { proxy_pass http://web; }\nserver_tokens on;\n", ""),
        ("", ""),
    ],
)
def test_snippet_that_cannot_be_a_part_of_the_site_is_refused(tmp_path, text, said):
    (tmp_path / "nginx.conf").write_text(text)
    found = problems(nginx_snippet=str(tmp_path / "nginx.conf"))
    assert [said in problem for problem in found] == ([True] if said else []), found


def test_snippet_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "nginx.conf").write_bytes(b"\xff\xfe")
    assert "it is no text in UTF-8" in problems(nginx_snippet=str(tmp_path / "nginx.conf"))[0]


@pytest.mark.parametrize("page", ["404.html", "502.htm", ""])
def test_folder_without_an_error_page_is_refused(tmp_path, page):
    (tmp_path / (page or "none")).touch()
    (problem,) = problems(nginx_error_pages=str(tmp_path))
    assert "which has no error page: add 413.html, 429.html, 502.html, 503.html or 504.html." in problem
    (tmp_path / "502.html").touch()
    assert problems(nginx_error_pages=str(tmp_path)) == []


def task(file, name):
    """Find a task of the role."""
    return next(
        task for task in yaml.safe_load((ROOT / f"roles/nginx/tasks/{file}").read_text()) if task["name"] == name
    )


def run(found, **variables):
    """Run a command of a task, with the task's own variables."""
    own = {key: evaluate(value, **variables) for key, value in found.get("vars", {}).items()}
    argv = found["ansible.builtin.command"]["argv"]
    argv = (
        evaluate(argv, **variables | own) if isinstance(argv, str) else [evaluate(word, **variables) for word in argv]
    )
    stdin = found["ansible.builtin.command"].get("stdin")
    environment = os.environ | {"PATH": f"{nginx()}/usr/sbin:{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        text = stdin and keep_files_in(folder, evaluate(stdin, **variables)).replace(
            "/etc/nginx/mime.types", f"{nginx()}/etc/nginx/mime.types"
        )
        return subprocess.run(argv, input=text, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "aliases, said",
    [
        ([], ""),
        (["shop.example.org", "any.of.example.net"], ""),
        (["*.of.example.net"], ""),
        (["other.example"], "the certificate is valid for www.example.com and not for other.example\n"),
    ],
)
def test_certificate_must_be_for_every_name(certificate, aliases, said):
    crt, key = certificate(NAME, "shop.example.org", "*.of.example.net")
    look = task("preflight.yml", "Look at the certificate and its key")
    variables = {"app_aliases": aliases, "nginx_tls_certificate": str(crt), "nginx_tls_key": str(key)}
    assert run(look, **variables).stdout == said
    crt, key = certificate("nobody.invalid")
    assert run(look, **variables).stdout == "", "behind a load balancer any will do"


def test_nginx_checks_the_snippet_before_anything_is_changed(tmp_path):
    check = task("preflight.yml", "Let nginx check the snippet")
    snippet = tmp_path / "nginx.conf"
    variables = {
        "nginx_snippet": str(snippet),
        "nginx_tls_certificate": "/nowhere/crt",
        "nginx_tls_key": "/nowhere/key",
    }
    snippet.write_text("# a\nlocation = /ping { return 204; }\n")
    done = run(check, **variables)
    assert done.returncode == 0 or "Permission denied" in done.stdout, done.stdout
    for text, said in (
        (
            "# a\nlocation = /ping { retrun 204; }\n",
            'unknown directive "retrun", line 2 of nginx_snippet, {}: location = /ping {{ retrun 204; }}',
        ),
        (
            "location /static/ { }\n",
            'duplicate location "/static/", line 1 of nginx_snippet, {}: location /static/ {{ }}',
        ),
        (
            "\n\nproxy_pass http://web;\n",
            '"proxy_pass" directive is not allowed here, line 3 of nginx_snippet, {}: proxy_pass http://web;',
        ),
    ):
        snippet.write_text(text)
        done = run(check, **variables)
        assert done.returncode == 1
        mark = evaluate("{{ __nginx_snippet_mark }}", **variables)
        assert nginx_refusal(done.stdout, evaluate("{{ __nginx_configuration }}", **variables), mark) == said.format(
            snippet
        )
    check["ansible.builtin.command"]["stdin"] = "load_module /nowhere/brotli.so;\n{{ __nginx_configuration }}"
    assert run(check, **variables).returncode == 0, "a module of a package that this deploy installs"


def test_what_nginx_says_of_another_line_is_said_too():
    assert (
        nginx_refusal("nginx: [emerg] no port in 1 in /a/.b:2\nnginx: test failed", "one\n two;\nsnippet:", "snippet:")
        == "no port in 1, line 2: two;"
    )
    assert nginx_refusal("nginx: [emerg] cannot load certificate", "", "x:") == "cannot load certificate"
    assert nginx_refusal("The connection was lost\n", "", "x:") == "The connection was lost"


def names_of(request):
    """The names in a request for a certificate, or in a certificate."""
    kind = "req" if request.suffix == ".csr" else "x509"
    text = subprocess.run(
        ["openssl", kind, "-in", request, "-noout", "-text"], check=True, capture_output=True, text=True
    ).stdout
    return sorted(
        word.strip().removeprefix("DNS:") for word in text.split("Alternative Name:")[1].split("\n")[1].split(",")
    )


def test_certificate_is_requested_for_every_name(tmp_path):
    """A further name is another request, with the same key, and the certificate that is there is served on."""
    files = {
        f"__nginx_acme_{name}": str(tmp_path / f"acme.{kind}")
        for name, kind in (("key", "key"), ("certificate", "crt"))
    }
    ask, temporary = (
        task("acme.yml", name) for name in ("Create the key and the request", "Create a temporary certificate")
    )
    ask["ansible.builtin.command"]["argv"][2] = ask["ansible.builtin.command"]["argv"][2].replace(
        "/etc/nginx/tls", str(tmp_path)
    )

    def converge(*aliases):
        variables = files | {"app_aliases": list(aliases), "nginx_redirect_names": ["example.com"]}
        variables["__nginx_acme_request"] = str(tmp_path / f"{len(aliases)}.csr")
        assert run(ask, **variables).returncode == 0
        if not (tmp_path / "acme.crt").exists():
            assert run(temporary, **variables).returncode == 0
        valid = evaluate("{{ __nginx_acme_valid }}", **variables)
        names = names_of(tmp_path / f"{len(aliases)}.csr")
        return names, subprocess.run(["sh", "-c", valid, "3600"], capture_output=True, check=False).returncode == 0

    assert converge() == (["example.com", NAME], True)
    key = (tmp_path / "acme.key").read_text()
    assert converge("shop.example.org") == (["example.com", "shop.example.org", NAME], False), "due"
    assert (tmp_path / "acme.key").read_text() == key
    assert names_of(tmp_path / "acme.crt") == ["example.com", NAME]
    assert (
        "__nginx_acme_valid"
        in task("certificate.yml", "Check how long the certificate is valid, and for which names")[
            "ansible.builtin.command"
        ]["argv"][2]
    )


def test_self_signed_certificate_is_for_every_name(tmp_path):
    make = task("configure.yml", "Create a self-signed certificate")
    words = make["ansible.builtin.command"]["argv"]
    words[2] = words[2].replace("/etc/nginx/tls", str(tmp_path))
    for aliases in ([], ["shop.example.org", "*.a.example"]):
        done = run(make, app_aliases=aliases)
        assert done.returncode == 0, done.stderr
    first, second = sorted(tmp_path.glob("*.crt"), key=lambda path: len(path.name))
    assert (first.name, names_of(first)) == (f"{NAME}.crt", [NAME])
    assert names_of(second) == ["*.a.example", "shop.example.org", NAME]


PLAY = """
- hosts: edge
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: app}
    - ansible.builtin.import_role: {name: nginx, tasks_from: preflight.yml}
    - ansible.builtin.copy: {content: "{{ __nginx_problems | to_json }}", dest: "{{ playbook_dir }}/problems.json", mode: "0644"}
    - ansible.builtin.include_tasks: configure.yml
      when: __nginx_problems == []
"""


@pytest.fixture
def play(tmp_path, certificate):
    """Let Ansible run the preflight on this machine, and the tasks that write nginx's files, to a folder of the test's."""
    crt, key = certificate(NAME)
    hosts = {"nginx_tls_certificate": str(crt), "nginx_tls_key": str(key), "ansible_python_interpreter": sys.executable}
    hosts |= {
        "app_addresses": {},
        "app_gunicorn": {"timeout": 30},
        "app_flower_remote": False,
        "app_url": GOOD["app_url"],
    }
    hosts |= {"app_state": {"others": {}}, "__nginx_files": str(tmp_path / "sites")}
    hosts |= {"nginx_ipv6": {"stat": {"exists": False}}, "app_project": str(ROOT)} | NEEDED
    configure = task("configure.yml", "Configure")
    check, *_, main = configure["block"]
    argv = check["ansible.builtin.command"]["argv"]
    argv[2] = argv[2].replace("nginx -t", f"{nginx()}/usr/sbin/nginx -g 'pid {tmp_path}/pid;' -t")
    main["ansible.builtin.template"]["dest"] = str(tmp_path / "nginx.conf")
    for each in configure["block"]:
        each.pop("notify", None)
    (tmp_path / "templates").symlink_to(ROOT / "roles/nginx/templates")
    for name, text in (("play.yml", PLAY), ("configure.yml", yaml.safe_dump([configure]))):
        (tmp_path / name).write_text(text)
    (tmp_path / "hosts").write_text("[edge]\nlocalhost ansible_connection=local\n[web]\nlocalhost\n")

    def run(**variables):
        command = [
            "ansible-playbook",
            "-i",
            tmp_path / "hosts",
            tmp_path / "play.yml",
            "-e",
            json.dumps(hosts | variables),
        ]
        environment = os.environ | {
            "ANSIBLE_STDOUT_CALLBACK": "minimal",
            "ANSIBLE_STRATEGY": "linear",
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        found = tmp_path / "problems.json"
        assert found.exists(), done.stdout + done.stderr
        return done.returncode, json.loads(found.read_text()), done.stdout

    return run


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/etc/nginx/mime.types").exists(),
    reason="the configuration is for root and an installed nginx",
)
def test_what_nginx_refuses_does_not_replace_the_running_configuration(play, tmp_path):
    snippet = tmp_path / "snippet.conf"
    snippet.write_text("location = /ping { return 204; }\n")
    returned, problems_, said = play(nginx_snippet=str(snippet), nginx_locations=[{"path": "/a/", "redirect": "/b/"}])
    assert (returned, problems_) == (0, []), said
    site = tmp_path / "sites/site.conf"
    running = site.read_text()
    assert "location = /ping { return 204; }" in running
    assert f"include {tmp_path}/sites/*.conf;" in (tmp_path / "nginx.conf").read_text()
    snippet.write_text("location = /ping { return 204 }\n")
    _, problems_, said = play(nginx_snippet=str(snippet))
    why = f'unexpected "}}", line 1 of nginx_snippet, {snippet}: location = /ping {{ return 204 }}.'
    assert problems_ == [f"nginx refuses the configuration with nginx_snippet: {why}"], said
    # What the preflight of a first deploy cannot see, because nginx is not there yet.
    returned, problems_, said = play(nginx_client_max_body_size="10x")
    assert problems_ == [] and returned != 0
    assert (
        "nginx refuses the new configuration, so the present one stays: " in said
        and "client_max_body_size 10x;" in said
    ), said
    assert site.read_text() == running


def test_all_problems_of_the_edge_are_in_one_report(play):
    _, problems_, _ = play(
        app_aliases=["*.example.org", "www.example.com"],
        nginx_acme=True,
        nginx_trusted_proxies=["0.0.0.0/0"],
        nginx_snippet="/nowhere/x.conf",
        nginx_locations=[{"path": "/a/"}],
    )
    parts = (
        "nginx_tls_certificate is",
        "which is everybody",
        "nginx_acme_terms_agreed is not",
        "'*.example.org' of app_aliases",
    )
    parts += (
        "nginx_tls_certificate is '",
        "app_aliases has 'www.example.com'",
        "nginx_locations[0] has a path and nothing else",
    )
    parts += ("nginx_snippet is '/nowhere/x.conf'",)
    assert [part for part in parts if not any(part in problem for problem in problems_)] == []


def test_maintenance_is_on_or_off_for_all_but_networks(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("soon")
    for right in (("on", ["10.0.0.0/8", "2001:db8::1"], str(page), True), ("off", [], "", True), ("", [], "", False)):
        assert maintenance_problems(*right) == []
    wrong = maintenance_problems("yes", ["office", "10.0.0.1/8"], f"{page}.old", False)
    assert len(wrong) == 6 and "ALLOW has 'office'" in wrong[0] and "10.0.0.1/8 has host bits set" in wrong[1]
    assert "STATE is 'yes': set it to on or off." in wrong and "run make deploy first" in wrong[-1]
