"""The Django application that prepares the reports. The overlay installs it (coldframe.overlay.tracing)."""

from django.apps import AppConfig

from coldframe import tracing


class TracingConfig(AppConfig):
    """Its configuration."""

    name = tracing.APP
    label = "coldframe_tracing"
    verbose_name = "Coldframe, reports"

    def ready(self) -> None:
        """Prepare them: all settings are there, and no middleware is loaded yet."""
        tracing.prepare()
