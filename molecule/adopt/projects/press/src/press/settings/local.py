from press.settings.base import *  # noqa: F403

SECRET_KEY = "local"  # noqa: S105
DEBUG = True
