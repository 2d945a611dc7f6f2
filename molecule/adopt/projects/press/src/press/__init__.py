from press.queue import celery_app

__all__ = ["celery_app"]
