from celery import shared_task
from django.db.models import F

from .models import Issue, Visits


@shared_task(bind=True, max_retries=3)
def render_page(self, title, page):
    return f"{title}, page {page}"


@shared_task
def bind(pages, pk):
    Issue.objects.filter(pk=pk).update(bound="\n".join(pages))
    return len(pages)


@shared_task
def count_visits():
    Visits.objects.get_or_create(pk=1)
    Visits.objects.update(counted=F("counted") + 1)
