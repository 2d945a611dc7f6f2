"""Values for the variables of an inventory: fixed ones, wrong or at the limits, and Hypothesis' strategies for more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from inventory import specs

ROOT = Path(__file__).parents[1]
OPTIONS = specs(str(ROOT))  # every public variable of the roles, name to its option in the argument spec
# The same examples in every run, however slow the machine is. HYPOTHESIS_PROFILE=default generates others.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

GROUPS = ("redis", "postgresql", "web", "workers", "beat", "edge")
# Values that are tried for every variable.
TEXTS = [
    "",
    " ",
    "a b",
    "a\nb",
    "a\0b",
    'a"b',
    "a'b",
    "{{ 7 * 7 }}",
    "{{ nope }}",
    "{% raw %}",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "../..",
    "/",
    "/nowhere/at/all",
    "-x",
    "%i",
    "\u00e9\u4e2d\U0001f600",
    "\u202e",
    "x" * 300,
    "x" * 5000,
    "yes",
    "1",
    "0x10",
    "1e3",
]
NUMBERS = [0, -1, 1, 65535, 65536, 10**6, 2**31, 10**12, -(2**63), 1.5, float("inf")]
OTHERS = [None, True, False, [], {}, [None], [[]], {"a": 1}, {"": ""}, ["a", "a"], [{"a": "b"}], {"a": {"b": []}}]
# And for some: names that are unknown, in use or invalid, and half of what belongs together.
INSIDE: dict[str, list[Any]] = {
    "app_environment": [{"A B": "1"}, {"A": "x\ny"}, {"A": ["x"]}, {"1A": "x"}, {"PYTHONPATH": "/x"}, {"A=B": "x"}],
    "app_secrets": [
        {"a/b": "x" * 20},
        {"../x": "x" * 20},
        {"secret_key": "x" * 20},
        {"redis_web": "x"},
        {"LD_PRELOAD": "x" * 20},
        {"a": ""},
        {"a": 5},
    ],
    "app_build": ["npm ci", [["npm", "ci"]], ["npm 'run"], ["$(id)"], [""], ["npm\nci"], ["a && b"], ["cd a"]],
    "app_hooks": [
        {"before": ["manage.py x"]},
        {"after_migrate": "manage.py x"},
        {"before_migrate": ["manage.py 'x"]},
        {"after_activate": [{"manage.py": "x"}]},
        ["manage.py x"],
    ],
    "app_own_settings": [["cach"], ["cache", 1], ["cache,celery"]],
    "app_log_redact": [["(a"], ["a*"], [""], [1], ["a\nb"]],
    "app_otel_endpoint": [
        "collector:4318",
        "grpc://collector:4317",
        "http://a b",
        "http://u:p@collector",
        "http://a:b",
    ],
    "app_email": [
        {"port": 25},
        {"host": "a b"},
        {"host": "a", "user": "b"},
        {"host": "a", "port": 10**6},
        {"smtp": "a"},
    ],
    "alerts_email": [["ops"], ["a b@example.com"], ["a@b@c"], ["ops@example.com"], ["a@example.com,b@example.com"]],
    "alerts_webhook_url": [
        "http://example.com",
        "https://",
        "https://a b",
        "https://a:b@example.com/",
        "https://example.com:0",
    ],
    "alerts_ping_url": ["ping.example.com", "ftp://example.com", "http://127.0.0.1.example.com/"],
    "app_web": [
        {"workers": "2"},
        {"worker": 2},
        {"timeout": 0},
        {"threads": 10**9},
        {"max_requests": None},
        {"drain": -1},
        {"preload": 3},
        {"network": "open"},
        {"network": ["api.example.com"]},
        {"sandbox": ["off"]},
        {"writable": ["media"]},
    ],
    "app_beat": [
        {"network": []},
        {"network": ["203.0.113.7/24"]},
        {"sandbox": [None]},
        {"writable": ["a/b"]},
        {"workers": 1},
    ],
    "app_network": [
        "open",
        ["egress"],
        ["api.example.com"],
        ["203.0.113.7/24"],
        ["0.0.0.0/0"],
        ["::/0"],
        ["fe80::1%eth0"],
        ["10.1.2.3 any"],
        ["203.0.113.256"],
        ["2001:db8::/129"],
        ["::ffff:10.0.0.1"],
        ["10.0.0.0/08"],
        [10.1],
    ],
    "app_sandbox": [["executable"], ["user_namespaces", 1], ["user_namespaces,network_interfaces"]],
    "app_writable": [["media"], ["../x"], ["a/b"], [".ssh"], ["a b"], ["%i"], ["-x"]],
    "app_services": [
        {"bot": {}},
        {"Bot": {"command": "bot"}},
        {"bot": {"command": "a 'b"}},
        {"bot": {"command": ""}},
        {"bot": {"command": "+bot"}},
        {"bot": {"command": "bot >log"}},
        {"bot": {"command": "'!bot'"}},
        {"bot": {"command": "a", "hosts": "all"}},
        {"bot": {"command": "a", "memory_max": "much"}},
        {"bot": {"command": "a", "sandbox": ["User=root"]}},
        {"bot": {"command": "a", "network": ["api.example.com"]}},
        {"bot": {"command": "a", "writable": ["media"]}},
        {"bot": {"command": "a", "calendar": "daily"}},
    ],
    "app_timers": [
        {"report": {"command": "a"}},
        {"report": {"calendar": "daily"}},
        {"report": {"command": "a", "calendar": "daily\nUser=root"}},
        {"report": {"command": "a", "calendar": "%i"}},
        {"report": {"command": "a", "calendar": "daily", "timeout": 0}},
        {"report": {"command": "a", "calendar": "daily", "network": ["10.1"]}},
    ],
    "app_redis_passwords_before": [{"nobody": "x" * 20}, {"web": 5}, {"web": "a b"}],
    "app_redis_passwords": [{}, {"admin": "short"}, {"admin": 5}],
    "celery_queues": [
        {"default": {"concurency": 2}},
        {"default": {"concurrency": 0}},
        {"default": {"concurrency": 2**31}},
        {"default": {"pool": "eventlet"}},
        {"default": {"pool": "threads", "time_limit": 60}},
        {"default": {"pool": "gevent", "max_tasks_per_child": 60}},
        {"default": {"concurrency": "auto*1000"}},
        {"default": {"soft_time_limit": 300, "time_limit": 300}},
        {"default": {"cpu_weight": "low"}},
        {"default": {"profile": "express"}},
        {"default": {"heartbeat": "no"}},
        {"default": {"network": ["api.example.com"]}},
        {"default": {"network": ""}},
        {"default": {"sandbox": ["off"]}},
        {"default": {"writable": ["a/b"]}},
        {"default": {"timeout_stop_sec": 10}},
        {"default": {"prefetch_multiplier": 10000, "time_limit": 2592000}},
        {"default": None},
        {"Default": {}},
        {"unacked": {}, "default": {}},
        {"de fault": {}},
        {1: {}},
    ],
    "celery_task_routes": [{"a.b": "absent"}, {"a.b": ["default"]}, {"a.b": None}],
    "celery_host_queues": [["absent"], ["bulk"]],
    "app_url": [
        "http://example.com",
        "https://example.com/",
        "https://example.com:99999",
        "https://192.0.2.1",
        "https://a_b.example",
    ],
    "app_name": ["root", "postgres", "default", "Shop", "my-app"],
    "app_root": ["/etc", "/home/app", "relative", "/srv/../etc", "/srv/a b", "/root/app"],
    "app_broker_port": [80, 5432, 8000],
    "firewall_open_ports": [["8080"], [0], [6379], [70000]],
    "app_aliases": [["https://a.example"], ["A.example"], ["a.example b.example"], ["192.0.2.1"], ["*"]],
    "nginx_redirect_names": [["a.example/"], ["a;b"], ["*.*.example"]],
    "nginx_server_name": ["a.example b.example", "a;b", "*.example.com"],
    "nginx_private_media": ["/protected", "/static/x/", "/a/../b/"],
    "nginx_locations": [
        [{}],
        [{"path": "a"}],
        [{"path": "/flower/x"}],
        [{"path": "/a/;"}],
        [{"path": "/a/", "shared": ".."}],
        [{"path": "/a/", "static": "/etc"}],
        [{"path": "/a/", "proxy": "http://name:80"}],
        [{"path": "/a/", "redirect": "b"}],
        [{"path": "/a/", "status": 200}],
        [{"path": "/a/", "allow": ["office"]}],
        [{"path": "/a/", "headers": {"X A": "b"}}],
        [{"path": "/a/", "headers": {"X-A": '"'}}],
        [{"path": "/a/", "headers": {"X-A": None}}],
        [{"path": "/a/", "limit": "10"}],
        [{"path": "/a/", "timeout": 0}],
        [{"path": "/a/", "return": 404}],
    ],
    "nginx_websocket_paths": [["ws"], ["/ws/ x"], ["/../"]],
    "nginx_snippet": ["nginx.conf"],
    "nginx_error_pages": ["../errors", "a//b"],
    "nginx_trusted_proxies": [["balancer"], ["10.0.0.0/8 x"]],
    "nginx_health_path": ["healthz", "/a/../b"],
    "nginx_status_path": ["", "/", "/status", "/static/a/", "/flower/", "/prometheus/", "/a b/", "/../"],
    "nginx_tls_certificate": ["/nowhere/x.crt"],
    "nginx_tls_key": ["/nowhere/x.key"],
    "redis_packages": [[], ["a b"], ["$(id)"]],
    "app_database_url": [
        "postgres://ann:secret@db.example.net/blog",  # pragma: allowlist secret
        "postgres://db.example.net/blog",
        "postgres://ann@db.example.net",
        "postgres://ann@db.example.net/blog?sslmode=disable",
        "postgres://ann@db.example.net:99999/blog",
        "mysql://ann@db.example.net/blog",
        "ann@db.example.net/blog",
    ],
    "app_database_pooled": ["transaction", True],
    "app_database_ca_file": ["ca.pem", "/nowhere/at/all"],
    "app_broker_url": [
        "redis://redis.example.net",
        "rediss://ann:secret@redis.example.net",  # pragma: allowlist secret
        "rediss://redis.example.net/a",
        "rediss://redis.example.net:0",
        "rediss://redis.example.net/0?ssl_cert_reqs=none",
    ],
    "app_cache_url": ["rediss://cache.example.net/0", "redis-cli"],
    "app_redis_ca_file": ["ca.pem"],
}


# Valid by themselves, and wrong on the host, beside other variables or beside the application.
LATER: list[dict[str, Any]] = [
    {"app_source": "/nowhere/at/all"},
    {"app_source": "x" * 300},
    {"app_repository": "/nowhere.git", "app_version": "v1"},
    {"app_version": "v1"},
    {"app_lock_file": "absent.txt"},
    {"app_redis_passwords": {"admin": "short"}},
    {"app_secret_key": "with a space in it 8f3k2" * 3},  # pragma: allowlist secret
    {"app_secret_key": "8f3k2m9qx7w1" * 4},  # pragma: allowlist secret
    {"app_flower_password": "password12345678"},  # pragma: allowlist secret
    {"app_socket_groups": []},
    {"app_socket_groups": ["redis-clients", "nowhere"]},
    {"celery_default_queue": "absent"},
    {"celery_host_queues": ["bulk"]},
    {"celery_task_routes": {"a.b": "absent"}},
    {"celery_queues": {"default": {"concurency": 2}, "unacked": {}, "bulk": {"cpu_weight": "low"}}},
    {"celery_queues": {"default": None, 1: {}}},
    {"app_aliases": ["a.example", "a.example"]},
    {"app_aliases": ["a.example"], "nginx_redirect_names": ["a.example"]},
    {"nginx_private_media": "/media/"},
    {"nginx_locations": [{"path": "/a/"}]},
    {"nginx_locations": [{"path": "/a/", "redirect": "/a/b"}]},
    {"nginx_snippet": "/nowhere/at/all"},
    {"nginx_error_pages": "/nowhere/at/all"},
    {"nginx_proxy_protocol": True},
    {"nginx_tls_at_proxy": True},
    {"nginx_tls_certificate": "/nowhere/x.crt"},
    {"nginx_tls_certificate": "/nowhere/x.crt", "nginx_tls_key": "/nowhere/x.key"},
    {"nginx_tls_certificate": "/etc/hostname", "nginx_tls_key": "/etc/hostname"},
    {"redis_broker_maxmemory_mb": 2**23},
    {"app_database_url": "postgres://ann@db.invalid/blog", "app_database_ca_file": "/nowhere/at/all"},
    {
        "app_broker_url": "rediss://redis.invalid/0",
        "app_broker_password": "8f3k2m9qx7w1zz5v",  # pragma: allowlist secret
    },  # pragma: allowlist secret
    {"postgresql_shared_buffers_mb": 2**23},
]
# The limits of what is valid.
LEAST = {
    "app_web": {
        "workers": 1,
        "max_requests": 0,
        "preload": False,
        "drain": 0,
        "network": "",
        "sandbox": [],
        "writable": [],
    },
    "app_beat": {},
    "alerts_webhook_url": "http://[::1]",
    "alerts_ping_url": "http://127.0.0.1:1",
    "alerts_repeat_hours": 1,
    "alerts_disk_free_percent": 1,
    "alerts_memory_available_percent": 1,
    "alerts_certificate_days": 1,
    "app_network": "sealed",
    "app_sandbox": [],
    "app_writable": ["_"],
    "app_start_timeout": 5,
    "app_services": {"a": {"command": "true", "open_files": 0, "cpu_weight": 1, "stop_timeout": 1}},
    "app_timers": {"a": {"command": "true", "calendar": "*-*-* 03:00", "timeout": 1}},
    "app_environment": {"QUOTED": """a "b" 'c' $HOME %i #; \\n \u00e9""", "NUMBER": 5, "EMPTY": ""},
    "app_secrets": {"api.key-1": "several\nlines\nof it", "UPPER_CASE": "several\nlines"},
    "app_own_settings": ["database", "cache", "celery", "results"],
    "app_hooks": {"after_migrate": []},
    "app_web_socket": "/run/a+b@c.sock",
    "app_broker_socket": "/run/redis-broker/other.sock",
    "app_url": "https://a.b",
    "celery_queues": {"default": {"concurrency": 1, "pool": "solo", "cpu_weight": 1}},
    "celery_task_routes": {"any.*": "default"},
    "base_journal_max_use": "1M",
    "firewall_open_ports": [1, 1, 65535],
    "flower_user": "-",
    "flower_max_tasks": 1,
    "monitoring_retention_days": 1,
    "monitoring_retention_mb": 128,
    "nginx_private_media": "",
    "nginx_locations": [
        {"path": "/", "timeout": 1, "headers": {}, "body_size": "0", "limit": "1r/m"},
        {"path": "/a", "redirect": "/", "status": 303},
        {"path": "/.well-known/x", "shared": ".x", "internal": True, "allow": []},
    ],
    "nginx_websocket_paths": ["/"],
    "nginx_health_path": "/",
    "nginx_client_max_body_size": "0",
    "nginx_requests_per_second": 1,
    "nginx_connections_per_client": 1,
    "nginx_hsts_seconds": 0,
    "nginx_flower_open": ["control", "metrics", "healthcheck"],
    "postgresql_max_connections": 20,
    "postgresql_shared_buffers_mb": 16,
    "redis_broker_maxmemory_mb": 64,
    "redis_cache_maxmemory_mb": 16,
    "redis_appendfsync": "always",
    "release_keep": 0,
    "release_migration_lock_timeout": 0,
}
MOST = {
    "app_web": {"workers": 512, "threads": 1024, "timeout": 86400, "drain": 86400, "max_requests": 2**31 - 1},
    "app_start_timeout": 3600,
    "app_services": {
        "q" * 32: {
            "command": "manage.py run 'a b' \"c\" 50% $HOME",
            "hosts": "workers",
            "notify": False,
            "memory_max": "4G",
            "network": ["203.0.113.0/24"],
            "sandbox": OPTIONS["app_sandbox"]["choices"],
            "writable": ["models"],
        }
    },
    "app_hooks": {"before_migrate": ["manage.py x 'a b' \"c\" 50% $HOME"], "after_activate": ["true", "bin/purge"]},
    "app_timers": {"b": {"command": "true", "calendar": "Mon..Fri 08:30 Europe/Berlin", "random_delay": 86400}},
    "app_email": {"host": "mx.example.org", "port": 65535, "encryption": "tls", "sender": "Shop <a@b.example>"},
    "alerts_email": ["a.b+c%d=e_f-g@x-y.example", "b@localhost"],
    "alerts_webhook_url": "https://hooks.example.com:65535/a/b?c=d&e=%20!~",
    "alerts_ping_url": f"https://ping.example.com/{'x' * 1000}",
    "alerts_repeat_hours": 720,
    "alerts_disk_free_percent": 90,
    "alerts_memory_available_percent": 90,
    "alerts_certificate_days": 60,
    "app_log_redact": [r"[\w.+-]+@[\w-]+\.[\w.-]+", r"(?<=token=)[^&\s'\"]+"],
    "app_otel_endpoint": "https://[2001:db8::7]:65535/otlp",
    "app_beat": {"network": ["::1"], "sandbox": ["process_priorities"], "writable": ["beat"]},
    "app_network": ["203.0.113.0/24", "10.1.2.3", "2001:DB8::/32", "0.0.0.0/1"],
    "app_sandbox": OPTIONS["app_sandbox"]["choices"],
    "app_writable": ["data", "Data", "a" * 64, "a+b@c"],
    "app_root": "/var/lib/a+b/c@d",
    "app_web_port": 65535,
    "app_url": f"https://{'a' * 63}:65535",
    "celery_queues": {
        "default": {"concurrency": 1000, "time_limit": 2592000, "soft_time_limit": 2591999},
        "q" * 32: {
            "cpu_weight": 10000,
            "network": ["2001:db8::7/128"],
            "sandbox": ["user_namespaces"],
            "writable": ["x"],
        },
    },
    "celery_task_routes": {"any.*": "q" * 32},
    "base_journal_max_use": "900G",
    "firewall_open_ports": list(range(20000, 20200)),
    "flower_user": "x" * 64,
    "flower_max_tasks": 10**7,
    "monitoring_retention_days": 3650,
    "monitoring_retention_mb": 10**7,
    "app_aliases": [f"*.{'a' * 62}", f"{'a' * 31}.{'b' * 32}"],
    "nginx_locations": [
        {"path": "/a/", "timeout": 86400, "limit": "999999r/s", "headers": {"X-A": "!#%&'()*+,-./:;<=>?@[]^_`{|}~ "}},
        {"path": "/b/", "proxy": "http://[fd00::1]:65535/c/", "buffering": False},
        {"path": "/c/", "proxy": "http://unix:/run/a@b/c.sock:/d", "body_size": "99999999g"},
        {"path": "/d", "redirect": "http://a.example:8080/b/?c=d&e=%2F", "status": 308},
    ],
    "nginx_client_max_body_size": "99999999g",
    "nginx_requests_per_second": 10**6,
    "nginx_connections_per_client": 65535,
    "nginx_hsts_seconds": 2**31 - 1,
    "postgresql_max_connections": 10000,
    "release_keep": 1000,
    "release_migration_lock_timeout": 86400,
}

# The same of a provider's servers, which a host would have to reach.
PROVIDER = {
    "app_database_url": f"postgresql://a%40b@{'a' * 63}.example.net:65535/x-y_z",
    "app_database_ca_file": "/etc/ssl/certs/ca.pem",
    "app_database_pooled": True,
    "app_broker_url": "rediss://a@[fd00::1]:65535/9999",
    "app_broker_password": "~" * 99,
    "app_cache_url": "rediss://192.0.2.1:1/",
    "app_cache_password": "~" * 99,
    "app_redis_ca_file": "/etc/ssl/certs/ca.pem",
}


PASSWORD = st.text([chr(code) for code in range(33, 127)], min_size=16)  # every one that the checks accept
TEXT = st.text(max_size=30) | st.sampled_from(TEXTS)
NUMBER = st.integers() | st.floats() | st.sampled_from(NUMBERS)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


def fixed(name: str) -> list[Any]:
    """Return the fixed values for a variable."""
    return [*INSIDE.get(name, []), *TEXTS, *NUMBERS, *OTHERS]


def values(name: str) -> st.SearchStrategy[Any]:
    """Generate values for a variable: of its type, nearly valid ones, and of any type."""
    option = OPTIONS[name]
    valid = [option.get("default"), *(limits[name] for limits in (LEAST, MOST, PROVIDER) if name in limits)]
    near = [_spliced(text) for text in valid if isinstance(text, str)]
    return st.one_of(*near, _of_type(option), ANYTHING)


def _spliced(text: str) -> st.SearchStrategy[str]:
    """Generate a text with other characters somewhere in it."""
    at = st.integers(0, len(text))
    return st.builds(lambda start, more, end: text[:start] + more + text[end:], at, TEXT, at)


def _of_type(option: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Generate values of an option's type; the options inside a mapping have any value."""
    inner = {"type": option.get("elements", "str"), "options": option.get("options", {})}
    return {
        "str": lambda: TEXT,
        "path": lambda: TEXT,
        "int": lambda: st.integers(-2, 2**17),
        "bool": st.booleans,
        "list": lambda: st.lists(_of_type(inner), max_size=4),
        "raw": lambda: TEXT | st.lists(TEXT, max_size=4),
        "dict": lambda: (
            st.fixed_dictionaries(
                {}, optional={part: _of_type(each) | ANYTHING for part, each in inner["options"].items()}
            )
            | st.dictionaries(TEXT, ANYTHING, max_size=3)
        ),
    }[option["type"]]()


def misspelt(name: str) -> st.SearchStrategy[str]:
    """Generate the name with one letter left out behind the role's prefix."""
    at = st.integers(name.index("_") + 1, len(name) - 1)
    return at.map(lambda left_out: name[:left_out] + name[left_out + 1 :])
