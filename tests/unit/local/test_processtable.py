"""Finding and ending what belongs to a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier_local.layout import MARKER
from espalier_local.processtable import end_all, is_same, leftovers, start_time

_DEAF = "import signal,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with the marker that ignores SIGTERM."""
    environment = {**os.environ, MARKER: str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_reused_pid_is_another_process() -> None:
    started = start_time(os.getpid())
    assert started is not None
    assert is_same(os.getpid(), started)
    assert not is_same(os.getpid(), started - 100)


def test_leftovers_are_found_by_their_cluster_only(deaf: subprocess.Popen[str], tmp_path: Path) -> None:
    assert [process.pid for process in leftovers(tmp_path)] == [deaf.pid]
    assert leftovers(tmp_path / "other") == []


def test_what_ignores_the_signal_is_killed_after_its_grace(deaf: subprocess.Popen[str], tmp_path: Path) -> None:
    end_all(leftovers(tmp_path), grace_s=0.2)
    assert start_time(deaf.pid) is None
