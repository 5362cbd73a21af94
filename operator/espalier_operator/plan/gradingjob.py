"""The GradingJob's plan: which stage it is in, what should exist there, what work, what status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from espalier_api.gradingjob import GradingJob
from espalier_kube.cluster import GRADING_JOB
from espalier_operator.plan import grading_status as status
from espalier_operator.plan.conditions import State, is_terminal
from espalier_operator.plan.ending import Ending, ending, is_admitted
from espalier_operator.plan.facts import Contender, GradingJobFacts
from espalier_operator.plan.grading_work import is_idle, is_judged, running_work, stopping_work
from espalier_operator.plan.macs import place
from espalier_operator.plan.models import macs_needed, own_servers, template_children, template_deletions
from espalier_operator.plan.notices import notices
from espalier_operator.plan.outcome import Burial, Change, Deletion, Plan, WorkAction
from espalier_operator.plan.pods import NODE_PATIENCE_S
from espalier_operator.plan.workers import pool_problem, worker_changes, worker_children
from espalier_operator.settings import OperatorSettings

DRAIN_S = 30
"""Workers leave by themselves when their job has ended; after this long their Job is suspended."""
RETRY_S = 15.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a job that has not ended stands: what it waits for, and what may run meanwhile."""

    progressing: State
    reason: str
    message: str
    has_workers: bool = False
    has_models: bool = False
    is_rejected: bool = False
    work: tuple[WorkAction, ...] = ()
    recheck_s: float | None = None


def plan(facts: GradingJobFacts, now: datetime, settings: OperatorSettings) -> Plan:
    """Decide everything about one job."""
    if is_terminal(facts.job.status.conditions):
        return _after_end(facts, now)
    end = ending(facts)
    if end is not None:
        return _end(facts, end, now)
    return _go_on(facts, _stage(facts, settings), now, settings)


def contender(job: GradingJob) -> Contender:
    """The job's place among those that want Macs."""
    created = job.metadata.creation_timestamp
    assert created is not None, "the API server sets it"
    policy = job.spec.run_policy
    return Contender(-policy.priority, created, job.metadata.namespace, job.metadata.name, macs_needed(job))


def _stage(facts: GradingJobFacts, settings: OperatorSettings) -> Stage:
    policy = facts.job.spec.run_policy
    if policy.cancel:
        return _stopping(facts, "CancelledByUser", "waiting until running tasks have stopped")
    if facts.worker is not None and facts.worker.failure:
        return _stopping(facts, "PlatformFault", f"the workers failed: {facts.worker.failure}")
    if policy.suspend:
        return _suspended(facts)
    if facts.coordinator.view is None and (problem := facts.sources.problem) is not None:
        rejected = problem.reason == "SourceNotFound"
        return Stage("False", problem.reason, problem.message, is_rejected=rejected, recheck_s=RETRY_S)
    if facts.coordinator.view is None and (problem := facts.reference_problem) is not None:
        rejected = problem.reason == "ModelNotFound"
        return Stage("False", problem.reason, problem.message, is_rejected=rejected, recheck_s=RETRY_S)
    if facts.coordinator.view is None and (problem := pool_problem(facts.job, settings.pools)) is not None:
        return Stage("False", problem.reason, problem.message, is_rejected=True, recheck_s=RETRY_S)
    placement = place(
        contender(facts.job), has_some=any(s.exists and not s.is_going for s in own_servers(facts)),
        macs=facts.macs, holders=facts.holders, others=facts.contenders,
    )
    if not placement.granted:
        return Stage(
            "False", "WaitingForNodes", placement.message, work=stopping_work(facts), recheck_s=RETRY_S
        )
    return _running(facts)


def _stopping(facts: GradingJobFacts, reason: str, message: str) -> Stage:
    return Stage(
        "True", reason, message, has_workers=True, has_models=bool(own_servers(facts)),
        work=stopping_work(facts, cancel=True), recheck_s=RETRY_S,
    )


def _suspended(facts: GradingJobFacts) -> Stage:
    keeps = not is_idle(facts)
    said = "running tasks finish first" if keeps else "paused by runPolicy.suspend"
    return Stage(
        "False", "SuspendedByUser", said, has_workers=keeps, has_models=keeps, work=stopping_work(facts)
    )


def _running(facts: GradingJobFacts) -> Stage:
    view = facts.coordinator.view
    work = running_work(facts)
    if view is None or (view.state == "suspended" and not is_judged(facts)):
        message = status.waits_for(facts)
        return Stage("True", "Starting", message, has_workers=True, has_models=True, work=work, recheck_s=RETRY_S)
    reason = "Running" if is_admitted(view) else "Admitting"
    return Stage(
        "True", reason, status.progress_message(view), has_workers=True, has_models=True, work=work, recheck_s=RETRY_S
    )


def _go_on(facts: GradingJobFacts, stage: Stage, now: datetime, settings: OperatorSettings) -> Plan:
    suspend = not stage.has_workers
    children = worker_children(
        facts.obj, facts.job, settings=settings, ca_pem=facts.ca_pem, suspend=suspend, live=facts.worker
    )
    changes, deletions = worker_changes(facts.job, facts.worker, suspend=suspend)
    wished = status.going_on(
        facts, now, progressing=stage.progressing, reason=stage.reason, message=stage.message,
        is_rejected=stage.is_rejected,
    )
    return Plan(
        status=wished,
        children=(*children, *(template_children(facts) if stage.has_models else ())),
        changes=changes,
        deletions=(*deletions, *(() if stage.has_models else template_deletions(facts))),
        burials=_burials(facts),
        work=stage.work,
        notices=notices(facts, wished),
        recheck_s=stage.recheck_s or (RETRY_S if facts.stranded_pods else None),
    )


def _burials(facts: GradingJobFacts) -> tuple[Burial, ...]:
    """Workers of nodes that are gone. Attempts are fenced, so a worker that lives on there harms nothing."""
    namespace = facts.job.metadata.namespace
    return tuple(
        Burial(pod.name, namespace, pod.uid, pod.node) for pod in facts.stranded_pods if pod.away_s > NODE_PATIENCE_S
    )


def _end(facts: GradingJobFacts, end: Ending, now: datetime) -> Plan:
    wished = status.ended(facts, end, now)
    return Plan(
        status=wished, deletions=template_deletions(facts), notices=notices(facts, wished), recheck_s=DRAIN_S + 1
    )


def _after_end(facts: GradingJobFacts, now: datetime) -> Plan:
    ended_at = facts.job.status.completion_time or now
    deletions, recheck = _expiry(facts, ended_at, now)
    changes: tuple[Change, ...] = ()
    if facts.worker is not None and not facts.worker.is_finished and not facts.worker.suspended:
        if now - ended_at > timedelta(seconds=DRAIN_S):
            changes, _ = worker_changes(facts.job, facts.worker, suspend=True)
        else:
            recheck = min(recheck or DRAIN_S + 1, DRAIN_S + 1)
    current = facts.job.status.model_copy(update={"observed_generation": facts.job.metadata.generation})
    return Plan(status=current, changes=changes, deletions=(*template_deletions(facts), *deletions), recheck_s=recheck)


def _expiry(facts: GradingJobFacts, ended_at: datetime, now: datetime) -> tuple[tuple[Deletion, ...], float | None]:
    ttl = facts.job.spec.run_policy.ttl_seconds_after_finished
    if ttl is None:
        return (), None
    left = (ended_at + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0:
        return (), left
    meta = facts.job.metadata
    return (Deletion(GRADING_JOB, meta.name, meta.namespace, meta.uid),), None
