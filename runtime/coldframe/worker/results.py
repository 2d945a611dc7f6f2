"""Reads on when the connection to the broker was lost in the middle of a long result.

The event loop reads a result that is longer than a pipe holds at several turns. When the connection is lost, the loop forgets
what it has read so far. It would take the rest for the beginning of another result, and hear no more of that process: a task
that has ended there would reach its time limit, and the next ones would be done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery.concurrency import asynpool

from coldframe.seams import extends


@extends("reads")
class ResultHandler(asynpool.ResultHandler):
    """Celery's reader of the results, which remembers those that it has read in part."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Begin with none."""
        super().__init__(*arguments, **options)
        self.partly: dict[int, tuple[Any, Iterator[None]]] = {}  # file descriptor to process and reader

    def reads(self) -> bool:
        """Whether a result of a process that is still there has been read in part."""
        return any(self.fileno_to_outq.get(fd) is process for fd, (process, _) in self.partly.items())

    def _recv_message(self, add_reader: Any, fd: int, callback: Any, **options: Any) -> Iterator[None]:
        """Read a result, or the rest of one. Yields when there is no more to read for now."""
        process = self.fileno_to_outq[fd]  # another one may have the number of one that has exited
        before, reader = self.partly.get(fd, (None, None))
        if reader is None or before is not process:
            reader = super()._recv_message(add_reader, fd, callback, **options)
        self.partly[fd] = process, reader
        while True:
            try:
                next(reader)
            except BaseException as error:
                self.partly.pop(fd, None)
                if isinstance(error, StopIteration):
                    return
                raise
            yield
