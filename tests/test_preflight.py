"""What is refused before anything is touched."""

from pathlib import Path

import preflight
import pytest
from inventory import redis_users
from preflight import (
    acme_problems,
    host_port,
    host_problems,
    interface_problems,
    login_problems,
    postgresql_problems,
    private_addresses,
    smoke_problems,
    socket_group_problems,
    source_problems,
    topology_problems,
)

REDIS = {name: f"{name}-8f3k2m9qx7w1" for name in redis_users(str(Path(__file__).parents[1]))}
GROUPS = {group: ["one"] for group in ("redis", "postgresql", "web", "workers", "beat", "flower", "edge", "monitoring")}


def secret_problems(secrets):
    return preflight.secret_problems(secrets, list(REDIS))


@pytest.mark.parametrize("version", ["12", "13"])
def test_supported_distributions(version):
    assert host_problems({"distribution": "Debian", "distribution_major_version": version}) == []


def test_python_that_a_host_has_not_is_refused():
    assert preflight.interpreter_problems({"version": "3.12.9", "error": ""}, "/opt/p/bin/python3") == []
    said = preflight.interpreter_problems({"version": "", "error": "is not there"}, "/opt/p/bin/python3")
    assert said == [
        "app_python_interpreter is /opt/p/bin/python3, which is not there on this host. Install CPython there (Coldframe installs none), or "
        "leave app_python_interpreter out: the application then runs with Debian's."
    ]


def test_openvz_is_refused_and_other_containers_are_tried():
    facts = {"distribution": "Debian", "distribution_major_version": "13"}
    assert host_problems(facts | {"virtualization_type": "lxc"}) == []
    assert "OpenVZ" in host_problems(facts | {"virtualization_type": "openvz"})[0]


@pytest.mark.parametrize("name, version", [("Debian", "11"), ("Ubuntu", "24"), ("Fedora", "43")])
def test_other_distributions_are_refused(name, version):
    assert f"{name} {version}" in host_problems({"distribution": name, "distribution_major_version": version})[0]


@pytest.mark.parametrize(
    "debian, clusters",
    [
        ("13", {}),
        ("12", {"15/main": 5432}),
        ("13", {"15/main": 5433, "17/main": 5432}),
        ("13", {"17/main": 5432, "17/b": 5433}),
    ],
)
def test_database_in_debians_own_cluster_is_right(debian, clusters):
    assert postgresql_problems(clusters, debian) == []


@pytest.mark.parametrize(
    "debian, clusters, said",
    [
        ("13", {"15/main": 5432}, "as root: pg_upgradecluster 15 main. Then deploy again"),
        ("13", {"13/main": 5433, "15/main": 5432}, "pg_upgradecluster 15 main"),
        ("13", {"15/main": 5432, "17/main": 5433}, "pg_dropcluster --stop 17 main"),
        ("12", {"17/main": 5432}, "pg_createcluster --port=5432 15 main"),
        ("12", {"15/other": 5432}, "pg_createcluster --port=5432 15 main"),
        ("13", {"17/main": 5433}, "give 17/main that port"),
    ],
)
def test_database_in_another_cluster_is_refused_with_what_to_do(debian, clusters, said):
    (problem,) = postgresql_problems(clusters, debian)
    assert said in problem and all(f"{name} on port" in problem for name in clusters)


def test_database_password_that_postgresql_takes_for_a_digest_is_refused():
    for password in ("SCRAM-SHA-256$4096:4f1c9aQz", "md5" + "0f1e2d3c" * 4):
        assert "app_database_password looks like a digest" in " ".join(
            secret_problems({"app_database_password": password})
        )


def test_secrets_are_named_and_never_shown():
    secrets = {
        "app_secret_key": "",
        "app_database_password": "hunter2",  # pragma: allowlist secret
        "app_redis_passwords": REDIS | {"web": "with space " * 3},
    }
    problems = secret_problems(secrets)
    assert len(problems) == 3
    assert "app_secret_key is missing" in problems[0]
    assert "app_database_password is shorter" in problems[1] and "hunter2" not in problems[1]
    assert "app_redis_passwords.web holds a space" in problems[2]
    assert secret_problems(
        {"app_redis_passwords": REDIS | {"web": "CHANGEME" + REDIS["web"], "cache": "ababababababababab"}}
    ) == [
        f"app_redis_passwords.{user} can be guessed (a placeholder, or few different characters): set a random one."
        for user in ("web", "cache")
    ]
    assert (
        "app_redis_passwords.beat is the same as app_redis_passwords.cache: set a value of its own for each."
        in secret_problems({"app_redis_passwords": REDIS | {"beat": REDIS["cache"]}})
    )
    assert secret_problems({"app_redis_passwords": REDIS}) == []
    gone = {"sentinel": "short"}
    assert secret_problems({"app_redis_passwords": REDIS | gone}) == [], "a user that is gone needs no good password"
    assert "app_redis_passwords.worker is missing" in " ".join(
        secret_problems({"app_redis_passwords": {name: REDIS[name] for name in REDIS if name != "worker"}})
    )


def test_all_missing_secrets_are_one_sentence_with_the_command_that_makes_them():
    names = ("app_secret_key", "app_database_password", "app_flower_password")
    (problem,) = preflight.secret_problems(dict.fromkeys(names, ""), ["web", "beat"], "../shop/ops")
    assert problem.startswith(", ".join([*names, "app_redis_passwords.web", "app_redis_passwords.beat are missing: "]))
    assert "'make secrets ENV=../shop/ops' makes them." in problem and "(app_secret_key 50)" in problem
    given = {"app_flower_password": "short", "app_database_password": None}  # pragma: allowlist secret
    missing, short = preflight.secret_problems(given, [], "live")
    assert missing.startswith("app_database_password is missing: 'make secrets ENV=live' makes it. Or set it")
    assert short.startswith("app_flower_password is shorter than ")


LOGINS = {"app_broker_url": "", "app_broker_password": "", "app_email": {}, "app_secrets": {}}


def test_logins_at_other_servers_need_a_password():
    assert login_problems(LOGINS) == []
    assert login_problems(LOGINS | {"app_email": {"host": "mx.example.net"}}) == []
    broker = LOGINS | {"app_broker_url": "rediss://ann@redis.example.net/0"}
    (problem,) = login_problems(broker)
    assert problem.startswith(
        "app_broker_url is 'rediss://ann@redis.example.net/0', and app_broker_password is missing"
    )
    assert login_problems(broker | {"app_broker_password": "8f3k2m9qx7w1"}) == []  # pragma: allowlist secret
    email = LOGINS | {"app_email": {"host": "mx.example.net", "user": "ann"}}
    (problem,) = login_problems(email)
    assert problem.startswith("app_email.user is 'ann', and there is no app_secrets.EMAIL_HOST_PASSWORD: add")
    assert login_problems(email | {"app_secrets": {"EMAIL_HOST_PASSWORD": "8f3k"}}) == []  # pragma: allowlist secret


def test_topology():
    assert topology_problems(GROUPS, {"a": {}}, {"one": {}}) == []
    two = topology_problems(GROUPS | {"redis": ["one", "two"]}, {"a": {}}, {})
    assert two[0] == "The inventory group 'redis' has 2 hosts (one, two). Leave 1 in it."
    for group in ("web", "beat"):
        assert f"'{group}' has no host" in topology_problems(GROUPS | {group: []}, {"a": {}}, {})[0]


def test_group_of_a_service_that_a_provider_runs_is_empty():
    managed = {"postgresql": "app_database_url"}
    assert topology_problems(GROUPS | {"postgresql": []}, {"a": {}}, {"one": {}}, managed) == []
    none = {group: hosts for group, hosts in GROUPS.items() if group != "postgresql"}
    assert topology_problems(none, {"a": {}}, {"one": {}}, managed) == []
    assert "'postgresql' has no host" in topology_problems(none, {"a": {}}, {"one": {}})[0]
    (problem,) = topology_problems(GROUPS, {"a": {}}, {"one": {}}, managed)
    assert problem.startswith(
        "The inventory group 'postgresql' has one, and app_database_url names a provider's server"
    )


SPREAD = GROUPS | {"web": ["two"], "beat": ["one", "two"]}


def spread(one, two):
    """The problems of an inventory of two hosts with these addresses."""
    hostvars = {"one": {"app_private_address": one}, "two": {"app_private_address": two}}
    return topology_problems(SPREAD, {"a": {}}, hostvars)


def test_several_hosts_each_have_an_address():
    assert spread("10.0.0.1", "10.0.0.2") == [] == spread("fd00::1", "fd00::2")
    assert (
        "app_private_address of one is '', and the application runs on 2 hosts (one, two)" in spread("", "10.0.0.2")[0]
    )
    assert len(topology_problems(SPREAD, {"a": {}}, {"one": {}, "two": {}})) == 2
    assert "app_private_address of two is 'two.example.com'" in spread("10.0.0.1", "two.example.com")[0]
    assert "and so is that of two" in spread("10.0.0.1", "10.0.0.1")[0]


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "fe80::1"])  # noqa: S104
def test_an_address_that_other_hosts_cannot_reach_is_refused(address):
    assert spread(address, "10.0.0.2") == [
        f"app_private_address of one is {address!r}, which other hosts cannot reach: set it to this host's address in your network."
    ]


def test_one_host_needs_no_address():
    assert private_addresses(GROUPS | {"web": []}, {"one": {"app_private_address": "10.0.0.1"}}) == {}
    addresses = private_addresses(SPREAD | {"all": ["three"]}, {"one": {"app_private_address": "10.0.0.1"}, "two": {}})
    assert addresses == {"one": "10.0.0.1", "two": ""}


def test_an_address_of_no_interface_is_refused():
    facts = {"all_ipv4_addresses": ["10.0.0.1"], "all_ipv6_addresses": ["fd00::1"]}
    assert interface_problems(facts, "10.0.0.1") == interface_problems(facts, "fd00::1") == []
    assert interface_problems({}, "") == []
    assert interface_problems(facts, "10.0.0.9")[0].startswith(
        "app_private_address is '10.0.0.9', and this host has 10.0.0.1, fd00::1: set it to one of these"
    )


def test_address_with_port():
    assert host_port("10.0.0.1", 80) == "10.0.0.1:80"
    assert host_port("fd00::1", 80) == "[fd00::1]:80"


def test_every_queue_is_served_and_every_served_queue_is_known():
    own = {"one": {"celery_host_queues": ["a", "c"]}}
    problems = topology_problems(GROUPS, {"a": {}, "b": {}}, own)
    assert "celery_host_queues of one names 'c'" in problems[0]
    assert "No host of the group 'workers' serves the queue 'b'" in problems[1]


ACME = {"agreed": True, "directory": "https://acme.example.com:14000/dir"}
ACME |= {"certificate": "", "edges": ["one"], "others": []}


def test_a_name_in_the_dns_gets_a_certificate_from_an_authority():
    for name in ("www.example.com", "example.com", "a-b.xn--p1ai", "1.example.internal"):
        assert acme_problems(name, **ACME) == []


@pytest.mark.parametrize(
    "name", ["localhost", "192.0.2.1", "2001:db8::1", "*.example.com", "a.com b.com", "WWW.example.com", "-a.com", ""]
)
def test_a_name_that_no_authority_knows_is_refused(name):
    (problem,) = acme_problems(name, **ACME)
    assert f"nginx_server_name is {name!r}" in problem and "www.example.com" in problem


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"agreed": False}, "nginx_acme_terms_agreed is not: read the terms of https://acme.example.com:14000/dir"),
        ({"directory": "http://acme.example.com"}, "nginx_acme_directory is 'http://acme.example.com'"),
        ({"directory": "https://a.com/$(id)"}, "nginx_acme_directory is"),
        ({"directory": ""}, "nginx_acme_directory is ''"),
        ({"certificate": "/x.crt"}, "nginx_tls_certificate is '/x.crt': set one of the two"),
        ({"edges": ["one", "two"]}, "'edge' has 2 hosts (one, two): the CA asks any of them"),
    ],
)
def test_what_no_authority_can_work_with_is_refused(wrong, message):
    (problem,) = acme_problems("www.example.com", **(ACME | wrong))
    assert message in problem


def test_further_names_get_a_certificate_from_an_authority_too():
    assert acme_problems("www.example.com", **(ACME | {"others": ["example.com", "a.example.org"]})) == []
    (problem,) = acme_problems("www.example.com", **(ACME | {"others": ["example.com", "*.example.org"]}))
    assert "'*.example.org' of app_aliases and nginx_redirect_names is no name" in problem
    (problem,) = acme_problems(
        "www.example.com", **(ACME | {"others": [f"a{number}.example.com" for number in range(100)]})
    )
    assert "would have 101 names; CAs allow 100" in problem


def test_key_that_django_would_refuse_is_refused_before():
    # pragma: allowlist nextline secret
    assert "app_secret_key is shorter than 50 characters" in secret_problems({"app_secret_key": "8f3k2m9qx7w1" * 4})[1]
    # pragma: allowlist nextline secret
    assert "made for development" in secret_problems({"app_secret_key": "django-insecure-" + "8f3k2m9qx7w1" * 4})[1]


def test_misspelt_group_is_refused():
    wrong = topology_problems(GROUPS | {"workrs": ["two"]}, {"a": {}}, {"one": {}})
    assert wrong == [
        "The inventory group 'workrs' is none of the application's, and nothing would run on two: is 'workers' meant? "
        "Call it otherwise if not."
    ]
    assert topology_problems(GROUPS | {"web1": ["one"], "staging": ["two"]}, {"a": {}}, {"one": {}}) == []


def test_units_get_groups_that_are_there_and_redis():
    assert socket_group_problems(["redis-clients"], [], True) == socket_group_problems([], [], False) == []
    assert "must hold 'redis-clients'" in socket_group_problems([], [], True)[0]
    assert socket_group_problems(["blog-redis"], [], True, "blog-redis") == []
    assert (
        "must hold 'blog-redis'" in socket_group_problems(["redis-clients"], ["redis-clients"], True, "blog-redis")[0]
    )
    assert "'nowhere', a group that this host does not have" in socket_group_problems(["nowhere"], ["adm"], False)[0]


@pytest.fixture
def project(tmp_path):
    for name in ("site/conf/wsgi.py", "site/conf/settings/live.py", "tasks.py", "plain/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "requirements.txt").write_text("Big-Shop[x]==1\nother==2\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    "path, module, said",
    [
        ("", "tasks:app", ""),
        ("", "plain", ""),
        ("site", "conf.wsgi:application", ""),
        ("site", "conf.settings.live", ""),
        ("site", "tasks", ""),
        ("", "big_shop.wsgi:application", ""),
        (
            "",
            "conf.wsgi:application",
            "no 'conf' in {}, nor a package of that name in requirements.txt: set app_python_path to 'site'",
        ),
        ("", "nowhere.wsgi:a", "app_wsgi is 'nowhere.wsgi:a', and there is no 'nowhere' in {}"),
        ("site", "conf.asgi:a", "'conf' in {} has no module 'asgi': name one that is there"),
        ("src", "tasks:app", "app_python_path is 'src', and {} has no such folder"),
    ],
)
def test_modules_are_looked_for_before_a_host_is_touched(project, path, module, said):
    problems = source_problems(project, path, "requirements.txt", {"app_wsgi": module})
    assert [said.format(project) in problem for problem in problems] == ([True] if said else [])
    assert source_problems(project + "/none", path, "requirements.txt", {"app_wsgi": module}) == []


@pytest.mark.parametrize(
    "request_",
    [{"path": "/"}, {"path": "/orders/", "method": "POST", "body": {"quantity": 1}, "status": [200, 201]}],
)
def test_requests_that_show_that_it_works(request_):
    assert smoke_problems(request_, []) == []


@pytest.mark.parametrize(
    "request_, said",
    [
        ({}, "smoke_request: {path: /}"),
        ("/healthz/", "smoke_request: {path: /}"),
        ({"path": "healthz/"}, "must have a path that begins with /, such as {path: /}"),
        ({"path": "/", "methode": "POST"}, "smoke_request.methode is unknown. Known: path, method, body, status."),
        ({"path": "/", "status": 201}, "smoke_request.status is 201"),
        ({"path": "/", "status": ["OK"]}, "smoke_request.status is ['OK']"),
    ],
)
def test_requests_that_cannot_be_sent_are_refused(request_, said):
    (problem,) = smoke_problems(request_, [])
    assert said in problem


def test_every_further_request_that_cannot_be_sent_is_refused():
    assert smoke_problems({"path": "/"}, [{"path": "/cart/", "status": [200, 302]}]) == []
    further = [{"path": "/"}, "/cart/", {"path": "/", "body": {}, "state": [200]}, {"path": "/", "status": "200"}]
    assert [problem.partition(" is ")[0] for problem in smoke_problems({}, further)] == [
        smoke_problems({}, [])[0],
        "smoke_requests[1]",
        "smoke_requests[2].state",
        "smoke_requests[3].status",
    ]
    (problem,) = smoke_problems({"path": "/"}, {"path": "/"})
    assert "smoke_requests is {'path': '/'}; it must be a list" in problem
