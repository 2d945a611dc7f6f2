"""A version of Celery that has lost a place which the runtime uses is not run."""

import pytest
from celery.worker.request import Request
from coldframe import seams
from coldframe.worker import request


class Base:
    """Somebody else's class."""

    kept = 1


def test_attribute_that_is_gone_is_not_set():
    seams.put(Base, "kept", 2)
    with pytest.raises(AttributeError, match="has no gone"):
        seams.put(Base, "gone", 2)
    assert Base.kept == 2 and not hasattr(Base, "gone")


def test_class_extends_what_is_there():
    seams.extends("own")(type("Ours", (Base,), {"kept": 3, "own": 1}))
    with pytest.raises(AttributeError, match="has no gone"):
        seams.extends("own")(type("Ours", (Base,), {"gone": 3}))


def test_class_that_is_not_used_is_named():
    seams.require(True, int)
    with pytest.raises(TypeError, match=r"is no test_seams.Base: an extension point has no effect"):
        seams.require(1, Base)


def test_request_of_a_task_keeps_its_own_class():
    class Own(Request):
        """An application may have one."""

    ours = request.extended(Own)
    assert issubclass(ours, (request.Closing, Own)) and request.extended(ours) is ours
    assert request.extended(Own) is ours
    assert issubclass(request.extended("celery.worker.request:Request"), request.Closing)


def test_connections_are_closed_when_a_result_was_stored(monkeypatch):
    done = []

    class Own(Request):
        def __init__(self):
            self.name, self._request_dict = "a", {"id": "1", "task": "a"}

        def on_timeout(self, soft, timeout):
            done.append("stored")
            raise OSError

    monkeypatch.setattr(request, "close_connections", lambda: done.append("closed"))
    with pytest.raises(OSError):
        request.extended(Own)().on_timeout(False, 5)
    assert done == ["stored", "closed"]


def test_request_without_what_ours_extends_is_refused():
    with pytest.raises(AttributeError, match="on_timeout"):
        request.extended(Base)
