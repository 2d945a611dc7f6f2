"""A provider's PostgreSQL and Redis: what is asked of them, what is refused, and who logs in."""

import itertools
import re
import socket
from pathlib import Path

import managed
import managed_state
import pytest
import servers
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template
from applications import evaluate as of_application
from queues import celery_queue_table
from redis_acl import redis_acl_commands, redis_acl_lines

ROOT = Path(__file__).parents[1]
PASSWORD = "of the provider"  # noqa: S105  # pragma: allowlist secret
USERS = yaml.safe_load((ROOT / "roles/redis/vars/main.yml").read_text())["redis_users"]
URLS = {
    "database": "postgres://ann@db.example.net:25060/blog",
    "broker": "rediss://default@redis.example.net:25061/2",
    "cache": "",
}
SERVERS = managed.managed_servers(URLS)
DATABASE = {"stage": "", "error": "", "version": 160004, "standby": False, "encoding": "UTF8", "schema": "public"}
DATABASE |= {"create": True, "superuser": False, "foreign": None, "connections": 97, "pooler": False}
DATABASE |= {"transactions": False}
REDIS = {"stage": "", "error": "", "version": "7.2.4", "replica": False, "cluster": False, "policy": "noeviction"}
REDIS |= {"maxmemory": 2**28, "appendonly": True, "index": "", "denied": [], "users": "NOPERM"}
FOUND = {"database": DATABASE, "broker": REDIS, "cache": REDIS}


# --- addresses


def test_addresses_are_taken_apart():
    found = managed.managed_servers(
        {"database": "postgresql://a%40b@[fd00::1]/x_y", "broker": "rediss://redis.example.net", "cache": ""}
    )
    assert found["database"] == {
        "host": "fd00::1",
        "port": 5432,
        "user": "a@b",
        "name": "x_y",
        "url": "postgres://a%40b@[fd00::1]:5432/x_y",
    }
    assert found["broker"] == {
        "host": "redis.example.net",
        "port": 6379,
        "user": "default",
        "index": 0,
        "url": "rediss://redis.example.net:6379/0",
    }
    assert found["cache"] == found["broker"] | {"index": 1, "url": "rediss://redis.example.net:6379/1"}


def test_cache_may_have_a_server_of_its_own_and_the_roles_may_stay():
    found = managed.managed_servers(URLS | {"cache": "rediss://me@cache.example.net:1/7"})
    assert (found["cache"]["host"], found["cache"]["user"], found["cache"]["index"]) == ("cache.example.net", "me", 7)
    assert managed.managed_servers({"database": "", "broker": "", "cache": ""}) == {}
    assert managed.managed_groups(managed.managed_servers(URLS | {"broker": ""})) == {"postgresql": "app_database_url"}
    assert managed.managed_groups(SERVERS) == {"postgresql": "app_database_url", "redis": "app_broker_url"}


# --- logins


def logins(own):
    passwords = {user: f"of {user}" for users in USERS.values() for user in users}
    return managed.redis_logins(USERS, SERVERS, own, "blog", passwords, {"broker": "p1", "cache": "p2"})


def test_each_process_has_a_user_of_its_own_where_the_login_makes_them():
    found = logins(["broker", "cache"])
    assert found["admin"] == {"name": "default", "password": "p1"}  # pragma: allowlist secret
    for user in ("reader", "web", "worker", "beat", "flower", "cache"):
        assert found[user] == {"name": f"blog-{user}", "password": f"of {user}"}


def test_all_processes_are_one_user_elsewhere():
    found = logins([])
    assert {user: login["password"] for user, login in found.items()} == dict.fromkeys(found, "p1") | {"cache": "p2"}
    assert {login["name"] for login in found.values()} == {"default"}
    assert managed.managed_users(FOUND, SERVERS) == []
    assert managed.managed_users(FOUND | {"cache": REDIS | {"users": ""}}, SERVERS) == ["cache"]
    assert managed.managed_users({}, SERVERS) == [], "it was not asked"


def test_without_a_provider_each_user_is_itself():
    passwords = {"web": "x" * 20}
    found = managed.redis_logins(USERS, {}, [], "blog", passwords, {"broker": "", "cache": ""})
    assert found["web"] == {"name": "web", "password": "x" * 20} and found["cache"]["name"] == "cache"


def access_list(instance):
    """The access list of an instance at a provider's server, as the role renders it."""
    init_plugin_loader()
    filter_loader.add_directory(str(ROOT / "plugins/filter"))
    table = DataLoader().load_from_file(str(ROOT / "roles/redis/vars/main.yml"), trusted_as_template=True)
    given = {
        "ansible_facts": {"distribution_major_version": "13"},
        "app_broker_index": 2,
        "app_managed": SERVERS,
        "app_managed_host": "one",
        "app_name": "blog",
        "app_redis_names": {user: login["name"] for user, login in logins(["broker", "cache"]).items()},
        "app_redis_passwords": {user: f"of {user}" for users in USERS.values() for user in users},
        "app_redis_passwords_before": {},
        "celery_default_queue": "default",
        "celery_queues": {"default": {}},
        "hostvars": {"one": {"app_managed_found": FOUND}},
        "item": instance,
        "redis_acl_before": {"results": []},
        "redis_web_control": True,
        "app_asgi": "",
    }
    template = (ROOT / "roles/redis/templates/users.acl.j2").read_text()
    return Templar(DataLoader(), variables=table | given).template(trust_as_template(template))


def test_access_list_for_a_provider_leaves_its_own_users_alone():
    users = {name: re.findall(r"^user (\S+) ", access_list(name), re.M) for name in ("broker", "cache")}
    assert users == {
        "broker": ["blog-metrics", "blog-web", "blog-worker", "blog-beat", "blog-flower"],
        "cache": ["blog-cache"],
    }
    channels = re.findall(r"&(/\d+)\.", access_list("broker"))
    assert channels and set(channels) == {"/2"}, "the index of the queues"
    there = "user default on ~*\nuser blog-web on\nuser blog-old on\nuser blogger-web on\nuser blog-cache on\n"
    before = redis_acl_lines(there, "blog")
    keep = [login["name"] for login in logins(["broker"]).values()]
    said = redis_acl_commands(access_list("cache"), {"admin": "p"}, before, "default", [*keep, "blog-cache"])
    assert said.startswith('AUTH default "p"\nACL SETUSER blog-cache reset on ')
    assert re.findall(r"^ACL DELUSER (\S+)$", said, re.M) == ["blog-old"]


# --- what is refused


def problems(needed=20, pooled=False, urls=URLS, **changed):
    """Problems of servers of which some are otherwise than they should be."""
    found = {name: state | changed.get(name, {}) for name, state in FOUND.items()}
    return managed.managed_problems(found, managed.managed_servers(urls), urls, needed, pooled)


def test_servers_that_are_as_they_should_be_have_no_problem():
    assert problems() == []
    assert managed.managed_problems({}, SERVERS, URLS, 20, False) == [], "this host does not use them"
    assert managed.managed_problems({"skipped": True}, SERVERS, URLS, 20, False) == []
    assert problems(broker={"policy": "", "maxmemory": 0, "appendonly": None}) == [], "it does not show them"


WHERE = "app_database_url is 'postgres://ann@db.example.net:25060/blog', and "
BROKER = "app_broker_url is 'rediss://default@redis.example.net:25061/2', and "


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"stage": "resolve", "error": "no such name"}, "this host does not find db.example.net (no such name): correct the name"),
        ({"stage": "connect", "error": "refused"}, "this host does not reach db.example.net:25060 (refused): add this host's address"),
        ({"stage": "tls", "error": "expired"}, "the TLS of db.example.net:25060 is not to be trusted (expired): set app_database_ca_file"),
        ({"stage": "login", "error": "no"}, "the server refuses the login 'ann' for the database 'blog' (no): correct the address, or app_database_password"),
        ({"stage": "ask", "error": "what"}, "the server does not answer as expected (what): is it PostgreSQL?"),
        ({"version": 140001}, "the server has PostgreSQL 14: upgrade it to 15"),
        ({"standby": True}, "the server is a standby"),
        ({"encoding": "LATIN1"}, "the database has the encoding LATIN1"),
        ({"create": False}, "ann may not create tables in the schema 'public': as the database's owner, run GRANT"),
        ({"schema": None, "create": False}, "ann may not create tables in the schema 'public'"),
        ({"foreign": "bob"}, "Django's tables belong to 'bob', and ann could not migrate them: run GRANT \"bob\" TO \"ann\""),
        ({"pooler": True, "transactions": True}, "this is a pooler that gives each transaction another connection: set app_database_pooled"),
        ({"connections": 19}, "the application may need 20 connections"),
    ],
)  # fmt: skip
def test_a_database_that_cannot_be_used_is_refused_with_the_remedy(changed, said):
    (problem,) = problems(database=changed)
    assert problem.startswith(WHERE + said)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"version": "6.2.14"}, "the server has Redis 6.2.14: upgrade it to 7.0"),
        ({"replica": True}, "the server is a replica"),
        ({"cluster": True}, "the server runs in cluster mode"),
        ({"denied": ["EVAL", "DEL"]}, "default may not use the commands EVAL, DEL: allow them"),
        ({"index": "out of range"}, "the server does not have the database 2 (out of range)"),
        ({"policy": "volatile-lru"}, "the server's maxmemory-policy is volatile-lru, by which it deletes queued tasks"),
        ({"maxmemory": 30 * 2**20}, "the server's maxmemory is 30 MiB: choose a plan with 64 MiB"),
    ],
)
def test_a_broker_that_cannot_be_used_is_refused_with_the_remedy(changed, said):
    (problem,) = problems(broker=changed)
    assert problem.startswith(BROKER + said)


def test_cache_needs_a_database_of_its_own_or_a_server():
    (problem,) = problems(cache={"index": "ERR DB index is out of range"})
    assert problem.startswith(BROKER + "the cache needs a database of its own there, 3, which") and "FLUSHDB" in problem
    own = URLS | {"cache": "rediss://cache.example.net/5"}
    (problem,) = problems(urls=own, cache={"index": "out of range"})
    assert problem.startswith("app_cache_url is 'rediss://cache.example.net/5', and the server does not have the data")
    (problem,) = problems(urls=own, cache={"policy": "allkeys-lru", "replica": True})
    assert "the server is a replica" in problem, "and the policy is right for a cache"
    (problem,) = problems(urls=URLS | {"cache": "rediss://other@redis.example.net:25061/2"})
    assert "the database of app_broker_url, and clearing the cache would delete queued tasks" in problem


def test_all_problems_are_told_together_and_one_server_once():
    gone = {"stage": "connect", "error": "timed out"}
    assert len(problems(database=gone, broker=gone, cache=gone)) == 2
    assert (
        len(problems(database={"standby": True, "encoding": "LATIN1"}, broker={"cluster": True, "replica": True})) == 4
    )


def test_through_a_pooler_its_connections_are_not_the_servers():
    pooled = {"pooler": True, "transactions": True, "connections": 5}
    assert problems(database=pooled, pooled=True) == []
    assert problems(database=pooled | {"transactions": False}) == []


def test_connections_are_counted_for_each_thread_process_and_beat():
    table = celery_queue_table(
        {
            "default": {"concurrency": 3},
            "bulk": {"concurrency": "auto"},
            "one": {"pool": "solo"},
            "t": {"pool": "threads"},
            "g": {"pool": "gevent", "concurrency": "auto*50"},
        }
    )
    groups = {"web": ["a", "b"], "beat": ["a"], "workers": ["a", "b"]}
    hostvars = {
        "a": {"celery_host_queues": ["default", "bulk", "g"], "ansible_facts": {"processor_vcpus": 4}},
        "b": {"celery_host_queues": ["one", "t"]},
    }
    services, timers = {"bot": {"hosts": "one"}, "feed": {"hosts": "workers"}}, {"report": {}}
    found = managed.connections(groups, table, {"workers": 2, "threads": 4}, hostvars, services, timers)
    assert found == 2 * 2 * 4 + 1 + (3 + 4 + 200) + (1 + 2) + (1 + 2) + 1 + managed.OTHERS


def test_threads_that_need_more_connections_than_postgresql_allows_are_refused():
    table = celery_queue_table({"default": {"concurrency": 500}, "calls": {"pool": "threads", "concurrency": 90}})
    (problem,) = managed.connection_problems(98, 100, table)
    assert problem.startswith("celery_queues.calls.concurrency is 90 with pool threads, so that up to 98 connections ")
    assert "postgresql_max_connections is 100, of which 3 are for superusers: set it to 101 or more" in problem
    assert managed.connection_problems(97, 100, table) == []
    assert managed.connection_problems(600, 100, celery_queue_table({"default": {"concurrency": 500}})) == []


def test_a_file_without_certificates_is_refused(tmp_path):
    (tmp_path / "empty.pem").write_text("no certificate")
    pem = servers.certificate(tmp_path, "localhost")
    (tmp_path / "ca.pem").write_text(pem)
    files = {"app_database_ca_file": f"{tmp_path}/none.pem", "app_redis_ca_file": f"{tmp_path}/empty.pem"}
    found = managed.certificate_file_problems(files)
    assert [problem.split()[0] for problem in found] == list(files)
    good = {"app_database_ca_file": f"{tmp_path}/ca.pem", "app_redis_ca_file": ""}
    assert managed.certificate_file_problems(good) == []
    assert managed.read_certificates(f"{tmp_path}/ca.pem") == pem and managed.read_certificates("") == ""


def lines(needed=20, pooled=False, own=(), urls=URLS, **changed):
    found = {name: state | changed.get(name, {}) for name, state in FOUND.items()}
    return "\n".join(managed.managed_lines(found, managed.managed_servers(urls), own, needed, pooled))


def test_operators_are_told_what_the_servers_are_like():
    said = lines()
    assert "database db.example.net:25060: PostgreSQL 16, database blog, 20 connections needed of 97" in said
    assert "broker   redis.example.net:25061: Redis 7.2.4, database 2, maxmemory-policy noeviction" in said
    assert "all processes log in as default, because it can make no Redis users that stay (NOPERM)" in said
    assert "it shares its memory with the broker" in said and "tight" not in said
    assert lines(own=["broker", "cache"]).count("each kind of process has a Redis user of its own") == 2
    assert "tight: while a deploy changes over, up to 160" in lines(needed=80)
    assert "server-side cursors are off" in lines(pooled=True, database={"pooler": True})
    assert "ann is a superuser" in lines(database={"superuser": True})
    assert "make sure at the provider that it is noeviction" in lines(broker={"policy": ""})
    assert "appendonly is no" in lines(broker={"appendonly": False})
    assert "set its maxmemory-policy to allkeys-lru" in lines(urls=URLS | {"cache": "rediss://cache.example.net"})
    assert "cannot be used: refused" in lines(broker={"stage": "login", "error": "refused"})


# --- what is asked


@pytest.fixture
def authority(tmp_path):
    return servers.certificate(tmp_path, "localhost")


class Provider:
    """A Redis that answers as a provider's does, or as `changed` says of a command."""

    info = "redis_version:7.2.4\r\nrole:master\r\ncluster_enabled:0\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n"

    def __init__(self, **changed):
        """Begin with nothing asked."""
        self.changed, self.asked = changed, []

    def __call__(self, words):
        """Answer a command."""
        self.asked.append(words)
        name = words[0] if words[0] not in ("CONFIG", "ACL") else "_".join(words[:2])
        if name in self.changed:
            return self.changed[name]
        if name == "AUTH":
            return "OK" if words[1:] == ["default", PASSWORD] else Exception("WRONGPASS")
        if name in ("CONFIG_GET", "ACL_DRYRUN"):
            return Exception(f"NOPERM no {name}")
        return {"INFO": self.info, "SELECT": "OK", "TIME": ["1", "2"], "EVAL": 1}.get(name, 0)


def asked(tmp_path, authority, provider, password=PASSWORD, **changed):
    """What managed_state says of a provider's Redis."""
    with servers.redis(tmp_path, provider) as port:
        server = {"host": "localhost", "port": port, "user": "default", "index": 2} | changed
        return managed_state.redis(server, password, authority)


def test_a_redis_that_hides_its_configuration_is_asked_what_it_tells(tmp_path, authority):
    provider = Provider()
    assert asked(tmp_path, authority, provider) == {
        "stage": "",
        "error": "",
        "version": "7.2.4",
        "replica": False,
        "cluster": False,
        "policy": "noeviction",
        "maxmemory": 100,
        "appendonly": True,
        "index": "",
        "denied": [],
        "users": "NOPERM no ACL_DRYRUN",
    }
    assert provider.asked[:3] == [["AUTH", "default", PASSWORD], ["SELECT", "2"], ["INFO"]]
    writing = [
        words for words in provider.asked if words[0] not in ("AUTH", "SELECT", "INFO", "CONFIG", "ACL", "TIME", "EVAL")
    ]
    assert all(words[1] == managed_state.NOTHING for words in writing), "a key that nobody has"


@pytest.mark.parametrize(
    "changed, users",
    [
        ({"CONFIG_GET": ["aclfile", "/etc/redis/users.acl"]}, ""),
        ({"CONFIG_GET": ["aclfile", ""]}, "the server has no aclfile, and would lose them when it restarts"),
        ({"CONFIG_GET": []}, "the server has no aclfile, and would lose them when it restarts"),
        ({"ACL_DRYRUN": "User default has no permissions"}, "User default has no permissions"),
        ({"CONFIG_GET": ["aclfile", "x"], "INFO": Provider.info + "connected_slaves:1\r\n"}, "the server has replicas, to which they are not copied"),
    ],
)  # fmt: skip
def test_redis_users_are_made_where_they_stay(tmp_path, authority, changed, users):
    assert asked(tmp_path, authority, Provider(**{"ACL_DRYRUN": "OK"} | changed))["users"] == users


def test_settings_are_asked_for_where_they_are_not_told(tmp_path, authority):
    provider = Provider(INFO="redis_version:7.0.1\r\n", CONFIG_GET=["x", "no"])
    found = asked(tmp_path, authority, provider)
    assert (found["policy"], found["appendonly"], found["maxmemory"]) == ("no", False, None)
    found = asked(tmp_path, authority, Provider(INFO="redis_version:7.0.1\r\n"))
    assert (found["policy"], found["appendonly"], found["maxmemory"]) == ("", None, None)


def test_what_a_redis_refuses_is_told(tmp_path, authority):
    found = asked(
        tmp_path, authority, Provider(SELECT=Exception("ERR DB index is out of range"), EVAL=Exception("NOPERM"))
    )
    assert (found["index"], found["denied"]) == ("ERR DB index is out of range", ["EVAL"])
    assert asked(tmp_path, authority, Provider(), password="wrong")["stage"] == "login"  # pragma: allowlist secret
    assert asked(tmp_path, authority, Provider(INFO=Exception("NOPERM")))["stage"] == "ask"


def test_a_server_is_trusted_by_its_certificate_and_its_name(tmp_path, authority, monkeypatch):
    assert asked(tmp_path, authority, Provider(), host="127.0.0.1")["stage"] == "tls", (
        "the certificate is for localhost"
    )
    (tmp_path / "other").mkdir()
    other = servers.certificate(tmp_path / "other", "localhost")
    assert asked(tmp_path, other, Provider())["stage"] == "tls"
    assert asked(tmp_path, "", Provider())["stage"] == "tls"
    provider = Provider()
    assert asked(tmp_path, other, provider) and provider.asked == [], "the password is not sent"
    assert managed_state.redis({"host": "nobody.invalid", "port": 1, "user": "x"}, "x", authority)["stage"] == "resolve"
    assert managed_state.redis({"host": "localhost", "port": 1, "user": "x"}, "x", authority)["stage"] == "connect"


PIDS = itertools.repeat(11)
ROW = ["150006", "f", "UTF8", "public", "t", "f", None, "97", "-1", "-1", "11"]


def database(tmp_path, authority, rows, pids=PIDS, password=PASSWORD, tls=True):
    """What managed_state says of a provider's PostgreSQL."""
    with servers.postgresql(tmp_path, PASSWORD, rows, iter(pids), tls) as port:
        server = {"host": "localhost", "port": port, "user": "ann", "name": "blog"}
        return managed_state.database(server, password, authority)


def test_a_postgresql_is_asked_by_scram_and_tls(tmp_path, authority):
    assert database(tmp_path, authority, lambda *_: ROW) == {
        "stage": "",
        "error": "",
        "version": 150006,
        "standby": False,
        "encoding": "UTF8",
        "schema": "public",
        "create": True,
        "superuser": False,
        "foreign": None,
        "connections": 97,
        "pooler": False,
        "transactions": False,
    }
    limited = [*ROW[:8], "30", "25", "11"]
    assert database(tmp_path, authority, lambda *_: limited)["connections"] == 25


def test_a_postgresql_that_cannot_be_used_says_at_which_stage(tmp_path, authority):
    assert database(tmp_path, authority, lambda *_: ROW, password="wrong") == {  # pragma: allowlist secret
        "stage": "login",
        "error": "password authentication failed",
    }
    assert database(tmp_path, authority, lambda *_: ROW, tls=False)["error"] == "the server offers no TLS"
    found = database(tmp_path, authority, lambda *_: PermissionError("permission denied for table pg_roles"))
    assert found == {"stage": "ask", "error": "permission denied for table pg_roles"}


def pooler(each_transaction):
    """A pooler's answers: it gives the process of a connection that is free, or always that of the session."""

    def rows(session, query):
        if query == managed_state.QUERY:
            return [*ROW[:-1], "501"]
        return ["501" if each_transaction or session == 0 else "502"] if "pg_backend_pid" in query else []

    return rows


@pytest.mark.parametrize("each_transaction", [True, False])
def test_a_pooler_is_told_from_a_server_and_its_mode(tmp_path, authority, each_transaction):
    found = database(tmp_path, authority, pooler(each_transaction), pids=itertools.count(9000))
    assert (found["pooler"], found["transactions"]) == (True, each_transaction)


# --- commands


def test_commands_are_answered_as_redis_cli_prints_them(tmp_path, authority):
    from ansible.module_utils.coldframe_servers import Redis, conversation

    answers = {"GET": None, "MGET": ["a", None, "b"], "TIME": ["1", "2"], "EVAL": '{"q": 1}', "AUTH": "OK"}
    heard = []

    def answer(words):
        heard.append(words)
        return answers.get(words[0], Exception("ERR unknown command"))

    with servers.redis(tmp_path, answer) as port:
        redis = Redis.at("localhost", port, authority)
        said = conversation(redis, 'AUTH admin "a\\"\\\\ \'b"\nGET x\nMGET a b c\nTIME\nEVAL "return \'x\'" 0\nNOPE\n')
    assert said == 'OK\n\na\n\nb\n1\n2\n{"q": 1}\nERR unknown command'
    assert heard[0] == ["AUTH", "admin", "a\"\\ 'b"] and heard[4] == ["EVAL", "return 'x'", "0"]


@pytest.mark.parametrize("check", [False, True])
def test_a_change_is_told_by_what_is_compared(tmp_path, authority, check):
    import redis_commands
    from ansible.module_utils.coldframe_servers import Redis

    state = ["user a"]

    def answer(words):
        if words[0] == "ADD" and " ".join(words[1:]) not in state:
            state.append(" ".join(words[1:]))
        return list(state) if words == ["ACL", "LIST"] else "OK"

    with servers.redis(tmp_path, answer) as port:
        redis = Redis.at("localhost", port, authority)
        changed, said = redis_commands.run(redis, "AUTH x y\nADD b\n", "ACL LIST", check)
        assert (changed, said) == ((False, "OK") if check else (True, "OK\nOK"))
        assert redis_commands.run(redis, "AUTH x y\nADD user a\n", "ACL LIST", check)[0] is False
        assert redis_commands.run(redis, "AUTH x y\nADD b\n", "", check) == (False, "OK\nOK")


def test_a_redis_of_the_host_is_reached_through_its_socket(tmp_path):
    from ansible.module_utils.coldframe_servers import Redis, Refused, conversation

    path = tmp_path / "redis.sock"
    with pytest.raises(Refused):
        Redis.of({"socket": str(path)})
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    redis = Redis.of({"socket": str(path)})
    with listener, listener.accept()[0] as served:
        served.sendall(b"+OK\r\n*2\r\n$1\r\na\r\n$-1\r\n")
        assert conversation(redis, "SELECT 0\nMGET x y\n") == "OK\na\n"


PROVIDER = {
    "app_broker_url": "rediss://broker.example.net/0",
    "app_cache_url": "rediss://broker.example.net/0",
    "app_redis_ca_file": "/nowhere/ca.pem",
}


@pytest.mark.parametrize(
    "check, said",
    [
        ("__app_host_checks[\"provider's servers\"]", "clearing the cache would delete queued tasks"),
        ("__app_inventory_checks['CA files']", "app_redis_ca_file is '/nowhere/ca.pem', which is no file"),
        ("__app_inventory_checks['groups of hosts']", "has one, and app_broker_url names a provider's server"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_providers_servers_is_a_check_of_its_name(check, said):
    """The doctor prints it. No host is asked here."""
    assert any(said in problem for problem in of_application("shop", f"{{{{ {check} }}}}", **PROVIDER))
    assert of_application("shop", f"{{{{ {check} }}}}") == []


def test_checks_of_the_pools_are_those_of_the_hosts():
    """PostgreSQL's host is refused for its connections, and the lock file is asked for gevent."""
    calls = {"default": {}, "calls": {"pool": "gevent", "concurrency": 200}}
    check = "{{ __app_host_checks['connections to the database'] }}"
    (problem,) = of_application("shop", check, celery_queues=calls, group_names=["postgresql"])
    assert problem.startswith("celery_queues.calls.concurrency is 200 with pool gevent, so that up to 2")
    assert of_application("shop", check, celery_queues=calls, group_names=["workers"]) == []
    assert of_application("shop", "{{ __app_pools }}", celery_queues=calls) == ["pool: gevent in celery_queues"]
    assert of_application("shop", "{{ __app_pools }}") == []
