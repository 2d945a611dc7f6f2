"""Resolves names below localhost to this machine (RFC 6761), which the resolvers of some machines do not."""

import socket

_resolve = socket.getaddrinfo


def getaddrinfo(host, *arguments, **options):
    """Resolve a host name as `socket.getaddrinfo` does."""
    name = host.decode() if isinstance(host, bytes) else host
    return _resolve("localhost" if name and name.endswith(".localhost") else host, *arguments, **options)


socket.getaddrinfo = getaddrinfo
