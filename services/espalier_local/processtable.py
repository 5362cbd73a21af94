"""The machine's process table: is this still the process we started, and what of a cluster is left."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from espalier_local.layout import MARKER

_SAME_START_S = 1.0
"""psutil computes the start time from the boot time, which a clock correction shifts by fractions of a second."""


def start_time(pid: int) -> float | None:
    """When the process started, seconds since the epoch; None if there is none or only its corpse."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_same(pid: int, started: float | None) -> bool:
    """Whether pid still names the process that began at `started`; a reused pid does not."""
    found = start_time(pid)
    return found is not None and started is not None and abs(found - started) < _SAME_START_S


def signal_group(pid: int, number: signal.Signals) -> None:
    """To the whole process group; each of ours leads its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def leftovers(root: Path) -> list[psutil.Process]:
    """Every living process with the cluster's marker, and all their children, whose environment may be cleared."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARKER) == str(root):
                family = [process, *process.children(recursive=True)]
                found |= {member.pid: member for member in family}
    return list(found.values())


def end_all(processes: Iterable[psutil.Process], *, grace_s: float) -> None:
    """SIGTERM, then after `grace_s` SIGKILL to those still there. SIGCONT wakes the stopped ones for it."""
    remaining = list(processes)
    for number in (signal.SIGTERM, signal.SIGCONT):
        _send(remaining, number)
    _, remaining = psutil.wait_procs(remaining, timeout=grace_s)
    _send(remaining, signal.SIGKILL)
    psutil.wait_procs(remaining, timeout=grace_s)


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
