"""A backend of Django's tasks on Celery's workers. See backend.py."""
