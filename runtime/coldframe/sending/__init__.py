"""What every process that sends tasks adds to Celery: web processes, manage.py, workers and Beat."""
