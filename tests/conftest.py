"""Makes plugins/module_utils importable as Ansible's modules import it; pyproject.toml does so for the rest."""

import os
import sys
from pathlib import Path

import ansible.module_utils
import pytest

ROOT = Path(__file__).parents[1]
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have Hypothesis generate the same examples in every run; HYPOTHESIS_PROFILE=default generates others."""
    if "hypothesis" in sys.modules:  # it takes a second to import
        from hypothesis import settings

        settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
