"""Ansible's own output, in which what fails is told once: where it ends the run."""

from __future__ import annotations

from typing import Any

from ansible.constants import COLOR_ERROR, COLOR_UNREACHABLE
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: coldframe
type: stdout
short_description: Ansible's default output, with each failure told once
description:
  - The default output tells a failure as an error and as a result. Here it is told as its message.
  - Of a task whose failure a C(rescue) deals with, one line says so; what follows tells the rest. With C(-v) all is shown.
  - Filters and tests are loaded when a playbook starts, and not again for each task.
  - A lost connection is reported in words, and whether something was changed before. Of a result, what repeats the rest is left out.
extends_documentation_fragment: [default_callback, result_format_callback]
"""
# What repeats other parts of a result, or tells nothing of why it failed.
NOISE = {"stdout_lines", "stderr_lines", "start", "end", "delta"}
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


def plain(result: Any) -> str:
    """Return the message of a result that failed; empty where it does not tell enough."""
    message = result.get("msg")
    return message.strip() if isinstance(message, str) and not MORE & set(result) else ""


class CallbackModule(Default):
    """The default output, but for failures."""

    CALLBACK_NAME = "coldframe"
    rescued, plain = staticmethod(rescued), staticmethod(plain)

    def __init__(self) -> None:
        """Begin with nothing changed."""
        super().__init__()
        self._changed: set[str] = set()  # hosts on which a task changed something

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Load the filters and the tests of templates. Each task is executed in a fork of this process, and would load all of them again."""
        for loader in (filter_loader, test_loader):
            list(loader.all())
        super().v2_playbook_on_start(playbook)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Tell it as usual, and remember where something was changed."""
        self.note(result)
        super().v2_runner_on_ok(result)

    def note(self, result: Any) -> None:
        """Remember where something was changed."""
        if result.result.get("changed") and not result.task.delegate_to and not result.task.check_mode:
            self._changed.add(result.host.get_name())

    def unreachable(self, result: Any) -> str:
        """Say why a host cannot be reached, what was changed before, and what to do."""
        reason = str(result.result.get("msg") or "no answer").strip().removeprefix("Task failed: ")
        changed = ", ".join(sorted(self._changed))
        done = f"Something was changed before on {changed}" if changed else "Nothing was changed"
        help_ = "If that does not help, make doctor tells what is wrong with the connection."
        return f"UNREACHABLE\n{reason}\n{done}. Run the command again. {help_}"

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Tell that a host cannot be reached, what was changed before, and what to do."""
        if self._display.verbosity or result.task.ignore_unreachable:
            super().v2_runner_on_unreachable(result)
            return
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        said = f"fatal: [{self.host_label(result)}]: {self.unreachable(result)}"
        self._display.display(said, color=COLOR_UNREACHABLE, stderr=self.get_option("display_failed_stderr"))

    def _dump_results(self, result: Any, *arguments: Any, **options: Any) -> Any:
        """Return the text of a result, without what repeats the rest, and without empty outputs."""
        if not self._display.verbosity:
            result = {
                name: value
                for name, value in result.items()
                if name not in NOISE and (value or name not in ("stdout", "stderr"))
            }
        return super()._dump_results(result, *arguments, **options)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Tell a failure, once."""
        message = plain(result.result)
        if self._display.verbosity or ignore_errors:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if not rescued(result.task) and not message:
            result.result.pop("exception", None)  # said as an error too
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if self._last_task_banner != result.task._uuid:
            self._print_task_banner(result.task)
        host = self.host_label(result)
        said = f"failed: [{host}]: see below" if rescued(result.task) else f"fatal: [{host}]: FAILED!\n{message}"
        self._display.display(said, color=COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))
