"""Gives the WSGI application behind the edge the client's address, as REMOTE_ADDR, and the id of the request.

The peer of Gunicorn is nginx. Through a Unix socket it has no address at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gunicorn.util import import_app

from coldframe import overlay
from coldframe.logs import ids


def application(path: str, edges: str) -> Callable[..., Iterable[bytes]]:
    """Import the WSGI application, and wrap it so that REMOTE_ADDR is the address in X-Forwarded-For.

    The id in X-Request-ID, or a new one, is that of the request: of its log records, and of the tasks that it sends.

    :param path: its module and name, such as `mysite.wsgi:application`.
    :param edges: addresses of trusted peers, separated by commas. A peer without an address came through the Unix socket:
        nginx, or root on this host, who sends no header.
    """
    overlay.load()
    app: Callable[..., Iterable[bytes]] = import_app(path)
    believed = {"", *edges.split(",")}

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = ""
        if (peer := environ["REMOTE_ADDR"]) in believed:
            given = environ.get("HTTP_X_REQUEST_ID", "")
            client = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
            environ["REMOTE_ADDR"] = client or peer or "127.0.0.1"
            environ.pop("REMOTE_PORT", None)
        environ["HTTP_X_REQUEST_ID"] = ids.of_request(given)
        return app(environ, start_response)

    return wsgi
