from django.core.cache import cache
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Counts once."

    def handle(self, *args, **options):
        cache.set("swept", cache.get("swept", 0) + 1, None)
