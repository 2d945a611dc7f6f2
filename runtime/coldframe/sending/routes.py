"""Puts the deployment's routes before the application's: they win for the tasks that they name, the others stay."""

from __future__ import annotations

from typing import Any

from celery.app import routes
from celery.app.amqp import AMQP

from coldframe import settings_check


def install() -> None:
    """Put this around the function of Celery's that reads the routes."""
    flush = AMQP.flush_routes

    def deployed_first(amqp: Any) -> None:
        flush(amqp)
        first = settings_check.given().get(settings_check.OWN, {}).get("routes")
        amqp._rtable = (*routes.prepare(first or None), *amqp._rtable)

    AMQP.flush_routes = deployed_first
