"""Whose lease it is: each host's own, however alike two hosts are, and the next process's after a crash."""

import sys
from types import ModuleType
from types import SimpleNamespace as Thing
from unittest.mock import MagicMock, patch

import pytest


class Lock:
    """A lock of redis-py's, kept in memory."""

    held = b""

    def __init__(self, redis, *_, **__):
        """Share what is held with all locks."""
        self.local = Thing(token=b"")

    def acquire(self, blocking, token):
        """Take it if it is free."""
        if Lock.held:
            return False
        Lock.held = self.local.token = token.encode()
        return True

    def reacquire(self):
        """Keep it, if it is ours."""
        if self.local.token != Lock.held:
            raise LockError
        return True


class LockError(Exception):
    """The lock is another's."""


def module(name, **contents):
    made = ModuleType(name)
    vars(made).update(contents)
    return made


# The controller has neither Celery nor Redis.
beat = module("celery.beat", Service=object, Scheduler=object)
ABSENT = {name: MagicMock() for name in ("celery.signals", "coldframe.canary", "coldframe.credentials")} | {
    "celery": module("celery", beat=beat),
    "celery.beat": beat,
    "celery.apps": module("celery.apps"),
    "celery.apps.beat": module("celery.apps.beat", Beat=object),
    "redis": module("redis"),
    "redis.exceptions": module("redis.exceptions", LockError=LockError, RedisError=Exception),
    "redis.lock": module("redis.lock", Lock=Lock),
}
with patch.dict(sys.modules, ABSENT):
    from coldframe.beat import lease


@pytest.fixture(autouse=True)
def alike(monkeypatch):
    """Every host is called the same; nothing is held."""
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "debian")
    monkeypatch.setattr(lease, "credentials", Thing(locks=lambda: Thing(get=lambda _: Lock.held)))
    monkeypatch.setattr(Lock, "held", b"")


@pytest.fixture
def process(monkeypatch, tmp_path):
    """A process of Beat's on a host, which systemd has given its folder."""

    def start(host):
        (tmp_path / host).mkdir(exist_ok=True)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / host))
        return lease.Lease()

    return start


def test_of_two_hosts_of_one_name_one_ticks(process):
    first, second = process("one"), process("two")
    assert first.take() and not second.take()
    first.renew()
    assert not second.take() and second.holder() == "debian"
    Lock.held = b""  # its time is over
    assert second.take()
    with pytest.raises(LockError):
        first.renew()


def test_after_a_crash_the_next_process_goes_on_with_the_lease(process):
    assert process("one").take()
    successor = process("one")
    assert successor.take() and not process("two").take()
    successor.renew()


def test_without_a_folder_of_its_own_none_goes_on(monkeypatch):
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert lease.Lease().take() and not lease.Lease().take()
