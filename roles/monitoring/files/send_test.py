"""Has Alertmanager send a test message, and tells what came of it: send_test.py URL CA TEXT CHANNEL...

A channel is what Alertmanager calls an integration, such as `email`. If one did not take the message, it prints what Alertmanager's log
has about it since then, and exits with 1.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter

TRIES = 60.0  # seconds in which Alertmanager has tried each channel: it waits for an answer for up to 30
TIMEOUT = 10.0  # seconds for an answer of Alertmanager's own


class Alertmanager:
    """An Alertmanager."""

    def __init__(self, url: str, ca: str) -> None:
        """Remember where it is.

        :param url: of its pages, without a slash at the end.
        :param ca: the path of the certificate that signs its own; empty for plain HTTP.
        """
        self.url, self.context = url, ssl.create_default_context(cafile=ca) if ca else None

    def ask(self, path: str, body: object = None) -> str:
        """Return its answer. Raises OSError.

        :param body: what to post; None asks by GET.
        """
        data = None if body is None else json.dumps(body).encode()
        # The address is the role's own.
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=self.context) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def tried(self) -> tuple[Counter[str], Counter[str]]:
        """Return how often it has tried each channel, and how often in vain."""
        counts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        sample = r'^alertmanager_notification_requests_(failed_)?total\{.*?integration="(\w+)".*?\} (\S+)$'
        for failed, channel, count in re.findall(sample, self.ask("/metrics"), re.M):
            counts[bool(failed)][channel] += int(float(count))
        return counts


def send(alertmanager: Alertmanager, channels: list[str], text: str) -> dict[str, str]:
    """Have a message sent; return for each channel what came of it: `sent`, `failed` or `not tried within ... s`.

    What goes to `alerts_ping_url` is counted as `webhook` too, when it falls into these seconds.
    """
    before = alertmanager.tried()
    labels = {"alertname": "TestAlert", "severity": "none", "at": time.strftime("%F %T UTC", time.gmtime())}
    alertmanager.ask("/api/v2/alerts", [{"labels": labels, "annotations": {"summary": text}}])
    until = time.monotonic() + TRIES
    while True:
        tried, failed = (after - was for after, was in zip(alertmanager.tried(), before, strict=True))
        if set(channels) <= set(tried) or time.monotonic() > until:
            break
        time.sleep(1)
    found = dict.fromkeys(channels, f"not tried within {TRIES:.0f} s")
    return found | {channel: "failed" if failed[channel] else "sent" for channel in channels if tried[channel]}


if __name__ == "__main__":
    began = int(time.time())
    outcome = send(Alertmanager(*sys.argv[1:3]), sys.argv[4:], sys.argv[3])
    print(*(f"{channel}: {how}" for channel, how in outcome.items()), sep="\n", flush=True)
    if failed := set(outcome.values()) != {"sent"}:
        subprocess.run(["journalctl", "--sync"], check=False)
        query = [
            "--unit=prometheus-alertmanager",
            f"--since=@{began}",
            "--grep=told",
            "--output=cat",
            "--no-pager",
            "--quiet",
        ]
        subprocess.run(["journalctl", *query], check=False)
    sys.exit(failed)
