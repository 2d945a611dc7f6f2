"""Makes the plugins importable as they are: files, not a package."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ["plugins/filter", "plugins/modules", "docs", "roles/app/files/runtime"]
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]
