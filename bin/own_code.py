"""Loads files of Coldframe's plugins and runtime for the programs here: what they do alike is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from connections import ROOT


def load(name: str) -> Any:
    """Load a file.

    :param name: its path in the project, such as `plugins/filter/lock.py`. It may import what this program's Python has.
    """
    spec = importlib.util.spec_from_file_location(f"coldframe_{Path(name).stem}", ROOT / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
