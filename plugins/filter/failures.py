"""What the application's own code has to do with an error: the same on the controller as in the modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Ansible brings module_utils to the hosts, and not to its own plugins.
if TYPE_CHECKING:
    from ansible.module_utils import coldframe_failures as failures
else:
    _spec = importlib.util.spec_from_file_location(
        "coldframe_failures", Path(__file__).parents[1] / "module_utils/coldframe_failures.py"
    )
    failures = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(failures)


def own_lines(journal: str, root: str) -> str:
    """Leave out of a journal's tracebacks what is not the application's; add what helps against the error.

    :param journal: its lines.
    :param root: the application's folder on the host.
    """
    lines = failures.own_lines(journal, f"{root}/releases/")
    return "\n".join([lines, *failures.remedies(lines)])


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"own_lines": own_lines}
