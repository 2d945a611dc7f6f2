"""Two applications of one host: what they share is the same text from both, and what is not shared has names of its own."""

import re
from pathlib import Path

import pytest
import yaml
from applications import SITES, beside, evaluate, record, rendered
from preflight import beside_problems
from real_nginx import Edge, Server, nginx

ROOT = Path(__file__).parents[1]
USER = re.compile(r"^User=\{\{ (?:app_name \}\}-|app_users\.)(\w+)", re.MULTILINE)

SHARED = [
    "roles/nginx/templates/nginx.conf.j2",
    "roles/firewall/templates/coldframe.nft.j2",
    "roles/postgresql/templates/pg_hba.conf.j2",
    "roles/postgresql/templates/pg_ident.conf.j2",
    "roles/postgresql/templates/coldframe.conf.j2",
    "systemd/nginx.service.d.j2",
    "systemd/postgresql@.service.d.j2",
    "systemd/firewall.service.j2",
]


@pytest.mark.parametrize("name", SHARED)
def test_file_of_the_whole_host_is_the_same_text_from_both(name):
    first, second = rendered("shop", name, **beside("blog")), rendered("blog", name, **beside("shop"))
    assert first == second
    assert not [app for app in SITES if app in first]


def test_firewall_has_the_ports_of_both_and_alone_those_of_one():
    name = "roles/firewall/templates/coldframe.nft.j2"
    assert "dport { 22, 80, 443, 2525, 8025 }" in rendered("blog", name, **beside("shop"))
    assert "dport { 22, 80, 443, 8025 }" in rendered("shop", name)


def test_nginx_waits_for_the_slower_application():
    for app, other in (("shop", "blog"), ("blog", "shop")):
        assert "TimeoutStopSec=130" in rendered(app, "systemd/nginx.service.d.j2", **beside(other))


def test_first_application_has_the_present_names_and_the_other_one_its_own():
    names = "{{ [redis_names, app_redis_group, app_broker_socket, app_cache_socket, app_socket_groups, __redis_drop_ins, nginx_acme_unit] }}"
    template = "/etc/systemd/system/redis-server@{}.service.d"
    assert evaluate("shop", names) == [
        {"broker": "broker", "cache": "cache"},
        "redis-clients",
        "/run/redis-broker/redis-server.sock",
        "/run/redis-cache/redis-server.sock",
        ["redis-clients"],
        [template.format("")],
        "coldframe-acme",
    ]
    assert evaluate("blog", names) == [
        {"broker": "blog-broker", "cache": "blog-cache"},
        "blog-redis",
        "/run/redis-blog-broker/redis-server.sock",
        "/run/redis-blog-cache/redis-server.sock",
        ["blog-redis"],
        [template.format("blog-broker"), template.format("blog-cache")],
        "coldframe-acme-blog",
    ]


def test_redis_of_the_other_application_has_folders_and_a_group_of_its_own():
    text = rendered("blog", "roles/redis/templates/redis.conf.j2", item="broker")
    assert "dir /var/lib/redis/blog-broker\n" in text and "aclfile /etc/redis/blog-broker.acl\n" in text
    assert "unixsocket /run/redis-blog-broker/redis-server.sock\n" in text
    assert "\nGroup=blog-redis\n" in rendered("blog", "systemd/redis-server@.service.d.j2")
    assert "redis-server@blog-broker.service" in rendered(
        "blog",
        "systemd/worker@.service.j2",
        queue="default",
        options=evaluate("blog", "{{ app_queue_table }}")["default"],
    )


def test_what_is_removed_with_one_is_nothing_of_the_other():
    """And both sum up to what each of them has."""
    removed = "{{ __app_files + __app_users + __redis_files + __nginx_own_certificates + [__nginx_error_pages, __nginx_status_files, app_redis_group] }}"
    both = [set(evaluate(app, removed)) for app in SITES]
    assert not both[0] & both[1]
    assert {"/var/lib/redis/broker", "/etc/redis/cache.acl", "/etc/credstore/shop", "shop-worker"} <= both[0]
    assert "/etc/nginx/coldframe/blog.status" in both[1]
    assert {"/var/lib/redis/blog-broker", "/etc/redis/redis-blog-cache.conf", "www.blog.example+*"} <= both[1]


def test_two_inventories_go_together_in_either_order():
    for app, other in (("shop", "blog"), ("blog", "shop")):
        state = beside(other)["app_state"]
        assert beside_problems(state, app, record(app), []) == []
        assert evaluate(app, "{{ __redis_problems + __base_memory }}", **beside(other)) == []


def test_memory_that_was_added_later_is_no_other_setting():
    """PostgreSQL's share is a tenth of it by default, for both."""
    more = {"memtotal_mb": 16000, "swaptotal_mb": 0, "processor_vcpus": 2, "distribution_major_version": "13"}
    assert record("shop")["shared"] == record("shop", ansible_facts=more)["shared"]
    given = record("shop", hostvars={"one": {"postgresql_shared_buffers_mb": 500}})
    (problem,) = beside_problems(beside("blog")["app_state"], "shop", given, [])
    assert problem.startswith("postgresql_shared_buffers_mb is 500, and a tenth of the memory for blog")


def test_redis_of_all_applications_must_fit():
    large = {"redis_broker_maxmemory_mb": 2000, "redis_cache_maxmemory_mb": 500}
    assert evaluate("blog", "{{ __redis_problems }}", **large) == []
    (problem,) = evaluate("blog", "{{ __redis_problems }}", **large, **beside("shop"))
    others = record("shop")["redis_mb"]
    assert others == 2 * 2000 + 800
    assert f"= 4500 MiB and {others} of shop, and the host has 8000 MiB" in problem
    assert f"Set redis_broker_maxmemory_mb to {(8000 - others - 500) // 2} or less" in problem


def test_applications_that_do_not_go_together_are_a_check_of_its_name():
    """The doctor prints it."""
    check = "{{ __app_host_checks['other applications'] }}"
    assert evaluate("blog", check) == evaluate("blog", check, **beside("shop")) == []
    (problem,) = evaluate("blog", check, app_additional=False, **beside("shop"))[:1]
    assert "app_additional is false" in problem


def test_every_user_and_every_kind_of_unit_is_removed():
    users = {user for path in (ROOT / "systemd").iterdir() for user in USER.findall(path.read_text())}
    assert len(users) > 4 and users == {name.removeprefix("blog-") for name in evaluate("blog", "{{ __app_users }}")}
    removal = yaml.safe_load((ROOT / "roles/app/tasks/down.yml").read_text())[0]["ansible.builtin.command"]["argv"][2]
    (stopped,) = [line for line in removal.splitlines() if "web@*" in line and "stop" in line]
    removed = " ".join(line for line in removal.splitlines() if "rm -rf" in line)
    for kind in ("web@", "worker-", "beat@", "service-", "timer-"):
        assert f'"$0-{kind}' in stopped and f'"$0-{kind}' in removed, kind


def test_memory_of_all_applications_must_fit():
    small = {"memtotal_mb": 760, "swaptotal_mb": 0, "processor_vcpus": 2, "distribution_major_version": "13"}
    lines = evaluate("blog", "{{ __base_memory }}", ansible_facts=small, **beside("shop"))
    assert lines[0].startswith("Too little") and "the application shop" in lines[0]
    assert not evaluate("blog", "{{ __base_memory | select('match', 'Too little') }}", ansible_facts=small)


class Both(Edge):
    """nginx with the files of both applications, as they are included on a host."""

    def __init__(self, certificate, **variables):
        """Render the first application's configuration, and put the second one's site into it."""
        super().__init__(certificate)
        known = {
            "app_root": str(self.folder / "blog"),
            "app_web_socket": str(self.folder / "blog.sock"),
            "nginx_tls_certificate": str(certificate[0]),
            "nginx_tls_key": str(certificate[1]),
            "nginx_ipv6": {"stat": {"exists": False}},
        }
        own = {"app_root": str(self.app), "app_web_socket": str(self.socket)}
        main, site, health = (
            evaluate("shop", f"{{{{ __nginx_texts['{name}'] }}}}", **known | own | variables)
            for name in ("nginx.conf", "site", "health")
        )
        other = evaluate("blog", "{{ __nginx_texts.site }}", **known)
        self.text = main.replace("include /etc/nginx/coldframe/*.health;", health).replace(
            "include /etc/nginx/coldframe/*.conf;", other + site
        )


@pytest.mark.parametrize("variables", [{}, {"nginx_trusted_proxies": ["127.0.0.2"], "nginx_health_path": "/up"}])
def test_nginx_serves_each_at_its_names_and_nobody_at_others(certificate, variables):
    nginx()
    with Both(certificate(*SITES.values()), **variables) as edge:
        with Server(edge.socket), Server(edge.folder / "blog.sock"):
            seen = {name: edge.request(host=name) for name in (*SITES.values(), "a.blog.example")}
            assert {name: answer.status for name, answer in seen.items()} == dict.fromkeys(seen, 200)
            assert seen["www.shop.example"].get("Strict-Transport-Security") == "max-age=60"
            assert seen["a.blog.example"].get("Strict-Transport-Security") == "max-age=31536000"
            limits = [edge.request("/x", host=name, method="POST", body="x" * 3 * 2**20) for name in SITES.values()]
            assert [answer.status for answer in limits] == [200, 413]
            with pytest.raises(Exception):  # noqa: B017  # the handshake is rejected
                edge.request(host="www.else.example")
            if variables:
                assert edge.request("/up", host="10.0.0.1", tls=False).status == 200
                assert edge.request("/up", host="10.0.0.1", name="").status == 200
        with Server(edge.folder / "blog.sock"):
            assert [edge.request(host=name).status for name in SITES.values()] == [502, 200], "each has its own socket"
