from celery.beat import Scheduler
from django.core.cache import cache


class Counting(Scheduler):
    def apply_async(self, entry, producer=None, advance=True, **options):
        cache.set("scheduled", cache.get("scheduled", 0) + 1)
        return super().apply_async(entry, producer, advance, **options)
