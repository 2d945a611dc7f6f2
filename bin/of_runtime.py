"""Loads files of the runtime for the programs here: what they and the processes of a release do alike is there."""

from __future__ import annotations

import importlib.util
from typing import Any

from connections import ROOT


def load(name: str) -> Any:
    """Load a file that imports nothing but Python's own modules.

    :param name: its path below `runtime/coldframe`, such as `release/commands.py`.
    """
    spec = importlib.util.spec_from_file_location(f"coldframe_{name}", ROOT / "runtime/coldframe" / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
