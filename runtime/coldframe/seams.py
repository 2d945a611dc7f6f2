"""Changes Celery, kombu and billiard at their extension points, and fails where one is missing.

With a version that has lost an extension point the process must not start: a change would be left out silently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery.app.backends import BACKEND_ALIASES
from kombu.transport import TRANSPORT_ALIASES

REDIS = ("redis", "rediss")  # the schemes of the broker's address; redis+socket:// is `redis` to kombu
Class = TypeVar("Class", bound=type)


def put(owner: Any, name: str, value: Any) -> None:
    """Set an attribute of another package's class or module, which must have it.

    Raises AttributeError when it has none of that name.
    """
    if not hasattr(owner, name):
        raise AttributeError(f"{owner!r} has no {name}: coldframe does not work with this version of it.")
    setattr(owner, name, value)


def use_transport(path: str) -> None:
    """Make each connection to Redis use a transport class.

    :param path: its module and name, as `module:name`.

    Raises KeyError when kombu has no transport for such an address.
    """
    if missing := set(REDIS) - set(TRANSPORT_ALIASES):
        raise KeyError(f"kombu has no transport for {missing}: coldframe does not work with this version of it.")
    TRANSPORT_ALIASES.update(dict.fromkeys(REDIS, path))


def use_backend(path: str) -> None:
    """Keep results in Redis by a backend class.

    :param path: its module and name, as `module:name`.

    Raises KeyError when Celery has no backend for such an address.
    """
    if missing := set(REDIS) - set(BACKEND_ALIASES):
        raise KeyError(f"Celery has no backend for {missing}: coldframe does not work with this version of it.")
    BACKEND_ALIASES.update(dict.fromkeys(REDIS, path))


def require(part: Any, ours: type) -> None:
    """Raise TypeError when a part of Celery or kombu is not an instance of our class."""
    if not isinstance(part, ours):
        raise TypeError(f"{part!r} is no {ours.__module__}.{ours.__qualname__}: an extension point has no effect.")


def extends(*own: str) -> Callable[[Class], Class]:
    """Assert that a class overrides what its base classes have.

    :param own: attributes of the class that are new in it.

    Raises AttributeError, when the class is made, for an attribute that no base class has.
    """

    def check(cls: Class) -> Class:
        for name in vars(cls):
            there = any(hasattr(base, name) for base in cls.__bases__)
            if not there and name not in own and not name.startswith("__"):
                raise AttributeError(
                    f"{cls.__mro__[1]!r} has no {name}: coldframe does not work with this version of it."
                )
        return cls

    return check
