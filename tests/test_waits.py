"""The limit of a wait in tests."""

import time

import pytest
import waits


@pytest.mark.parametrize(("busy", "longer"), [(0, 1), (0.5, 1.5), (1, 3), (2, 3)], ids=str)
def test_limit_is_longer_while_processors_are_busy(monkeypatch, busy, longer):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(waits, "stalled", lambda: 7 + busy * now[0])
    with pytest.raises(AssertionError, match=r"not within 6 s .*: it rains"):
        waits.wait_for(lambda: False, 6, lambda: "it rains")
    assert 6 * longer <= now[0] - 100 < 6 * longer + 0.3


def test_what_the_condition_returns_is_returned():
    answers = iter(["", "yes"])
    assert waits.wait_for(lambda: next(answers), 5, "it answers") == "yes"
    assert waits.stalled() >= 0
