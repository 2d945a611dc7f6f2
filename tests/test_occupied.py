"""A host that something else uses is refused before anything on it is touched."""

import json

import pytest
from ansible.module_utils import coldframe, coldframe_host
from ansible.module_utils.coldframe_host import foreign_services, other_applications
from preflight import hostname_problems, occupied_problems, port_problems


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
    assert other_applications("blog") == {"crm": LAST, "erp": LAST}


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
    assert other_applications("blog") == {"wiki": "nobody knows when"}


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


NOTHING = {"others": {}, "foreign": {}}


def test_another_application_is_refused_with_the_way_out():
    assert occupied_problems(NOTHING, ["edge"], "blog") == []
    (problem,) = occupied_problems(NOTHING | {"others": {"shop": LAST}}, [], "blog")
    assert "app_name is 'blog', and this host has another application, 'shop' (last deployed 2023-11-14" in problem
    assert "make remove-app APP=shop" in problem and "sandbox" not in problem
    (problem,) = occupied_problems(NOTHING | {"others": {"shop": LAST}}, [], "blog", "here")
    assert "make sandbox-down" in problem and "another SANDBOX_NAME" in problem


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
