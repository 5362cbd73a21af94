"""What only a GradingJob's status says: submissions, scores, speed of its judges."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from espalier_api.gradingjob import PerformanceStatus
from espalier_api.tasks import TALLY_FAILED, TALLY_FAILOVER, TALLY_PLAIN_TEXT, ReportValue
from espalier_kit.artifacts import SCHEME
from espalier_operator.plan import progress
from espalier_operator.plan.conditions import Conditions
from espalier_operator.plan.ending import Ending
from espalier_operator.plan.facts import GradingJobFacts
from espalier_operator.plan.grading_ending import is_admitted
from espalier_operator.plan.grading_work import unreached
from espalier_operator.plan.models import shares_hardware
from espalier_rpc.views import JobView

STICKY = ("ModelServerFailover", "PlainTextParse")
"""Degradations that touch grades: once true, true for good."""


def progress_message(facts: GradingJobFacts, view: JobView) -> str:
    """How far it is, in words."""
    if not is_admitted(view):
        return unreached(facts, view) or "the bundle is checked with its own solution"
    counts = progress.submission_counts(view)
    return f"{progress.processed(counts)} of {counts.total} submissions, {view.workers} workers"


def tallied(view: JobView) -> list[tuple[str, str]]:
    """What went less well than wished, by the tallies."""
    kinds = (
        (TALLY_FAILOVER, "ModelServerFailover", "judge calls were answered by another server than their own"),
        (TALLY_PLAIN_TEXT, "PlainTextParse", "answers were no valid JSON and were read as plain text"),
        (TALLY_FAILED, "PlatformFault", "submissions failed by a fault of the platform and have no grade"),
    )
    return [(reason, f"{int(n)} {said}") for key, reason, said in kinds if (n := view.tallies.get(key, 0)) > 0]


def numbers(facts: GradingJobFacts, view: JobView, now: datetime) -> dict[str, Any]:
    """Counts, mean and rate so far."""
    counts = progress.submission_counts(view)
    runs = view.state == "running"
    rate = progress.per_hour(counts, facts.job.status.start_time, now)
    admitted = is_admitted(view)
    return {
        "progress_percent": progress.percent(counts),
        "submissions": counts if admitted else None,
        "scores": progress.running_mean(view, counts),
        "estimated_seconds_left": progress.seconds_left(counts, rate) if runs and admitted else None,
        "performance": PerformanceStatus(submissions_per_hour=rate, shared_hardware=_shared(facts)),
    }


def reported(facts: GradingJobFacts, end: Ending, conditions: Conditions) -> dict[str, Any]:
    """The report's figures, and whether the judges were as fast as wished."""
    report, targets = end.report, facts.job.spec.performance.targets
    if not isinstance(report, ReportValue):
        return {}
    slow = progress.slow_models(report, targets)
    if slow:
        conditions.set("SlowModel", "True", "SlowModel", "; ".join(slow))
    elif report.code is not None and report.feedback is not None:
        conditions.set("SlowModel", "False", "SpeedAsExpected")
    return {
        "submissions": report.submissions,
        "scores": report.scores,
        "performance": progress.final_performance(report, targets, shared=_shared(facts)),
        "result_uri": f"{SCHEME}{report.index}",
        "progress_percent": 100,
    }


def _shared(facts: GradingJobFacts) -> bool | None:
    old = facts.job.status.performance
    if old is not None and old.shared_hardware is not None:
        return old.shared_hardware
    return shares_hardware(facts)
