"""Makes the plugins importable as they are: files, not a package."""

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).parents[1]
FOLDERS = ["plugins/filter", "plugins/modules", "docs", "runtime", "tests"]
sys.path[:0] = [str(ROOT / folder) for folder in FOLDERS]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
