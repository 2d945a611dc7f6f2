"""Prepares a release once, before its units start: checks, static files, migrations."""
