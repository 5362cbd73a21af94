"""How a GradingJob ends: read from the coordinator's view of its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from espalier_api.tasks import TALLY_SUBMISSIONS, ReportValue
from espalier_operator.plan.facts import GradingJobFacts
from espalier_operator.plan.progress import report_value
from espalier_rpc.views import JobView, TaskOutcome

ADMIT = "grading.admit"
REPORT = "grading.report"
REJECTIONS = ("BundleRejected", "SourceNotFound")
"""Reasons of a failed admission that are the evaluator's to mend; any other is the platform's."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The terminal condition, and what came out."""

    type: Literal["Complete", "Failed", "Cancelled"]
    reason: str
    message: str
    is_rejected: bool = False
    report: ReportValue | None = None


def ending(facts: GradingJobFacts) -> Ending | None:
    """How the job ended, or None while it goes on."""
    view = facts.coordinator.view
    failure = facts.worker.failure if facts.worker is not None else ""
    if view is not None and view.state == "complete":
        return completed(view)
    if view is not None and not view.is_final:
        return None
    if failure and (view is not None or facts.coordinator.is_synced):
        return Ending("Failed", "PlatformFault", f"the workers failed: {failure}")
    if view is not None:
        return Ending("Cancelled", "CancelledByUser", _kept(view))
    if facts.job.spec.run_policy.cancel and facts.coordinator.is_synced:
        return Ending("Cancelled", "CancelledByUser", "cancelled before any task ran")
    return None


def completed(view: JobView) -> Ending:
    """All tasks have ended: the report says how, or the task that failed."""
    if (admission := _find(view, ADMIT)) is not None and admission.state == "failed":
        return _not_admitted(admission)
    report = _find(view, REPORT)
    if report is None or report.state != "done":
        why = report.message if report is not None and report.message else "the report task did not run"
        return Ending("Failed", "ReportFailed", why)
    value = report_value(report.value)
    if value is None:
        return Ending("Failed", "ReportFailed", "the report task returned no report")
    counts = value.submissions
    said = f"{counts.graded} of {counts.total} submissions graded, {counts.needs_review} await review"
    others = ((counts.not_gradable, "not gradable"), (counts.failed, "failed by a fault of the platform"))
    said = ", ".join([said, *(f"{count} {what}" for count, what in others if count)])
    return Ending("Complete", "Finished", said, report=value)


def is_admitted(view: JobView) -> bool:
    """Whether the admission passed: it alone writes how many submissions there are."""
    return TALLY_SUBMISSIONS in view.tallies


def _not_admitted(admission: TaskOutcome) -> Ending:
    if admission.reason in REJECTIONS:
        return Ending("Failed", admission.reason, admission.message, is_rejected=True)
    return Ending("Failed", "PlatformFault", f"the bundle could not be checked: {admission.message}")


def _kept(view: JobView) -> str:
    return f"cancelled; {view.counts.done} finished tasks are kept, {view.counts.cancelled} were cancelled"


def _find(view: JobView, type_: str) -> TaskOutcome | None:
    return next((o for o in view.outcomes if o.type == type_), None)
