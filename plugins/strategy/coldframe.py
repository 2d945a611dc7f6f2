"""Mitogen's strategy `mitogen_linear`, without compiling the same files again and again.

To learn which files a module needs on a host, Mitogen 0.3.54 compiles the module and all that it imports. It does so for
each module of a play, so `ansible/module_utils/basic.py` and what that imports were compiled some twenty times in a deploy.
"""

from __future__ import annotations

import functools
from typing import Any

import ansible_mitogen.loaders
import ansible_mitogen.module_finder
import ansible_mitogen.strategy

ansible_mitogen.module_finder.compile = functools.cache(compile)  # by source, name and mode
linear: Any = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, linear):
    """Ansible's strategy `linear`, by Mitogen."""
