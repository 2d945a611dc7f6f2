"""Tasks that a real worker is given to be tried by."""

import os
import signal
import time
from datetime import datetime
from pathlib import Path

from celery import Task, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection

from orders import reports
from orders.models import Report


@shared_task(bind=True, name="sick.poison", max_retries=2, default_retry_delay=0)
def poison(self: Task, trace: str) -> None:
    """Kill the process that it runs in."""
    with Path(trace).open("a") as file:
        file.write("run\n")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="sick.endless")
def endless() -> None:
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:  # it does not listen
            pass


@shared_task(name="sick.fail", ignore_result=False)
def fail(file: str) -> str:
    return Path(file).read_text()


SLOW = "1970-01-01"  # a report of that day makes the next sum slow
sum_charges = reports.sum_charges


def slow_sum_charges(*arguments: datetime) -> list[int]:
    """Hang in a query, once, if a test wants it."""
    if Report.objects.filter(day=SLOW).delete()[0]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")
    return sum_charges(*arguments)


reports.sum_charges = slow_sum_charges
