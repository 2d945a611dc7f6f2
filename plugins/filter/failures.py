"""What the application's own code has to do with an error: the same on the controller as in the modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# Ansible brings module_utils to the hosts, and not to its own plugins.
ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
from ansible.module_utils import coldframe_commands as commands  # noqa: E402
from ansible.module_utils import coldframe_failures as failures  # noqa: E402


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
