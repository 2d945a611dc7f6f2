"""What Beat adds to Celery: one of several ticks, the others stand by."""
