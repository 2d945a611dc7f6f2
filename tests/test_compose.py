"""A stack in containers, without one: what follows from the units, what is written, and what is refused."""

import argparse
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import compose_folder
import pytest
import stack
import yaml
from compose import compose_problems, compose_secrets, compose_services, compose_value
from project import RefusedError
from ruamel.yaml import YAML
from support.playbooks import PLAIN
from waits import wait_for

ROOT = Path(__file__).parents[1]
UNIT = """
[Service]
Type=notify
User=desk-worker
WorkingDirectory=/srv/desk/releases/@RELEASE@
Environment=RELEASE_ID=@RELEASE@
EnvironmentFile=/srv/desk/releases/@RELEASE@/.release/environment
EnvironmentFile=/srv/desk/releases/@RELEASE@/.release/worker-mail.env
LoadCredential=secret_key:/etc/credstore/desk/@RELEASE@/secret_key
LoadCredential=redis_password:/etc/credstore/desk/@RELEASE@/redis_worker
SupplementaryGroups=desk redis-clients
UMask=0002
ReadWritePaths=/srv/desk/shared
# A comment
ExecStart=/srv/desk/releases/@RELEASE@/.venv/bin/python -m coldframe.process worker \\
    --hostname=mail-%I@%H "100%%" 'a b' $WORKER_ARGUMENTS $$HOME
TimeoutStopSec=95
WatchdogSec=30
WatchdogSignal=SIGKILL
PrivateNetwork=yes
LimitNOFILE=65536
"""
FILES = {
    ".release/units/worker-mail.service": UNIT,
    ".release/units/timer-night.service": "",
    ".release/units/timer-night.timer": "",
    ".release/environment": "DATABASE_URL=postgres://desk_a@/desk?host=/run/postgresql\nGREETING='a $5 note'\n",
    ".release/worker-mail.env": "WORKER_ARGUMENTS=--queues=mail --pool=prefork\n",
    "desk/settings.py": "",
}
USERS = {"desk": 900, "desk-worker": 902, "redis-clients": 909}


def artifact(folder, files):
    """Write a release's file."""
    path = folder / "r1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"r1/{name}")
            info.size = len(text.encode())
            archive.addfile(info, BytesIO(text.encode()))
    return str(path)


@pytest.fixture
def mail(tmp_path):
    """The service of a worker's unit."""
    services = compose_services(artifact(tmp_path, FILES), USERS, {})
    assert list(services) == ["worker-mail"], "a timer has no container"
    return services["worker-mail"]


def test_container_runs_the_command_of_its_unit(mail):
    python = "/srv/desk/releases/r1/.venv/bin/python"
    command = [python, "-m", "coldframe.process", "worker", "--hostname=mail-r1@worker-mail", "100%", "a b"]
    assert mail["plain"] == [*command, "--queues=mail", "--pool=prefork", "$HOME"]
    options = ["--umask=0002", "--notify", "--watchdog=30", "--watchdog-signal=SIGKILL"]
    assert mail["command"][2:] == ["run", *options, "--", *mail["plain"]]


def test_container_has_the_variables_of_its_unit(mail):
    assert mail["environment"] == {
        "RELEASE_ID": "r1",
        "DATABASE_URL": "postgres://desk_a@/desk?host=/run/postgresql",
        "GREETING": "a $5 note",
        "WORKER_ARGUMENTS": "--queues=mail --pool=prefork",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
    }
    assert mail["folder"] == "/srv/desk/releases/r1"


def test_container_has_the_limits_of_its_unit(mail):
    assert (mail["user"], mail["groups"], mail["stop"]) == (902, [900, 909], 95)
    assert (mail["network"], mail["shared"], mail["open_files"], mail["notify"]) == (False, True, 65536, True)


def test_unit_with_a_network_has_one_in_a_container(tmp_path):
    files = FILES | {".release/units/worker-mail.service": UNIT.replace("PrivateNetwork=yes\n", "")}
    assert compose_services(artifact(tmp_path, files), USERS, {})["worker-mail"]["network"] is True


def test_container_gets_no_other_secrets_than_its_unit(mail):
    values = {"secret_key": "k", "redis_worker": "w", "redis_web": "not for it"}
    assert compose_secrets({"worker-mail": mail}, values) == {"worker": {"secret_key": "k", "redis_password": "w"}}


def test_compose_replaces_nothing():
    assert compose_value({"a": ["$HOME", 5], "b": "x"}) == {"a": ["$$HOME", 5], "b": "x"}


RIGHT = {
    "app_database_url": "",
    "app_broker_url": "",
    "app_cache_url": "",
    "app_python_interpreter": "/usr/bin/python3",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"app_database_url": "postgres://desk@db.example.com/desk"},
            "'db.example.com/desk', a provider's server",
        ),
        ({"app_broker_url": "rediss://redis.example.com"}, "app_broker_url is "),
        ({"app_python_interpreter": "/opt/python"}, "Leave it out."),
    ],
)
def test_what_cannot_be_in_containers_is_refused(wrong, said):
    assert compose_problems(RIGHT) == []
    (problem,) = compose_problems(RIGHT | wrong)
    assert said in problem


# The folder


def parameters(folder, **more):
    given = {
        "files": {"compose.yml": "name: desk\n", "redis/a.conf": "x"},
        "secrets": {"web": {"key": "s3"}},
        "copies": {},
    }
    return given | {"folders": {"image/wheels": f"{folder}/wheels/*.whl"}, "about": {"name": "desk"}} | more


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Run the module; return its result."""

    class Ended(Exception):
        pass

    class Module:
        check_mode = False

        def __init__(self, **_):
            self.params = write.params

        def fail_json(self, msg):
            raise Ended({"msg": msg})

        def exit_json(self, **result):
            raise Ended(result)

    def write(**more):
        write.params = {"path": str(tmp_path / "desk"), "inventory": "production"} | parameters(tmp_path, **more)
        with pytest.raises(Ended) as ended:
            compose_folder.main()
        return argparse.Namespace(**ended.value.args[0])

    monkeypatch.setattr(compose_folder, "AnsibleModule", Module)
    return write


def test_folder_is_closed_and_written_once(write, tmp_path):
    assert write().changed
    folder = tmp_path / "desk"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secrets/web/key").stat().st_mode) == 0o444, "the container's user reads it"
    assert stat.S_IMODE((folder / "secrets/web").stat().st_mode) == 0o755
    assert not write().changed and not write(about={"name": "desk", "smoke": {"key": 2}}).changed
    assert write(secrets={"web": {"key": "s4"}}).written == ["secrets/web/key"]
    assert (folder / "secrets/web/key").read_text() == "s4"


def test_what_is_no_more_is_removed_and_what_is_not_its_own_stays(write, tmp_path):
    write()
    (tmp_path / "desk/compose.override.yml").write_text("services: {}\n")
    assert write(files={"compose.yml": "name: desk\n"}).written == ["redis/a.conf"]
    assert not (tmp_path / "desk/redis/a.conf").exists() and (tmp_path / "desk/compose.override.yml").exists()


def test_wheels_are_copied_where_there_are_some(write, tmp_path):
    write()
    assert list((tmp_path / "desk/image/wheels").iterdir()) == [], "an image is built with the folder"
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/a.whl").write_bytes(b"w")
    assert write().written == ["image/wheels/a.whl"]


def test_file_that_was_changed_by_hand_is_not_overwritten(write, tmp_path):
    write()
    for name in ("compose.yml", "redis/a.conf"):
        (tmp_path / "desk" / name).write_text("mine")
    said = write(files={"compose.yml": "name: new\n"}).msg.splitlines()
    assert (
        len(said) == 2
        and "Move your changes to compose.override.yml" in said[0]
        and "variable of the inventory" in said[1]
    )
    assert (tmp_path / "desk/compose.yml").read_text() == "mine"
    for name in ("compose.yml", "redis/a.conf"):
        (tmp_path / "desk" / name).unlink()
    assert write().written == ["compose.yml", "redis/a.conf"], "the remedy works"
    assert (tmp_path / "desk/compose.yml").read_text() != "mine" and (tmp_path / "desk/redis/a.conf").exists()


def test_folder_of_something_else_is_left_alone(write, tmp_path):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/compose.yml").write_text("mine")
    assert "'make compose' did not write it" in write().msg
    (tmp_path / "desk/compose.yml").unlink()
    write()
    write.params["inventory"] = "staging"
    compose_before = (tmp_path / "desk/.written.json").read_text()
    (tmp_path / "desk/.written.json").write_text(compose_before.replace("production", "staging"))
    assert "is the stack of the inventory staging, and ENV is production" in write().msg


# The inventory

CLUSTER = """
all:
  vars: {app_name: desk}
  hosts:
    a1: {ansible_host: 192.0.2.1, app_private_address: 10.0.0.1}
  children:
    web: {hosts: {a1: {}, a2: {}}, vars: {x: 1}}
    workers: {children: {fast: {hosts: {a3: {celery_host_queues: [mail]}}}}}
    edge: {hosts: {a1: {}}}
    beat: {hosts: {a1: {}}}
    redis: {hosts: {a4: {}}}
    postgresql: {hosts: {}}
    monitoring: {hosts: {a1: {}}}
"""


@pytest.fixture
def inventory(tmp_path):
    """An inventory of several hosts."""
    folder = tmp_path / "production"
    (folder / "group_vars/all").mkdir(parents=True)
    (folder / "hosts.yml").write_text(CLUSTER)
    return folder


def test_one_host_takes_the_places_of_all(inventory, tmp_path):
    own = stack.write_inventory(inventory, tmp_path / "stack")
    said = json.loads(
        subprocess.run(["ansible-inventory", "-i", own, "--list"], capture_output=True, text=True, check=True).stdout
    )
    groups = {name for name, group in said.items() if group.get("hosts") == ["compose"]}
    assert groups == {"web", "fast", "edge", "beat", "redis", "postgresql"} and said["workers"]["children"] == ["fast"]
    assert set(said["_meta"]["hostvars"]) == {"compose"}
    variables = said["_meta"]["hostvars"]["compose"]
    assert (variables["app_name"], variables["x"], variables["ansible_connection"]) == ("desk", 1, "local")
    assert "app_private_address" not in variables and "celery_host_queues" not in variables


def test_inventory_without_hosts_is_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"has no hosts\.yml"):
        stack.write_inventory(tmp_path, tmp_path / "stack")


@pytest.mark.parametrize("name", ["Desk", "-desk", "de sk", "../desk"])
def test_name_that_compose_does_not_take_is_refused(name):
    with pytest.raises(RefusedError, match="COMPOSE_NAME is "):
        stack.name_of(Path("/x"), {"COMPOSE_NAME": name})
    assert stack.name_of(Path("/x/My.Site"), {}) == "my-site"


@pytest.mark.parametrize("port", ["80", "x", "70000"])
def test_port_that_is_none_is_refused(port, tmp_path):
    with pytest.raises(RefusedError, match="COMPOSE_HTTPS_PORT is "):
        stack.choose_port(tmp_path, {"COMPOSE_HTTPS_PORT": port})


def test_stack_keeps_its_port(tmp_path):
    (tmp_path / ".written.json").write_text('{"port": 8777}')
    assert stack.choose_port(tmp_path, {}) == 8777
    assert stack.choose_port(tmp_path, {"COMPOSE_HTTPS_PORT": "8778"}) == 8778


# Without an engine


@pytest.fixture
def found(tmp_path):
    """A stack, with an engine that answers as it is told."""
    engine = tmp_path / "engine"
    engine.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"answers = json.load(open({str(tmp_path / 'answers')!r}))\n"
        "print(next((said for words, said in answers.items() if words in ' '.join(sys.argv[1:])), ''))\n"
    )
    engine.chmod(0o755)
    labels = {"coldframe.files": "f1"}
    services = {"prepare": {"image": "app:1", "labels": labels}, "nginx": {"image": "nginx:1", "labels": labels}}
    (tmp_path / "compose.yml").write_text(yaml.safe_dump({"services": services}))
    (tmp_path / "answers").write_text("{}")

    def found(port, **answers):
        (tmp_path / ".written.json").write_text(json.dumps({"name": "desk", "port": port, "lock": "1" * 64}))
        (tmp_path / "answers").write_text(json.dumps({name.replace("_", " "): said for name, said in answers.items()}))
        return stack.Stack(tmp_path, stack.Tool("podman", [str(engine)], []))

    return found


def test_port_that_is_taken_is_said_before_anything_starts(found):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        (problem,) = found(port).problems()
        assert f"The port {port} is taken" in problem and "COMPOSE_HTTPS_PORT" in problem
        asked = "container_inspect_--format_{{.State.Status}}_{{.HostConfig.PortBindings}}_desk-nginx"
        for state, published, taken in (("running", port, 0), ("running", 8700, 1), ("exited", port, 1)):
            has = {asked: f"{state} map[443/tcp:[{{127.0.0.1 {published}}}]]"}
            assert len(found(port, **has).problems()) == taken, (state, published)
    assert found(port).problems() == []


def test_image_of_another_lock_is_said_before_anything_starts(found):
    built = {"image_inspect_--format_{{.Id}}": "i"}
    (problem,) = found(1, **built, **{"coldframe.lock": "2" * 64}).problems()
    assert "was built from another lock file (222222222222)" in problem and "podman rmi app:1" in problem
    assert found(1, **built, **{"coldframe.lock": "1" * 64}).problems() == []


def test_container_of_another_image_or_other_files_has_changed(found):
    assert found(1, Config="app:1 f1", **{}).changed() == ["nginx"]
    assert found(1).changed() == []


@pytest.fixture
def calls(found, monkeypatch):
    """A stack with all services, none of which runs; what Compose is told, and which services are awaited, in order."""
    made = found(1)
    made.services = {name: {} for name in (*stack.DATA, "prepare", "beat", "web", "worker-mail", "nginx")}
    calls = []
    monkeypatch.setattr(stack.Tool, "composed", lambda _, __, *words: calls.append(" ".join(words)))
    monkeypatch.setattr(stack.Stack, "wait", lambda _, service: calls.append(f"{service} is awaited"))
    monkeypatch.setattr(stack.Stack, "changed", lambda _: [])
    return made, calls


def test_services_are_started_when_those_before_them_are_healthy(calls):
    made, calls = calls
    made.up()
    starts = [(number, call) for number, call in enumerate(calls) if call.startswith("up")]
    assert [call.split("--no-deps ")[1] for _, call in starts] == [
        "redis-broker redis-cache postgresql",
        "prepare",
        "beat web worker-mail",
        "nginx",
    ]
    for number, call in starts[1:]:
        assert all(earlier.endswith("awaited") for earlier in calls[number - 1 : number]), call
    assert calls.index("redis-cache is awaited") < starts[1][0] and calls.index("prepare is awaited") < starts[2][0]


def test_broker_stops_after_the_workers(calls, monkeypatch):
    made, calls = calls
    monkeypatch.setattr(stack.Stack, "state", lambda _, service: "exited" if service == "prepare" else "running")
    made.down(data=False)
    assert calls == ["stop nginx", "stop beat web worker-mail", "stop redis-broker redis-cache postgresql", "down"]
    calls.clear()
    made.down(data=True)
    assert calls[-1] == "down --volumes"


def test_what_has_changed_is_stopped_in_order_before_it_starts(calls, monkeypatch):
    made, calls = calls
    monkeypatch.setattr(stack.Stack, "changed", lambda _: ["web"])
    made.up()
    assert calls[0] == "down" and calls[1].startswith("up")


def test_variables_of_the_command_are_not_those_of_the_next_one(tmp_path, monkeypatch):
    """With APP it would prepare the project again, and again."""
    (tmp_path / "Makefile").write_text("compose:\n\t@echo '$(ENV) $(DEBIAN) $(APP)' >said\n")
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    monkeypatch.setenv("MAKEFLAGS", " -- APP=../desk")
    stack.make("compose", "production", {"DEBIAN": "12", "APP": "../desk"})
    assert (tmp_path / "said").read_text().split() == ["production", "12"]


def test_missing_engine_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="neither podman nor Docker"):
        stack.tool()


# The database


@pytest.fixture
def database(tmp_path):
    """Start PostgreSQL by the image's program, in folders of its own; return what asks it."""
    if os.getuid() or not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("this machine has no PostgreSQL, or the user is not root, who becomes another one")
    own = Path(tempfile.mkdtemp(prefix="postgresql"))  # the folders above it are open to the other user
    own.chmod(0o755)
    program = (ROOT / "docker/app/postgresql.sh").read_text()
    for name, path in {
        "data": "/var/lib/postgresql",
        "conf": "/etc/coldframe-postgresql",
        "given": "/run/credentials",
    }.items():
        (own / name).mkdir()
        program = program.replace(f"={path}", f"={own / name}").replace(f" {path}/", f" {own / name}/")
    program = program.replace("in /var/lib/postgresql", f"in {own / 'data'}")
    (own / "conf/conf.d").mkdir()
    (own / "conf/conf.d/coldframe.conf").write_text("listen_addresses = ''\n")
    (own / "conf/pg_ident.conf").write_text("admin nobody postgres\n")
    (own / "conf/pg_hba.conf").write_text("local all postgres peer map=admin\nlocal samerole all scram-sha-256\n")
    (own / "sockets").mkdir()
    (own / "run").write_text(program.replace("--auth=peer", "--auth=peer --username=postgres"))
    for name in ("data", "sockets"):
        shutil.chown(own / name, "nobody")
    running = []

    def start(password, other):
        stop()
        secrets = {"database_password": password, "database_password_other": other, "database_login": "desk_a"}
        for name, value in secrets.items():
            (own / "given" / name).write_text(value)
        command = [
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            "sh",
            own / "run",
            "desk",
            own / "sockets",
        ]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))

        def ask(login, secret, text="SELECT current_user"):
            done = subprocess.run(
                ["psql", "-XAtq", f"--host={own / 'sockets'}", f"--username={login}", "desk", "-c", text],
                env=os.environ | {"PGPASSWORD": secret},
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip() or done.stderr

        ready = ["pg_isready", "--quiet", f"--host={own / 'sockets'}"]
        wait_for(lambda: not subprocess.run(ready, check=False).returncode, 60, "PostgreSQL answers")
        return ask

    def stop():
        while running:
            running[-1].send_signal(signal.SIGINT)
            assert running.pop().wait(30) == 0

    start.own, start.stop = own, stop
    yield start
    stop()
    shutil.rmtree(own)


def test_database_has_the_logins_and_passwords_of_now_at_each_start(database):
    ask = database("first", "old")
    assert ask("desk_a", "first") == "desk", "what it makes belongs to the owner"
    assert "password authentication failed" in ask("desk_a", "old") and ask("desk_b", "old") == "desk"
    assert ask("desk_a", "first", "CREATE TABLE kept (id int)") == ""
    ask = database("second's \\ $x", "old")
    assert ask("desk_a", "second's \\ $x", "SELECT count(*) FROM kept") == "0"
    assert "password authentication failed" in ask("desk_a", "first")


# The whole


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of the example's stack, as `make compose` writes it; and the secrets in it."""
    folder = tmp_path_factory.mktemp("written")
    state = folder / "state"
    subprocess.run(
        [sys.executable, ROOT / "bin/secrets", "make", state / "secrets.yml"], check=True, capture_output=True, cwd=ROOT
    )
    own = stack.write_inventory(ROOT / "inventories/sandbox", folder / "shop")
    hosts = YAML(typ="safe").load((own / "hosts.yml").read_text())
    hosts["all"]["vars"] = {"app_email": {"host": "mail.example.net"}, "app_otel_endpoint": "https://192.0.2.7:4318"}
    (own / "hosts.yml").write_text(json.dumps(hosts))
    extra = {"compose_name": "shop", "compose_folder": str(folder / "shop"), "compose_inventory": "sandbox"}
    extra |= {"compose_https_port": 8700, "sandbox_state": str(state), "release_check_on_controller": False}
    command = ["ansible-playbook", "-i", own, "playbooks/compose.yml", "-e", json.dumps(extra)]
    environment = os.environ | PLAIN | {"ANSIBLE_STRATEGY": "linear"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "shop", YAML(typ="safe").load((state / "secrets.yml").read_text()), done.stdout


def services(written):
    return yaml.safe_load((written[0] / "compose.yml").read_text())["services"]


def test_every_queue_has_a_service_that_stops_in_the_time_of_the_queue_table(written):
    from queues import celery_queue_table

    queues = yaml.safe_load((ROOT / "inventories/sandbox/group_vars/all/app.yml").read_text())["celery_queues"]
    for name, options in celery_queue_table(queues).items():
        service = services(written)[f"worker-{name}"]
        assert service["stop_grace_period"] == f"{options['timeout_stop_sec']}s"
        assert set(options["arguments"]) <= set(service["command"])
    assert {name for name in services(written) if name.startswith("worker-")} == {f"worker-{name}" for name in queues}


def test_no_service_has_more_rights_than_it_needs(written):
    for name, service in services(written).items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges"] and not service["user"].startswith("0"), name
        assert service.get("network_mode") == "none" or name == "nginx", name
        for volume in service["volumes"]:
            assert volume.endswith((":ro", ":ro,z")) or not volume.startswith("."), f"{name}: {volume}"


def test_services_start_when_those_that_they_need_are_healthy(written):
    for name, service in services(written).items():
        assert name == "prepare" or service["healthcheck"]["test"][0] == "CMD"
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "prepare" else "service_healthy"
            assert condition == {"condition": wanted}, f"{name}: {other}"
    assert set(services(written)["web"]["depends_on"]) == {"redis-broker", "redis-cache", "postgresql", "prepare"}


def test_secrets_are_nowhere_but_in_their_files(written):
    folder, secrets, said = written
    values = [secrets["app_secret_key"], secrets["app_database_password"], secrets["app_flower_password"]]
    values += secrets["app_redis_passwords"].values()
    with_them = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(value.encode() in path.read_bytes() for value in values)
    }
    assert with_them and all(name.startswith("secrets/") for name in with_them), with_them
    assert not any(value in said for value in values)
    for name in ("web", "worker", "beat"):
        there = (folder / "secrets" / name / "redis_password").read_text()
        assert there == secrets["app_redis_passwords"][name]


def test_nothing_is_sent_with_what_the_servers_send_it(written):
    with tarfile.open(written[0] / "image/release.tar.gz") as release:
        (name,) = [name for name in release.getnames() if name.endswith("/overlay.json")]
        overlay = json.load(release.extractfile(name))
    assert overlay["email"] == {} and overlay["email_logged"] is True
    assert overlay["tracing"]["otel_endpoint"] == "" and overlay["tracing"]["sentry"] is False


def test_redis_is_as_on_a_server(written):
    broker, cache = ((written[0] / f"redis/redis-{name}.conf").read_text() for name in ("broker", "cache"))
    assert "appendonly yes" in broker and "maxmemory-policy noeviction" in broker and "port 0" in broker
    assert "maxmemory-policy allkeys-lru" in cache
    acl = (written[0] / "redis/broker.acl").read_text()
    assert acl.startswith("user default off") and "user worker on" in acl


def test_nginx_is_as_on_a_server_but_without_hsts_and_syslog(written):
    site = (written[0] / "nginx/coldframe/shop.conf").read_text()
    assert "server unix:/run/shop-web/web.sock" in site and "location /static/" in site and "location /flower/" in site
    assert 'max-age=31536000"' not in site
    assert "syslog" not in (written[0] / "nginx/nginx.conf").read_text()


def test_last_stages_of_the_images_have_no_build_tools(written):
    stages = (written[0] / "image/Containerfile").read_text().split("\nFROM ")[1:]
    by_name = {stage.split("\n")[0].partition(" AS ")[2]: stage for stage in stages}
    assert "python3-venv" in by_name["build"]
    for name in ("app", "flower", "redis", "postgresql", "nginx"):
        assert "venv " not in by_name[name].replace("/.venv ", "") and "pip" not in by_name[name], name
        user = by_name[name].rpartition("\nUSER ")[2].split("\n")[0]
        assert user and not user.startswith("0"), name
