"""Has a soft time limit interrupt a task alone, and not its process while that says how the task has ended.

A message longer than the pipe waits in it for the event loop. A signal that comes meanwhile would leave half of the
message there and another would follow it; Celery's main process ends at what it then reads.
"""

from __future__ import annotations

import signal
from typing import Any

from billiard.pool import ACK, SIG_SOFT_TIMEOUT
from celery.concurrency.asynpool import Worker


def install() -> None:
    """Hold the signal back in a pool's process but from the beginning of a task to its end."""
    on_loop_start = Worker.on_loop_start

    def begin(process: Any, pid: int) -> None:
        put = process.outq.put

        def say(message: tuple[int, Any]) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {SIG_SOFT_TIMEOUT})
            put(message)
            if message[0] == ACK:  # a task begins; what has come is for the one before
                while signal.sigtimedwait({SIG_SOFT_TIMEOUT}, 0):
                    pass
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIG_SOFT_TIMEOUT})

        process.outq.put = say
        on_loop_start(process, pid)

    Worker.on_loop_start = begin
