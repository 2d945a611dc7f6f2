"""Extends Celery's Beat: one of several ticks, the others stand by."""
