"""Which sandbox a job's `execution.sandbox` means."""

from __future__ import annotations

from functools import cache
from typing import Literal

from espalier_grading.sandbox import PROCESSES, Bubblewrap, Sandbox, Unconfined
from espalier_grading.sandbox_pod import Pod
from espalier_sandbox.settings import SOCKET


def sandbox(
    kind: Literal["bubblewrap", "none", "container", "gvisor"], *, most_processes: int | None = None
) -> Sandbox:
    """The sandbox of that name. With `container` and `gvisor` the pod itself is one: what its other container is
    confined by was decided when it was made, and that container checks it. `most_processes` binds each command, with
    its threads; None leaves it what the sandbox has.
    """
    match kind:
        case "bubblewrap":
            return Bubblewrap(processes=most_processes or PROCESSES)
        case "none":
            return Unconfined()
    return _pod(most_processes or 0)


@cache
def _pod(most: int) -> Pod:
    """One per process: the pod's sandbox lets one worker in."""
    return Pod(SOCKET, most=most)
