"""A short account of a playbook: what each play changed on which host, in how many seconds, and last of all what failed."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import threading
import time
from collections import Counter
from typing import Any

from ansible.constants import COLOR_ERROR, COLOR_OK, COLOR_WARN
from ansible.plugins.loader import callback_loader
from ansible.utils.display import Display

DOCUMENTATION = """
name: coldframe_short
type: stdout
short_description: A short account of a playbook
description:
  - One line for each play, with its seconds, and one for each host on which something was changed, with the tasks that did it.
  - What a task C(debug) says is shown, also warnings and, in a dry run, the differences. The name of the host is before it, unless
    the task says it once for all of them.
  - In a terminal, the last line says which task runs. Elsewhere a line says so when a task takes long.
  - What failed is told once, last, with its hosts.
  - With C(-v) it is the output of the callback C(coldframe). C(make VERBOSE=1) chooses that one.
extends_documentation_fragment: [default_callback, result_format_callback]
"""
Full: Any = callback_loader.get("coldframe", class_only=True)
NAMED = 3  # changed tasks of a host that are named
LONG = (10, 30, *range(60, 36000, 60))  # seconds after which a task is said to run still, without a terminal
WIDTH = 28  # of the column with the names of the plays
SHOWN = ("ansible.builtin.debug", "debug")
TELLING = ("ansible.builtin.fail", "ansible.builtin.assert", "fail", "assert")  # their message tells all
LEFT_OUT = ("exception", "invocation", "changed", "item", "ansible_loop_var")


def bare(name: str) -> str:
    """Return the name of a task without its role."""
    return name.rpartition(" : ")[2].strip()


def told(hosts: dict[str, list[str]]) -> list[str]:
    """Say what was changed: a line for each set of hosts with the same changes.

    :param hosts: the names of the tasks that changed something, by host.
    """
    same: dict[tuple[str, ...], list[str]] = {}
    for host, tasks in hosts.items():
        same.setdefault(tuple(dict.fromkeys(tasks)), []).append(host)
    lines = []
    for changes, names in same.items():
        more = len(changes) - NAMED
        shown = "; ".join(changes if more <= 0 else (*changes[: NAMED - 1], f"{more + 1} more"))
        lines.append(f"  {', '.join(sorted(names))}: {shown}")
    return lines


class Progress:
    """Says which task runs, from a thread. It writes without Python's files, whose locks a fork would copy."""

    def __init__(self, terminal: bool) -> None:
        """Begin with no task."""
        self.terminal, self.task, self.since, self.drawn = terminal, "", 0.0, False
        self.left: list[int] = []
        self.lock, self.ended = threading.Lock(), threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self.run, daemon=True).start()

    def set(self, task: str) -> None:
        """Note the task that runs now; empty for none."""
        with self.lock:
            self.task, self.since, self.left = task, time.monotonic(), list(LONG)

    def run(self) -> None:
        """Write, once a second."""
        while not self.ended.wait(1):
            with self.lock:
                seconds = int(time.monotonic() - self.since)
                if self.task and self.terminal and seconds > 1:
                    text = f"  {self.task}, {seconds} s"
                    self.write("\r\033[K" + text[: shutil.get_terminal_size().columns - 1])
                    self.drawn = True
                elif self.task and not self.terminal and self.left and seconds >= self.left[0]:
                    self.left = [each for each in self.left if each > seconds]
                    self.write(f"  {self.task}: {seconds} s and still running\n")

    def clear(self) -> None:
        """Remove the line, so that another can be printed in its place."""
        with self.lock:
            if self.drawn:
                self.write("\r\033[K")
                self.drawn = False

    @staticmethod
    def write(text: str) -> None:
        """Write to standard output."""
        os.write(1, text.encode())


class CallbackModule(Full):
    """A short account."""

    CALLBACK_NAME = "coldframe_short"

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.began = self.play_began = time.monotonic()
        self.play_name = ""
        self.changes: dict[str, list[str]] = {}  # of this play
        self.total: Counter[str] = Counter()  # of all plays
        self.failures: dict[str, list[str]] = {}  # what is told last, to the hosts that say it
        self.dealt_with: dict[str, list[str]] = {}  # by host, why tasks failed whose failure a rescue deals with
        self.items: dict[tuple[str, str], list[str]] = {}  # of a loop that is not at its end
        self.progress = Progress(os.isatty(1))
        self.told, self.process = False, os.getpid()
        atexit.register(self.interrupted)

    def interrupted(self) -> None:
        """Say what failed before the run was cut off, such as by Ctrl-C. Otherwise it has been said."""
        if not self.told and os.getpid() == self.process:
            for host, reasons in self.dealt_with.items():
                for each in reasons:
                    self.failures.setdefault(each, []).append(host)
            self.failed()

    def failed(self) -> None:
        """Say what failed, and where."""
        for text, names in self.failures.items():
            self.say(f"\nFAILED on {', '.join(sorted(set(names)))}\n{text}", color=COLOR_ERROR)
        if self.failures:
            self.say("\nEvery task is shown with VERBOSE=1.", color=COLOR_ERROR)

    def say(self, text: str, color: str | None = None) -> None:
        """Print a line or several."""
        self.progress.clear()
        self._display.display(text, color=color)

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Start to say which task runs."""
        super().v2_playbook_on_start(playbook)
        self.progress.start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Account for the play before."""
        self.account()
        self._play = play
        self.play_name, self.play_began = play.get_name().strip(), time.monotonic()

    def account(self) -> None:
        """Say what a play has changed, and how long it took."""
        self.progress.set("")
        if self.play_name:
            seconds = time.monotonic() - self.play_began
            self.say(f"{self.play_name:{WIDTH}} {seconds:6.1f} s", color=COLOR_OK)
            for line in told(dict(sorted(self.changes.items()))):
                self.say(line)
        self.play_name, self.changes, self.dealt_with = "", {}, {}

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Leave a play out that has nothing to do."""
        self.play_name = ""

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Note it."""
        self.progress.set(bare(task.get_name()))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Note it."""
        self.progress.set(bare(task.get_name()))

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember what was changed, and print what a task `debug` says."""
        self.note(result)
        host, name = result.host.get_name(), bare(result.task.get_name())
        if result.result.get("changed"):
            self.changes.setdefault(host, []).append(name)
            self.total[host] += 1
        self.warn(result)
        if result.task.action in SHOWN and "results" not in result.result:
            self.tell(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Print what a task `debug` says."""
        if result.task.action in SHOWN:
            self.tell(result)

    def tell(self, result: Any) -> None:
        """Print what a task `debug` says, with the name of the host, unless it says that for all of them."""
        if message := self.text(result.result):
            space = "\n" if "\n" in message else " "
            self.say(message if result.task.run_once else f"{result.host.get_name()}:{space}{message}")

    def text(self, result: Any) -> str:
        """Return what a task `debug` says: a text, a list of texts as lines, or else as Ansible prints it."""
        if "msg" not in result:
            return str(
                self._dump_results({name: each for name, each in result.items() if name not in LEFT_OUT})
            ).strip()
        message = result["msg"]
        if isinstance(message, list) and all(isinstance(each, str) for each in message):
            message = "\n".join(message)
        return message.rstrip() if isinstance(message, str) else str(self._dump_results({"msg": message})).strip()

    def warn(self, result: Any) -> None:
        """Print the warnings of a task."""
        if result.result.get("warnings") or result.result.get("deprecations"):
            self.progress.clear()
            self._handle_warnings(result.result)

    def v2_playbook_on_vars_prompt(self, *arguments: Any, **options: Any) -> None:
        """Leave the line to a question."""
        self.progress.set("")
        self.progress.clear()
        super().v2_playbook_on_vars_prompt(*arguments, **options)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Remember why."""
        where = result.host.get_name(), result.task._uuid
        self.items.setdefault(where, []).append(f"{self._get_item_label(result.result)}: {self.reason(result.result)}")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Print nothing."""

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        """Print nothing."""

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Print nothing."""

    def v2_runner_retry(self, result: Any) -> None:
        """Print nothing: the task runs still, and that is said."""

    def v2_on_file_diff(self, result: Any) -> None:
        """Print what would be changed, in a dry run."""
        if result.result.get("diff") and result.result.get("changed"):
            self.say(f"{bare(result.task.get_name())}, {result.host.get_name()}:", color=COLOR_WARN)
            self._last_task_banner = result.task._uuid  # it needs no banner
        super().v2_on_file_diff(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Remember why, for the end."""
        self.warn(result)
        host = result.host.get_name()
        items = self.items.pop((host, result.task._uuid), [])
        if ignore_errors:
            return
        text = "\n".join(items) or self.reason(result.result)
        if result.task.action not in TELLING:
            text = f"{bare(result.task.get_name())}:\n{text}"
        if self.rescued(result.task):
            self.dealt_with.setdefault(host, []).append(text)
            return
        # The rescue tells the reason, by `fail` or `assert`. Otherwise it has failed itself, and what it was for is told, too.
        before = self.dealt_with.pop(host, [])
        for each in [text] if result.task.action in TELLING else [*before, text]:
            self.failures.setdefault(each, []).append(host)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Remember why, for the end."""
        if result.task.ignore_unreachable:
            super().v2_runner_on_unreachable(result)
            return
        host = result.host.get_name()
        for each in [*self.dealt_with.pop(host, []), self.unreachable(result)]:
            self.failures.setdefault(each, []).append(host)

    def reason(self, result: Any) -> str:
        """Say why a task failed: its message, or what a command said, or all of the result where that does not tell enough."""
        if text := self.plain(result):
            return str(text)
        parts = [str(result.get(name) or "").strip() for name in ("msg", "stdout", "stderr")]
        said = "\n".join(part for part in parts if part not in ("", "non-zero return code"))
        if said and "rc" in result:
            command = result.get("cmd") or ""
            command = command if isinstance(command, str) else shlex.join(map(str, command))
            return f"{command} ended with {result['rc']}:\n{said}".lstrip()
        return str(self._dump_results({name: value for name, value in result.items() if name not in LEFT_OUT}))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Account for the last play and for all, and say what failed."""
        self.account()
        self.progress.ended.set()
        counts = ", ".join(f"{name} {self.total[name]}" for name in sorted(stats.processed))
        seconds = time.monotonic() - self.began
        self.say(f"Tasks that changed something: {counts or 'none'}. {seconds:.1f} s in all.")
        self.told = True
        self.failed()


if Display().verbosity:  # with -v
    CallbackModule = Full  # type: ignore[misc]
