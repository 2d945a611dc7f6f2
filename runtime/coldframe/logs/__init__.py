"""Writes each log record as one entry of systemd's journal, with the request and the task that it belongs to."""
