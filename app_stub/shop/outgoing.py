"""HTTP requests to addresses that a client chose, without becoming the client's tool (SSRF).

The server reaches more than a client does: its own services, its network, the cloud's metadata.
So the name is looked up once, every address that it has is checked, and the connection is made to
one of these addresses: a name that changes its address in between changes nothing. The name is
still what the certificate must have, and what the request says in Host. No redirect is followed,
no proxy is used, and nothing of the answer is given out but its status.

What is allowed stands in Django's settings: CALLBACK_SCHEMES, CALLBACK_PORTS, and CALLBACK_NETWORKS
for networks that are allowed although they are not public.
"""

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Timer
from urllib.parse import urlsplit

from django.conf import settings

TIMEOUT = 5  # seconds for each step: to connect, to send, to wait for the next bytes
DEADLINE = 15  # seconds for all steps together, once it is connected
MAX_URL = 500  # characters

# What is no public address of one machine, by IANA's registries of special addresses. A table, for
# ipaddress.is_global says different things in different versions of Python. Of IPv6 only 2000::/3
# is public at all: so neither ::1 nor an IPv4 address in one of IPv6 (::ffff:10.0.0.1), nor one
# behind the well-known prefix of NAT64 (64:ff9b::), nor private, link-local and multicast ones.
PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
SPECIAL = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by customers of a provider, and used inside of clouds
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public by its number, but a service of Azure's for its own servers
        "169.254.0.0/16",  # link-local; the cloud's metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocols; Teredo, which holds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
]
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Exception):
    """Not sent, and not to be sent later: the address is not allowed."""


class Unreachable(Exception):
    """Not sent, or not answered in time: it may work later."""


@dataclass(frozen=True)
class Destination:
    """Where a request goes: the parts of a URL that was checked."""

    scheme: str
    host: str  # a name, or an IP address without brackets
    port: int
    target: str  # path and query


def read(url: str) -> Destination:
    """Take a URL apart, or raise Refused. Nobody is asked, so a view may call this."""
    if not re.fullmatch(r"[!-\[\]-~]+", url) or len(url) > MAX_URL:  # urlsplit drops line breaks
        raise Refused(f"a URL has 1 to {MAX_URL} printable ASCII characters and no backslash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Refused(str(error)) from None
    if parts.scheme not in settings.CALLBACK_SCHEMES:
        raise Refused(f"the scheme must be one of {', '.join(settings.CALLBACK_SCHEMES)}")
    port = (443 if parts.scheme == "https" else 80) if port is None else port
    if port not in settings.CALLBACK_PORTS:
        raise Refused(f"the port must be one of {', '.join(map(str, settings.CALLBACK_PORTS))}")
    if "@" in parts.netloc:
        raise Refused("a URL with a user or password is not allowed")
    if (address := literal(host)) is not None:
        refuse_special(address)
    elif "[" in parts.netloc or not NAME.fullmatch(host) or len(host) > 253:
        raise Refused("the host must be a name or an IP address")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port, target)


def literal(host: str) -> Address | None:
    """Return the IP address that a host is, or None for a name.

    The C library takes more for one: 2130706433, 0x7f000001, 0177.0.0.1 and 127.1 are 127.0.0.1.
    A host that ends in a number is no name, so it is an address as people write it or refused.
    """
    if ":" not in host and not NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise Refused(f"{host} is no IP address") from None
    if getattr(address, "scope_id", None):
        raise Refused("an address with a zone is not allowed")
    return address


def refuse_special(address: Address) -> None:
    """Raise Refused unless an address is a public one, or in a network that is allowed."""
    if any(address in network for network in settings.CALLBACK_NETWORKS):
        return
    no_public_ipv6 = address.version == 6 and address not in PUBLIC_IPV6
    if no_public_ipv6 or any(address in network for network in SPECIAL):
        raise Refused(f"{address} is no public address")


def resolve(to: Destination) -> list[tuple[int, tuple]]:
    """Look the host up, once: family and socket address of each of its addresses.

    One address that is not allowed is enough to refuse them all.
    """
    try:
        found = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{to.host} is not found: {error}") from None
    addresses = []
    for family, _, _, _, where in found:
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise Refused(f"{to.host} has an address of another kind")
        if len(where) == 4 and where[3]:  # the zone of an IPv6 address
            raise Refused("an address with a zone is not allowed")
        refuse_special(ipaddress.ip_address(where[0]))
        addresses.append((family, where))
    return addresses


def dial(addresses: list[tuple[int, tuple]]) -> socket.socket:
    """Connect to the first of two addresses that takes the connection."""
    problem = OSError("no address")
    for family, where in addresses[:2]:
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(TIMEOUT)
        try:
            plain.connect(where)
        except OSError as error:
            plain.close()
            problem = error
        else:
            return plain
    raise problem


@contextmanager
def cut_off_late(connected: socket.socket) -> Iterator[None]:
    """End a connection at the deadline: who sends byte after byte would never time out."""

    def shut_down() -> None:
        with suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not TLS's own, which waits

    timer = Timer(DEADLINE, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Send a POST request, and return the status of the answer; 3xx too, for none is followed.

    :raises Refused: if the address is not allowed.
    :raises Unreachable: if there is no connection, no valid certificate or no answer in time.
    """
    to = read(url)
    addresses = resolve(to)
    try:
        connected = dial(addresses)
        connection = HTTPConnection(to.host, to.port)
        if to.scheme == "https":
            context = ssl.create_default_context()
            connected = context.wrap_socket(
                connected, server_hostname=to.host, do_handshake_on_connect=False
            )
            connection = HTTPSConnection(to.host, to.port, context=context)
        connection.auto_open = 0  # it may use this connection, and make none of its own
        connection.sock = connected
        with closing(connected), cut_off_late(connected):
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            connection.request("POST", to.target, body, dict(headers))
            return connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{to.host}: {type(error).__name__}: {error}") from None
