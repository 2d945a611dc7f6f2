"""What a worker answers that is asked for a heartbeat, with the real Celery and Redis."""

import threading
from contextlib import suppress

import celery
import pytest
from conftest import Worker


@pytest.fixture
def app(server, broker):
    """An application that only asks, as Flower does. No task of another test is left."""
    server.start()
    server.client.flushall()
    app = celery.Celery("asker", broker=broker, set_as_current=False)
    app.conf.update(control_queue_expires=60.0)
    yield app
    app.close()


@pytest.mark.parametrize("options", [["--task-events"], []], ids=["events", "no events"])
def test_a_worker_answers_whether_or_not_it_sends_events_of_tasks(tmp_path, environment, app, options):
    worker = Worker(tmp_path / "asked", environment, *options).ready()
    heartbeats, heard = [], threading.Event()
    with app.connection_for_read() as connection:

        def take(event):
            heartbeats.append(event)
            receiver.should_stop = True

        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": take})

        def ask():
            while not heard.wait(0.5):  # an event is lost until the receiver has subscribed
                app.control.broadcast("heartbeat", destination=["asked@test"])

        asking = threading.Thread(target=ask)
        asking.start()
        with suppress(TimeoutError):
            receiver.capture(limit=None, timeout=20, wakeup=False)
        heard.set()
        asking.join()
    assert worker.stop() < 10
    heartbeat = heartbeats[0]
    assert heartbeat["hostname"] == "asked@test" and heartbeat["sw_ident"] == "py-celery"
    assert heartbeat["freq"] == 10.0 and len(heartbeat["loadavg"]) == 3
    assert (heartbeat["active"], heartbeat["processed"]) == (0, 0)
