"""Extends Gunicorn: the hooks of its configuration, and the WSGI application behind the edge."""
