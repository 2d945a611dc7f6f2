"""Makes plugins/module_utils importable as Ansible's modules import it; pyproject.toml does so for the rest.

Fixtures of several files are here too.
"""

from pathlib import Path

import ansible.module_utils
import package_index
import pytest

ROOT = Path(__file__).parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))


@pytest.fixture(scope="session")
def package_configuration(tmp_path_factory):
    """Return uv's configuration with an index of packages that a test made."""
    return package_index.write(tmp_path_factory.mktemp("index"))


@pytest.fixture
def own_packages(package_configuration, monkeypatch):
    """Have uv know no other packages than those of the index."""
    monkeypatch.setenv("UV_CONFIG_FILE", str(package_configuration))
