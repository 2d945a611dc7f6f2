"""Exports spans by OpenTelemetry, with its SDK and its instrumentations of Django and Celery.

Each process has a queue of limited length and a thread that exports what is in it. A receiver that is slow or away makes the
queue overflow, and nothing else. The trace of a request has the request's id, which nginx logs, if no load balancer that is
trusted has begun one.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.celery.utils import detach_context
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coldframe import tracing
from coldframe.logs import ids, journal
from coldframe.overlay.deployment import Deployment
from coldframe.probe import NAME as PROBE

PATH = "/v1/traces"  # of an OTLP receiver
TIMEOUT = 5.0  # seconds for one export
FLUSH = 2.0  # seconds for which a process that stops exports what is left
TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")
SDK = ("opentelemetry.exporter", "opentelemetry.sdk")  # loggers that would repeat each failure
logger = logging.getLogger(__name__)
_sending: ContextVar[str] = ContextVar("coldframe_sending", default="")  # the request's id of a message that is sent


class Ids(RandomIdGenerator):
    """Makes the id of a trace from that of the request, if it can be one."""

    def generate_trace_id(self) -> int:
        """Return a new id of a trace: the request's, or a random one."""
        known = (_sending.get() or ids.current().request_id).replace("-", "").lower()
        return int(known, 16) if TRACE.fullmatch(known) else super().generate_trace_id()


class Fields(SpanProcessor):
    """Gives each span what the code works for, by the names of the journal's fields in lower case."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Set the attributes."""
        span.set_attributes({name: value for name, value in ids.current()._asdict().items() if value})


class Exporter(SpanExporter):
    """Exports spans, leaves out those of queue probes, and says once that the receiver does not take them."""

    def __init__(self, endpoint: str, patterns: tuple[re.Pattern[str], ...]) -> None:
        """Open no connection yet.

        :param endpoint: the receiver's address, without the path for traces.
        :param patterns: of what is hidden.
        """
        self.endpoint, self.patterns, self.failing = endpoint, patterns, False
        self.real = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH, timeout=TIMEOUT)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans. Raises nothing."""
        wanted = [span for span in spans if span.name.rpartition("/")[2] != PROBE]
        if not wanted:
            return SpanExportResult.SUCCESS
        try:
            result = self.real.export([hidden(span, self.patterns) for span in wanted] if self.patterns else wanted)
        except Exception as error:
            logger.debug("The export of spans failed: %s", error)
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self.failing:
            logger.warning("%s takes no spans. They are dropped until it does.", self.endpoint)
        if self.failing and not failed:
            logger.info("%s takes spans again.", self.endpoint)
        self.failing = failed
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self.real.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Do nothing: nothing is kept here."""
        return True


def hidden(span: ReadableSpan, patterns: tuple[re.Pattern[str], ...]) -> ReadableSpan:
    """Return a span in whose texts `***` stands for what the patterns match."""

    def of(attributes: Any) -> dict[str, Any]:
        return {name: text(value) if isinstance(value, str) else value for name, value in (attributes or {}).items()}

    def text(value: str) -> str:
        for pattern in patterns:
            value = pattern.sub(journal.HIDDEN, value)
        return value

    status = trace.Status(span.status.status_code, text(span.status.description) if span.status.description else None)
    return ReadableSpan(
        name=text(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=of(span.attributes),
        events=[Event(event.name, of(event.attributes), event.timestamp) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class Exporting:
    """The export of this process, and its end."""

    def __init__(self, deployment: Deployment) -> None:
        """Start the thread that exports, and one that ends it: at the end of a process no thread can be started."""
        self.exporter, self.process = Exporter(deployment.tracing["otel_endpoint"], journal.patterns()), os.getpid()
        self.provider = TracerProvider(resource=resource(deployment), id_generator=Ids(), shutdown_on_exit=False)
        self.provider.add_span_processor(Fields())
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.asked, self.ended = threading.Event(), threading.Event()
        threading.Thread(target=self.end, name="spans", daemon=True).start()

    def end(self) -> None:
        """Export what is left, when that is asked for."""
        self.asked.wait()
        self.provider.shutdown()
        self.ended.set()

    def stop(self) -> None:
        """Wait for that, for some seconds at most; not for a receiver that takes nothing."""
        if self.process == os.getpid():  # threads do not survive a fork
            self.asked.set()
            self.ended.wait(0 if self.exporter.failing else FLUSH)


_exporting: list[Exporting] = []  # of this process, or of the one that it was forked from


def resource(deployment: Deployment) -> Resource:
    """Describe this process. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME take precedence."""
    found = {
        "service.name": tracing.service() or deployment.tracing["name"],
        "service.namespace": deployment.tracing["name"],
        "service.version": os.environ.get("RELEASE_ID", ""),
        "deployment.environment.name": deployment.tracing["environment"],
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "queue": tracing.queue(),
    }
    return Resource.create({name: value for name, value in found.items() if value}).merge(
        OTELResourceDetector().detect()
    )


def instrument() -> None:
    """Instrument Django and Celery. Their spans go nowhere until `start`."""
    DjangoInstrumentor().instrument()
    CeleryInstrumentor().instrument()


def own() -> bool:
    """Whether the application has set a provider of traces itself."""
    provider = trace.get_tracer_provider()
    return not isinstance(provider, trace.ProxyTracerProvider) and all(
        provider is not ours.provider for ours in _exporting
    )


def start(deployment: Deployment) -> None:
    """Begin to export, in this process, unless the application does so itself, or it was done."""
    if own():
        logger.info("The application sets a provider of traces itself: app_otel_endpoint is not used.")
    elif not _exporting:
        for name in SDK:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if "OTEL_PROPAGATORS" not in os.environ:
            set_global_textmap(TraceContextTextMapPropagator())  # and no baggage, which clients fill
        _exporting.append(Exporting(deployment))
        trace.set_tracer_provider(_exporting[0].provider)
        atexit.register(stop)


def stop() -> None:
    """Export what is left, for some seconds at most."""
    for each in _exporting:
        each.stop()


def current() -> dict[str, str]:
    """Return the ids of the trace and of the span that this code belongs to; nothing where there is none."""
    found = trace.get_current_span().get_span_context()
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"} if found.is_valid else {}


@contextmanager
def publishing(request_id: str, app: Any, name: str, task_id: str) -> Iterator[None]:
    """End the span of a message with the block.

    The instrumentation leaves it open, and current, for a task that this process does not know, and where the broker fails.

    :param request_id: of the message.
    :param app: the Celery application.
    :param name: of the task.
    :param task_id: its id.
    """
    outer, before, token = trace.get_current_span(), _sending.set(request_id), context.attach(context.get_current())
    try:
        yield
    except BaseException as error:
        if (span := trace.get_current_span()) is not outer:
            span.record_exception(error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
        raise
    finally:
        if (span := trace.get_current_span()) is not outer:
            span.end()
            detach_context(app.tasks.get(name), task_id, is_publish=True)
        context.detach(token)
        _sending.reset(before)
