"""The project. Importing it loads the Celery app, so that shared tasks find their settings."""

from shop.celery import app as celery_app

__all__ = ["celery_app"]
