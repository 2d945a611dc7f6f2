"""The versions of Celery and its packages that this package was tried with, and what the older ones lack.

A deploy reads these tables before it changes a host (plugins/filter/lock.py), and so does each process when it starts.
The tests skip what a version lacks. Only the standard library is imported here.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

Version = tuple[int, ...]


class Range(NamedTuple):
    """Versions from the first up to and without the second."""

    first: Version
    end: Version

    def has(self, version: Version) -> bool:
        """Whether a version is one of them."""
        return self.first <= version < self.end

    def both(self, other: Range) -> Range:
        """Return the versions that are in both ranges. The end is not after the start if there are none."""
        return Range(max(self.first, other.first), min(self.end, other.end))

    def __str__(self) -> str:
        """Return the range as requirements files write it."""
        return f">={shown(self.first)},<{shown(self.end)}"


class Need(NamedTuple):
    """What versions of a package need of another package."""

    package: str
    versions: Range
    other: str
    wanted: Range


class Lack(NamedTuple):
    """What versions of a package before `end` lack: a name for the tests, and a sentence for operators."""

    name: str
    package: str
    end: Version
    text: str


class Problem(NamedTuple):
    """A version that was not tried, why it is refused, and the versions to write instead."""

    package: str
    version: str
    reason: str
    wanted: Range


# The first and the last version of each range were tried: by runtime/tests and molecule/tests/test_versions.py with
# molecule/versions/*.txt, and with the example's lock file.
TRIED: dict[str, tuple[Range, ...]] = {
    "python": (Range((3, 11), (3, 14)),),
    "celery": (Range((5, 4), (5, 5)), Range((5, 5, 3), (5, 6)), Range((5, 6, 3), (5, 8))),
    "kombu": (Range((5, 4, 2), (5, 5)), Range((5, 5, 4), (5, 6)), Range((5, 6, 2), (5, 8))),
    "redis": (Range((5, 0, 8), (9,)),),
    "billiard": (Range((4, 2, 1), (4, 4)),),
    "django-celery-beat": (Range((2, 7), (2, 10)),),
}
# Which of them were tried together. A package comes before those that it needs.
NEEDS = (
    Need("celery", Range((5, 4), (5, 5)), "kombu", Range((5, 4, 2), (5, 7))),
    Need("celery", Range((5, 5), (5, 6)), "kombu", Range((5, 5, 4), (5, 6))),
    Need("celery", Range((5, 6), (5, 7)), "kombu", Range((5, 6, 2), (5, 8))),
    Need("celery", Range((5, 7), (5, 8)), "kombu", Range((5, 7), (5, 8))),
    Need("kombu", Range((5, 4), (5, 5)), "redis", Range((5, 0, 8), (6,))),
    Need("kombu", Range((5, 5), (5, 6)), "redis", Range((5, 0, 8), (5, 3))),
    Need("kombu", Range((5, 6), (5, 7)), "redis", Range((5, 0, 8), (6, 5))),
    Need("kombu", Range((5, 7), (5, 8)), "redis", Range((6, 4), (9,))),
)
GREEN = "pool: gevent in celery_queues"
# What the application's processes report with (coldframe.tracing), and what the pool gevent needs, by what makes them do so. They
# are needed only then.
REPORTING: dict[str, dict[str, Range]] = {
    "app_secrets.sentry_dsn": {"sentry-sdk": Range((2, 20), (3,))},
    "app_otel_endpoint": {
        "opentelemetry-sdk": Range((1, 30), (2,)),
        "opentelemetry-exporter-otlp-proto-http": Range((1, 30), (2,)),
        "opentelemetry-instrumentation-django": Range((0, 51), (1,)),
        "opentelemetry-instrumentation-celery": Range((0, 51), (1,)),
    },
    GREEN: {"gevent": Range((24, 10), (27,))},
}
# Django's driver of PostgreSQL that lets other green threads run while it waits. psycopg2 does not.
GREEN_DRIVER = Range((3, 1, 14), (4,))
# Besides, where an ASGI application is served.
REPORTING_ASGI = {"app_otel_endpoint": {"opentelemetry-instrumentation-asgi": Range((0, 51), (1,))}}
# What an older version cannot have. docs/application.md has the same sentences.
LACKS = (
    Lack(
        "direct_connection",
        "kombu",
        (5, 6),
        "Code of the application that connects to the broker without Celery, by `kombu.Connection(CELERY_BROKER_URL)`, "
        "cannot log in. Nor can an application that gives Celery an `amqp` class of its own.",
    ),
)


def shown(version: Version) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))


def parsed(text: str) -> Version:
    """Return the numbers of a version, without what follows them, such as `rc1`."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text, maxsplit=1)[0]))


def problems(found: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """List the versions that were not tried, alone or together. Each is reported once.

    :param found: package to versions; a lock file for several platforms may have more than one. `python` is a package.
    """
    good: dict[str, list[Version]] = {}
    for package, ranges in TRIED.items():
        needs = [
            (need, version)
            for need in NEEDS
            if need.other == package
            for version in good.get(need.package, ())
            if need.versions.has(version)
        ]
        wanted = [need.wanted for need, _ in needs] or list(ranges)
        allowed = [both for range_ in ranges for want in wanted if (both := range_.both(want)).first < both.end]
        for text in found.get(package, ()):
            version = parsed(text)
            if any(range_.has(version) for range_ in allowed):
                good.setdefault(package, []).append(version)
                continue
            reason = "which was not tried"
            if any(range_.has(version) for range_ in ranges):
                reason += " with " + " and ".join(f"{need.package}=={shown(other)}" for need, other in needs)
            yield Problem(package, text, reason, next((r for r in allowed if version < r.end), allowed[-1]))


def lacks(found: Mapping[str, Sequence[str]]) -> list[Lack]:
    """List what the versions lack.

    :param found: as for `problems`.
    """
    return [lack for lack in LACKS if any(parsed(text) < lack.end for text in found.get(lack.package, ()))]


def installed() -> dict[str, list[str]]:
    """Return the versions that this process has. Packages that are not installed are left out."""
    found = {"python": [platform.python_version()]}
    for package in TRIED:
        try:
            found.setdefault(package, [metadata.version(package)])
        except metadata.PackageNotFoundError:
            continue
    return found


def require() -> None:
    """Exit when this process has a version that was not tried: it would lose tasks, or be killed by its own watchdog."""
    if wrong := list(problems(installed())):
        lines = (
            f"It has {problem.package}=={problem.version}, {problem.reason}. Install '{problem.package}{problem.wanted}'."
            for problem in wrong
        )
        raise SystemExit("\n".join(["Coldframe does not start this process.", *lines]))
