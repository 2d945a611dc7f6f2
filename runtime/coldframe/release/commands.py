"""Runs commands of an application, and says how one failed. The controller's modules have the same as a link in module_utils.

It imports nothing but Python's own modules.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LONGEST = 1800  # seconds that a command may take
LAST_LINES, LAST_BYTES = 30, 2**16  # of its output that are shown
# What a terminal obeys instead of printing it, by ECMA-48, each with an escape or as one character: strings up to their end, as OSC
# for a title; control sequences; other escapes; single characters but the end of a line and the tab.
CONTROL = re.compile(
    r"(?:\x1b[PX\]^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain(output: bytes | str) -> str:
    """Return a program's output as it is printed: without control characters, and of a line that was written over the last state.

    :param output: bytes of any encoding; what is not UTF-8 becomes the replacement character.
    """
    text = output.decode(errors="surrogateescape") if isinstance(output, bytes) else output
    text = re.sub("[\udc80-\udc9f]", lambda each: chr(ord(each[0]) - 0xDC00), text)  # controls of 8 bits
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return CONTROL.sub("", "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")))


def last_lines(output: bytes | str) -> list[str]:
    """Return the last lines of a program's output under a heading, or one line that says that there is none."""
    lines = plain(output).rstrip().split("\n")[-LAST_LINES:]
    return ["The last lines of its output:", *lines] if any(lines) else ["It printed nothing."]


def ended(code: int) -> str:
    """Say how a process ended.

    :param code: its exit status, or the negative number of the signal that ended it.
    """
    if code >= 0:
        return f"ended with the status {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"  # those of the kernel's real-time range have no names


def run(
    where: str, words: Sequence[str], *, folder: Path, environment: Mapping[str, str], seconds: float, more: str = ""
) -> None:
    """Run a command, and end all that it started.

    :param where: the variable and the command, for messages.
    :param words: the program and its arguments.
    :param folder: the working directory.
    :param environment: all variables that it sees.
    :param seconds: how long it may take.
    :param more: a sentence for the message when it fails.

    Raises ValueError, with how it ended and its last lines, when it fails.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env={"PYTHONUNBUFFERED": "1", **environment},  # else Python's output may come behind its error
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise ValueError(f"{where} could not be started: {error}.") from error
        try:
            code = process.wait(seconds)
            how = ended(code)
        except subprocess.TimeoutExpired:
            code, how = 1, f"was not done after {seconds} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_BYTES))
        said = output.read()
    if code:
        raise ValueError("\n".join([" ".join(filter(None, [f"{where} {how}.", more])), *last_lines(said)]))
