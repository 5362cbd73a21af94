"""The GradingJob's status: conditions, phase and numbers, recomputed from facts each time."""

from __future__ import annotations

from datetime import datetime

from espalier_api.gradingjob import GradingJobStatus, PerformanceStatus
from espalier_api.meta import find_condition, is_true
from espalier_api.tasks import TALLY_FAILED, TALLY_FAILOVER, TALLY_PLAIN_TEXT
from espalier_kit.artifacts import SCHEME
from espalier_operator.plan import progress
from espalier_operator.plan.conditions import Conditions, State, job_phase
from espalier_operator.plan.ending import Ending, is_admitted
from espalier_operator.plan.facts import GradingJobFacts
from espalier_operator.plan.models import servers_down, shares_hardware
from espalier_rpc.views import JobView

AWAY_S = 6.0
"""A coordinator that restarts is back in seconds; only after this long is it worth a condition."""
WORKER_START_S = 30.0
STICKY = ("ModelServerFailover", "PlainTextParse")
"""Degradations that touch grades: once true, true for good."""


def going_on(
    facts: GradingJobFacts, now: datetime, *, progressing: State, reason: str, message: str, is_rejected: bool
) -> GradingJobStatus:
    """The status of a job that has not ended."""
    away = _is_away(facts)
    conditions = Conditions(facts.job.status.conditions, now, facts.job.metadata.generation)
    if away and progressing == "True":
        said = f"the coordinator has not answered for {int((facts.coordinator.away_s or 0) // 10) * 10} s or more"
        conditions.set("Progressing", "Unknown", "CoordinatorUnavailable", said)
    else:
        conditions.set("Progressing", progressing, reason, message)
    _accept(conditions, facts, reason, message, is_rejected=is_rejected)
    _degrade(conditions, facts, now)
    suspended = reason == "SuspendedByUser"
    conditions.set("Suspended", "True" if suspended else "False", "SuspendedByUser" if suspended else "NotSuspended")
    return _numbers(facts, now).model_copy(update={
        "observed_generation": facts.job.metadata.generation,
        "conditions": conditions.result(),
        "phase": job_phase(conditions.result()),
    })


def ended(facts: GradingJobFacts, end: Ending, now: datetime) -> GradingJobStatus:
    """The last status: the terminal condition, and the report's figures."""
    conditions = Conditions(facts.job.status.conditions, now, facts.job.metadata.generation)
    conditions.set(end.type, "True", end.reason, end.message)
    conditions.set("Progressing", "False", end.reason, end.message)
    conditions.set("Suspended", "False", "NotSuspended")
    if end.is_rejected:
        conditions.set("Accepted", "False", end.reason, end.message)
    elif facts.coordinator.view is not None and is_admitted(facts.coordinator.view):
        conditions.set("Accepted", "True", "Accepted", "the bundle was checked")
    else:
        conditions.drop("Accepted")
    _degrade(conditions, facts, now, has_ended=True)
    wished = _numbers(facts, now)
    if end.report is not None:
        wished = _reported(wished, facts, end, conditions)
    return wished.model_copy(update={
        "observed_generation": facts.job.metadata.generation,
        "conditions": conditions.result(),
        "phase": job_phase(conditions.result()),
        "completion_time": now.replace(microsecond=0),
        "estimated_seconds_left": None,
    })


def waits_for(facts: GradingJobFacts) -> str:
    """What keeps a placed job from running."""
    waiting = [*servers_down(facts)]
    if facts.coordinator.view is None and not waiting:
        return "handing the work over"
    return "; ".join(waiting) or "workers are starting"


def progress_message(view: JobView) -> str:
    """How far it is, in words."""
    if not is_admitted(view):
        return "the bundle is checked with its own solution"
    counts = progress.submission_counts(view)
    return f"{progress.processed(counts)} of {counts.total} submissions, {view.workers} workers"


def _is_away(facts: GradingJobFacts) -> bool:
    return facts.coordinator.away_s is not None and facts.coordinator.away_s >= AWAY_S


def _accept(conditions: Conditions, facts: GradingJobFacts, reason: str, message: str, *, is_rejected: bool) -> None:
    view = facts.coordinator.view
    if is_rejected:
        conditions.set("Accepted", "False", reason, message)
    elif view is not None and is_admitted(view):
        conditions.set("Accepted", "True", "Accepted", "the bundle was checked")
    elif not is_true(conditions.current, "Accepted"):
        unknown = "Admitting" if view is not None else reason
        conditions.set("Accepted", "Unknown", unknown, "" if view is not None else "not handed over yet")


def _degrade(conditions: Conditions, facts: GradingJobFacts, now: datetime, *, has_ended: bool = False) -> None:
    found = list(_tallied(facts))
    old = find_condition(conditions.current, "Degraded")
    if old is not None and old.status == "True" and old.reason in STICKY and not any(r in STICKY for r, _ in found):
        found.insert(0, (old.reason, old.message.partition("; ")[0]))
    if not has_ended:
        found += _acute(facts, now)
    if found:
        conditions.set("Degraded", "True", found[0][0], "; ".join(message for _, message in found))
    else:
        conditions.set("Degraded", "False", "NoDegradation")


def _tallied(facts: GradingJobFacts) -> list[tuple[str, str]]:
    view = facts.coordinator.view
    if view is None:
        return []
    kinds = (
        (TALLY_FAILOVER, "ModelServerFailover", "judge calls were answered by another server than their own"),
        (TALLY_PLAIN_TEXT, "PlainTextParse", "answers were no valid JSON and were read as plain text"),
        (TALLY_FAILED, "PlatformFault", "submissions failed by a fault of the platform and have no grade"),
    )
    return [(reason, f"{int(n)} {said}") for key, reason, said in kinds if (n := view.tallies.get(key, 0)) > 0]


def _acute(facts: GradingJobFacts, now: datetime) -> list[tuple[str, str]]:
    view, started = facts.coordinator.view, facts.job.status.start_time
    found: list[tuple[str, str]] = []
    if view is not None and view.state == "running":
        found += [("ModelServerDown", clause) for clause in servers_down(facts)]
    if _is_away(facts) and not facts.job.spec.run_policy.suspend:
        found.append(("CoordinatorUnavailable", "the coordinator does not answer"))
    elif view is not None and view.state == "running" and started is not None:
        waited = (now - started).total_seconds() > WORKER_START_S
        if waited and view.workers == 0 and view.counts.pending + view.counts.running > 0:
            pool = facts.job.spec.workers.pool
            who = f"no worker of pool {pool}" if pool else "no worker"
            found.append(("WorkerMissing", f"{who} is connected although tasks wait"))
    return found


def _numbers(facts: GradingJobFacts, now: datetime) -> GradingJobStatus:
    old, view = facts.job.status, facts.coordinator.view
    if view is None:
        return old
    counts = progress.submission_counts(view)
    started = old.start_time or now.replace(microsecond=0)
    runs = view.state == "running"
    rate = progress.per_hour(counts, started, now)
    admitted = is_admitted(view)
    return old.model_copy(update={
        "start_time": started,
        "tasks": progress.task_counts(view),
        "progress_percent": progress.percent(counts),
        "submissions": counts if admitted else None,
        "scores": progress.running_mean(view, counts),
        "estimated_seconds_left": progress.seconds_left(counts, rate) if runs and admitted else None,
        "performance": PerformanceStatus(submissions_per_hour=rate, shared_hardware=_shared(facts)),
    })


def _reported(
    wished: GradingJobStatus, facts: GradingJobFacts, end: Ending, conditions: Conditions
) -> GradingJobStatus:
    report, targets = end.report, facts.job.spec.performance.targets
    assert report is not None, "only called with one"
    slow = progress.slow_models(report, targets)
    if slow:
        conditions.set("SlowModel", "True", "SlowModel", "; ".join(slow))
    elif report.code is not None and report.feedback is not None:
        conditions.set("SlowModel", "False", "SpeedAsExpected")
    return wished.model_copy(update={
        "submissions": report.submissions,
        "scores": report.scores,
        "performance": progress.final_performance(report, targets, shared=_shared(facts)),
        "result_uri": f"{SCHEME}{report.index}",
        "progress_percent": 100,
    })


def _shared(facts: GradingJobFacts) -> bool | None:
    old = facts.job.status.performance
    if old is not None and old.shared_hardware is not None:
        return old.shared_hardware
    return shares_hardware(facts)
