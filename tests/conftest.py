"""Makes plugins/module_utils importable as Ansible's modules import it; pyproject.toml does so for the rest."""

from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
