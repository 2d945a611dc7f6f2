"""Has the application's logs written to the journal with fields: by its own LOGGING, or by the deployment's if it has none."""

from __future__ import annotations

import logging.config
from typing import Any

from coldframe.logs import journal
from coldframe.overlay.deployment import Deployment
from coldframe.overlay.record import LINES, Line, Settings

CONSOLE = "logging.StreamHandler"
OURS = "coldframe.logs.journal.Handler"
STREAMS = ("ext://sys.stderr", "ext://sys.stdout")
DEFAULT = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"journal": {"class": OURS}},
    "root": {"handlers": ["journal"], "level": "INFO"},
}


def lay(settings: Settings, deployment: Deployment) -> None:
    """Lay the deployment's logging over none, and its handler over those of the application that write to the console.

    Levels, formats, filters and other handlers stay. A developer's machine shows the application's logs as they are.
    """
    if deployment.development:
        return
    if settings.get("LOGGING_CONFIG") not in ("logging.config.dictConfig", logging.config.dictConfig):
        journal.adopt(journal.all_loggers())
        settings.keep("logging", "LOGGING_CONFIG", repr(settings.get("LOGGING_CONFIG")), "it configures logging itself")
        return
    own = settings.get("LOGGING")
    if own:
        lay_handlers(settings, own)
    elif logging.root.handlers:
        journal.adopt([logging.root])
        settings.keep("logging", "LOGGING", "not set", "the settings have configured the root logger themselves")
    else:
        LINES.append(Line("logging", "LOGGING", "not set", "INFO and above to the journal", ""))
        settings.laid["LOGGING"] = DEFAULT


def lay_handlers(settings: Settings, own: dict[str, Any]) -> None:
    """Lay the deployment's handler over those of the application that write to the console.

    :param own: the application's LOGGING.
    """
    handlers = own.get("handlers") or {}
    laid = {name: {**entry, "class": OURS} for name, entry in handlers.items() if is_console(entry)}
    for name in laid:
        LINES.append(Line("logging", f"LOGGING['handlers'][{name!r}]", CONSOLE, OURS, "with its format and level"))
    if laid:
        settings.laid["LOGGING"] = {**own, "handlers": {**handlers, **laid}}


def is_console(entry: Any) -> bool:
    """Whether an entry of the handlers writes to stderr or stdout."""
    if not isinstance(entry, dict) or entry.get("class") not in (CONSOLE, logging.StreamHandler):
        return False
    stream = entry.get("stream", STREAMS[0])
    return stream is None or stream in STREAMS
