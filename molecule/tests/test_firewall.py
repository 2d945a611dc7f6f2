"""What the host lets in, whatever listens on it."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from waits import wait_for

LISTEN = "python3 -m http.server --bind 0.0.0.0 --directory /mnt 9321"


def reachable(address, port):
    """Whether the controller, a host that is not in the inventory, gets a connection."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.fixture
def address(host, deployment):
    """The host's address, which the controller reaches without a published port."""
    if not deployment.sandbox_name:
        pytest.skip("a firewall between the controller and this host would hide its own")
    return host.check_output("hostname --all-ip-addresses").split()[0]


@pytest.mark.changes
def test_what_listens_by_mistake_is_reached_by_nobody(host, address):
    host.check_output(f"systemd-run --quiet --unit=coldframe-mistake {LISTEN}")
    try:
        wait_for(lambda: ":9321" in host.check_output("ss -Hltn"), 10, "something listens")
        assert not reachable(address, 9321)
        host.check_output("systemctl stop coldframe-firewall")
        assert reachable(address, 9321), "without the firewall it is reached: this test can fail"
    finally:
        host.check_output("systemctl start coldframe-firewall; systemctl stop coldframe-mistake")
    assert not reachable(address, 9321)


def test_rules_open_ssh_and_the_edge_alone_to_all(host, deployment):
    """Whatever else listens, a socket of systemd's too."""
    rules = host.check_output("nft --stateless list chain inet coldframe input").splitlines()
    (opened,) = [line.split("dport")[1] for line in rules if line.strip().startswith("tcp dport")]
    ports = {22} | ({80, 443} if "edge" in deployment.group_names else set())
    assert set(map(int, re.findall(r"\d+", opened))) == ports


def test_outside_reaches_ssh_and_the_edge_alone(deployment, address):
    ports = {22} | ({80, 443} if "edge" in deployment.group_names else set())
    asked = {*ports, 80, 443, 5432, 5555, 6379, 6380, 8000, 9090, 9093, 9100, 9115, 9121, 9469}
    with ThreadPoolExecutor(len(asked)) as pool:  # what is dropped is waited for
        answers = dict(zip(asked, pool.map(partial(reachable, address), asked), strict=True))
    assert {port for port in answers if answers[port]} == ports
