"""While a command runs: it ends when the worker has gone, and when it starts more processes than it may.

Kubernetes bounds the processes of a pod, not of a container: what fills that bound here would leave the worker beside
it without a thread to spare. And limits by user would count all pods of a machine together.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable

_TICK_S = 0.05


class Watch:
    """Calls `kill` when there is a reason, which is `why`.

    `most` processes and threads at once; 0: as many as the pod may have.
    """

    def __init__(self, worker: socket.socket, *, most: int, kill: Callable[[], None]) -> None:
        self._worker, self._most, self._kill = worker, most, kill
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.why = ""
        """Empty while there is no reason."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_TICK_S):
            if self.why or (why := self._problem()):
                self.why = self.why or why
                self._kill()  # again and again: a fork may have been under way

    def _problem(self) -> str:
        if has_hung_up(self._worker):
            return "the worker has gone"
        if self._most and tasks() > self._most:
            return f"it had more than {self._most} processes and threads at once"
        return ""


def has_hung_up(peer: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    poll = select.poll()
    poll.register(peer, select.POLLRDHUP)
    return bool(poll.poll(0))


def tasks() -> int:
    """Processes and threads beside this process, which must be the first of its container."""
    own, found = str(os.getpid()), 0
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != own:
            with contextlib.suppress(OSError):
                found += len(os.listdir(f"/proc/{name}/task"))
    return found
