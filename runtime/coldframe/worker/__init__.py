"""What a worker adds to Celery, kombu and billiard. runtime/README.md names each defect that it works around."""
