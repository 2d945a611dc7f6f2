"""Whose lease it is: each host's own, however alike two hosts are, and the next process's after a crash."""

import pytest
from coldframe import credentials
from coldframe.beat import lease
from redis.exceptions import LockError


@pytest.fixture(autouse=True)
def alike(monkeypatch, server, login):
    """Every host is called the same; nothing is held."""
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCKS_URL", f"unix://{server.path}?db=1")
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "debian")
    with credentials.locks() as client:
        client.flushdb()


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
    first.redis.delete(lease.KEY)  # its time is over
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
