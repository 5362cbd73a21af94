"""The machine's process table: is this still the process we started, and what of a cluster is left."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from espalier_local.layout import MARKER


def start_time(pid: int) -> float | None:
    """When the process started, as the kernel noted it: in seconds since the machine did (Linux) or since the epoch.
    A clock that is set later moves neither. None if there is no such process, or only its corpse.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return _since_boot(pid) if psutil.LINUX else process.create_time()
    except (psutil.Error, OSError):
        return None


def is_same(pid: int, started: float | None) -> bool:
    """Whether pid still names the process that began at `started`; a reused pid does not."""
    return started is not None and start_time(pid) == started


def _since_boot(pid: int) -> float:
    """Seconds, from field 22 of proc_pid_stat(5); the second field may contain spaces and brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


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
