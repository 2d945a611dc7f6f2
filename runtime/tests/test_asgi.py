"""Gunicorn with the configuration of a release that is served by ASGI."""

import json
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from conftest import LONGEST, QUEUE
from gunicorns import EDGE, PROJECT, Connection, serving
from waits import wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

ASGI = """
    import asyncio
    import os
    from pathlib import Path
    from django.core.asgi import get_asgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site1.settings")
    pages = get_asgi_application()

    async def talk(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": f"{scope['scheme']} {scope['client'][0]} {message['text']}"})
        with Path("ended").open("a") as file:
            file.write(f"{message['code']}\\n")

    async def application(scope, receive, send):
        await (talk if scope["type"] == "websocket" else pages)(scope, receive, send)
"""
PAGES = PROJECT["urls.py"].replace(
    "urlpatterns = [",
    """
        import time
        from django.http import HttpResponse, StreamingHttpResponse

        def slow(request):
            time.sleep(2)
            return HttpResponse("done")

        async def events(request):
            import asyncio

            async def stream():
                for number in range(1000):
                    yield f"data: {number}\\n\\n"
                    await asyncio.sleep(0.2)

            return StreamingHttpResponse(stream(), content_type="text/event-stream")

        urlpatterns = [path("slow", slow), path("events", events), """,
)
CLIENT = {name: value for name, value in EDGE.items() if name != "Host"}
FILES = PROJECT | {"asgi.py": ASGI, "urls.py": PAGES}


@pytest.fixture
def served(server, environment, tmp_path):
    """Serve the project by ASGI with options of Gunicorn; return the process, which is ready."""
    server.start()
    server.client.flushall()

    def served(**options):
        process = stack.enter_context(
            serving(tmp_path, environment, FILES, app_asgi="site1.asgi:application", **options)
        )
        process.ready()
        return process

    with ExitStack() as stack:
        yield served


@contextmanager
def connected(process):
    """Open a WebSocket, and yield it when the application has answered."""
    with unix_connect(process.path, "ws://x/ws/", additional_headers=CLIENT) as client:
        client.send("a")
        assert client.recv(5) == "wss 203.0.113.7 a"
        yield client


@pytest.mark.parametrize("preload", [True, False], ids=["loaded once", "loaded by each worker"])
def test_pages_and_websockets_know_their_client_and_send_by_the_rules(served, server, preload):
    process = served(preload=preload)
    assert json.loads(process.get("/?countdown=1")) == {"client": "203.0.113.7"}
    assert server.client.llen(QUEUE) == 1
    assert f"Set longest_countdown of {QUEUE}" in json.loads(process.get(f"/?countdown={LONGEST + 60}"))["error"]
    with connected(process):
        pass


def test_events_arrive_while_they_are_sent(served):
    connection = Connection(served().path, timeout=10)
    connection.request("GET", "/events", headers=EDGE)
    answer = connection.getresponse()
    assert [answer.readline() for _ in range(3)] == [b"data: 0\n", b"\n", b"data: 1\n"]
    connection.close()


def test_websocket_goes_on_when_the_process_is_to_stop_and_is_then_closed_as_going_away(served, tmp_path):
    process = served(drain=3, workers=1)
    with connected(process) as client:
        asked = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(process), 5, "nothing more is accepted")
        client.send("b")
        assert client.recv(2) == "wss 203.0.113.7 b"
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
    assert closed.value.rcvd.code == 1001
    assert 2.5 < time.monotonic() - asked < 8
    assert process.process.wait(10) == 0
    assert (tmp_path / "ended").read_text() == "1001\n"


def test_request_on_a_connection_that_was_just_accepted_is_served(served):
    process = served(workers=1)
    connection = Connection(process.path, timeout=10)
    connection.connect()
    process.get("/?countdown=1")  # it was connected later, so the other one is accepted
    process.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses(process), 5, "nothing more is accepted")
    connection.request("GET", "/?countdown=1", headers=EDGE)
    assert connection.getresponse().status == 200
    assert process.process.wait(10) == 0


def refuses(process):
    """Whether it accepts no connection."""
    try:
        Connection(process.path, timeout=0.5).connect()
    except OSError:
        return True
    return False


def test_process_ends_at_once_when_its_websockets_have(served):
    process = served(drain=60, workers=1)
    with connected(process):
        process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(10) == 0


def test_request_is_completed_and_an_endless_answer_is_cut_at_the_limit(served):
    process = served(timeout=4, drain=0, workers=1)
    stream = Connection(process.path, timeout=20)
    stream.request("GET", "/events", headers=EDGE)
    answer = stream.getresponse()
    got = []
    thread = threading.Thread(target=lambda: got.append(process.get("/slow")))
    thread.start()
    wait_for(lambda: answer.readline() == b"data: 3\n", 5, "the stream flows, and the page was asked for")
    process.process.send_signal(signal.SIGTERM)
    thread.join(10)
    assert got == [b"done"]
    assert process.process.wait(15) == 0


def test_websockets_of_a_process_that_is_replaced_are_closed_at_once(served):
    process = served(drain=60, workers=1, max_requests=3)
    with connected(process) as client:
        began = time.monotonic()
        for _ in range(4):
            process.get("/?countdown=1")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1001 and time.monotonic() - began < 8
    wait_for(lambda: process.get("/?countdown=1"), 10, "the next process serves")
