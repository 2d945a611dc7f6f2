"""Customers who place orders all the time, and repeat an order until it is answered."""

from __future__ import annotations

import http.client
import random
import threading
import time
import uuid

from support.load import ask, connect

PERIOD = 0.5  # seconds from one order of a customer to the next
REPEAT = 0.5  # seconds from a request that failed to its repetition, under the same key
GIVE_UP = 600  # seconds for which an order is repeated


class Customers:
    """Threads that place orders, and the account of them."""

    def __init__(self, url: str, number: int) -> None:
        """Prepare some customers of the shop at `url`, who place 1/PERIOD orders a second each."""
        self.url, self.email = url, f"{uuid.uuid4()}@example.com"
        self.accepted: dict[str, float] = {}  # id of each order that was answered as placed, and when
        self.answers: list[tuple[float, float]] = []  # of requests that were answered: when sent, and seconds
        self.repeated: list[tuple[float, str]] = []  # requests that failed and were repeated: when, and why
        self.given_up: list[str] = []  # keys of the orders that were never answered
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._come, daemon=True) for _ in range(number)]

    def start(self) -> None:
        """Let them come."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no new orders; those that are not answered yet are repeated until they are."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def place(self, connection: http.client.HTTPSConnection) -> str:
        """Place one order, repeating the request until it is answered as placed; return its id.

        Raises TimeoutError when it has not been for GIVE_UP seconds.
        """
        key = str(uuid.uuid4())
        order = {"sku": "apple", "quantity": 2, "email": self.email, "idempotency_key": key}
        deadline = time.monotonic() + GIVE_UP
        while time.monotonic() < deadline:
            sent = time.time()
            try:
                # 200: an earlier request was stored, though its answer did not arrive.
                placed = ask(connection, "POST", "/orders/", order, expect=(201, 200))
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.repeated.append((time.time(), f"{type(error).__name__}: {error}"))
                connection.close()
                time.sleep(REPEAT)
            else:
                self.accepted[placed["id"]] = time.time()
                self.answers.append((sent, time.time() - sent))
                return placed["id"]
        self.given_up.append(key)
        raise TimeoutError(f"an order was not answered for {GIVE_UP} s")

    def slowest_answer(self, begin: float, end: float) -> float:
        """How many seconds the answer to one of the requests of a time took, at most."""
        return round(max((seconds for at, seconds in self.answers if begin <= at < end), default=0), 1)

    def _come(self) -> None:
        connection, due = connect(self.url), time.monotonic() + random.uniform(0, PERIOD)  # noqa: S311
        while not self._stopping.wait(max(0, due - time.monotonic())):
            self.place(connection)
            due = max(due + PERIOD, time.monotonic())
