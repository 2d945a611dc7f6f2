import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "press.settings.local")

celery_app = Celery("press")
celery_app.config_from_object("press.celeryconfig")
celery_app.autodiscover_tasks(["issues"])
