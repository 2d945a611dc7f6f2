"""Redis keeps what it accepted, forgets what it may, and knows its users."""

import json
import shlex

import pytest
from waits import wait_for

pytestmark = pytest.mark.group("redis")
BROKER = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "aof-load-truncated": "yes",
    "save": "",
    "databases": "2",
}
CACHE = {"appendonly": "no", "save": "", "maxmemory-policy": "allkeys-lru", "databases": "16"}


def config(redis, instance, name):
    """One value of a running instance's configuration."""
    return ([*redis(f"CONFIG GET {name}", instance=instance).splitlines(), "", ""])[1]


@pytest.mark.parametrize("instance, wanted", [("broker", BROKER), ("cache", CACHE)])
def test_running_configuration(redis, instance, wanted):
    lines = redis(f"CONFIG GET {' '.join(wanted)}", instance=instance).split("\n")
    seen = dict(zip(lines[::2], [*lines[1::2], ""], strict=False))
    assert seen == wanted


@pytest.mark.parametrize("instance", ["broker", "cache"])
def test_started_without_a_warning(host, deployment, instance):
    """What Redis says at its start about the kernel's settings; a container's host may keep its own."""
    started = host.check_output(
        f"systemctl show --property=InvocationID --value redis-server@{deployment.prefix}{instance}"
    )
    said = host.check_output(f"journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={started}").splitlines()
    assert any("Ready to accept" in line or "ready to accept" in line for line in said)
    given = host.file("/proc/sys/vm/overcommit_memory").content_string.strip() == "1"
    assert [line for line in said if "WARNING" in line and (given or "overcommit" not in line)] == []


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
def test_stranger_is_refused(host, deployment, instance):
    socket = f"/run/redis-{deployment.prefix}{instance}/redis-server.sock"
    assert "NOAUTH" in host.run(f"redis-cli -s {socket} PING").stdout
    assert "WRONGPASS" in host.run(f"redis-cli -s {socket} AUTH default x").stdout
    assert "Permission denied" in host.run(f"runuser -u nobody -- redis-cli -s {socket} PING 2>&1").stdout


def test_database_indexes_are_kept_apart(redis, manage, deployment):
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
    exchange = deployment.celery_default_queue or "default"
    assert int(redis(f"EXISTS _kombu.binding.{exchange}")) == 1  # index 0 has the queues' bindings


LOCK = ["SET {} me NX PX 9", "GET {}", "DEL {}", "PTTL {}", "PEXPIRE {} 9", "EVALSHA sha 1 {} me", "SCRIPT LOAD x"]


@pytest.mark.parametrize("user, key", [("web", "lock:any"), ("worker", "lock:any"), ("beat", "lock:beat")])
def test_locks_of_redis_py_are_allowed(redis, user, key):
    asked = [f"ACL DRYRUN {user} {command.format(key)}" for command in LOCK]
    assert redis("\n".join(asked)).splitlines() == ["OK"] * len(LOCK)


def test_beat_has_no_lock_but_its_own(redis):
    assert "no permissions" in redis("ACL DRYRUN beat SET lock:any me")


def test_each_queue_was_served_lately(redis, deployment):
    """The notes are here, wherever Beat and the workers are; after a deploy the first ones come soon."""

    def served():
        answer = redis("\n".join(["SELECT 1", "TIME", *(f"GET probe:done:{queue}" for queue in queues)]))
        _, now, _, *notes = answer.split("\n")
        return [note.startswith("{") and int(now) - json.loads(note)["done"] < 90 for note in notes]

    queues = list(deployment.celery_queues)
    wait_for(lambda: served() == [True] * len(queues), 40, f"a queue probe was done by a worker of each of {queues}")


def test_cache_answers_the_application(manage):
    assert manage("from django.core.cache import cache; cache.set('a', 1, 30); print(cache.get('a'))") == "1"


class Scratch:
    """A broker of the deployed configuration, in a folder of its own, to be broken."""

    def __init__(self, shell, password):
        """Make the folder; nothing is started."""
        self.shell, self.password = shell, password
        self.folder = shell(
            "folder=$(mktemp -d /var/tmp/scratch.XXXXXX) && chown redis: $folder && echo $folder"
        ).strip()

    def run(self, script):
        """Run a shell script in the folder: `start OPTION...`, `ask <COMMANDS`, `kill9` and `log` are at hand."""
        return self.shell(f"""
            cd {self.folder} || exit
            log=appendonlydir/appendonly.aof.1.incr.aof
            start() {{
                runuser -u redis -- redis-server /etc/redis/redis-broker.conf --dir $PWD --unixsocket $PWD/socket \\
                    --port 0 --tls-port 0 --pidfile $PWD/pid --logfile $PWD/said --daemonize yes "$@" >/dev/null
                for i in $(seq 100); do redis-cli -s socket PING 2>&1 | grep -q NOAUTH && return; sleep 0.05; done
            }}
            ask() {{ {{ echo {shlex.quote(f"AUTH admin {json.dumps(self.password)}")}; cat; }} | redis-cli -s socket | tail -n +2; }}
            kill9() {{ kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done; rm pid; }}
            {script}
        """).splitlines()

    def remove(self):
        """End what runs, and leave nothing behind."""
        self.run(f"[ ! -e pid ] || kill9; rm -r {self.folder}")


@pytest.fixture
def scratch(shell, deployment):
    """A broker to be broken."""
    broker = Scratch(shell, deployment.app_redis_passwords["admin"])
    yield broker
    broker.remove()


@pytest.mark.changes
def test_log_survives_kills_is_mended_at_its_end_and_refused_when_damaged_before(scratch):
    push = "seq 200 | sed 's/^/RPUSH default /' | ask | tail -n 1"
    together = r"printf 'MULTI\nSET a 1\nSET b 2\nEXEC\n' | ask >/dev/null"  # as kombu notes what is unacknowledged
    count = r"printf 'LLEN default\nMGET a b\n' | ask"
    assert scratch.run(f"start; {together}; {push}; kill9; start; {count}; kill9") == ["200", "200", "1", "2"]
    cut = scratch.run("truncate --size=-15 $log; start; echo LLEN default | ask; kill9; grep -c Truncating said")
    assert cut == ["199", "1"]
    damaged = scratch.run(
        "printf DAMAGED | dd of=$log bs=1 seek=2000 conv=notrunc status=none; sha256sum <$log; rm -f said; "
        "start & sleep 1; kill $!; grep -o 'Bad file format' said; sha256sum <$log"
    )
    assert damaged[1:-1] == ["Bad file format"] and damaged[0] == damaged[-1], "refused, and left as it is"


@pytest.mark.changes
def test_full_broker_tells_the_producer_and_forgets_nothing(scratch):
    answers = scratch.run(
        "start --maxmemory 4mb; { echo LPUSH default first; for i in $(seq 60); do "
        "printf 'LPUSH default %0100000d\\n' 1; done; echo LRANGE default -1 -1; } | ask"
    )
    assert any(answer.startswith("OOM command not allowed") for answer in answers)
    assert answers[-1] == "first"


@pytest.mark.changes
def test_a_dump_may_be_the_beginning_of_the_log(scratch):
    """What the role does with a dump that has no log beside it; Redis alone would start empty."""
    keys = scratch.run(
        "start --appendonly no; seq 1000 | sed 's/.*/SET key& &/' | ask >/dev/null; echo SAVE | ask; kill9\n"
        "mkdir appendonlydir; cp dump.rdb appendonlydir/appendonly.aof.1.base.rdb\n"
        "echo file appendonly.aof.1.base.rdb seq 1 type b >appendonlydir/appendonly.aof.manifest\n"
        "chown -R redis: appendonlydir; start; echo DBSIZE | ask; kill9; start; echo DBSIZE | ask; kill9"
    )
    assert keys == ["OK", "1000", "1000"]
