"""The Celery application that Flower watches with: the broker's settings and nothing of the application."""

import json
import os
from pathlib import Path

from celery import Celery

app = Celery("flower")
app.conf.update(json.loads(Path(os.environ["CELERY_SETTINGS_FILE"]).read_text()))
