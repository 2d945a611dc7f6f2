"""Sends Gunicorn's own records to the journal."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn import glogging

from coldframe.logs import journal
from coldframe.seams import extends


@extends()
class Logger(glogging.Logger):
    """Gunicorn's logger (its setting `logger_class`), of errors and of requests. Uvicorn uses the same handlers."""

    def _set_handler(self, log: logging.Logger, *arguments: Any, **options: Any) -> None:
        """Set the handler of a logger. The journal has time, process and level as fields."""
        super()._set_handler(log, *arguments, **options)
        journal.adopt([log], logging.Formatter())
        for handler in log.handlers:
            handler._gunicorn = True  # type: ignore[attr-defined]  # removed again when this is called again
