"""Processes that are no worker ask workers, and touch no message of theirs."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

RUNTIME = Path(__file__).parents[1] / "roles/app/files/runtime"


@pytest.fixture
def control(monkeypatch):
    """The module, with stand-ins for Celery and kombu."""
    for name in ("celery", "celery.app", "kombu", "kombu.transport"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    commands = type("Control", (), {"broadcast": lambda self, command: command})
    messages = type("QoS", (), {"restore_visible": lambda self, **_: pytest.fail("it looked for lost messages")})
    monkeypatch.setitem(sys.modules, "celery.app.control", SimpleNamespace(Control=commands))
    monkeypatch.setitem(sys.modules, "kombu.transport.redis", SimpleNamespace(QoS=messages))
    spec = importlib.util.spec_from_file_location("control", RUNTIME / "coldframe/control.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_who_waits_for_answers_does_not_look_for_lost_messages(control):
    control.install()
    assert control.QoS().restore_visible(num=10, interval=1) is None


@pytest.mark.parametrize("opened", [True, False])
def test_remote_control_is_refused_where_it_is_closed(control, opened):
    control.install()
    asked = control.Control()
    asked.app = SimpleNamespace(conf={"web_control": opened})
    if opened:
        assert asked.broadcast("ping") == "ping"
    else:
        with pytest.raises(PermissionError, match="redis_web_control"):
            asked.broadcast("ping")
