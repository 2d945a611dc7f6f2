"""What becomes of a pool's tasks when the connection to the broker is lost, and of its pipes when a process ends."""

import os
from collections import Counter, deque
from types import SimpleNamespace as Thing

import pytest
from billiard.pool import RUN
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR
from coldframe.worker import limits
from kombu.asynchronous import Hub


@pytest.fixture
def pool():
    """A pool without processes."""
    pool = object.__new__(limits.AsynPool)
    pool._state, pool.synack, pool.sched_strategy = RUN, False, SCHED_STRATEGY_FAIR
    pool._cache, pool.outbound_buffer, pool.write_stats = {}, deque(), Counter()
    pool._fileno_to_inq, pool._fileno_to_synq = {}, {}
    pool._all_inqueues, pool._active_writes, pool._active_writers, pool._busy_workers = set(), set(), set(), set()
    pool.maintain_pool = lambda: None
    return pool


def job(pool, number, accepted, writer=None):
    """Give the pool a task, which is being written to a process that has ended if there is a writer."""
    looks = iter(range(20))

    def is_alive():
        assert next(looks, None) is not None, "this loop does not end"
        return not writer

    process = Thing(_is_alive=is_alive, inqW_fd=number)
    pool._cache[number] = Thing(_accepted=accepted, _write_to=process, _writer=lambda: writer, ready=lambda: False)
    pool._cache[number].discard = lambda: pool._cache.pop(number, None)


@pytest.mark.parametrize("writing", [False, True], ids=["nothing is written", "one's process has ended"])
def test_lost_connection_drops_no_task_that_runs(pool, writing):
    def _write_job():
        yield
        yield

    job(pool, 1, accepted=True)
    job(pool, 2, accepted=False)
    if writing:
        writer = _write_job()
        next(writer)
        pool._active_writers.add(writer)
        job(pool, 3, accepted=False, writer=writer)
    pool.flush()
    assert list(pool._cache) == [1] and not pool._active_writers


def test_pipe_that_has_the_number_of_an_old_one_is_read(pool):
    hub = Hub()
    pool._create_write_handlers(hub)
    reader, writer = os.pipe()
    try:
        hub.add_reader(reader, print)
        pool._all_inqueues.add(reader)  # a process that has ended had it, and was not cleaned up yet
        pool.on_poll_start()
        assert reader in hub.readers
    finally:
        hub.close()
        os.close(reader)
        os.close(writer)
