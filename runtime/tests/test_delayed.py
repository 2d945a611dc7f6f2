"""Tasks with a delay that is longer than their queue allows: stored in the database, and sent by Beat."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import projects
import pytest
from conftest import QUEUE
from waits import wait_for

SHORT = 2  # seconds for which a task of the queue may wait in a worker
TASKS = """
    from celery import shared_task
    from celery.signals import before_task_publish
    from django.db import transaction

    @before_task_publish.connect
    def add(headers, **_):
        headers["correlation"] = "c1"

    @shared_task
    def word(*words, **more):
        return " ".join(words)

    @shared_task(bind=True)
    def again(self, seconds):
        if self.request.retries:
            return "again"
        with transaction.atomic():
            raise self.retry(countdown=seconds)

    @shared_task(bind=True)
    def other(self, seconds):
        with transaction.atomic():
            return self.replace(word.si("replaced").set(countdown=seconds))
"""
# What Beat does at each turn.
SEND = """
from celery import current_app as app
from coldframe.delayed import store
from coldframe.delayed.sender import Sender
from coldframe.sending import countdown
from mysite.tasks import again, other, word
from django.db import transaction
stored = lambda: [[row.task_id, row.name, row.queue, row.revoked] for row in store.rows().order_by("due", "id")]
def turn(everything=True):
    if everything:
        store.rows().update(due=0)
    return Sender(app).send_due()
"""


@pytest.fixture
def postgresql():
    """The address of a PostgreSQL server, where this machine has the programs."""
    programs = os.pathsep.join(["/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/15/bin", os.environ["PATH"]])
    if not shutil.which("initdb", path=programs):
        pytest.skip("Debian's package postgresql is not installed")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses root
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user)
        options = {"user": user, "cwd": folder, "env": {"PATH": programs}, "stdout": -3, "stderr": -3}
        command = [f"--pgdata={folder}/data", "--auth=trust", "--username=shop_a", "--no-sync"]
        subprocess.run([shutil.which("initdb", path=programs), *command], check=True, **options)
        run = [shutil.which("postgres", path=programs), "-D", folder / "data", "-k", folder, "-h", "", "-F"]
        process = subprocess.Popen(run, **options)
        try:
            wait_for((folder / ".s.PGSQL.5432").exists, 20, "it listens")
            yield f"postgres://shop_a@/postgres?host={name.replace('/', '%2F')}"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


@pytest.fixture
def own(site, server, request):
    """A project with a database in a file, or in PostgreSQL for a test that asks for that."""
    files = projects.CELERY_OF_THE_DOCUMENTATION | {"mysite/tasks.py": TASKS}
    own = site(files, "mysite.settings", "mysite.celery:app", start="mysite")
    if "postgresql" in request.fixturenames:
        own.given["DATABASE_URL"] = request.getfixturevalue("postgresql")
    else:
        own.own = ["database"]
    with (own.folder / "mysite/settings.py").open("a") as settings:
        settings.write("INSTALLED_APPS += ['mysite']\nCELERY_RESULT_BACKEND = 'redis://localhost'\n")
    change(own, task_longest_countdown={QUEUE: SHORT})
    own.given["LOCKS_URL"] = f"unix://{server.path}?db=1"
    done = own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "migrate", "coldframe")
    assert "Applying coldframe.0001_initial... OK" in done.stdout, done.stderr
    return own


def change(own, **settings):
    """Change the deployment's Celery settings."""
    file = own.environment["CELERY_SETTINGS_FILE"]
    with open(file) as given:
        changed = json.load(given) | settings
    with open(file, "w") as given:
        json.dump(changed, given)


def sent(server):
    """The messages in the queue, oldest first."""
    return [json.loads(message) for message in reversed(server.client.lrange(QUEUE, 0, -1))]


def ask(own, code, **options):
    """Run Python in the project."""
    return own.manage(SEND + code, **options)


def test_message_is_stored_as_it_would_have_been_sent(own, server):
    code = """
import datetime, decimal, uuid
from celery.result import AsyncResult
from coldframe.logs import ids
ids.of_request("request-1")
values = [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), decimal.Decimal("1.50"), uuid.UUID(int=7), b"\\xff", "\\0ü"]
def send(seconds, **options):
    word.s(*values).on_error(word.si("e")).apply_async(
        (), {"key": {"a": 1}}, countdown=seconds, task_id="t1", headers={"x": 1}, priority=3, expires=datetime.datetime(2050, 1, 1), time_limit=9,
        link=word.s("next"), **options)
for options in {}, {"compression": "gzip"}, {"serializer": "other"}:
    if options.get("serializer"):
        import json as plain
        from kombu.serialization import register
        register("other", lambda o: repr(o).encode(), eval, "application/x-other", "binary")
    send(1, **options)
    send(3600, **options)
assert len(stored()) == 3 and stored()[0] == ["t1", "mysite.tasks.word", "mail", False], stored()
say([AsyncResult("t1").state, turn(False), len(stored()), turn(), stored()])
"""
    assert ask(own, code) == ["PENDING", False, 3, False, []]
    messages = sent(server)
    assert len(messages) == 6 and messages[0]["headers"]["correlation"] == "c1"
    assert messages[0]["headers"]["request_id"] == "request-1"
    for message in messages:
        message["headers"].pop("eta")
        message["properties"].pop("delivery_tag")
        message["properties"].pop("expiration", None)  # relative, and ignored by Redis
    assert messages[3:] == messages[:3]


def test_row_is_a_part_of_the_callers_transaction_unless_the_task_sends_itself_again(own, server):
    code = """
import asyncio
try:
    with transaction.atomic():
        word.apply_async(("lost",), countdown=60)
        raise ValueError
except ValueError:
    pass
assert stored() == []
with transaction.atomic():
    word.apply_async(("kept",), countdown=60, task_id="1")
async def view():
    return word.apply_async(("async",), countdown=61, task_id="2")
asyncio.run(view())
say([row[0] for row in stored()])
"""
    assert ask(own, code) == ["1", "2"]
    assert sent(server) == []


def test_revoked_task_is_discarded_by_a_worker(own, server, run):
    code = """
from celery import group
result = word.apply_async(("no",), countdown=3600, task_id="1")
word.apply_async(("yes",), countdown=3600, task_id="2")
both = group(word.s("no").set(task_id="3"), word.s("no").set(task_id="4")).apply_async(countdown=3600)
with transaction.atomic():
    word.AsyncResult("2").revoke()
    transaction.set_rollback(True)
result.revoke()
both.revoke()
app.conf.web_control = False
app.control.revoke(["3", "4"])
try:
    app.control.revoke(["3", "5"])
except PermissionError as error:
    say(str(error))
say([sorted(row[0] for row in stored() if row[3]), len(stored())])
turn(False)
say(stored())
"""
    closed, revoked, left = ask(own, code, lines=True)
    assert "(revoke) is closed" in closed and revoked == [["1", "3", "4"], 4] and [row[0] for row in left] == ["2"]
    log, _ = run(own, "worker", f"--queues={QUEUE}", "--concurrency=1", "--hostname=a@test", "--without-gossip")
    for id_ in "1", "3", "4":
        wait_for(
            lambda id_=id_: f"Discarding revoked task: mysite.tasks.word[{id_}]" in log.read_text(),
            20,
            "it is discarded",
        )
    assert ask(own, "say(word.AsyncResult('1').state)") == "REVOKED"


def test_what_cannot_be_sent_stays_and_does_not_hold_up_the_rest(own, server):
    code = """
word.apply_async(("a",), countdown=60, task_id="broken")
word.apply_async(("a",), countdown=60, task_id="moved")
word.apply_async(("a",), countdown=60, task_id="good")
store.rows().filter(task_id="broken").update(message="{}")
message = store.rows().get(task_id="moved").message
store.rows().filter(task_id="moved").update(queue="gone", message=message.replace('"mail"', '"gone"'))
turn()
say([row[0] for row in stored()])
turn(False)
say([row[0] for row in stored()])
"""
    assert ask(own, code, lines=True) == [["broken"], ["broken"]]
    assert [message["headers"]["id"] for message in sent(server)] == ["moved", "good"]


def test_nothing_is_lost_while_the_broker_is_away_and_another_sender_is_first(own, server):
    code = """
import time
for id_ in "ab":
    word.apply_async(("a",), countdown=60, task_id=id_)
store.rows().update(due=0)
class Away(Sender):
    def publish(self, row):
        raise ConnectionError
class Second(Sender):
    def publish(self, row):
        say(row.task_id)
Away(app).send_due()
say(len(stored()))
store.rows().update(due=0)
from coldframe.delayed import sender
lock = sender.locked
def late(rows):
    found = list(rows)
    store.rows().filter(task_id="a").delete()
    return type("Rows", (), {"first": lambda self: found[0] if found else None})()
sender.locked = late
Second(app).send_due()
say(stored())
"""
    assert ask(own, code, lines=True) == [2, "b", []]


def test_of_several_senders_one_sends_it(postgresql, own, server):
    code = """
import threading
for number in range(60):
    word.apply_async(("a",), countdown=60, task_id=str(number))
store.rows().update(due=0)
with transaction.atomic():
    locked = store.rows().select_for_update().get(task_id="7")
    threads = [threading.Thread(target=Sender(app).send_due) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    say([row[0] for row in stored()])
    transaction.set_rollback(True)
"""
    assert ask(own, code) == ["7"]
    assert sorted(int(message["headers"]["id"]) for message in sent(server)) == [n for n in range(60) if n != 7]
    assert ask(own, "say([turn(), stored()])") == [False, []]
    assert len(sent(server)) == 60


def test_beat_sends_it_in_time_with_retries_replacements_and_chains(own, server, run, tmp_path):
    (tmp_path / "run").mkdir()
    assert own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "migrate").returncode == 0
    run(own, "worker", f"--queues={QUEUE}", "--concurrency=2", "--hostname=a@test", "--without-gossip")
    beat = ("beat", "--scheduler=django_celery_beat.schedulers:DatabaseScheduler", "--pidfile=")
    code = """
from celery import chain
calls = {
    "late": word.apply_async(("late",), countdown=3600),
    "plain": word.apply_async(("plain",), countdown=12),
    "chain": chain(word.s("a"), word.s("b").set(countdown=12)).apply_async(),
    "retry": again.delay(12),
    "replace": other.delay(12),
}
say({name: call.id for name, call in calls.items()})
"""
    began = time.time()
    ids = ask(own, code)
    _, said = run(own, *beat, RUNTIME_DIRECTORY=str(tmp_path / "run"))
    ended = f"""
calls = {{name: word.AsyncResult(id_) for name, id_ in {ids}.items()}}
say({{name: [call.result, call.date_done.timestamp()] for name, call in calls.items() if call.state == "SUCCESS"}})
"""
    results = wait_for(lambda: len(found := ask(own, ended)) == 4 and found, 40, "all are done")
    words = {name: result for name, (result, _) in results.items()}
    assert words == {"plain": "plain", "chain": "a b", "retry": "again", "replace": "replaced"}
    assert all(12 < done - began < 12 + 10 for _, done in results.values()), "it is executed when it is due"
    wait_for(
        lambda: any("STATUS=ticking, stored tasks: 1, the next is due at 20" in each for each in said),
        20,
        "Beat tells of the rest",
    )


def test_without_the_table_it_is_refused_as_it_would_run_twice(own, server):
    own.own.append("apps")
    said = own.manage("from mysite.tasks import word\nword.apply_async(countdown=60)", check=False)
    assert "ValueError: mysite.tasks.word is to wait 60 s" in said and "take apps out of app_own_settings" in said


def test_migrations_are_complete(own):
    done = own.run(sys.executable, "-m", "coldframe.manage", "manage.py", "makemigrations", "--check", "coldframe")
    assert done.returncode == 0 and "No changes detected" in done.stdout, done.stdout
