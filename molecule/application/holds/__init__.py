"""Tasks that take long, and tasks whose names change from release to release: what tests need of an application."""
