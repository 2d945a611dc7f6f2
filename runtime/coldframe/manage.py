"""Runs manage.py, or whatever Python file the application has there, with what every process that sends tasks has.

python -m coldframe.manage manage.py COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import runpy
import sys

from coldframe.sending import control, countdown, routes

if __name__ == "__main__":
    control.install()
    countdown.install()
    routes.install()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
