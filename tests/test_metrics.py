"""What the exporter of an application shows Prometheus, and what it passes on."""

import http.client
import json
import os
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import metrics
import pytest
from ansible.module_utils import coldframe, coldframe_servers
from fake_systemd import FakeModule
from prometheus_client.parser import text_string_to_metric_families

QUEUES = ["mail", "video"]


def message(task="shop.send", tag="1"):
    """A message as kombu keeps it."""
    headers = {"task": task, "id": tag}
    return json.dumps({"body": "W10=", "headers": headers, "properties": {"delivery_tag": tag}})


def samples(text):
    """Metrics in Prometheus' format as a mapping: name and sorted labels to value."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def redis(redis_socket):
    """A client of a Redis that is empty."""
    client = coldframe_servers.Redis.behind(redis_socket)
    client.ask("FLUSHALL")
    client.ask("CONFIG", "SET", "requirepass", "x")
    yield client
    client.ask("CONFIG", "SET", "requirepass", "")
    client.close()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An application of this host, with units in systemd and credentials."""
    monkeypatch.setattr(coldframe, "UNITS", tmp_path / "units")
    (tmp_path / "units/shop.target.wants").mkdir(parents=True)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/redis_password").write_text("x\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    module = FakeModule()
    monkeypatch.setattr(metrics, "Commands", lambda _: module)
    return module


@pytest.fixture
def serve(tmp_path, shop, redis_socket):
    """Start the exporter; return a function that asks it, and returns the status and the text."""
    servers = []

    def start(**changed):
        broker = {"server": {"socket": redis_socket}, "user": "default", "indexes": [0, 1], "queues": QUEUES}
        broker |= {"default_queue": "mail"}
        configuration = {"app": "shop", "root": str(tmp_path), "address": "127.0.0.1", "port": 0, "tls": ""}
        configuration |= {"certificates": [], "exporters": {}, "broker": broker, "planned_hours": 24}
        server = metrics.serve(configuration | changed)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

        def ask(path, context=None):
            kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
            connection = kind("127.0.0.1", server.server_port, timeout=20, **({"context": context} if context else {}))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        ask.port = server.server_port
        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_queues_hold(serve, redis):
    for tag in "123":
        redis.ask("LPUSH", "mail", message(tag=tag))
    redis.ask("SADD", "_kombu.binding.mail", "old\x06\x16\x06\x16old")
    redis.ask("LPUSH", "old", message())
    redis.ask("HSET", "unacked", "9", json.dumps([json.loads(message()), "mail", "video"]))
    redis.ask("ZADD", "unacked_index", str(time.time() - 60), "9")
    redis.ask("SADD", "unknown:video", "shop.new")
    redis.ask("RPUSH", "unknown:video:shop.new", message(), message())
    redis.ask("LPUSH", "dead:mail", f"1 {message()}")
    found = samples(serve()("/metrics")[1])
    held = {
        (name, queue): found[f"coldframe_queue_{name}", ("queue", queue)]
        for name in ("waiting", "unacked", "parked", "dead_letters")
        for queue in (*QUEUES, "old")
    }
    assert {what: count for what, count in held.items() if count} == {
        ("waiting", "mail"): 3,
        ("waiting", "old"): 1,
        ("unacked", "video"): 1,
        ("parked", "video"): 2,
        ("dead_letters", "mail"): 1,
    }
    assert 59 < found["coldframe_unacked_oldest_seconds",] < 90
    assert found["coldframe_broker_up",] == 1


def test_oldest_message_is_the_one_that_stays_next(serve, redis, monkeypatch):
    ask, now = serve(), [1000.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])

    def age():
        return samples(ask("/metrics")[1])["coldframe_queue_oldest_seconds", ("queue", "mail")]

    assert age() == 0, "the queue is empty"
    redis.ask("LPUSH", "mail", message(tag="1"))
    redis.ask("LPUSH", "mail", message(tag="2"))
    assert age() == 0
    now[0] += 30
    assert age() == 30
    redis.ask("RPOP", "mail")
    assert age() == 0, "another one is next"
    now[0] += 5
    assert age() == 5


def test_probe_that_waits_counts_until_now_and_one_that_is_done_as_long_as_it_waited(serve, redis):
    seconds, _ = redis.ask("TIME")
    redis.ask("SELECT", "1")
    done = {"sent": 100.0, "done": 103.5, "worker": "mail-1@a"}
    redis.ask("SET", "probe:sent:mail", "100.0")
    redis.ask("SET", "probe:done:mail", json.dumps(done))
    redis.ask("SET", "probe:sent:video", str(int(seconds) - 50))
    redis.ask("SET", "probe:done:video", json.dumps(done))
    found = samples(serve()("/metrics")[1])
    assert found["coldframe_queue_probe_wait_seconds", ("queue", "mail")] == 3.5
    assert 49 < found["coldframe_queue_probe_wait_seconds", ("queue", "video")] < 80
    redis.ask("SET", "probe:sent:video", str(int(seconds) - 1))
    later = samples(serve()("/metrics")[1])
    assert later["coldframe_queue_probe_wait_seconds", ("queue", "video")] == 3.5, "until it has waited for longer"
    assert found["coldframe_queue_probe_done_timestamp_seconds", ("queue", "mail")] == 103.5


def test_beat_that_has_the_lease_and_when_it_ticked(serve, redis):
    ask = serve()
    found = samples(ask("/metrics")[1])
    assert found["coldframe_beat_lease",] == 0 and ("coldframe_beat_tick_age_seconds",) not in found
    redis.ask("SELECT", "1")
    redis.ask("SET", "lock:beat", "app1 0f3c 77aa", "PX", "17000")
    found = samples(ask("/metrics")[1])
    assert found["coldframe_beat_lease",] == 1 and found["coldframe_beat_holder", ("beat", "app1")] == 1
    assert 3 <= found["coldframe_beat_tick_age_seconds",] < 15


def test_broker_that_does_not_answer_costs_no_other_metric(serve, shop, tmp_path):
    shop.states["shop-web@a1.service"] = "active"
    (tmp_path / "current").symlink_to("releases/a1")
    broker = {"server": {"socket": "/nowhere"}, "user": "x", "indexes": [0, 1], "queues": [], "default_queue": ""}
    found = samples(serve(broker=broker)("/metrics")[1])
    assert found["coldframe_broker_up",] == 0 and found["coldframe_release_info", ("release", "a1")] == 1
    assert not [name for name, *_ in found if name.startswith("coldframe_queue")]


def test_host_that_does_not_ask_the_broker_says_nothing_of_it(serve):
    assert "coldframe_broker_up" not in serve(broker={})("/metrics")[1]


def test_units_with_part_release_and_state(serve, shop):
    shop.states |= {"shop-worker-mail@a1.service": "deactivating", "shop-web@b2.service": "active"}
    shop.jobs["shop-worker-mail@a1.service"] = "stop"
    found = samples(serve(broker={})("/metrics")[1])
    worker = ("part", "worker-mail"), ("release", "a1")
    unit = ("unit", "shop-worker-mail@a1.service")
    assert found["coldframe_unit_state", *worker, ("state", "draining"), unit] == 1
    assert found["coldframe_unit_draining_seconds", *worker, unit] >= 0
    assert len([name for name, *_ in found if name == "coldframe_unit_draining_seconds"]) == 1


def test_what_is_stopped_on_purpose_is_told_for_some_hours(serve, shop, tmp_path, monkeypatch):
    monkeypatch.setattr(coldframe, "MARKS", tmp_path)
    ask = serve(planned_hours=2)
    assert samples(ask("/metrics")[1])["coldframe_maintenance",] == 0
    (tmp_path / "coldframe-alerts-shop").mkdir()
    for mark, hours in {"paused-video": 1.9, "paused-mail": 2.1, "maintenance": 0}.items():
        (tmp_path / "coldframe-alerts-shop" / mark).touch()
        os.utime(tmp_path / "coldframe-alerts-shop" / mark, (time.time() - hours * 3600,) * 2)
    found = samples(ask("/metrics")[1])
    paused = {name: value for name, value in found.items() if name[0] == "coldframe_queue_paused"}
    assert paused == {("coldframe_queue_paused", ("part", "worker-video"), ("queue", "video")): 1}
    assert found["coldframe_maintenance",] == 1


def test_certificates_with_when_they_expire(serve, certificate, tmp_path):
    (tmp_path / "credentials/certificate_redis").write_text(certificate("a")[0].read_text())
    found = samples(serve(certificates=["certificate_redis"], broker={})("/metrics")[1])
    assert (
        25
        < (found["coldframe_certificate_expiry_timestamp_seconds", ("certificate", "redis")] - time.time()) / 86400
        < 31
    )


class Exporter(BaseHTTPRequestHandler):
    """Another exporter, which says what it was asked for."""

    def do_GET(self):
        """Answer."""
        body = f'asked_for{{path="{self.path}"}} 1\n'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        """Who is behind a socket has no address."""
        return "socket"

    def log_message(self, *_):
        """Be quiet."""


class BehindSocket(HTTPServer):
    """The same behind a socket in the file system, as Flower is."""

    address_family = socket.AF_UNIX

    def server_bind(self):
        """Make the socket."""
        self.socket.bind(self.server_address)


@pytest.mark.parametrize("behind_socket", [False, True])
def test_what_another_exporter_shows_is_passed_on(serve, tmp_path, behind_socket):
    other = (
        BehindSocket(str(tmp_path / "flower.sock"), Exporter)
        if behind_socket
        else HTTPServer(("127.0.0.1", 0), Exporter)
    )
    threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
    try:
        where = {"socket": str(tmp_path / "flower.sock")} if behind_socket else {"port": other.server_port}
        ask = serve(exporters={"flower": where | {"path": "/flower/metrics?a=1"}})
        assert ask("/flower") == (200, 'asked_for{path="/flower/metrics?a=1"} 1\n')
    finally:
        other.shutdown()
        other.server_close()


def test_exporter_that_is_away_or_unknown_is_no_metric(serve):
    ask = serve(exporters={"node": {"port": 1, "path": "/metrics"}})
    assert ask("/node")[0] == 502 and ask("/etc/passwd")[0] == 404 and ask("/node/x")[0] == 404


def test_certificate_is_shown_and_a_silent_client_keeps_nobody_waiting(serve, certificate, tmp_path):
    public, key = certificate("metrics.example")
    (tmp_path / "credentials/tls_key").write_text(key.read_text())
    ask = serve(tls=str(public), broker={})
    context = ssl.create_default_context(cafile=public)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", ask.port)):  # says nothing
        assert ask("/metrics", context)[0] == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        ask("/metrics")
