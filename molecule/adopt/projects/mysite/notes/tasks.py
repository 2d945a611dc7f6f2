from celery import shared_task
from django.core.mail import send_mail
from django.utils import timezone

from .models import Note


@shared_task
def send_note(pk):
    note = Note.objects.get(pk=pk)
    send_mail('A note', note.text, None, ['notes@example.com'])
    Note.objects.filter(pk=pk).update(sent=timezone.now())


@shared_task
def count_notes():
    return Note.objects.count()
