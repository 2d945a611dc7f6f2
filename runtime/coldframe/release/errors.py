"""Formats an exception for the developers of the application: its text, and its origin in their code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for a lock timeout
LINES = 15  # last lines of an error that has none of the application's
OWN = 8  # lines of the application's code, for each exception of a chain


class Complete(Exception):
    """An error whose text is complete, without a traceback."""


def is_own(file: str, folder: Path) -> bool:
    """Whether a source file belongs to the application, and not to an installed package or to Coldframe."""
    path = Path(file)
    return path.is_relative_to(folder) and path.relative_to(folder).parts[0] not in (".venv", ".release")


def chain(error: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    """Yield an exception and its causes, as Python prints them."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def own_traceback(error: BaseException, folder: Path) -> str:
    """Format the lines of a traceback that are in a folder, and where each exception was raised."""
    told = traceback.TracebackException.from_exception(error)
    found = False
    for each in chain(told):
        own = [frame for frame in each.stack if is_own(frame.filename, folder)][-OWN:]
        found = found or bool(own) or isinstance(error, SyntaxError)
        last = list(each.stack)[-1:]
        each.stack = traceback.StackSummary.from_list(own + [frame for frame in last if frame not in own])
    if not found:
        return "\n".join("".join(traceback.format_exception(error)).rstrip().splitlines()[-LINES:])
    return "".join(told.format()).rstrip()


def error_of(error: BaseException) -> dict[str, Any]:
    """Return the type and the text of an error, and whether it was a lock timeout."""
    codes = []
    cause: BaseException | None = error
    while cause is not None:
        codes.append(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None))
        cause = cause.__cause__
    if isinstance(error, Complete) or type(error).__name__ in ("SystemCheckError", "CommandError"):
        text = str(error)
    else:
        text = own_traceback(error, Path.cwd())
    return {"type": type(error).__name__, "text": text, "lock": LOCK_NOT_AVAILABLE in codes}
