"""Runs the commands that a release has for one point of a deploy (`app_hooks`), in the release's folder.

    python -m coldframe.release.hooks POINT

The exit status is 1 when one failed, and its output is on stderr. The commands after it are not run.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from coldframe.release import commands as programs
from coldframe.release.errors import Complete

FILE = Path(".release/hooks.json")


def commands(point: str) -> list[str]:
    """Return the commands of a point, such as `before_migrate`."""
    hooks: dict[str, list[str]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return hooks.get(point, [])


def run(point: str) -> None:
    """Run the commands of a point, each in a process of its own, for at most `commands.LONGEST` seconds.

    Raises Complete, with the command, how it ended and its last lines, when one fails.
    """
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    for command in commands(point):
        words = shlex.split(command)
        if words[0] == "manage.py":
            words = [sys.executable, "-m", "coldframe.manage", *words]
        try:
            programs.run(
                f"app_hooks.{point}, {command!r},",
                ["/usr/bin/env", "--", *words],  # env looks for the program in the new PATH
                folder=Path.cwd(),
                environment=os.environ | {"PATH": path},
                seconds=programs.LONGEST,
            )
        except ValueError as error:
            raise Complete(str(error)) from error


if __name__ == "__main__":
    try:
        run(sys.argv[1])
    except Complete as error:
        sys.exit(str(error))
