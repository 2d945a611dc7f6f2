"""Runs manage.py, or whatever Python file the application has there, with what every process that sends tasks has.

python -m coldframe.manage manage.py COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import runpy
import sys

from coldframe.sending import amqp, control

if __name__ == "__main__":
    amqp.install()
    control.install()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
