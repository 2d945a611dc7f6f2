"""A host that something else uses is refused before anything on it is touched."""

import json

import pytest
from ansible.module_utils import coldframe, coldframe_host
from ansible.module_utils.coldframe_host import foreign_services, other_applications
from preflight import beside_problems, hostname_problems, occupied_problems, port_problems


@pytest.fixture
def etc(tmp_path, monkeypatch):
    monkeypatch.setattr(coldframe, "UNITS", tmp_path / "etc/systemd/system")
    monkeypatch.setattr(coldframe, "STATE", tmp_path / "state")
    monkeypatch.setattr(coldframe_host, "ETC", tmp_path / "etc")
    return tmp_path / "etc"


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def history(app, *events):
    lines = ({"deploy": "d", "when": 1700000000 + n, **event} for n, event in enumerate(events))
    write(coldframe.STATE / app / "history.jsonl", "\n".join(map(json.dumps, lines)) + '\n{"cut of')


BEGUN = {"event": "begun", "who": "anna@laptop"}
LAST = "2023-11-14 22:13:21 UTC by anna@laptop"


def test_who_was_deployed_here_is_told_with_the_time(etc):
    assert other_applications("blog") == {}
    history("blog", BEGUN, {"event": "activated"})
    history("mail", BEGUN, {"event": "ended", "outcome": "failed"})  # came to nothing
    assert other_applications("blog") == {}
    history("crm", BEGUN, {"event": "activated"})
    history("erp", BEGUN, {"event": "ended", "outcome": "done"})  # a host with Redis alone
    unknown = {"deployed": LAST, "record": {}}
    assert other_applications("blog") == {"crm": unknown, "erp": unknown}
    write(coldframe.STATE / "crm/host.json", '{"additional": false}')
    write(coldframe.STATE / "erp/host.json", "cut of")
    assert other_applications("blog") == {"crm": unknown | {"record": {"additional": False}}, "erp": unknown}


def test_what_an_application_takes_of_the_host_is_noted_for_the_others(etc):
    host = coldframe.Application(None, "crm", "/srv/crm")
    assert host.record() == {}
    host.write_record({"additional": True, "names": ["a.example"]})
    written = host.record_file.stat().st_mtime_ns
    host.write_record({"names": ["a.example"], "additional": True})
    assert host.record_file.stat().st_mtime_ns == written, "nothing is another"
    history("crm", BEGUN, {"event": "activated"})
    assert other_applications("blog")["crm"]["record"] == {"additional": True, "names": ["a.example"]}
    assert other_applications("crm") == {}


@pytest.mark.parametrize("unit", ["wiki-web@0123456789ab.service", "wiki-worker-mail-out@0123456789ab:2.service"])
def test_units_tell_of_an_application_whose_history_is_gone(etc, unit):
    write(etc / "systemd/system" / unit)
    for other in (
        "getty@.service",
        "blog-beat@0123456789ab.service",
        "redis-server@broker.service",
        "x-web@one.service",
    ):
        write(etc / "systemd/system" / other)
    assert other_applications("blog") == {"wiki": {"deployed": "at an unknown time", "record": {}}}


def services(answers):
    return foreign_services(lambda command: answers.get(command[0], (1, "", "")))


def test_what_debian_installs_is_nobodys(etc):
    write(etc / "nginx/sites-enabled/default")
    write(etc / "redis/redis.conf")
    write(etc / "postgresql/17/main/pg_hba.conf")
    nothing = {"systemctl": (0, "", ""), "redis-cli": (0, "(integer) 0\n", ""), "runuser": (0, "", "")}
    assert services(nothing) == services({}) == {}


def test_what_others_keep_in_the_servers_is_told_until_coldframe_set_them_up(etc):
    write(etc / "nginx/sites-enabled/wordpress")
    write(etc / "nginx/conf.d/proxy.conf")
    write(etc / "redis/redis.conf")
    write(etc / "postgresql/15/main/pg_hba.conf")
    full = {"systemctl": (0, "", ""), "redis-cli": (0, "12\n", ""), "runuser": (0, "crm\nwiki\n", "")}
    told = services(full)
    assert told["edge"] == f"{etc}/nginx/conf.d/proxy.conf, {etc}/nginx/sites-enabled/wordpress"
    assert told["redis"] == "redis-server.service with 12 keys"
    assert told["postgresql"] == "the database crm, the database wiki"
    assert "does not tell" in services(full | {"redis-cli": (0, "NOAUTH Authentication required.\n", "")})["redis"]
    write(etc / "systemd/system/nginx.service.d/coldframe.conf")
    write(etc / "redis/redis-broker.conf")
    write(etc / "postgresql/15/main/conf.d/coldframe.conf")
    assert services(full) == {}


NOTHING = {"others": {}, "foreign": {}, "record": {}, "current": ""}
SHOP = {
    "additional": False,
    "hosts": 1,
    "root": "/srv/shop",
    "sockets": ["/run/shop-web.sock"],
    "names": ["shop.example.com"],
    "shared": {"base_ssh_hardening": True, "postgresql_max_connections": 100},
}
BLOG = SHOP | {
    "additional": True,
    "root": "/srv/blog",
    "sockets": ["/run/blog-web.sock"],
    "names": ["blog.example.com"],
}


def test_application_of_an_earlier_coldframe_is_refused_with_the_way_out():
    assert occupied_problems(NOTHING, ["edge"], "blog") == []
    others = {"shop": {"deployed": LAST, "record": {}}}
    (problem,) = occupied_problems(NOTHING | {"others": others}, [], "blog")
    assert "app_name is 'blog', and this host has another application, 'shop' (last deployed 2023-11-14" in problem
    assert "deploy shop once with this Coldframe" in problem and "sandbox" not in problem
    (problem,) = occupied_problems(NOTHING | {"others": others}, [], "blog", "make sandbox-down")
    assert "make sandbox-down" in problem and "another SANDBOX_NAME" in problem
    (problem,) = occupied_problems(NOTHING | {"others": others}, [], "blog", "make try-down APP=../blog")
    assert "'make try-down APP=../blog'" in problem and "SANDBOX_NAME" not in problem
    others["shop"]["record"] = SHOP
    assert occupied_problems(NOTHING | {"others": others}, [], "blog") == []


def beside(record, its=SHOP, allowed=(), **state):
    return beside_problems(
        NOTHING | {"others": {"shop": {"deployed": LAST, "record": its}}} | state, "blog", record, allowed
    )


def test_two_applications_go_together_in_either_order():
    assert beside(BLOG) == []
    assert beside_problems(NOTHING | {"others": {"blog": {"record": BLOG}}}, "shop", SHOP, []) == []
    assert beside(BLOG, BLOG | {"root": "/srv/x", "sockets": [], "names": []}) == [], "the first one may be gone"


@pytest.mark.parametrize(
    "changed, its, said",
    [
        ({"additional": False}, {}, "app_additional is false, and this host has an application already, 'shop'"),
        ({"hosts": 3}, {}, "blog is spread over several hosts"),
        ({}, {"hosts": 2}, "shop is spread over several hosts"),
        ({"names": ["a.example", "shop.example.com"]}, {}, "'shop.example.com' is a host name of shop too"),
        ({"root": "/srv/shop/blog"}, {}, "app_root is '/srv/shop/blog', and that of shop is '/srv/shop'"),
        ({"root": "/srv"}, {}, "app_root is '/srv', and that of shop is '/srv/shop'"),
        ({"sockets": ["/run/shop-web.sock"]}, {}, "'/run/shop-web.sock' is a socket of shop too"),
        (
            {"shared": {"base_ssh_hardening": False}},
            {},
            "base_ssh_hardening is false, and true for shop: it is a setting of the whole host",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changed, its, said):
    (problem,) = beside(BLOG | changed, SHOP | its)
    assert said in problem


@pytest.mark.parametrize("allowed", [["postgresql_max_connections"], "a_name,postgresql_max_connections"])
def test_setting_of_the_whole_host_is_changed_one_application_after_the_other(allowed):
    changed = BLOG | {"shared": {"postgresql_max_connections": 200}}
    assert "ALLOW_SHARED=postgresql_max_connections" in beside(changed)[0]  # pragma: allowlist secret
    assert beside(changed, allowed=allowed) == []
    assert beside(SHOP | {"additional": True, "root": "/r", "names": [], "sockets": []}, changed | {"shared": {}}) == []


@pytest.mark.parametrize("before", [True, False])
def test_names_of_the_redis_instances_stay(before):
    """Also of an application that an earlier Coldframe deployed, which noted nothing: it has the first names."""
    noted = {"record": BLOG} if before else {"record": {}}
    state = NOTHING | noted | {"current": "0123456789ab"}
    (problem,) = beside_problems(state, "blog", BLOG | {"additional": not before}, [])
    assert problem.endswith(f"Set it to {str(before).lower()}.") and "app_additional is" in problem
    assert beside_problems(state, "blog", BLOG | {"additional": before}, []) == []
    assert beside_problems(state | {"current": ""}, "blog", BLOG, []) == [], "nothing was queued"


def test_a_foreign_service_is_refused_where_the_host_is_to_run_that_service():
    state = NOTHING | {
        "foreign": {"edge": "/etc/nginx/sites-enabled/wiki", "redis": "redis-server.service with 3 keys"}
    }
    problems = occupied_problems(state, ["edge", "web"], "blog")
    assert len(problems) == 1 and "'edge' and has /etc/nginx/sites-enabled/wiki, which Coldframe's" in problems[0]
    assert "systemctl disable --now redis-server" in occupied_problems(state, ["redis"], "blog")[0]


def test_hosts_of_one_name_are_refused():
    states = {"a.example": {"hostname": "debian"}, "b": {"hostname": "debian"}, "c": {"hostname": "c"}, "d": None}
    assert hostname_problems("c", states) == []
    assert "This host and b have the host name 'debian'" in hostname_problems("a.example", states)[0]
    assert "hostnamectl set-hostname a'" in hostname_problems("a.example", states)[0]


def test_a_port_that_another_program_has_is_refused():
    groups = ["edge", "redis", "postgresql"]
    listeners = {"22": "sshd", "80": "apache2", "443": "nginx", "6379": "memcached", "5432": "postgres"}
    (problem,) = port_problems(listeners, groups, {})
    assert (
        "'edge', and 'apache2' listens on port 80, which nginx needs" in problem and "ss -ltnp 'sport = :80'" in problem
    )
    ports = {"redis": 6379, "postgresql": 5432}
    assert [
        "port 80" in each or "'memcached' listens on port 6379, which redis-server" in each
        for each in port_problems(listeners, groups, ports)
    ] == [True] * 2
    assert port_problems(listeners, ["web"], ports) == []
    own = {"80": "nginx", "443": "", "6379": "redis-server", "5432": "postgres"}
    assert port_problems(own, groups, ports) == [], "who listens is not known, or it is ours"
