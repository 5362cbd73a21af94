"""Conditions as a plan writes them, and the phase derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from espalier_api.meta import Condition, find_condition, is_true, set_condition

TERMINAL = ("Complete", "Failed", "Cancelled")
State = Literal["True", "False", "Unknown"]

_WAITING = {
    "WaitingForNodes": "Waiting", "WaitingForRuns": "Waiting", "Admitting": "Admitting", "Starting": "Starting",
    "Running": "Running",
}


@dataclass(slots=True)
class Conditions:
    """Collects conditions for one status; transition times move only with the status."""

    current: tuple[Condition, ...]
    now: datetime
    generation: int

    def set(self, type_: str, state: State, reason: str, message: str = "") -> None:
        """Put one condition."""
        new = Condition(
            type=type_, status=state, reason=reason, message=message,
            last_transition_time=self.now.replace(microsecond=0), observed_generation=self.generation,
        )
        self.current = set_condition(self.current, new)

    def drop(self, *types: str) -> None:
        """Remove conditions that say nothing any more."""
        self.current = tuple(c for c in self.current if c.type not in types)

    def result(self) -> tuple[Condition, ...]:
        """All, in a stable order."""
        return tuple(sorted(self.current, key=lambda c: c.type))


def is_terminal(conditions: tuple[Condition, ...]) -> bool:
    """Whether the job has ended, however."""
    return any(is_true(conditions, type_) for type_ in TERMINAL)


def job_phase(conditions: tuple[Condition, ...]) -> str:
    """One word for `kubectl get`."""
    for type_ in ("Failed", "Cancelled", "Complete"):
        if is_true(conditions, type_):
            return type_
    if is_true(conditions, "Suspended"):
        return "Suspended"
    progressing = find_condition(conditions, "Progressing")
    if progressing is not None and progressing.reason in ("CancelledByUser", "DeadlineExceeded"):
        return "Cancelling"
    return _WAITING.get(progressing.reason, "Pending") if progressing is not None else "Pending"
