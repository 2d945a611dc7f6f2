import time

from django.core.cache import cache
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Counts for ever."

    def handle(self, *args, **options):
        while True:
            cache.set("beats", cache.get("beats", 0) + 1, None)
            time.sleep(0.5)
