"""How long a process may take to start, by the processor's clock."""

import socket
import time
from types import SimpleNamespace

from coldframe import starting


def asked(monkeypatch, used, seconds=20.0):
    """Look every 5 seconds at a process that used so much of the processor in each; return at which looks it asked."""
    clock = {"now": 100.0, "used": 0.0}
    looks, sent = list(used), []
    start = starting.Start(seconds)

    def wait(timeout):
        clock["now"] += timeout
        if looks:
            clock["used"] += looks.pop(0)
            return False
        return True

    monkeypatch.setattr(start, "going_on", SimpleNamespace(acquire=wait))
    monkeypatch.setattr(starting.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(starting.time, "process_time", lambda: clock["used"])
    monkeypatch.setattr(starting, "notify", lambda message: sent.append((clock["now"] - 100, message)))
    start.watch()
    assert {message for _, message in sent} <= {f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"}
    return [when for when, _ in sent]


def test_process_that_gets_a_tenth_of_a_processor_gets_as_long_as_it_needs(monkeypatch):
    assert asked(monkeypatch, [0.5] * 20) == [5.0 * look for look in range(1, 21)]


def test_process_that_only_waits_gets_no_more(monkeypatch):
    assert asked(monkeypatch, [3, 0, 0.01, 0, 0.02]) == [5.0]


def test_process_that_never_comes_to_an_end_gets_its_limit_of_the_processor(monkeypatch):
    assert asked(monkeypatch, [5] * 10) == [5.0, 10.0, 15.0]


def test_systemd_and_who_else_must_know_are_told_until_the_end(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("START_TIMEOUT", "0.4")
        told = []
        start = starting.of_unit(lambda: told.append(1))
        start.begin()
        until = time.monotonic() + 10
        while not told and time.monotonic() < until:
            sum(range(10_000))
        assert systemd.recv(100) == b"EXTEND_TIMEOUT_USEC=400000"
        start.end()
        start.end()
        before, until = len(told), time.monotonic() + 0.5
        while time.monotonic() < until:
            sum(range(10_000))
        assert len(told) == before


def test_without_systemd_nobody_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    starting.notify("READY=1")


def test_abstract_socket(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0coldframe-test")
        monkeypatch.setenv("NOTIFY_SOCKET", "@coldframe-test")
        starting.notify("X=1")
        assert systemd.recv(10) == b"X=1"
