"""How a GradingJob ends: read from the coordinator's view of its work."""

from __future__ import annotations

from espalier_api.tasks import TALLY_SUBMISSIONS
from espalier_operator.plan.ending import Ending, not_admitted, outcome_of
from espalier_operator.plan.progress import report_value
from espalier_rpc.views import JobView

ADMIT = "grading.admit"
REPORT = "grading.report"
REJECTIONS = ("BundleRejected", "SourceNotFound")
"""Reasons of a failed admission that are the evaluator's to mend; any other is the platform's."""


def completed(view: JobView) -> Ending:
    """All tasks have ended: the report says how, or the task that failed."""
    if (admission := outcome_of(view, ADMIT)) is not None and admission.state == "failed":
        return not_admitted(admission, REJECTIONS, what="the bundle")
    report = outcome_of(view, REPORT)
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
    if counts.total and counts.failed == counts.total:
        return Ending("Failed", "PlatformFault", f"no submission could be graded: {said}", report=value)
    return Ending("Complete", "Finished", said, report=value)


def is_admitted(view: JobView) -> bool:
    """Whether the admission passed: it alone writes how many submissions there are."""
    return TALLY_SUBMISSIONS in view.tallies
