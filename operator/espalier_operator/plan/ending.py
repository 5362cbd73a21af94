"""How a job ended, as a value, and how an admission that failed is told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from espalier_api.benchmarktasks import BenchmarkValue, CompareValue
from espalier_api.tasks import ReportValue
from espalier_rpc.views import JobView, TaskOutcome


@dataclass(frozen=True, slots=True)
class Ending:
    """The terminal condition, and what came out."""

    type: Literal["Complete", "Failed", "Cancelled"]
    reason: str
    message: str
    is_rejected: bool = False
    report: ReportValue | BenchmarkValue | CompareValue | None = None


def not_admitted(admission: TaskOutcome, rejections: Collection[str], *, what: str) -> Ending:
    """Of a failed admission: `rejections` are reasons that its author mends; any other fault is the platform's."""
    if admission.reason in rejections:
        return Ending("Failed", admission.reason, admission.message, is_rejected=True)
    return Ending("Failed", "PlatformFault", f"{what} could not be checked: {admission.message}")


def outcome_of(view: JobView, type_: str) -> TaskOutcome | None:
    """The outcome of the task of that type, where it is told."""
    return next((o for o in view.outcomes if o.type == type_), None)
