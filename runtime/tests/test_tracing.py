"""What processes of a release report to Sentry and by OpenTelemetry, to receivers on this machine."""

import json
import re
import statistics
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest
from conftest import QUEUE, WORKER
from gunicorns import SITE as TASKS
from gunicorns import serving
from receivers import KEY, receiving
from sites import HOST
from waits import wait_for

ID = "0af7651916cd43dd8448eb211c80319c"  # of a request, as nginx makes them
RELEASE = "3050226828af"
EDGE = {"Host": HOST, "X-Request-ID": ID}
SITE = TASKS | {
    "urls.py": """
        import sys
        from celery import current_app
        from django.http import HttpResponse
        from django.urls import path
        from site1 import tasks

        def send(request):
            getattr(tasks, request.GET["task"]).delay()
            return HttpResponse("sent")

        def unknown(request):
            current_app.send_task("elsewhere.task")
            tasks.say.delay("after")
            return HttpResponse("sent")

        def fail(request):
            password = f"hunter{6 * 7}"
            tasks.breaks.delay()
            raise LookupError("no such page, ann@example.com")

        def nothing(request):
            return HttpResponse("")

        urlpatterns = [path(view.__name__, view) for view in (send, unknown, fail, nothing)]
    """,
    "tasks.py": TASKS["tasks.py"]
    + """
        @shared_task
        def breaks():
            raise ArithmeticError("a task that fails")

        @shared_task
        def later():
            say.apply_async(("much later",), countdown=3600)
    """,
}


@pytest.fixture
def receiver():
    """A receiver."""
    with receiving() as found:
        yield found


@pytest.fixture
def own(site):
    """A project that does not know of reports."""
    return site({}, "site1.settings", "site1.celery:app")


def reports(own, receiver, *to):
    """Have the deployment name where reports go: `sentry`, `otel` or both."""
    own.tracing |= {"sentry": "sentry" in to, "otel_endpoint": receiver.endpoint if "otel" in to else ""}
    (own.credentials / "sentry_dsn").write_text(receiver.dsn + "\n")


@pytest.fixture
def served(own):
    """Serve the project; return Gunicorn, which is ready."""
    with ExitStack() as stack:

        def serve(files=SITE, **options):
            unit = own.unit() | {"SYSLOG_IDENTIFIER": "shop-web", "RELEASE_ID": RELEASE}
            options = options if options.get("app_asgi") else {"app_wsgi": "site1.wsgi:application"} | options
            process = stack.enter_context(serving(own.folder, unit, files, **options))
            process.ready()
            assert process.process.poll() is None, process.log.read_text()
            return process

        yield serve


@pytest.fixture
def work(own, run):
    """Start a worker."""

    def start(*options):
        return run(own, *WORKER, *options, SYSLOG_IDENTIFIER="shop-worker-mail", RELEASE_ID=RELEASE)

    return start


def above(spans, span):
    """Return the names from a span to the root of its trace."""
    by_id = {each.id: each for each in spans}
    names = [span.name]
    while span.parent:
        span = by_id[span.parent]
        names.append(span.name)
    return names


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.parametrize("preload", [True, False])
def test_one_trace_leads_from_a_request_to_the_last_task(own, served, work, receiver, pool, preload):
    if not preload and pool != "prefork":
        pytest.skip("says no more")
    reports(own, receiver, "otel")
    web = served(preload=preload)
    work(f"--pool={pool}")
    web.get("/send?task=many", **EDGE)
    wait_for(lambda: len(receiver.span("run/site1.tasks.say")) == 7, 30, "all tasks of the canvas are reported")
    wait_for(lambda: receiver.span("GET send"), 20, "the request is reported")
    said = receiver.span("run/site1.tasks.say")
    assert {span.trace for span in said} == {ID}, "the trace has the id that nginx logs"
    for span in said:
        assert above(receiver.spans, span)[-3:] == ["run/site1.tasks.many", "apply_async/site1.tasks.many", "GET send"]
        assert span.attributes["request_id"] == ID and span.attributes["task_name"] == "site1.tasks.say"
        assert re.fullmatch("[0-9a-f-]{36}", span.attributes["task_id"])
        assert span.resource["service.name"] == "shop-worker-mail" and span.resource["queue"] == QUEUE
        assert span.resource["service.version"] == RELEASE
        assert span.resource["deployment.environment.name"] == "desk"
    (request,) = receiver.span("GET send")
    assert request.resource["service.name"] == "shop-web" and request.attributes["request_id"] == ID


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_errors_say_where_they_are_from(own, served, work, receiver, pool):
    reports(own, receiver, "sentry")
    own.redact = [r"[\w.+-]+@[\w-]+\.[\w.-]+"]
    web = served()
    work(f"--pool={pool}")
    web.get("/fail", **EDGE)
    (page,) = wait_for(lambda: receiver.event("LookupError"), 20, "the request's error is reported")
    (task,) = wait_for(lambda: receiver.event("ArithmeticError"), 20, "the task's error is reported")
    for event, service in ((page, "shop-web"), (task, "shop-worker-mail")):
        assert event["release"] == RELEASE and event["environment"] == "desk"
        assert event["tags"]["service"] == service and event["tags"]["request_id"] == ID
    assert task["tags"]["task_name"] == "site1.tasks.breaks" and task["tags"]["queue"] == QUEUE
    assert task["tags"]["task_id"] == task["tags"]["celery_task_id"], "as Sentry's integration has it"
    assert task["contexts"]["trace"]["trace_id"] == page["contexts"]["trace"]["trace_id"]
    assert "queue" not in page["tags"] and "task_id" not in page["tags"]
    text = json.dumps(receiver.events)
    assert "no such page, ***" in text and "ann@example.com" not in text
    assert "hunter42" not in text and KEY not in text


def test_error_names_the_span_in_which_it_was_raised(own, served, receiver):
    reports(own, receiver, "sentry", "otel")
    own.redact = [r"[\w.+-]+@[\w-]+\.[\w.-]+"]
    served().get("/fail", **EDGE)
    (event,) = wait_for(lambda: receiver.event("LookupError"), 20, "the error is reported")
    (span,) = wait_for(lambda: receiver.span("GET fail"), 20, "the request is reported")
    assert (event["contexts"]["trace"]["trace_id"], event["contexts"]["trace"]["span_id"]) == (ID, span.id)
    assert span.trace == ID and span.failed and "no such page, ***" in span.text and "ann@" not in span.text


def test_served_by_asgi_a_request_is_reported_alike(own, served, receiver):
    reports(own, receiver, "sentry", "otel")
    served(app_asgi="site1.asgi:application").get("/fail", **EDGE)
    (event,) = wait_for(lambda: receiver.event("LookupError"), 20, "the error is reported")
    (request,) = wait_for(lambda: receiver.span("GET fail"), 20, "the request is reported")
    (message,) = receiver.span("apply_async/site1.tasks.breaks")
    assert event["tags"]["request_id"] == ID == request.trace == message.trace and message.parent == request.id


def test_trace_of_a_trusted_proxy_goes_on(own, served, receiver):
    """Nginx passes the header on for these alone."""
    reports(own, receiver, "otel")
    served().get("/nothing", **EDGE, traceparent=f"00-{'a' * 32}-{'b' * 16}-01", baggage="a=b")
    (request,) = wait_for(lambda: receiver.span("GET nothing"), 20, "the request is reported")
    assert (request.trace, request.parent, request.attributes["request_id"]) == ("a" * 32, "b" * 16, ID)


def test_message_that_no_span_of_the_sdk_ends_has_one(own, served, receiver, server):
    """A task that the sender does not know, and a broker that fails."""
    reports(own, receiver, "otel")
    web = served()
    web.get("/unknown", **EDGE)
    (unknown,) = wait_for(lambda: receiver.span("apply_async/elsewhere.task"), 20, "it is reported")
    (after,) = wait_for(lambda: receiver.span("apply_async/site1.tasks.say"), 20, "the next is reported")
    (request,) = wait_for(lambda: receiver.span("GET unknown"), 20, "the request is reported")
    assert unknown.parent == after.parent == request.id and {unknown.trace, after.trace} == {ID}
    sent = [json.loads(entry)["headers"] for entry in server.client.lrange(QUEUE, 0, -1)]
    assert {headers["traceparent"][3:35] for headers in sent} == {ID}


def write(own):
    """Write the project, where no Gunicorn serves it."""
    for name, text in SITE.items():
        (own.folder / "site1").mkdir(exist_ok=True)
        (own.folder / "site1" / name).write_text(textwrap.dedent(text).lstrip("\n"))


def test_message_that_the_broker_does_not_take_is_a_span_that_failed(own, receiver):
    write(own)
    reports(own, receiver, "otel")
    said = own.manage("""
        import kombu
        from opentelemetry import trace
        from site1 import tasks

        def publish(*_, **__):
            raise OSError("away")
        kombu.Producer.publish = publish
        try:
            tasks.say.apply_async(("a",), retry=False)
        except tasks.say.OperationalError:
            pass
        say([trace.get_current_span().get_span_context().is_valid, len(getattr(tasks.say, "__otel_task_span", {}))])
    """)
    assert said == [False, 0]
    (span,) = wait_for(lambda: receiver.span("apply_async/site1.tasks.say"), 10, "it is reported")
    assert span.failed and "away" in span.text


def test_retries_and_what_beat_sends_are_traces_of_their_request_ids(own, run, work, receiver):
    write(own)
    reports(own, receiver, "otel")
    with (own.folder / "site1/settings.py").open("a") as file:
        file.write("CELERY_BEAT_SCHEDULE = {'a': {'task': 'site1.tasks.again', 'schedule': 2}}\n")
    work()
    beat = ("beat", "--scheduler=celery.beat:Scheduler", "--pidfile=")
    run(own, *beat, SYSLOG_IDENTIFIER="shop-beat", RELEASE_ID=RELEASE)

    def complete():
        """The spans of a task that was sent by Beat, and ran twice."""
        for sent in receiver.span("apply_async/site1.tasks.again"):
            ran = [span for span in receiver.span("run/site1.tasks.again") if span.trace == sent.trace]
            if sent.resource["service.name"] == "shop-beat" and len(ran) == 2:
                return sent, *ran
        return None

    sent, first, second = wait_for(complete, 60, "it ran twice")
    assert sent.trace == first.attributes["request_id"] == second.attributes["request_id"] and not sent.parent
    assert not [span for span in receiver.spans if span.name.endswith("coldframe.probe")]


def test_stored_task_keeps_its_trace(own, run, receiver):
    write(own)
    reports(own, receiver, "otel")
    own.own = ["database"]
    with (own.folder / "site1/settings.py").open("a") as file:
        file.write("DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3'}}\n")
    said = own.manage(
        """
        from celery import current_app
        from coldframe.delayed import store
        from coldframe.delayed.sender import Sender
        from coldframe.logs import ids
        from django.core.management import call_command
        from site1 import tasks
        call_command("migrate", "coldframe", verbosity=0)
        ids.of_request("ID")
        tasks.later()
        row = store.rows().get()
        store.rows().update(due=0)
        Sender(current_app).send_due()
        say([row.message, store.rows().count()])
    """.replace("ID", ID)
    )
    (span,) = wait_for(lambda: receiver.span("apply_async/site1.tasks.say"), 10, "it is reported")
    message, left = said
    assert json.loads(message)["options"]["headers"]["traceparent"].startswith(f"00-{ID}-{span.id}-0") and left == 0


@pytest.mark.parametrize("command", ["manage", "plain"])
def test_further_processes_report_too(own, receiver, command):
    """A service or a timer's command need not go through the runtime's manage.py."""
    write(own)
    reports(own, receiver, "sentry", "otel")
    code = "import django; django.setup(); from site1 import tasks; tasks.say.delay(); raise EOFError('at the end')"
    (own.folder / "command.py").write_text(code)
    start = ["-m", "coldframe.manage", "command.py"] if command == "manage" else ["command.py"]
    unit = {"SYSLOG_IDENTIFIER": "shop-timer-report", "RELEASE_ID": RELEASE}
    done = own.run(sys.executable, *start, unit=unit)
    assert done.returncode == 1 and "Sentry is attempting" not in done.stderr
    (event,) = receiver.event("EOFError")
    (span,) = receiver.span("apply_async/site1.tasks.say")
    assert event["tags"]["service"] == span.resource["service.name"] == "shop-timer-report"
    assert event["release"] == span.resource["service.version"] == RELEASE


OWN = """
import sentry_sdk
sentry_sdk.init(dsn=%r, release="own")
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""


def test_what_the_application_sets_up_itself_stays_and_that_is_said(own, served, work, receiver):
    reports(own, receiver, "sentry", "otel")
    files = SITE | {"settings.py": textwrap.dedent(SITE["settings.py"]) + OWN % receiver.dsn}
    web = served(files)
    work()
    web.get("/fail", **EDGE)
    for text in ("LookupError", "ArithmeticError"):
        (event,) = wait_for(lambda text=text: receiver.event(text), 20, "it is reported")
        assert event["release"] == "own" and "request_id" not in event.get("tags", {})
    assert receiver.spans == []
    report = own.report()
    assert "sentry_sdk.init stays: the application's own (sentry_dsn is not used)" in report
    assert "TracerProvider stays: the application's own (app_otel_endpoint is not used)" in report


def test_report_says_what_is_added(own, receiver):
    write(own)
    assert "tracing" not in own.report()
    reports(own, receiver, "sentry", "otel")
    note = "(the inventory has sentry_dsn and app_otel_endpoint)"
    assert f"INSTALLED_APPS: without coldframe.tracing -> with coldframe.tracing {note}" in own.report()
    assert receiver.asked == 0, "what looks at the application reports nothing"


def test_without_a_receiver_no_sdk_is_imported(own, receiver):
    write(own)
    reports(own, receiver)
    sdks = ("sentry_sdk", "opentelemetry.instrumentation", "opentelemetry.exporter", "coldframe.tracing.")
    assert own.manage(f"say([name for name in sys.modules if name.startswith({sdks})])") == []


def test_a_receiver_that_hangs_stops_no_process_and_no_request(own, served, run, work, receiver):
    """It answers after a minute, as long as an unbounded stop would take."""
    reports(own, receiver, "sentry", "otel")
    web = served()
    log, _ = work()
    receiver.answers.clear()
    began = time.monotonic()
    for _ in range(20):
        web.get("/fail", **EDGE)
    assert time.monotonic() - began < 20
    wait_for(lambda: log.read_text().count("ArithmeticError: a task that fails") == 20, 30, "the tasks ran")
    wait_for(lambda: receiver.asked >= 2, 20, "both were tried")
    for process in (run.started[-1][0], web.process):
        began = time.monotonic()
        process.terminate()
        assert process.wait(60) == 0 and time.monotonic() - began < 20


def test_a_receiver_that_is_away_is_said_once(own, receiver):
    write(own)
    reports(own, receiver, "otel")
    own.tracing["otel_endpoint"] = "http://127.0.0.1:9"
    own.variables = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    said = own.manage("""
        import logging, time
        from site1 import tasks
        lines = []
        class Lines(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())
        logging.getLogger().addHandler(Lines())
        for _ in range(4):
            tasks.say.delay()
            time.sleep(3)
        say([line for line in lines if "span" in line.lower() or "export" in line.lower()])
    """)
    assert said == ["http://127.0.0.1:9 takes no spans. They are dropped until it does."]


def test_what_it_costs_is_little(own, receiver):
    """Requests with both, compared with requests without, in turns: what else the machine does is the same for both."""
    ways = {way: own_of(own, receiver, way) for way in ("without", "with")}
    with ExitStack() as stack:
        for way, (folder, unit) in ways.items():
            ways[way] = stack.enter_context(serving(folder, unit, SITE, app_wsgi="site1.wsgi:application", workers=1))
        taken = {way: [] for way in ways}
        for web in ways.values():
            web.ready()
        for number in range(330):
            for way, web in ways.items():
                began = time.perf_counter()
                web.get("/nothing", **EDGE)
                taken[way] += [time.perf_counter() - began] if number >= 30 else []
    wait_for(lambda: len(receiver.span("GET nothing")) == 330, 30, "they were reported")
    ratio = statistics.median(taken["with"]) / statistics.median(taken["without"])
    print(f"a request takes {ratio:.2f} times as long, {statistics.median(taken['without']) * 1000:.1f} ms without")
    assert ratio < 3


def own_of(own, receiver, way):
    """Return a folder for the project, and what a unit has that reports or does not."""
    folder = own.folder / way
    folder.mkdir()
    reports(own, receiver, *(("sentry", "otel") if way == "with" else ()))
    unit = own.unit()
    (folder / "overlay.json").write_text((own.folder / "overlay.json").read_text())
    return folder, unit | {"OVERLAY_FILE": str(folder / "overlay.json"), "SYSLOG_IDENTIFIER": "shop-web"}
