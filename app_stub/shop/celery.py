"""The Celery app: what the application decides, then what the operator decides.

Both stand in Django's settings as CELERY_*. Results, the schedule and the like belong to the
code; broker, queues and time limits to the deployment: shop/settings.py reads them last, so
they win. So every process that talks to the broker has the same limits.
"""

import os
from logging.config import dictConfig
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def configure_logging(**_: Any) -> None:
    """Keep Django's logging: without this, a worker would replace it with Celery's own."""
    from django.conf import settings

    dictConfig(settings.LOGGING)
