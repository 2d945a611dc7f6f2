"""What a stranger on the host, or one who has taken a service's account over, tries; and what stops it."""

import base64
import json
import uuid

import pytest
from support.units import instances
from waits import wait_for

pytestmark = pytest.mark.one_host
USERS = {"web": "web", "workers": "worker", "beat": "beat", "flower": "flower"}


@pytest.fixture(params=["nobody", *USERS.values(), "service"])
def become(request, host, deployment):
    """Run a command as nobody, or as the user of a service of this host; return what became of it."""
    user = request.param
    if user != "nobody":
        here = {USERS[group] for group in deployment.group_names if group in USERS}
        here |= (
            {"service"} if host.user(f"{deployment.app_name}-service").exists else set()
        )  # of app_services and app_timers
        if user not in here:
            pytest.skip(f"no {user} on this host")
        user = f"{deployment.app_name}-{user}"

    def run(command):
        return host.run("runuser -u %s -- sh -c %s", user, command)

    run.user = user
    return run


def test_no_secret_can_be_read(become, deployment, shell):
    """Its own unit's secrets are given to the unit, not to the account."""
    places = "/etc/credstore /run/credentials /etc/redis /etc/nginx/tls /etc/shadow /var/lib/redis /var/lib/postgresql"
    readable = become(
        f"find {places} /etc/{deployment.app_name}-flower /var/lib/{deployment.app_name}-flower "
        "-type f -readable 2>/dev/null"
    ).stdout.split()
    secrets = [deployment.app_secret_key, deployment.app_database_password, deployment.app_flower_password]
    secrets += deployment.app_redis_passwords.values()
    for path in readable:
        if path.startswith("/run/credentials/"):
            unit = path.split("/")[3]
            owner = shell(f"systemctl show --property=User --value '{unit}'").strip()
            assert owner == become.user, f"{path} is another's"
            continue
        assert not any(secret.encode() in base64.b64decode(shell(f"base64 {path}")) for secret in secrets), path
        assert not path.endswith((".key", ".acl", "shadow", ".aof", ".rdb")), path


# What an account must not do on the host, and how that is refused.
REFUSED = {
    "sudo -n true": "password is required",
    "su -c true root </dev/null": "Authentication failure",
    "systemctl stop nginx redis-server@broker": "Access denied",
    "systemctl start --no-ask-password getty@tty9": "Access denied",
    "echo >/etc/systemd/system/taken.service": "Permission denied",
    "mkdir /etc/systemd/system/taken.service.d": "Permission denied",
    "kill -0 1": "Operation not permitted",
    "cat /proc/1/environ": "Permission denied",
    "journalctl --quiet --lines=1 --unit=nginx": "insufficient permissions",
    "hostnamectl set-hostname taken": "Access denied",
    "nft list ruleset": "Operation not permitted",
    "dmesg": "Operation not permitted",
    "chroot / true": "Operation not permitted",
    "psql -h /run/postgresql -d postgres -c 'select 1'": "no pg_hba.conf entry",
}


@pytest.mark.attack
def test_account_may_do_nothing_on_the_host(become):
    """One shell for all: each attempt's output stands behind its number."""
    attempts = "; ".join(f"echo =={number}; ({command}) 2>&1" for number, command in enumerate(REFUSED))
    outputs = become(attempts).stdout.split("==")[1:]
    refused = zip(REFUSED.items(), outputs, strict=True)
    assert [(command, output) for (command, words), output in refused if words not in output] == []


def test_account_cannot_be_logged_in_to(host, become):
    account = host.check_output("getent passwd %s", become.user).split(":")
    assert account[-1] in ("/usr/sbin/nologin", "/bin/false")
    assert host.check_output("passwd --status %s", become.user).split()[1] == "L"


def test_sockets_answer_who_needs_them_alone(become, deployment):
    """Redis' sockets are for the services, the web's and Flower's for nginx."""
    app, service = deployment.app_name, become.user.rpartition("-")[2]
    others = [f"/run/{app}-web.sock"]
    others += [f"/run/{app}-flower/flower.sock"] if service != "flower" else []
    others += ["/run/redis-broker/redis-server.sock", "/run/redis-cache/redis-server.sock"]
    program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for path in others:
        error = become(f'python3 -c "{program}" {path}').stderr
        assert "PermissionError" in error or "FileNotFoundError" in error, (path, error)


PIDBOX = "PUBLISH /0.celery.pidbox x"
DANGEROUS = [
    "FLUSHDB",
    "FLUSHALL",
    "KEYS *",
    "SCAN 0",
    "EVAL return(1) 0",
    "MODULE LIST",
    "REPLICAOF 127.0.0.1 1",
    "MONITOR",
    "DEBUG SLEEP 0",
    "SWAPDB 0 1",
    "CLIENT KILL TYPE normal",
    "CONFIG SET requirepass x",
    "ACL SETUSER default on",
    "SAVE",
    "SHUTDOWN NOSAVE",
    "GET secret",
    "SET stranger 1",
    "PUBLISH elsewhere x",
]
DONE = "SET probe:done:default 1"
FURTHER = {
    "web": ["PUBLISH /0.celeryev/worker.heartbeat x", "DEL unacked", DONE, "SMEMBERS unknown:default"],
    "worker": ["SET probe:sent:default 1", "LRANGE dead:default 0 -1", "DEL dead:default", "LTRIM default 0 0"],
    "beat": [PIDBOX, "LRANGE default 0 -1", "GET celery-task-meta-x", "DEL default", "SET lock:other 1", DONE],
    "flower": ["LPUSH default x", "GET celery-task-meta-x", "GET probe:done:default"],
    "exporter": ["LLEN default", "GET probe:done:default", "CONFIG GET *", "SELECT 1", PIDBOX],
    "metrics": [
        "LPUSH default x",
        "LTRIM default 0 0",
        "DEL dead:default",
        "GET celery-task-meta-x",
        "DEL lock:beat",
        PIDBOX,
        DONE,
    ],
    "reader": [
        "LPUSH default x",
        "RPOP default",
        "DEL unacked",
        "EXPIRE default 1",
        "CONFIG GET *",
        "ACL LIST",
        PIDBOX,
    ],
}
# Whoever looks for people may read all keys.
READS = {"SCAN 0", "GET secret"}


@pytest.mark.group("redis")
@pytest.mark.parametrize("user", FURTHER)
def test_redis_user_may_do_nothing_dangerous(redis, user):
    """Asked of Redis rather than tried, for its log of refusals is the operator's."""
    commands = [each for each in DANGEROUS if user != "reader" or each not in READS] + FURTHER[user]
    answers = redis("\n".join(f"ACL DRYRUN {user} {command}" for command in [*commands, "PING"])).splitlines()
    assert answers.pop() == "OK", "this test can fail"
    allowed = [command for command, answer in zip(commands, answers, strict=True) if "no permissions" not in answer]
    assert allowed == []


@pytest.mark.changes
@pytest.mark.group("redis")
def test_redis_refuses_what_it_says_it_refuses(redis):
    try:
        assert redis("FLUSHDB", user="web").startswith("NOPERM")
    finally:
        redis("ACL LOG RESET")


def message(body="", headers=None, **properties):
    """A message as kombu puts it into a queue."""
    delivery = {"exchange": "", "routing_key": "default"}
    text = {"delivery_mode": 2, "delivery_info": delivery, "priority": 0, "body_encoding": "base64"}
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"lang": "py", "task": "orders.tasks.echo", "id": str(uuid.uuid4())} | (headers or {}),
            "properties": text | {"delivery_tag": str(uuid.uuid4()), "correlation_id": str(uuid.uuid4())} | properties,
        }
    )


BODY = json.dumps([[1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])


def raw(**changes):
    """A message with something else in it, at its top."""
    return json.dumps(json.loads(message(BODY)) | changes)


FORGED = {
    "no JSON": "{",
    "no message": "1",
    "deep JSON": "[" * 50000,
    "no properties": raw(properties=None),
    "no delivery tag": raw(properties={"delivery_info": {}}),
    "delivery tag is a list": message(BODY, delivery_tag=[1]),
    "reply to is a list": message(BODY, reply_to=[1]),
    "headers are a list": raw(headers=[1]),
    "body is a number": raw(body=1),
    "body is not base64": raw(body="!"),
    "body is no whole base64": raw(body="abcde"),
    "body is no ASCII": raw(body="\u00e4"),
    "unknown encoding of the body": message(BODY, body_encoding="rot13"),
    "unknown task": message(BODY, {"task": "os.system"}),
    "no task": message(BODY, {"task": None}),
    "task is a list": message(BODY, {"task": ["orders.tasks.echo"]}),
    "no id": message(BODY, {"id": None}),
    "id is an object": message(BODY, {"id": {}}),
    "body is no list": message('"x"'),
    "body is no JSON": message("{"),
    "body is empty": message(""),
    "arguments are no list": message("[1, 2, 3]"),
    "keywords are a list": message("[[1], [], {}]"),
    "too many arguments": message('[[1, 2, 3, 4, 5, 6], {"x": 1}, {}]'),
    "unknown content type": message(BODY).replace("application/json", "application/x-python-serialize"),
    "yaml": message("!!python/object/apply:os.system [true]").replace("application/json", "application/x-yaml"),
    "unknown encoding": raw(**{"content-encoding": "rot13"}),
    "unknown compression": message(BODY, {"compression": "application/x-nothing"}),
    "eta is no date": message(BODY, {"eta": "tomorrow"}),
    "eta is a number": message(BODY, {"eta": 10**12}),
    "expires is no date": message(BODY, {"expires": "tomorrow"}),
    "expires is a list": message(BODY, {"expires": []}),
    "retries is text": message(BODY, {"retries": "x"}),
    "time limit is text": message(BODY, {"timelimit": ["x", "y"]}),
    "time limit is one": message(BODY, {"timelimit": [1]}),
    "shadow is a list": message(BODY, {"shadow": ["x"]}),
    "protocol 1": message('{"task": "orders.tasks.echo", "id": "x", "args": 5}', {"task": None}).replace(
        '"task": null, ', ""
    ),
    "deep": message("[" * 5000 + "]" * 5000),
    "callbacks are text": message('[[1], {}, {"callbacks": "x", "chain": "y", "chord": 5, "errbacks": 7}]'),
}


@pytest.mark.changes
@pytest.mark.group("redis")
def test_forged_messages_stop_no_worker(host, deployment, redis, manage):
    """Who may put messages into a queue can send any task; he cannot stop the worker by it."""
    units = instances(host, deployment.app_name, "worker-default")
    if not units:
        pytest.skip("the queue's worker runs elsewhere")
    process = f"systemctl show --property=MainPID,NRestarts {' '.join(units)}"
    before = host.check_output(process)
    for forged in FORGED.values():
        quoted = forged.replace("\\", "\\\\").replace('"', '\\"')
        assert redis(f'LPUSH default "{quoted}"').isdigit()
    task = manage("from orders.tasks import echo; print(echo.delay('still here').id)")
    status = f"from celery.result import AsyncResult; print(AsyncResult({task!r}).status)"
    wait_for(lambda: redis("LLEN default") == "0", 20, "the forged messages are gone")
    wait_for(lambda: manage(status) == "SUCCESS", 20, "the worker goes on")
    wait_for(
        lambda: redis("HLEN unacked") == "0",
        10,
        lambda: f"none is kept to be delivered again: {redis('HVALS unacked')}",
    )
    assert host.check_output(process) == before, "the worker was not restarted"


@pytest.mark.example
def test_host_shows_no_more_than_it_must(deployment):
    """What the error pages and headers give away."""
    for path in ("/", "/healthz/", "/nowhere/", "/admin/login/"):
        answer = deployment.request(path)
        shown = " ".join(f"{name}: {value}" for name, value in answer.headers.items()).lower()
        assert "gunicorn" not in shown and "django" not in shown and "python" not in shown, shown
        assert "debug = true" not in answer.body.lower()
