import hashlib
from datetime import timedelta

from celery import shared_task
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.mail import send_mail
from django.utils import timezone

from .models import Appointment


@shared_task
def describe_scan(pk):
    appointment = Appointment.objects.get(pk=pk)
    with appointment.scan.open() as scan:
        digest = hashlib.sha256(scan.read()).hexdigest()
    name = default_storage.save(appointment.scan.name + ".sha256", ContentFile(digest.encode()))
    Appointment.objects.filter(pk=pk).update(thumbnail=name)
    return name


@shared_task(bind=True, autoretry_for=(OSError,), retry_backoff=True, max_retries=5)
def send_reminder(self, pk):
    appointment = Appointment.objects.get(pk=pk)
    send_mail("Reminder", str(appointment), None, [appointment.email])
    Appointment.objects.filter(pk=pk).update(reminded=timezone.now())


@shared_task
def send_due_reminders():
    tomorrow = timezone.localdate() + timedelta(days=1)
    for pk in Appointment.objects.filter(at__date=tomorrow, reminded=None).values_list("pk", flat=True):
        send_reminder.delay(pk)


@shared_task
def month_report():
    count = Appointment.objects.count()
    cache.set("appointments:count", count, 3600)
    return count
