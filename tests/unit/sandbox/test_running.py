"""One command of a request, as far as it needs no container."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from espalier_sandbox import running
from espalier_sandbox.wire import Run


def test_a_worker_that_hangs_up_leaves_no_timer_for_the_next_command(tmp_path: Path) -> None:
    """It would end whatever runs when the time of the first is up."""
    request = Run(command=("echo", "hello"), folder=str(tmp_path), environment=dict(os.environ), seconds=60.0,
                  output_bytes=100)

    def gone(_output: bytes) -> None:
        raise BrokenPipeError

    before = set(threading.enumerate())
    with pytest.raises(BrokenPipeError):
        running._run(request, b"", gone, lambda: None)
    timers = {thread for thread in set(threading.enumerate()) - before if isinstance(thread, threading.Timer)}
    assert set(threading.enumerate()) - before == timers, "nobody else is left"
    assert all(timer.finished.is_set() for timer in timers)
