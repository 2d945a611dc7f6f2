"""The places where this package changes Celery, kombu and billiard: both ways fail when the place is not there.

In a version that has lost it, a change would otherwise be left out without a word. The process does not start then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def put(owner: Any, name: str, value: Any) -> None:
    """Set an attribute of another package's class or module, which must have it.

    Raises AttributeError when it has none of that name.
    """
    if not hasattr(owner, name):
        raise AttributeError(f"{owner!r} has no {name}: coldframe does not work with this version of it.")
    setattr(owner, name, value)


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
