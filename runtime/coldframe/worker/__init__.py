"""Extends Celery, kombu and billiard in workers. runtime/README.md lists the defects that this works around."""
