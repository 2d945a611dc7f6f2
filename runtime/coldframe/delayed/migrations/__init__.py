"""Migrations of the table of stored tasks."""
