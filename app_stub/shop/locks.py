"""Locks that the processes of all hosts share. They stand in Redis (LOCKS_URL).

A lock spares work that another is doing. What must never happen twice is for the database
to refuse: a Redis that fails over or is restored may give a lock to two.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from celery import current_app
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from redis import Redis


@contextmanager
def lock(name: str) -> Iterator[bool]:
    """Hold a lock, without waiting: False if somebody else holds it.

    It expires with the longest time limit of a task. So none outlives its lock, and whoever
    is killed while holding it keeps the others out no longer than that.
    """
    if not settings.LOCKS:
        raise ImproperlyConfigured("The environment variable LOCKS_URL is not set.")
    with Redis.from_url(**settings.LOCKS) as redis:
        held = redis.lock(f"lock:{name}", timeout=current_app.conf.task_longest_time_limit)
        mine = held.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                held.release()
