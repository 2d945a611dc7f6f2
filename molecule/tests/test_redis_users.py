"""What the clients of cache and broker do is allowed to their users, and nothing that is an administrator's."""

import hashlib
import json
import re
import shlex

import pytest
from redis_acl import redis_login
from support.units import current

pytestmark = [pytest.mark.one_host, pytest.mark.group("redis")]

# Each must be answered, whatever it answers; `c` is a cache of either client, `r` django-redis's raw connection.
BOTH = """
c.set("a", {"x": 1}, 30); c.get("a"); c.add("b", 1); c.get_or_set("d", lambda: 2, 30); c.set_many({"e": 1, "f": 2})
c.get_many(["e", "f"]); c.delete_many(["e", "f"]); c.set("n", 1); c.incr("n", 2); c.decr("n"); c.touch("n", 5); c.touch("n", None)
c.has_key("n"); c.incr_version("n"); c.decr_version("n", version=2); c.delete("n"); c.clear()
""".replace("\n", ";").split(";")
DJANGO_REDIS = """
c.set("t", 1, 60); c.ttl("t"); c.pttl("t"); c.expire("t", 9); c.pexpire("t", 9000); c.expire_at("t", later); c.persist("t")
c.keys("*"); list(c.iter_keys("*")); c.delete_pattern("t*"); l = c.lock("l", timeout=5); l.acquire(); l.extend(5); l.reacquire()
l.release(); c.sadd("s", 1, 2); c.smembers("s"); c.scard("s"); c.sismember("s", 1); c.srem("s", 1); c.hset("h", "k", 1)
c.hkeys("h"); c.hexists("h", "k"); c.hlen("h"); c.hdel("h", "k"); c.set("x", 1, nx=True); c.clear()
r.set("_healthcheck", 1); r.get("_healthcheck"); r.hincrbyfloat("hf", "k", 1.5); r.lpush("li", 1); r.rpush("li", 2); r.brpop("li", 1)
r.lrange("li", 0, -1); r.zadd("z", {"a": 1}); r.zrangebyscore("z", 0, 9); r.zremrangebyrank("z", 0, 0); r.unlink("z"); r.getdel("hf2")
r.setex("ex", 5, 1); r.getex("ex", 5); r.eval("return redis.call('get', KEYS[1])", 1, "ex"); r.register_script("return 1")()
r.info(); r.dbsize(); r.ping(); r.type("ex"); r.rename("ex", "ey"); r.pfadd("pf", 1); r.xadd("st", {"a": 1}); r.geoadd("g", (1, 2, "p"))
r.publish("channel", 1); r.pubsub().subscribe("channel"); r.sort("li"); r.client_setname("me"); r.scan(); r.incrby("i", 2); r.decrby("i")
p = r.pipeline(); p.watch("i"); p.multi(); p.incr("i"); p.execute(); r.object("encoding", "i"); r.copy("i", "j"); r.flushdb()
""".replace("\n", ";").split(";")
CLIENT = """
import datetime, json, sys
from django.conf import settings

order = json.load(sys.stdin)
settings.configure(CACHES={"default": order["cache"]}, USE_TZ=True)
from django.core.cache import cache as c

names = {"c": c, "later": datetime.datetime.now() + datetime.timedelta(minutes=1)}
if "django_redis" in order["cache"]["BACKEND"]:
    from django_redis import get_redis_connection

    names["r"] = get_redis_connection()
for call in order["calls"]:
    try:
        exec(call, names)
    except Exception as error:
        print(f"{call}: {type(error).__name__}: {error}")
print("done")
"""
REFUSED = """FLUSHALL|CONFIG GET dir|CONFIG SET dir /tmp|CONFIG REWRITE|ACL LIST|ACL SETUSER default on|ACL WHOAMI|DEBUG SLEEP 0
MIGRATE h 1 k 0 1|REPLICAOF h 1|SLAVEOF h 1|SHUTDOWN NOSAVE|MODULE LOAD x|MODULE LIST|SAVE|BGSAVE|BGREWRITEAOF|MONITOR|FAILOVER
CLIENT KILL ID 1|CLIENT PAUSE 1|CLIENT LIST|SLOWLOG RESET|LATENCY RESET|SWAPDB 0 0|PSYNC ? -1|SYNC|RESTORE k 0 x|CLUSTER RESET
ROLE|FUNCTION FLUSH|FUNCTION LOAD x""".replace("\n", "|").split("|")


@pytest.fixture(scope="module")
def clients(host):
    """A Python on the host with both clients."""
    folder = host.check_output("mktemp -d /var/tmp/clients.XXXXXX")
    host.check_output(
        f"uv=$(ls -d /opt/uv-*/bin/uv | head -n 1); export UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never; "
        f"$uv venv --quiet --python /usr/bin/python3 {folder}/venv && "
        f"$uv pip install --quiet --only-binary :all: --python {folder}/venv django-redis"
    )
    yield f"{folder}/venv/bin/python"
    host.check_output(f"rm -r {folder}")


def options(client, app, password, socket="/run/redis-cache/redis-server.sock"):
    """CACHES["default"] for a client, as docs/application.md says."""
    login = {"username": "cache", "password": password}
    backend, options = {
        "django": ("django.core.cache.backends.redis.RedisCache", login),
        "django-redis": ("django_redis.cache.RedisCache", {"CONNECTION_POOL_KWARGS": login}),
    }[client]
    return {"BACKEND": backend, "LOCATION": f"unix://{socket}?db=0", "KEY_PREFIX": app, "OPTIONS": options}


@pytest.mark.changes
@pytest.mark.parametrize("client, calls", [("django", BOTH), ("django-redis", BOTH + DJANGO_REDIS)])
def test_cache_takes_all_that_its_clients_do(shell, deployment, clients, client, calls):
    if len(deployment.hosts) > 1:
        pytest.skip("Redis has its socket for one host alone")
    cache = options(client, deployment.app_name, deployment.app_redis_passwords["cache"])
    order = json.dumps({"cache": cache, "calls": [call.strip() for call in calls if call.strip()]})
    answer = shell(f"{clients} -c {shlex.quote(CLIENT)} 2>&1 <<'END'\n{order}\nEND\n")
    assert answer.splitlines() == ["done"], answer


@pytest.mark.parametrize("command", REFUSED)
def test_cache_refuses_what_is_an_administrators(redis, command):
    assert "no permissions" in redis(f"ACL DRYRUN cache {command}", instance="cache")


def test_nobody_but_the_application_writes_the_cache(redis):
    """Django unpickles what it reads from there."""
    users = re.findall(r"^user (\S+) on", redis("ACL LIST", instance="cache"), re.M)
    assert set(users) == {"admin", "cache", "exporter", "reader"}
    assert "no permissions" in redis("ACL DRYRUN exporter SET x 1", instance="cache")
    for command in ("SET k x", "DEL k", "FLUSHDB", "EVAL x 0"):
        assert "no permissions" in redis(f"ACL DRYRUN reader {command}", instance="cache")


# One Celery application for the three users, in index 1 of the broker: its queue is nobody else's there.
CELERY = """
import os, sys, time
from pathlib import Path
from celery import Celery, chord, group

app = Celery("scratch", broker="redis+socket:///run/redis-broker/redis-server.sock?virtual_host=1&credential_provider=coldframe.credentials.Redis")
app.conf.update(task_default_queue="default", result_backend=app.conf.broker_url, broker_transport_options={"priority_steps": [0]}, broker_connection_retry_on_startup=True, worker_enable_remote_control=False)

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="total")
def total(parts):
    return sum(parts)

if sys.argv[1] == "worker":
    app.worker_main(["worker", "--pool=solo", "--without-mingle", "--without-gossip", "--without-heartbeat", "--queues=default", "--loglevel=ERROR"])
elif sys.argv[1] == "beat":
    print(app.send_task("add", (1, 1)) and "sent")
else:
    result = add.delay(1, 2)
    print(result.get(timeout=60), chord([add.s(n, n) for n in range(3)])(total.s()).get(timeout=60))
    parts = group(add.s(n, 1) for n in range(3))()
    parts.save()
    print(parts.get(timeout=60), type(parts).restore(parts.id, app=app).completed_count())
    parts.forget(), result.forget(), parts.delete()
"""


@pytest.mark.changes
@pytest.mark.group("web")
def test_results_groups_and_chords_in_the_broker_work_from_web_and_beat_sends(host, shell, redis, deployment):
    if len(deployment.hosts) > 1:
        pytest.skip("Redis has its socket for one host alone")
    release = f"/srv/{deployment.app_name}/releases/{current(host, deployment.app_name)}"
    redis("ACL LOG RESET")
    shell("mkdir -m 700 -p /run/scratch")
    shell("cat >/run/scratch/scratch.py <<'END'\n" + CELERY + "\nEND\n")
    run = ""
    for user in ("web", "worker", "beat"):
        shell(
            f"mkdir -p /run/scratch/{user}; cat >/run/scratch/{user}/redis_password <<'END'\n{deployment.app_redis_passwords[user]}\nEND\n"
        )
        run += f"{user}() {{ CREDENTIALS_DIRECTORY=/run/scratch/{user} REDIS_USERNAME={user} PYTHONPATH={release}/.release/runtime C_FORCE_ROOT=1 exec {release}/.venv/bin/python /run/scratch/scratch.py $1; }}\n"
    try:
        answer = shell(
            f"{run} (worker worker) >/run/scratch/said 2>&1 & child=$!; (web web) 2>&1; (beat beat) 2>&1; kill $child; wait $child"
        )
        assert answer.splitlines() == ["3 6", "[1, 2, 3] 3", "sent"], answer + shell("cat /run/scratch/said")
        assert redis("ACL LOG") == ""
    finally:
        shell("rm -r /run/scratch")
        redis("SELECT 1\nDEL default unacked unacked_index _kombu.binding.default\nACL LOG RESET")


CONTROL = (
    "from celery import current_app as app; from celery.result import AsyncResult\n"
    "try:\n"
    "    AsyncResult('none').revoke(terminate=True)\n"
    "    for timeout in (1, 0.3): app.control.ping(timeout=timeout), app.control.inspect(timeout=timeout).active()\n"
    "    print(len(app.control.ping(timeout=5)), len(app.control.inspect(timeout=5).active() or ()))\n"
    "except Exception as error: print(type(error).__name__, error)"
)


@pytest.mark.changes
@pytest.mark.group("web")
def test_application_may_ask_how_long_a_queue_is_that_nobody_has(manage):
    code = "connection.default_channel.queue_declare('celery').message_count"
    asked = f"from celery import current_app as app\nwith app.connection_or_acquire() as connection: print({code})"
    assert manage(asked) == "0"


def test_remote_control_works_from_web_and_manage(manage, redis, host):
    """Also where the time is up before a worker was heard: then Redis' client looks for what else there is to do."""
    units = host.check_output("systemctl list-units --plain --no-legend --state=active '*-worker-*@*'").splitlines()
    redis("ACL LOG RESET")
    assert manage(CONTROL) == f"{len(units)} {len(units)}"
    assert redis("ACL LOG") == ""


@pytest.mark.group("web")
def test_remote_control_that_is_closed_is_refused_by_the_variable_that_opens_it(manage):
    said = manage(
        "from celery import current_app as app; from celery.result import AsyncResult\n"
        "app.conf.web_control = False\n"
        "for ask in (app.control.ping, app.control.inspect().active, AsyncResult('none').revoke):\n"
        "    try: print(ask())\n"
        "    except PermissionError as error: print('redis_web_control is false in the inventory' in str(error))"
    )
    assert said.split() == ["True"] * 3


# Each kind of character that the checks accept, and some of them at the beginning.
REST = "\\'\"$HOME$(id)`id`%n%%i#;&|<>{*?~!^[x],(y).z/+_"
HARD = [begin + REST + "\\" for begin in "-\"#'$@=:%\\&*"]


@pytest.mark.changes
@pytest.mark.parametrize("password", HARD)
def test_a_password_of_any_character_logs_in_through_redis_cli(shell, redis, password):
    """As the reload of the access list, the load of a certificate and the status do, with Redis's own reading of it."""
    login = redis_login({"admin": password}).replace("AUTH admin", "AUTH scratch")
    redis(f"ACL SETUSER scratch on #{hashlib.sha256(password.encode()).hexdigest()} -@all +ping")
    try:
        answer = shell(f"redis-cli -s /run/redis-broker/redis-server.sock <<'END'\n{login}PING\nEND\n")
        assert answer.split() == ["OK", "PONG"]
    finally:
        redis("ACL DELUSER scratch")
