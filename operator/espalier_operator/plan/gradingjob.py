"""The GradingJob's plan: the life of a job, with a class of submissions in it."""

from __future__ import annotations

from datetime import datetime

from espalier_api.gradingjob import GradingJob
from espalier_operator.plan import grading_status, grading_work, job, sandbox
from espalier_operator.plan.ending import Ending
from espalier_operator.plan.facts import GradingJobFacts, JobFacts, Problem
from espalier_operator.plan.grading_ending import completed, is_admitted
from espalier_operator.plan.life import Life
from espalier_operator.plan.outcome import Plan
from espalier_operator.settings import OperatorSettings
from espalier_rpc.views import JobView


def plan(facts: GradingJobFacts, now: datetime, settings: OperatorSettings) -> Plan:
    """Decide everything about one job."""
    return job.plan(LIFE, facts, now, settings)


def _completed(_: JobFacts[GradingJob], view: JobView) -> Ending:
    return completed(view)


def _is_admitted(_: JobFacts[GradingJob], view: JobView) -> bool:
    return is_admitted(view)


def _problem(facts: JobFacts[GradingJob]) -> Problem | None:
    return facts.sandbox_problem


LIFE: Life[GradingJob] = Life(
    request=grading_work.submission,
    problem=_problem,
    may_begin=grading_work.is_judged,
    goes=grading_work.goes,
    is_admitted=_is_admitted,
    checked="the bundle was checked",
    said=grading_status.progress_message,
    completed=_completed,
    numbers=grading_status.numbers,
    reported=grading_status.reported,
    degraded=grading_status.tallied,
    unreached=grading_work.unreached,
    pods=sandbox.follow,
    sticky=grading_status.STICKY,
)
