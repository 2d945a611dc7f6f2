"""How many processes a worker has whose queue says nothing of it."""

import os

import pytest
from coldframe.worker.processors import arguments, count


@pytest.mark.parametrize(
    "text, share", [("max 100000", None), ("20000 100000", 1), ("150000 100000", 2), ("999900000 100000", None)]
)
def test_share_of_a_container_is_rounded_up(tmp_path, text, share):
    (tmp_path / "cpu.max").write_text(text + "\n")
    here = len(os.sched_getaffinity(0))
    assert count(tmp_path) == min(share or here, here)


def test_only_a_worker_without_a_number_is_given_one():
    beat, fixed = ["celery", "--app=a", "beat"], ["celery", "worker", "--concurrency=3"]
    assert arguments(beat) == beat and arguments(fixed) == fixed
    assert arguments(["celery", "worker", "--queues=a"]) == [
        "celery",
        "worker",
        "--queues=a",
        f"--concurrency={count()}",
    ]


def test_multiple_of_the_processors():
    words = ["worker", "--concurrency=auto*4", "--queues=a"]
    assert arguments(words) == ["worker", f"--concurrency={4 * count()}", "--queues=a"]
