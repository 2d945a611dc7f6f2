"""A command of the application is run within a time limit, with nothing of it left, and its output is shown as text."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils import coldframe_commands
from coldframe.release.commands import LAST_LINES, ended, last_lines, plain, run
from support.hosts import wait_for_end


def test_modules_and_runtime_have_the_same_file():
    assert Path(coldframe_commands.__file__).resolve() == Path(sys.modules["coldframe.release.commands"].__file__)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"plain \xe2\x9c\x93\ttext\nnext", "plain \u2713\ttext\nnext"),
        (b"\x1b[1;31mred\x1b[0m \x1b[?25lhidden\x1b[?25h \x1b[38:5:9mcolons\x1b[m", "red hidden colons"),
        (b"\x1b]0;a title\x07seen \x1b]8;;https://a.example\x1b\\link\x1b]8;;\x1b\\", "seen link"),
        (b"\x1b]52;c;c3RvbGVu\x9cclipboard", "clipboard"),
        (b"\x9b31mone byte\x9b0m \x9d0;title\x07end", "one byte end"),
        ("\x9b31mone character\x9b0m \x90q\x9cend", "one character end"),
        (b"\xc2\x9b31mtwo bytes\xc2\x9bm", "two bytes"),
        (b"\x1bPq#0\x1b\\picture \x1b_apc\x1b\\ \x1b^pm\x1b\\.", "picture  ."),
        (b"\x1b(Bcharset \x1b=keys \x1bcreset", "charset keys reset"),
        (b"be\x07ll ba\x08ck \x00nul \x0b\x0cpage \x7fdel \x85next", "bell back nul page del next"),
        (b"10%\r50%\rdone\nwindows\r\nlast\r", "done\nwindows\nlast"),
        (b"50%\r\x1b[Kcleared", "cleared"),
        (b"\x1b]0;no end\nan error", "0;no end\nan error"),
        (b"cut off \x1b[", "cut off "),
        (b"caf\xe9 \xff", "caf\ufffd \ufffd"),
        ("lone \udcff \ud800", "lone \ufffd \ufffd"),
    ],
)
def test_output_is_shown_without_what_a_terminal_obeys(output, text):
    assert plain(output) == text


def test_output_of_any_bytes_is_shown_in_no_time():
    begun = time.monotonic()
    for part in (b"\x90", b"\x1b]", b"\x9b", b"\r", b"a\r", b"\x1b", bytes(range(256))):
        assert not {*map(chr, range(32)), *map(chr, range(127, 160))} - {"\n", "\t"} & {
            *plain(part * (200_000 // len(part)))
        }
    assert time.monotonic() - begun < 5


def test_last_lines_are_shown_and_none_is_said():
    assert last_lines("\n".join(map(str, range(100))))[1:] == [str(number) for number in range(100 - LAST_LINES, 100)]
    assert last_lines(b"\x1b[0m \n\n") == ["It printed nothing."]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "ended with the status 0"),
        (255, "ended with the status 255"),
        (-signal.SIGTERM, "was ended by SIGTERM"),
        (-35, "was ended by signal 35"),
        (-63, "was ended by signal 63"),
    ],
)
def test_end_of_a_process_is_said_whatever_the_signal(code, said):
    assert ended(code) == said


def execute(tmp_path, *words, seconds=30):
    run("app_x, 'cmd',", words, folder=tmp_path, environment=os.environ, seconds=seconds, more="Nothing was changed.")


@pytest.mark.parametrize("number", [9, 15, 34, 35, 64])
def test_command_that_a_signal_ends_is_named(tmp_path, number):
    with pytest.raises(ValueError, match=r"^app_x, 'cmd', was ended by \w+( \d+)?\. Nothing was changed\.\nIt printed"):
        execute(tmp_path, "sh", "-c", f"kill -{number} $$")


def test_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=r"'cmd', was not done after 1 seconds\..*\nThe last lines of its output:\nbegun"
    ):
        execute(tmp_path, "sh", "-c", "sleep 300 & echo $! >pid; echo begun; wait", seconds=1)
    assert time.monotonic() - begun < 20
    wait_for_end((tmp_path / "pid").read_text().strip())


def test_of_much_output_the_end_is_shown(tmp_path):
    with pytest.raises(ValueError) as failed:
        execute(tmp_path, sys.executable, "-c", "print(*range(99999), sep=chr(10)); 1 / 0")
    said = str(failed.value)
    assert said.endswith("ZeroDivisionError: division by zero") and len(said) < 5000


def test_program_that_is_not_there_and_a_folder_that_is_gone_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^app_x, 'cmd', could not be started: .*no-such-program"):
        execute(tmp_path, "no-such-program")
    with pytest.raises(ValueError, match=r"^app_x, 'cmd', could not be started: .*gone"):
        execute(tmp_path / "gone", "true")
