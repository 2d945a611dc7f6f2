"""Runs manage.py, or another Python file, with the deployment's settings and the extensions of what sends tasks.

python -m coldframe.manage manage.py COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import runpy
import sys

from coldframe import versions

if __name__ == "__main__":
    versions.require()
    from coldframe import overlay
    from coldframe.sending import amqp, control

    amqp.install()
    control.install()
    overlay.load()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
