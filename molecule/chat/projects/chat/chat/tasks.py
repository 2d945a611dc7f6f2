from asgiref.sync import async_to_sync
from celery import shared_task
from channels.layers import get_channel_layer


@shared_task
def shout(room, text):
    async_to_sync(get_channel_layer().group_send)(room, {"type": "said", "text": text.upper()})
