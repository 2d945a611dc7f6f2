"""Reports: work done in parts at once, work done by one at a time, work that may take too long."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from celery import Task, group, shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection, transaction
from django.db.models import Count, Min, Sum

from orders.models import Charge, Report
from orders.outbox import done
from orders.tasks import RETRY
from shop.locks import lock

Sums = list[int]  # how many charges, how many cents


@shared_task(bind=True, name="orders.reports.report_day", ignore_result=True, **RETRY)
def report_day(self: Task, day: str) -> None:
    """Sum up the hours of a day all at once, add their sums up, and write that down.

    Celery sends the second when the last of the first is done, which one lost task or one
    delivered twice prevents. So the day is intended, and done only when its report is
    written: until then the sweep begins it anew.
    """
    hours = group(sum_hour.s(day, hour) for hour in range(24))
    (hours | add_up.s() | write_report.s(day, self.request.id)).apply_async()


@shared_task(name="orders.reports.sum_hour", ignore_result=False, **RETRY)
def sum_hour(day: str, hour: int) -> Sums:
    begin = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    begin += timedelta(hours=hour)
    return sum_charges(begin, begin + timedelta(hours=1))


@shared_task(name="orders.reports.add_up", ignore_result=False)
def add_up(hours: list[Sums]) -> Sums:
    return [sum(column) for column in zip(*hours, strict=True)]


@shared_task(name="orders.reports.write_report", ignore_result=True, **RETRY)
def write_report(sums: Sums, day: str, intent: str | None = None) -> None:
    charges, cents = sums
    with transaction.atomic():
        Report.objects.update_or_create(
            day=day, defaults={"charges": charges, "amount_cents": cents}
        )
        done(intent)


@shared_task(bind=True, name="orders.reports.rebuild_reports", ignore_result=False, **RETRY)
def rebuild_reports(self: Task, since: str | None = None) -> str:
    """Write every day's report anew. Who finds another one at it leaves it to that one.

    At the soft time limit what is written stays, and the rest is done by a retry.
    """
    with lock("reports") as mine:
        if not mine:
            return "skipped"
        first = since or Charge.objects.aggregate(at=Min("created_at"))["at"]
        day = first and date.fromisoformat(str(first)[:10])
        today = datetime.now(UTC).date()
        try:
            while day and day <= today:
                begin = datetime.combine(day, datetime.min.time(), UTC)
                write_report(sum_charges(begin, begin + timedelta(days=1)), str(day))
                day += timedelta(days=1)
        except SoftTimeLimitExceeded:
            connection.close()  # perhaps in the middle of a query: it is of no more use
            raise self.retry(args=[str(day)], countdown=1) from None
    return "written"


def sum_charges(begin: datetime, end: datetime) -> Sums:
    charges = Charge.objects.filter(created_at__gte=begin, created_at__lt=end)
    sums: dict[str, Any] = charges.aggregate(number=Count("pk"), cents=Sum("amount_cents"))
    return [sums["number"], sums["cents"] or 0]
