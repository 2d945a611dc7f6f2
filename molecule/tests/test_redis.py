"""Redis keeps what it accepted, forgets what it may, and knows its users."""

import pytest

pytestmark = pytest.mark.group("redis")
BROKER = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "databases": "2",
}
CACHE = {"appendonly": "no", "save": "", "maxmemory-policy": "allkeys-lru", "databases": "1"}


def config(redis, instance, name):
    """One value of a running instance's configuration."""
    return ([*redis(f"CONFIG GET {name}", instance=instance).splitlines(), "", ""])[1]


@pytest.mark.parametrize("instance, wanted", [("broker", BROKER), ("cache", CACHE)])
def test_running_configuration(redis, instance, wanted):
    lines = redis(f"CONFIG GET {' '.join(wanted)}", instance=instance).split("\n")
    seen = dict(zip(lines[::2], [*lines[1::2], ""], strict=False))
    assert seen == wanted


@pytest.mark.parametrize("instance", ["broker", "cache"])
def test_memory_is_bounded_by_the_hosts(host, redis, instance):
    total = int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert 16 * 2**20 <= int(config(redis, instance, "maxmemory")) <= total / 2


def test_no_redis_listens_on_a_port(host, deployment):
    if len(deployment.hosts) > 1:
        pytest.skip("Redis listens on its host's private address")
    listening = host.check_output("ss -Hltnp")
    assert "redis" not in listening and ":6379" not in listening


@pytest.mark.parametrize("instance", ["broker", "cache"])
def test_stranger_is_refused(host, instance):
    socket = f"/run/redis-{instance}/redis-server.sock"
    assert "NOAUTH" in host.run(f"redis-cli -s {socket} PING").stdout
    assert "WRONGPASS" in host.run(f"redis-cli -s {socket} AUTH default x").stdout
    assert "Permission denied" in host.run(f"runuser -u nobody -- redis-cli -s {socket} PING 2>&1").stdout


def test_database_indexes_are_kept_apart(redis, manage):
    """Queues are in index 0, locks in index 1."""
    redis("SELECT 1\nDEL lock:test")
    code = (
        "import os, redis; from coldframe.credentials import Redis; "
        "r = redis.Redis.from_url(os.environ['LOCKS_URL'], credential_provider=Redis()); "
        "print(r.set('lock:test', 1, nx=True, ex=60), r.set('lock:test', 1, nx=True, ex=60))"
    )
    assert manage(code) == "True None"
    assert redis("EXISTS lock:test") == "0"
    assert redis("SELECT 1\nEXISTS lock:test").splitlines()[-1] == "1"
    assert int(redis("EXISTS _kombu.binding.default")) == 1  # index 0 has the queues' bindings


def test_cache_answers_the_application(manage):
    assert manage("from django.core.cache import cache; cache.set('a', 1, 30); print(cache.get('a'))") == "1"
