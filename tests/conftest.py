"""Makes the plugins importable as they are: files, not a package."""

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "plugins/filter"), str(ROOT / "plugins/modules"), str(ROOT / "docs"), str(ROOT / "tests")]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
