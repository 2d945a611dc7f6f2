"""Which tasks a worker has taken from the broker, and which of them its pool has started."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from queue import Empty
from typing import Any

from celery.worker import state

from coldframe.worker import results


def stop_consuming(consumer: Any) -> None:
    """Stop consuming, and read the reply to the pending BRPOP. kombu requeues a message that has no consumer.

    Raises a connection error when the connection is broken.
    """
    tasks = consumer.task_consumer
    tasks.cancel()
    if getattr(tasks.channel, "_in_poll", None):
        with suppress(Empty):
            tasks.channel._brpop_read()


def running() -> tuple[Any, ...]:
    """Return the requests that run. Safe in any thread."""
    return listed(state.active_requests)


def taken() -> tuple[Any, ...]:
    """Return the requests that run or wait for a process of the pool. Safe in any thread."""
    return listed(state.reserved_requests)


def listed(requests: Any) -> tuple[Any, ...]:
    """Copy a set of Celery's, which the event loop may change meanwhile."""
    while True:
        with suppress(RuntimeError):
            return tuple(requests)


def jobs(worker: Any) -> list[Any]:
    """Return the jobs of the pool: those that a child process has, and those that wait for one."""
    return list(getattr(worker.pool._pool, "_cache", {}).values())


def reading(worker: Any) -> bool:
    """Whether a result has been read in part: a long one, which the event loop reads at several turns."""
    handler = getattr(worker.pool._pool, "_result_handler", None)
    return isinstance(handler, results.ResultHandler) and handler.reads()


def take_back(worker: Any) -> list[Any]:
    """Remove what waits for a child process, a slot, its ETA or its rate limit; return the requests."""
    consumer, pool = worker.consumer, worker.pool._pool
    for job in list(getattr(pool, "outbound_buffer", ())):
        pool.outbound_buffer.remove(job)
        job.discard()
    if worker.semaphore:
        worker.semaphore.clear()
    for bucket in filter(None, consumer.task_buckets.values()):
        bucket.clear_pending()
    given = given_to_pool(worker)
    put_off = {}
    for item in list(consumer.timer.queue):
        entry = item[2] if isinstance(item, tuple) else item.entry  # gevent has a green thread for each
        if entry.fun in (consumer.apply_eta_task, consumer._limit_post_eta) and not entry.canceled:
            put_off[entry.args[0].id] = entry.args[0]  # Celery 5.6 keeps these nowhere else
            consumer.timer.cancel(entry if isinstance(item, tuple) else item)
    requests = {id_: r for id_, r in state.requests.items() if r not in state.active_requests and id_ not in given}
    return list((put_off | requests).values())


def given_to_pool(worker: Any) -> set[str]:
    """Return the ids of the tasks that the pool keeps. Threads, also green ones, give back what has not begun."""
    if hasattr(worker.pool._pool, "_cache"):
        return {job.correlation_id for job in jobs(worker)}
    given = [request for request in tuple(state.requests.values()) if request._apply_result is not None]
    if in_this_process(worker):
        for request in given:
            if worker.pool.withdraw(request.id):
                request._apply_result = None
    return {request.id for request in given if request._apply_result is not None}


def in_this_process(worker: Any) -> bool:
    """Whether tasks run side by side in this process, in threads or green threads."""
    return hasattr(worker.pool, "withdraw")


def begun(worker: Any, seconds: float) -> set[str]:
    """Remove what waits, read what the child processes report, and return the ids of tasks that run or have just ended.

    :param seconds: how long to wait for child processes to accept their tasks. It takes milliseconds.
    """
    take_back(worker)
    if in_this_process(worker):
        return {*worker.pool.tasks(), *(request.id for request in running())}
    given = given_to_pool(worker)
    pool, until = worker.pool._pool, time.monotonic() + seconds
    while (silent := {job.correlation_id for job in jobs(worker) if not job._accepted}) and time.monotonic() < until:
        hear(worker, 0.05)
    if hasattr(pool, "flush"):
        pool.flush()  # drops the jobs that no process has accepted
    return given - silent | {request.id for request in running()}


def hear(worker: Any, seconds: float = 0) -> None:
    """Read messages from the child processes in place of the event loop.

    :param seconds: how long to wait for the first message.
    """
    pool = worker.pool._pool
    if not getattr(pool, "_registered_with_event_loop", True):
        return  # before the first connection there are no tasks
    while fds := list(getattr(pool, "_fileno_to_outq", ())):
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        if not (ready := poller.poll(seconds * 1000)):
            return
        seconds = 0
        for fd, _ in ready:
            callback, arguments = worker.hub.readers.get(fd) or (pool.handle_result_event, (fd,))
            if callable(callback):
                callback(*arguments)
            else:  # the rest of a long message
                with suppress(StopIteration):
                    next(callback)
        if not any(event & select.POLLIN for _, event in ready):
            return  # only processes that have exited
