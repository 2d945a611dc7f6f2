from pathlib import Path

from asgiref.sync import async_to_sync
from celery import shared_task
from channels.layers import get_channel_layer
from django.core.cache import cache


@shared_task
def shout(room, text):
    async_to_sync(get_channel_layer().group_send)(room, {"type": "said", "text": text.upper()})


@shared_task
def seal(name):
    path = Path(name)
    path.chmod(0o400)
    cache.set("sealed", path.read_text())


@shared_task
def ring():
    cache.set("rung", cache.get("rung", 0) + 1)
