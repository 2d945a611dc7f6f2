"""What Gunicorn runs: the hooks of its configuration, and the WSGI application behind the edge."""
