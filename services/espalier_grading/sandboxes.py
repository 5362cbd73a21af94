"""Which sandbox a job's `execution.sandbox` means."""

from __future__ import annotations

from functools import cache
from typing import Literal

from espalier_grading.sandbox import Bubblewrap, Sandbox, Unconfined
from espalier_grading.sandbox_pod import Pod
from espalier_sandbox.settings import SOCKET


def sandbox(kind: Literal["bubblewrap", "none", "container", "gvisor"]) -> Sandbox:
    """The sandbox of that name. With `container` and `gvisor` the pod itself is one: what its other container is
    confined by was decided when it was made, and that container checks it.
    """
    match kind:
        case "bubblewrap":
            return Bubblewrap()
        case "none":
            return Unconfined()
    return _pod()


@cache
def _pod() -> Pod:
    """One per process: the pod's sandbox lets a worker in once."""
    return Pod(SOCKET)
