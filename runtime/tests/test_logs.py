"""What processes of a release send to systemd's journal, and which request and task it belongs to."""

import logging
import os
import re
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest
from coldframe.logs import ids
from coldframe.logs import journal as own_journal
from conftest import QUEUE, WORKER, of_journal
from gunicorns import SITE, serving
from waits import wait_for

ID = "request-1"


@pytest.fixture
def own(site):
    """A project whose settings say nothing of logs."""
    return site({}, "site1.settings", "site1.celery:app")


def write(own):
    """Write the project, where no Gunicorn serves it."""
    with serving(own.folder, own.unit(), SITE, app_wsgi="site1.wsgi:application"):
        pass


@pytest.fixture
def served(own, journal):
    """Serve the project; return Gunicorn, which is ready."""
    with ExitStack() as stack:

        def serve(**options):
            unit = own.unit() | {"JOURNAL_SOCKET": journal.path, "SYSLOG_IDENTIFIER": "shop-web"}
            options = options or {"app_wsgi": "site1.wsgi:application"}
            process = stack.enter_context(serving(own.folder, unit, SITE, **options))
            process.ready()
            assert process.process.poll() is None, process.log.read_text()
            return process

        yield serve


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_id_of_a_request_goes_to_every_task_that_it_leads_to(own, served, run, journal, pool):
    web = served()
    unit = {"JOURNAL_SOCKET": journal.path, "SYSLOG_IDENTIFIER": "shop-worker-mail"}
    log, _ = run(own, *WORKER, f"--pool={pool}", **unit)
    assert web.get("/send?task=many", **{"X-Request-ID": ID}).decode() == ID
    for word in ("second", "one", "other", "together"):
        said = journal.wait(MESSAGE=f"says {word}")
        assert said["REQUEST_ID"] == ID and said["TASK_NAME"] == "site1.tasks.say" and said["PRIORITY"] == "6"
        task = said["TASK_ID"]
        assert said["MESSAGE"] == f"site1.tasks.say[{task}]: says {word}"
        for more in (f"Task site1.tasks.say[{task}] received", f"Task site1.tasks.say[{task}] succeeded"):
            assert journal.wait(MESSAGE=more, TASK_ID=task)["REQUEST_ID"] == ID
    assert {entry["SYSLOG_IDENTIFIER"] for entry in journal.of(REQUEST_ID=ID)} == {"shop-web", "shop-worker-mail"}
    assert journal.of(MESSAGE="the view sends", REQUEST_ID=ID, LOGGER="shop", SYSLOG_IDENTIFIER="shop-web")
    assert journal.wait(MESSAGE='"GET /send?task=many HTTP/1.1" 200', LOGGER="gunicorn.access")["REQUEST_ID"] == ID
    web.get("/send?task=again")
    failed = journal.wait(EXCEPTION="OSError", LOGGER="celery.app.trace")
    assert failed["PRIORITY"] == "3" and failed["MESSAGE"].endswith("\nOSError: for ever")
    other = failed["REQUEST_ID"]
    assert re.fullmatch("[0-9a-f]{32}", other) and failed["TASK_NAME"] == "site1.tasks.again"
    assert [entry["REQUEST_ID"] for entry in journal.of(MESSAGE="try ", PRIORITY="4")] == [other] * 2
    assert "Traceback" not in log.read_text() and "celery" not in web.log.read_text()


def test_served_by_asgi_the_id_is_the_same(served, journal, server):
    web = served(app_asgi="site1.asgi:application")
    assert web.get("/send?task=many", **{"X-Request-ID": ID}).decode() == ID
    assert f'"request_id": "{ID}"' in server.client.lindex(QUEUE, 0)
    assert journal.wait(MESSAGE="the view sends")["REQUEST_ID"] == ID
    assert journal.wait(MESSAGE="GET /send?task=many", LOGGER="uvicorn.access")["REQUEST_ID"] == ID
    first, second = (web.get("/send?task=many", **{"X-Request-ID": "no id"}).decode() for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first) and first != second


def test_main_process_of_a_worker_says_for_which_task_it_speaks(own, served, run, journal):
    web = served()
    run(own, *WORKER, JOURNAL_SOCKET=journal.path)
    started = wait_for(lambda: journal.of(MESSAGE="A process of the pool has started.", PRIORITY="7"), 10, "said")
    assert len(started) == 2 and "REQUEST_ID" not in started[0]
    web.get("/send?task=hang", **{"X-Request-ID": ID})
    ended = journal.wait(MESSAGE="Hard time limit (1s) exceeded for site1.tasks.hang", REQUEST_ID=ID)
    assert ended["TASK_NAME"] == "site1.tasks.hang" and ended["TASK_ID"] in ended["MESSAGE"]
    later = journal.wait(MESSAGE="A process of the pool has started.", PRIORITY="7")
    assert "TASK_ID" not in later
    web.get("/send?task=outer", **{"X-Request-ID": "request-2"})
    inner, printed = journal.wait(MESSAGE="says inner"), journal.wait(MESSAGE="printed")
    assert inner["REQUEST_ID"] == printed["REQUEST_ID"] == "request-2"
    assert (inner["TASK_NAME"], printed["TASK_NAME"]) == ("site1.tasks.say", "site1.tasks.outer")


def test_tasks_that_run_at_the_same_time_are_not_mixed_up_and_leave_nothing_behind(own, run, journal):
    write(own)
    run(own, *WORKER, "--pool=threads", JOURNAL_SOCKET=journal.path)
    send = """
        from site1 import tasks
        for word in "ab":
            tasks.slow.apply_async((word,), headers={"request_id": word})
        say(True)
    """
    own.manage(send)
    for word in "ab":
        wait_for(lambda word=word: len(journal.of(MESSAGE=f"slow {word}", REQUEST_ID=word)) == 5, 20, "it said so")
    assert len(journal.of(MESSAGE=": slow ")) == 10
    own.manage("from site1 import tasks; tasks.say.delay('later'); say(True)")
    assert re.fullmatch("[0-9a-f]{32}", journal.wait(MESSAGE="says later")["REQUEST_ID"])


def test_each_task_that_beat_sends_has_an_id_of_its_own(own, run, journal, server):
    write(own)
    with (own.folder / "site1/settings.py").open("a") as file:
        file.write("CELERY_BEAT_SCHEDULE = {'a': {'task': 'site1.tasks.outer', 'schedule': 0.5}}\n")
    beat = ("beat", "--scheduler=celery.beat:Scheduler", "--pidfile=")
    log, _ = run(own, *beat, JOURNAL_SOCKET=journal.path)
    wait_for(lambda: server.client.llen(QUEUE) > 1, 20, "Beat sends")
    found = [re.search(r'"request_id": "([0-9a-f]{32})"', entry)[1] for entry in server.client.lrange(QUEUE, 0, 1)]
    assert len(set(found)) == 2
    assert journal.wait(MESSAGE="Sending due task a")["PRIORITY"] == "6" and "Sending due" not in log.read_text()


def test_error_of_a_page_is_one_entry_and_what_must_not_be_logged_is_hidden(own, served, journal):
    own.redact = [r"[\w.+-]+@[\w-]+\.[\w.-]+", r"(?<=token=)[^&\s]+"]
    served().get("/fail?token=secret1", **{"X-Request-ID": ID})
    error = journal.wait(EXCEPTION="LookupError")
    assert (error["PRIORITY"], error["REQUEST_ID"], error["LOGGER"]) == ("3", ID, "django.request")
    assert error["MESSAGE"].startswith("Internal Server Error: /fail\nTraceback (most recent call last):\n")
    assert error["MESSAGE"].endswith("LookupError: no such page, ***")
    assert journal.wait(LOGGER="gunicorn.access")["MESSAGE"].startswith('"GET /fail?token=*** HTTP/1.1" 500 ')


LOGGING = """
import logging.config

CONFIG = {
    "version": 1,
    "formatters": {"own": {"format": "%(levelname)s|%(message)s"}},
    "filters": {"few": {"()": "site1.few.Few"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "own", "level": "WARNING", "filters": ["few"]},
        "out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
        "file": {"class": "logging.FileHandler", "filename": "own.log"},
    },
    "loggers": {
        "shop": {"handlers": ["console", "file"], "propagate": False},
        "out": {"handlers": ["out"], "level": "INFO"},
    },
}
"""
FEW = """
import logging

class Few(logging.Filter):
    def filter(self, record):
        return "few" not in record.getMessage()
"""
SPEAK = """
import logging
import django

django.setup()
for word in "info", "warning":
    getattr(logging.getLogger("shop"), word)("word %s", word)
logging.getLogger("shop").error("few")
logging.getLogger("out").info("to stdout")
logging.getLogger("other").info("of nobody")
"""


def speak(own, journal):
    """Log some records in the application; return what is on stderr and stdout, which are the journal to it."""
    (own.folder / "asked.py").write_text(SPEAK)
    with (own.folder / "said").open("w+") as said:
        unit = own.unit() | {"JOURNAL_SOCKET": journal.path} | of_journal(said)
        command = [sys.executable, "-m", "coldframe.manage", "asked.py"]
        subprocess.run(command, cwd=own.folder, env=unit, stdout=said, stderr=said, check=True)
        said.seek(0)
        return said.read()


@pytest.fixture
def configured(site):
    """Make the project with further lines in its settings."""

    def configured(lines):
        files = SITE | {"settings.py": textwrap.dedent(SITE["settings.py"]) + lines, "few.py": FEW}
        return site({f"site1/{name}": text for name, text in files.items()}, "site1.settings", "site1.celery:app")

    return configured


@pytest.mark.parametrize("line", ["LOGGING = CONFIG", "LOGGING_CONFIG = None; logging.config.dictConfig(CONFIG)"])
def test_logging_of_the_application_stays_with_formats_levels_filters_and_other_handlers(configured, journal, line):
    own = configured(f"{LOGGING}\n{line}")
    assert speak(own, journal) == ""
    (warning,) = journal.of(LOGGER="shop")
    assert (warning["MESSAGE"], warning["PRIORITY"]) == ("WARNING|word warning", "4")
    assert [entry["MESSAGE"] for entry in journal.entries if entry is not warning] == ["to stdout"]
    assert (own.folder / "own.log").read_text() == "word warning\nfew\n"


def test_logging_is_left_to_the_application_that_wants_it(configured, journal):
    own = configured(f"{LOGGING}\nLOGGING = CONFIG")
    own.own = ["logging"]
    assert sorted(speak(own, journal).splitlines()) == ["WARNING|word warning", "to stdout"] and journal.entries == []
    assert "left to the application by app_own_settings" in own.report()


def test_application_without_logging_of_its_own_has_the_deployments(configured, journal):
    own = configured("")
    assert speak(own, journal) == ""
    assert [entry["MESSAGE"] for entry in journal.of(LOGGER="shop")] == ["word info", "word warning", "few"]
    assert "LOGGING: not set -> INFO and above to the journal" in own.report()
    assert "of nobody" in own.run(sys.executable, "-m", "coldframe.manage", "asked.py").stderr, "a terminal has lines"


def test_root_logger_that_the_settings_configure_stays(configured, journal):
    own = configured('import logging\nlogging.basicConfig(level="WARNING", format="own %(message)s")')
    assert speak(own, journal) == ""
    assert [entry["MESSAGE"] for entry in journal.entries] == ["own word warning", "own few"]
    assert "LOGGING stays: not set (the settings have configured the root logger themselves)" in own.report()


@pytest.fixture
def record(journal, monkeypatch):
    """Send a record from this process; return its entry."""
    monkeypatch.setenv("JOURNAL_SOCKET", journal.path)
    monkeypatch.setattr(own_journal, "connected", lambda: True)
    monkeypatch.setattr(own_journal, "_sockets", [])
    handler = own_journal.Handler()

    def send(level, text, *arguments, **options):
        logger = logging.Logger("a")
        logger.addHandler(handler)
        before = len(journal.entries)
        logger.log(level, text, *arguments, **options)
        return wait_for(lambda: journal.entries[before:], 5, "it arrives")[0]

    yield send
    for each in own_journal._sockets:
        each.close()


def test_levels_are_priorities(record):
    levels = {50: "2", 45: "3", 40: "3", 30: "4", 25: "6", 20: "6", 10: "7", 1: "7"}
    assert {level: record(level, "x")["PRIORITY"] for level in levels} == levels


def test_any_text_is_one_entry_of_any_length(record):
    for text in ("", "a\nb=c\n", "=", "\x1b[31mü\udc80\0", "x" * 500_000 + "\ny"):
        assert record(20, "%s", text)["MESSAGE"] == text.replace("\udc80", "?")
    assert record(20, "a")["LOGGER"] == "a" and "TASK_ID" not in record(20, "a")


def test_journal_that_is_away_costs_no_record(record, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("JOURNAL_SOCKET", str(tmp_path / "none"))
    logger = logging.Logger("a")
    logger.addHandler(own_journal.Handler(sys.stderr))
    logger.error("kept")
    assert capsys.readouterr().err == "kept\n"


def test_output_that_another_program_reads_is_no_journal(monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not own_journal.connected()
    there = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
    assert own_journal.connected()


READER = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(sys.argv[1]); print(flush=True)\nwhile s.recv(9999): pass"
RECORD = logging.LogRecord("a.b", logging.INFO, "a.py", 1, "A page of %s", ("usual length, some words more",), None)


def test_record_in_the_journal_costs_about_what_a_line_costs(monkeypatch, tmp_path):
    """Compared in one process. The ids cost less than a record."""
    monkeypatch.setattr(own_journal, "connected", lambda: True)
    monkeypatch.setenv("JOURNAL_SOCKET", str(tmp_path / "socket"))
    command = [sys.executable, "-c", READER, tmp_path / "socket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader, (tmp_path / "lines").open("w") as file:
        reader.stdout.readline()
        handlers = {"journal": own_journal.Handler(), "line": logging.StreamHandler(file)}
        took = {name: timed(lambda each=each: each.emit(RECORD)) for name, each in handlers.items()}
        reader.terminate()
    took["request"] = timed(lambda: ids.of_request(ID))
    message = {"id": "1", "task": "a", "request_id": ID}
    took["task"] = timed(lambda: ids.of_message(message).__enter__())
    print(
        {
            name: f"{seconds * 1e6:.1f} microseconds, {seconds / took['line']:.1f} lines"
            for name, seconds in took.items()
        }
    )
    assert took["journal"] < 15 * took["line"]
    assert max(took["request"], took["task"]) < took["journal"]


def timed(function, times=200):
    """Return how much processor time a call takes at best, in seconds; waiting for a reader is not counted."""
    rounds = []
    for _ in range(9):
        began = time.process_time()
        for _ in range(times):
            function()
        rounds.append((time.process_time() - began) / times)
    return min(rounds)
