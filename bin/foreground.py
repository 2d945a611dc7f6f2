"""Runs processes in the foreground, each line of theirs with a name before it; when this program ends, nothing of them is left.

Linux only: a process that ends leaves its children to the nearest subreaper above it (prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# How processes are asked to end: signals, each with the seconds until the next one. At last they are killed.
ASK = ((signal.SIGTERM, 4.0),)
LEFT = 3.0  # seconds for what is left behind to end after SIGTERM
COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)


def prctl(option: int, value: int) -> None:
    """Set an option of this process. Raises OSError."""
    if _prctl is None or _prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def keep(run: Callable[[], int]) -> int:
    """Run a function in a process of its own, and end what it leaves behind, however it ended; return its exit status.

    SIGTERM, SIGINT and SIGHUP are for the function. It gets SIGTERM too when the parent of this process has ended, or this one.
    """
    parent, here = os.getppid(), os.getpid()
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    child = os.fork()
    if not child:
        code = 1
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == here:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
                code = run()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(code)
    for number in numbers:
        signal.signal(number, lambda number, _: os.kill(child, number))
    if os.getppid() != parent:
        os.kill(child, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    status = 0
    while True:
        found, status = os.waitpid(-1, 0)
        if found == child:
            break
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    end_children()
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def end_children() -> None:
    """End the children of this process, and theirs, which become its own when their parent has ended."""
    until = time.monotonic() + LEFT
    asked: set[int] = set()
    with suppress(ChildProcessError):
        while True:
            late = time.monotonic() > until
            for each in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
                if late or each not in asked:
                    asked.add(each)
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL if late else signal.SIGTERM)
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.05)


class Stopping:
    """Whether signals have asked this program to stop.

    No lock as in threading.Event: a handler that needs one waits forever if it interrupts the holder, such as the handler before.
    """

    def __init__(self) -> None:
        """Go on, at first."""
        self.told = False

    def set(self) -> None:
        """Ask to stop. For signal handlers too."""
        self.told = True

    def is_set(self) -> bool:
        """Whether to stop."""
        return self.told

    def wait(self, seconds: float) -> bool:
        """Wait, unless it is asked already; return whether to stop."""
        if not self.told:
            time.sleep(seconds)
        return self.told


class Output:
    """The lines of several processes, each with its process' name before it."""

    def __init__(self, names: Iterable[str], colour: bool) -> None:
        """Choose colours.

        :param names: of the processes.
        :param colour: whether they are shown.
        """
        self.colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)} if colour else {}
        self.width, self.lock = max(map(len, names), default=0), threading.Lock()

    def tell(self, name: str, text: str) -> None:
        """Print a line of a process. A terminal that was closed takes none, and that is no error."""
        before = f"{name:{self.width}} | "
        if name in self.colours:
            before = f"\x1b[{self.colours[name]}m{before}\x1b[0m"
        with self.lock, suppress(OSError, ValueError):
            print(before + text, flush=True)


class Process:
    """A process, with those that it starts in its group."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        output: Output,
        ask: Iterable[tuple[int, float]] = ASK,
        **options: Any,
    ) -> None:
        """Remember how it is started.

        :param environment: all its variables.
        :param folder: the one in which it runs.
        :param ask: how it is asked to end, as `ASK` is.
        :param options: further ones of Popen.
        """
        self.name, self.output, self.ask = name, output, list(ask)
        self.last = deque[str](maxlen=10)  # the lines that it said last
        self.muted = False  # whether they are not printed
        self.options = {"args": list(command), "env": dict(environment), "cwd": folder, **options}
        self.process: subprocess.Popen[bytes] | None = None
        self.reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it. To be called by the main thread: the process ends with the thread that started it.

        A program that cannot be started has ended with 127, as in a shell.
        """
        try:
            self.process = subprocess.Popen(
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(prctl, PR_SET_PDEATHSIG, signal.SIGTERM),
                **self.options,
            )
        except OSError as error:
            self.output.tell(self.name, f"{self.options['args'][0]} cannot be started: {error.strerror}")
            return
        self.reader = threading.Thread(target=self.read, args=(self.process,), daemon=True)
        self.reader.start()

    def read(self, process: subprocess.Popen[bytes]) -> None:
        """Print what it says, in a thread."""
        assert process.stdout
        for line in process.stdout:
            self.last.append(line.decode(errors="replace").rstrip())
            if not self.muted:
                self.output.tell(self.name, self.last[-1])

    def ended(self) -> bool:
        """Whether it has ended. It is not reaped, so that no other process can have its number."""
        if not self.process or self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def reap(self) -> int:
        """Kill what is left of its group; return its exit status. It is negative for a signal."""
        if not self.process:
            return 127
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        if self.reader:
            self.reader.join(1)
        self.process = None
        return code

    def began(self) -> float:
        """When it, or the last of its children, was started, in seconds since the epoch; 0 if it has ended."""
        if self.ended() or not self.process:
            return 0
        here, last = self.process.pid, 0
        for each in [here, *map(int, Path(f"/proc/{here}/task/{here}/children").read_text().split())]:
            with suppress(OSError):  # proc_pid_stat(5): field 22, in clock ticks after the boot
                last = max(last, int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[19]))
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + last / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> None:
        """Send a signal to the process itself."""
        if self.process and not self.ended():
            self.process.send_signal(number)


def stop(processes: Sequence[Process], hurry: Callable[[], bool] = lambda: False) -> None:
    """End processes, all at the same time, each as it wants to be asked.

    :param hurry: whether they are to be killed now.
    """
    start = time.monotonic()
    steps = {each: list(each.ask) for each in processes}
    due = dict.fromkeys(processes, start)
    left = list(processes)
    while left:
        for each in list(left):
            if not each.ended() and not hurry():
                if time.monotonic() < due[each]:
                    continue
                if steps[each]:
                    number, seconds = steps[each].pop(0)
                    each.signal(number)
                    due[each] = time.monotonic() + seconds
                    continue
            each.reap()
            left.remove(each)
        time.sleep(0.05 if left else 0)
