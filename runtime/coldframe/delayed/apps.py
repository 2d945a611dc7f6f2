"""The Django application with the table of stored tasks. The overlay installs it (coldframe.overlay.apps)."""

from django.apps import AppConfig

from coldframe.delayed import APP


class DelayedConfig(AppConfig):
    """Its configuration."""

    name = APP
    label = "coldframe"
    verbose_name = "Coldframe"
