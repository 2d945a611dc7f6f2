"""What a worker still owes the broker, once a connection was lost."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from coldframe.worker.held import Held
from conftest import QUEUE
from kombu import Connection

MANY = 300


def test_what_is_owed_is_sent_once_though_two_connections_send_it(server, broker):
    """With gevent, the connection for tasks and the one for remote control send it at the same time."""
    server.start()
    server.client.flushall()
    held = Held()
    for number in range(MANY):
        message = SimpleNamespace(_raw={"headers": {}}, delivery_info={"exchange": "", "routing_key": QUEUE})
        held.owed[str(number)] = message, True

    def settle(_):
        with Connection(broker, transport="coldframe.worker.transport:Transport") as connection:
            return held.settle(connection.default_channel)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(settle, range(2))) == [None, None]
    assert not held.owed and server.client.llen(QUEUE) == MANY
