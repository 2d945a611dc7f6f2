"""Receivers of reports: a Sentry and an OpenTelemetry collector, as far as their clients see them."""

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KEY = "8f3k2m9qx7w1zz5v"  # pragma: allowlist secret


def plain(values):
    """Return attributes of OpenTelemetry as a mapping."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in values}


class Span:
    """A span that was received."""

    def __init__(self, span, resource):
        """Read it."""
        self.name, self.kind, self.resource, self.attributes = span.name, span.kind, resource, plain(span.attributes)
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.failed = span.status.code == span.status.STATUS_CODE_ERROR
        self.text = str(span)

    def __repr__(self):
        """Show it."""
        return f"<{self.name} {self.id} of {self.trace} below {self.parent} {self.attributes} {self.resource}>"


class Receiver:
    """Both of them, at one port of the loopback."""

    def __init__(self):
        """Start to listen."""
        self.events, self.spans, self.asked, self.answers = [], [], 0, threading.Event()
        self.answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked += 1
                receiver.answers.wait(60)
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.dsn = f"http://{KEY}@127.0.0.1:{self.server.server_port}/7"

    def take(self, path, body):
        """Read what came."""
        if path == "/v1/traces":
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = plain(each.resource.attributes)
                self.spans += [Span(span, resource) for scope in each.scope_spans for span in scope.spans]
            return
        assert path == "/api/7/envelope/"
        _, _, rest = body.partition(b"\n")
        while rest:
            header, _, rest = rest.partition(b"\n")
            if not header:
                break
            item = json.loads(header)
            payload, rest = rest[: item["length"]], rest[item["length"] + 1 :]
            if item["type"] == "event":
                self.events.append(json.loads(payload))

    def span(self, name, **attributes):
        """Return the spans of a name with these attributes."""
        return [
            span for span in list(self.spans) if span.name == name and attributes.items() <= span.attributes.items()
        ]

    def event(self, text):
        """Return the events about an exception with a text, or about such a message."""
        return [
            event for event in list(self.events) if text in json.dumps(event.get("exception") or event.get("logentry"))
        ]


@contextmanager
def receiving():
    """Run a receiver for the block."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        receiver.server.shutdown()
        receiver.server.server_close()
