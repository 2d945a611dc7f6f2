"""The Celery app: what the application decides, then what the operator decides.

Results, the schedule and the like belong to the code and stand in shop/settings.py as
CELERY_*. Broker, queues, routes and time limits belong to the deployment; they come from
the JSON file that CELERY_SETTINGS_FILE names, and win where both speak. So every process
that talks to the broker has the same limits, and no queue is named in the code.
"""

import json
import os
from logging.config import dictConfig
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text()))
app.autodiscover_tasks()


@setup_logging.connect
def configure_logging(**_: Any) -> None:
    """Keep Django's logging: without this, a worker would replace it with Celery's own."""
    from django.conf import settings

    dictConfig(settings.LOGGING)
