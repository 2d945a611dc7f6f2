"""The WSGI application as Gunicorn runs it behind the edge: it sees the client's address, not the peer's.

The peer is nginx, and through a socket in the file system it has no address at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app


def application(path: str, edges: str) -> Callable[..., Iterable[bytes]]:
    """Import the WSGI application; its REMOTE_ADDR is the client's address, which the edge passes on, not the edge's.

    :param path: where it is, such as `mysite.wsgi:application`.
    :param edges: the addresses of the peers that are believed, with commas between. A peer without one came through the
        socket in the file system: nginx, or root on this host, who passes on nothing.
    """
    app: Callable[..., Iterable[bytes]] = import_app(path)
    believed = {"", *edges.split(",")}

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (peer := environ["REMOTE_ADDR"]) in believed:
            client = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
            environ["REMOTE_ADDR"] = client or peer or "127.0.0.1"
            environ.pop("REMOTE_PORT", None)
        return app(environ, start_response)

    return wsgi
