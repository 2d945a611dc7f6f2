"""Memory and file systems of a host.

It imports nothing but Python's own modules.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDERS = ("/", "/usr", "/var", "/srv", "/opt")  # on whose file systems a deployed application writes


def meminfo(name: str, proc: Path = Path("/proc")) -> int:
    """Read a value of proc_meminfo(5), in bytes; 0 when it is not there."""
    found = re.search(rf"^{name}:\s+(\d+) kB", (proc / "meminfo").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def file_systems() -> dict[str, os.statvfs_result]:
    """Map each file system that a deploy fills to what it holds, by the first of the folders that is on it."""
    found: dict[int, tuple[str, os.statvfs_result]] = {}
    for folder in FOLDERS:
        if os.path.isdir(folder):
            found.setdefault(os.stat(folder).st_dev, (folder, os.statvfs(folder)))
    return dict(found.values())
