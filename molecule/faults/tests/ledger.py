"""The ledger: what was accepted, against what was done, how often, and which fault it was at.

What is done twice is often hidden by what it leaves behind. So triggers in the database note each effect as it is
committed: a charge, a confirmation, a task's result.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from typing import Any

from cluster import Cluster
from customers import Customers

# In a schema of its own, with the rights of who made it, so that the application needs none.
NOTE = """
DROP SCHEMA IF EXISTS ledger CASCADE; CREATE SCHEMA ledger;
CREATE TABLE ledger.effects (at timestamptz DEFAULT clock_timestamp(), kind text, id text);
CREATE FUNCTION ledger.note() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN INSERT INTO ledger.effects (kind, id) VALUES (TG_ARGV[0], to_jsonb(NEW) ->> TG_ARGV[1]); RETURN NULL; END $$;
CREATE TRIGGER ledger AFTER INSERT OR UPDATE ON orders_charge FOR EACH ROW EXECUTE FUNCTION ledger.note('charge', 'order_id');
CREATE TRIGGER ledger AFTER UPDATE OF confirmed_at ON orders_order FOR EACH ROW EXECUTE FUNCTION ledger.note('confirmation', 'id');
CREATE TRIGGER ledger AFTER INSERT OR UPDATE ON django_celery_results_taskresult
    FOR EACH ROW EXECUTE FUNCTION ledger.note('result', 'task_id');
"""
ORDERS = """
    SELECT o.id, o.task_id, c.id IS NOT NULL AND o.confirmed_at IS NOT NULL AS done,
        extract(epoch FROM o.created_at) AS at, extract(epoch FROM c.created_at - o.created_at) AS waited
    FROM orders_order o LEFT JOIN orders_charge c ON c.order_id = o.id WHERE o.email = '{email}'
"""
OPEN = "SELECT count(*) FROM ({orders}) o WHERE NOT o.done"
EFFECTS = "SELECT kind, id, extract(epoch FROM at) AS at FROM ledger.effects ORDER BY ledger.effects.at"
# An intent that was not done in time, and was sent again.
RESENT = "SELECT extract(epoch FROM created_at) AS at FROM orders_intent WHERE sent > 1 AND created_at > to_timestamp({since})"


class Ledger:
    """The orders of some customers, and what was done for them."""

    def __init__(self, cluster: Cluster, customers: Customers, since: float) -> None:
        """Read it; what was sent again is counted since a time (seconds since 1970)."""
        # Id to `task_id`, `done` (whether), `at` (seconds since 1970), `waited` (seconds for the charge).
        self.orders: dict[str, dict[str, Any]] = {
            row["id"]: row for row in cluster.sql(ORDERS.format(email=customers.email))
        }
        tasks = {order["task_id"] for order in self.orders.values()}
        self.resent: list[float] = [row["at"] for row in cluster.sql(RESENT.format(since=since))]
        self.again: list[float] = []  # when charges were executed that had been executed before
        effects: Counter[tuple[str, str]] = Counter()
        for effect in cluster.sql(EFFECTS):
            kind, name = effect["kind"], effect["id"]
            if name in (tasks if kind == "result" else self.orders):
                effects[kind, name] += 1
                if kind == "result" and effects[kind, name] > 1:
                    self.again.append(effect["at"])
        self.open = [name for name, order in self.orders.items() if not order["done"]]
        self.doubled = [what for what, times in effects.items() if times > 1 and what[0] != "result"]

    def longest_wait(self, begin: float, end: float) -> float:
        """How many seconds one of the orders of a time waited for its charge, at most."""
        waits = [order["waited"] or math.inf for order in self.orders.values() if begin <= order["at"] < end]
        return round(max(waits, default=0), 1)


def still_open(cluster: Cluster, customers: Customers) -> int:
    """How many orders are not charged, or not confirmed."""
    return cluster.sql(OPEN.format(orders=ORDERS.format(email=customers.email)))[0]["count"]


def by_step(times: list[float], begins: list[float]) -> Counter[int]:
    """Count times by the step that was the last to begin."""
    return Counter(bisect_right(begins, at) - 1 for at in times)
