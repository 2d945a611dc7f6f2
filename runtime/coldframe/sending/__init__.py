"""Extends Celery in processes that send tasks: web processes, manage.py, workers and Beat."""
