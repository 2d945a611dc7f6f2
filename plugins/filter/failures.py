"""What the application's own code has to do with an error: the same on the controller as in the modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Ansible brings module_utils to the hosts, and not to its own plugins.
if TYPE_CHECKING:
    from ansible.module_utils import coldframe_commands as commands
    from ansible.module_utils import coldframe_failures as failures
else:

    def _load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"module_utils/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    commands, failures = _load("coldframe_commands"), _load("coldframe_failures")


def own_lines(journal: str, root: str) -> str:
    """Leave out of a journal's tracebacks what is not the application's, and control characters; add what helps against the error.

    :param journal: its lines.
    :param root: the application's folder on the host.
    """
    lines = failures.own_lines(commands.plain(journal), f"{root}/releases/")
    return "\n".join([lines, *failures.remedies(lines)])


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters for Ansible."""
        return {"own_lines": own_lines}
