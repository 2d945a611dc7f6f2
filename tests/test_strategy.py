"""The strategy with which `make` runs playbooks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCAN = """
import ansible, ansible.plugins.loader, os, pathlib
ansible.plugins.loader.strategy_loader.add_directory("plugins/strategy")
ansible.plugins.loader.strategy_loader.get("coldframe", class_only=True)
import ansible_mitogen.module_finder as finder
package = pathlib.Path(ansible.__file__).parent
for name in ("command", "copy", "file"):
    found = finder.scan(name, str(package / f"modules/{name}.py"), (str(package / "module_utils"),))
    assert "ansible.module_utils.basic" in [each[0] for each in found], found
print(finder.compile.cache_info().hits, len(found))
"""


def test_what_modules_import_is_compiled_once():
    """Otherwise Mitogen has changed how it looks for that, and the strategy has no purpose."""
    told = subprocess.run([sys.executable, "-c", SCAN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    hits, files = map(int, told.stdout.split())
    assert hits >= files, "those of the second and the third module"
