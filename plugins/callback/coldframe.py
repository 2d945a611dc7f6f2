"""Ansible's own output, in which what fails is told once: where it ends the run."""

from __future__ import annotations

from typing import Any

from ansible.constants import COLOR_ERROR
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: coldframe
type: stdout
short_description: Ansible's default output, with each failure told once
description:
  - The default output tells a failure as an error and as a result. Here it is told as its message.
  - Of a task whose failure a C(rescue) deals with, one line says so; what follows tells the rest. With C(-v) all is shown.
extends_documentation_fragment: [default_callback, result_format_callback]
"""
# Where a result has one of these, its message alone does not tell enough.
MORE = {"stdout", "stderr", "module_stdout", "module_stderr", "results", "censored", "rc"}


def rescued(task: Any) -> bool:
    """Whether the failure of a task leads to a rescue."""
    within, block = {task._uuid}, getattr(task, "_parent", None)
    while block is not None:
        # What is imported stands in the block itself, in the place of the task that imports it.
        if getattr(block, "rescue", None) and any(part._uuid in within for part in block.block):
            return True
        within.add(block._uuid)
        block = getattr(block, "_parent", None)
    return False


class CallbackModule(Default):
    """The default output, but for failures."""

    CALLBACK_NAME = "coldframe"

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Tell a failure, once."""
        message = result.result.get("msg")
        plain = isinstance(message, str) and message and not MORE & set(result.result)
        if self._display.verbosity or ignore_errors:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if not rescued(result.task) and not plain:
            result.result.pop("exception", None)  # said as an error too
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        host = self.host_label(result)
        said = (
            f"failed: [{host}]: see below" if rescued(result.task) else f"fatal: [{host}]: FAILED!\n{message.strip()}"
        )
        self._display.display(said, color=COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))
