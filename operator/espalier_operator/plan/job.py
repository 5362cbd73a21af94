"""The life that all kinds of job share: which stage it is in, what should exist there, what work, what status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from espalier_operator.plan import job_status as status
from espalier_operator.plan.conditions import State, is_terminal
from espalier_operator.plan.ending import Ending
from espalier_operator.plan.facts import J, Job, JobFacts, Problem
from espalier_operator.plan.job_work import is_idle, running_work, stopping_work
from espalier_operator.plan.kinds import JOB_KINDS
from espalier_operator.plan.life import REJECTED, Life
from espalier_operator.plan.macs import place
from espalier_operator.plan.models import contender, own_servers, template_children, template_deletions
from espalier_operator.plan.notices import notices
from espalier_operator.plan.outcome import Burial, Change, Deletion, Plan, WorkAction
from espalier_operator.plan.pods import NODE_PATIENCE_S
from espalier_operator.plan.sandbox import sandbox_deletions
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


def plan(life: Life[J], facts: JobFacts[J], now: datetime, settings: OperatorSettings) -> Plan:
    """Decide everything about one job."""
    if is_terminal(facts.job.status.conditions):
        return _after_end(facts, now)
    end = ending(life, facts, now)
    if end is not None:
        return _end(life, facts, end, now)
    return _go_on(life, facts, _stage(life, facts, now, settings), now, settings)


def ending(life: Life[J], facts: JobFacts[J], now: datetime) -> Ending | None:
    """How the job ended, or None while it goes on."""
    view, policy = facts.coordinator.view, facts.job.spec.run_policy
    failure = facts.workers_failure
    if view is not None and view.state == "complete":
        return life.completed(facts, view)
    if view is not None and not view.is_final:
        return None
    if failure and (view is not None or facts.coordinator.is_synced):
        return Ending("Failed", "PlatformFault", f"the workers failed: {failure}")
    if view is not None and not policy.cancel and _deadline_s(facts, now) == 0:
        kept = f"{view.counts.done} finished tasks are kept, {view.counts.cancelled} were cancelled"
        said = f"not done {policy.active_deadline_seconds} s after its start"
        return Ending("Failed", "DeadlineExceeded", f"{said}; {kept}")
    if view is not None:
        kept = f"{view.counts.done} finished tasks are kept, {view.counts.cancelled} were cancelled"
        return Ending("Cancelled", "CancelledByUser", f"cancelled; {kept}")
    if policy.cancel and facts.coordinator.is_synced:
        return Ending("Cancelled", "CancelledByUser", "cancelled before any task ran")
    if not policy.suspend and facts.coordinator.is_synced and (problem := life.problem(facts)) and problem.is_final:
        return Ending("Failed", problem.reason, problem.message, is_rejected=problem.reason in REJECTED)
    return None


def _deadline_s(facts: JobFacts[Job], now: datetime) -> float | None:
    """Seconds until the job's time is up, 0 after that; None without a limit, or before it has begun."""
    limit, started = facts.job.spec.run_policy.active_deadline_seconds, facts.job.status.start_time
    if limit is None or started is None:
        return None
    return max(0.0, (started + timedelta(seconds=limit) - now).total_seconds())


def _stage(life: Life[J], facts: JobFacts[J], now: datetime, settings: OperatorSettings) -> Stage:
    policy = facts.job.spec.run_policy
    if policy.cancel:
        return _stopping(facts, "CancelledByUser", "waiting until running tasks have stopped")
    if facts.workers_failure:
        return _stopping(facts, "PlatformFault", f"the workers failed: {facts.workers_failure}")
    if _deadline_s(facts, now) == 0:
        return _stopping(facts, "DeadlineExceeded", f"not done {policy.active_deadline_seconds} s after its start")
    if policy.suspend:
        return _suspended(facts)
    if facts.coordinator.view is None and (problem := _problem(life, facts, settings)) is not None:
        is_rejected = problem.reason in REJECTED
        return Stage("False", problem.reason, problem.message, is_rejected=is_rejected, recheck_s=RETRY_S)
    placement = place(
        contender(facts.job), has_some=any(s.exists and not s.is_going for s in own_servers(facts)),
        macs=facts.macs, holders=facts.holders, others=facts.contenders,
    )
    if not placement.granted:
        return Stage(
            "False", "WaitingForNodes", placement.message, work=stopping_work(facts), recheck_s=RETRY_S
        )
    return _running(life, facts)


def _problem(life: Life[J], facts: JobFacts[J], settings: OperatorSettings) -> Problem | None:
    """The first thing that keeps the work from being handed over."""
    return (
        facts.sources.problem
        or facts.reference_problem
        or pool_problem(facts.job, settings.pools)
        or life.problem(facts)
    )


def _stopping(facts: JobFacts[Job], reason: str, message: str) -> Stage:
    return Stage(
        "True", reason, message, has_workers=True, has_models=bool(own_servers(facts)),
        work=stopping_work(facts, cancel=True), recheck_s=RETRY_S,
    )


def _suspended(facts: JobFacts[Job]) -> Stage:
    keeps = not is_idle(facts)
    said = "running tasks finish first" if keeps else "paused by runPolicy.suspend"
    return Stage(
        "False", "SuspendedByUser", said, has_workers=keeps, has_models=keeps, work=stopping_work(facts)
    )


def _running(life: Life[J], facts: JobFacts[J]) -> Stage:
    view = facts.coordinator.view
    work = running_work(life, facts)
    if view is None or (view.state == "suspended" and not life.goes(facts)):
        message = status.waits_for(life, facts)
        return Stage("True", "Starting", message, has_workers=True, has_models=True, work=work, recheck_s=RETRY_S)
    reason = "Running" if life.is_admitted(facts, view) else "Admitting"
    return Stage(
        "True", reason, life.said(facts, view), has_workers=True, has_models=True, work=work, recheck_s=RETRY_S
    )


def _go_on(life: Life[J], facts: JobFacts[J], stage: Stage, now: datetime, settings: OperatorSettings) -> Plan:
    suspend = not stage.has_workers
    children = worker_children(
        facts.obj, facts.job, settings=settings, ca_pem=facts.ca_pem, suspend=suspend, live=facts.worker,
        sandbox=facts.sandbox,
    )  # fmt: skip
    changes, deletions = worker_changes(facts.job, facts.worker, suspend=suspend, sandbox=facts.sandbox)
    more = life.pods(facts, settings, suspend)
    wished = status.going_on(
        life, facts, now, progressing=stage.progressing, reason=stage.reason, message=stage.message,
        is_rejected=stage.is_rejected,
    )
    rechecks = (stage.recheck_s, RETRY_S if facts.stranded_pods else None, _deadline_s(facts, now) or None)
    return Plan(
        status=wished,
        children=(*children, *more.children, *(template_children(facts) if stage.has_models else ())),
        changes=(*changes, *more.changes),
        deletions=(*deletions, *more.deletions, *(() if stage.has_models else template_deletions(facts))),
        burials=_burials(facts),
        work=stage.work,
        notices=notices(facts, wished),
        recheck_s=min((s for s in rechecks if s is not None), default=None),
    )


def _burials(facts: JobFacts[Job]) -> tuple[Burial, ...]:
    """Workers of nodes that are gone. Attempts are fenced, so a worker that lives on there harms nothing."""
    namespace = facts.job.metadata.namespace
    return tuple(
        Burial(pod.name, namespace, pod.uid, pod.node) for pod in facts.stranded_pods if pod.away_s > NODE_PATIENCE_S
    )


def _end(life: Life[J], facts: JobFacts[J], end: Ending, now: datetime) -> Plan:
    wished = status.ended(life, facts, end, now)
    deletions = (*template_deletions(facts), *sandbox_deletions(facts))
    return Plan(status=wished, deletions=deletions, notices=notices(facts, wished), recheck_s=DRAIN_S + 1)


def _after_end(facts: JobFacts[Job], now: datetime) -> Plan:
    ended_at = facts.job.status.completion_time or now
    deletions, recheck = _expiry(facts, ended_at, now)
    changes: tuple[Change, ...] = ()
    if facts.worker is not None and not facts.worker.is_finished and not facts.worker.suspended:
        if now - ended_at > timedelta(seconds=DRAIN_S):
            changes, _ = worker_changes(facts.job, facts.worker, suspend=True, sandbox=facts.sandbox)
        else:
            recheck = min(recheck or DRAIN_S + 1, DRAIN_S + 1)
    current = facts.job.status.model_copy(update={"observed_generation": facts.job.metadata.generation})
    deletions = (*template_deletions(facts), *sandbox_deletions(facts), *deletions)
    return Plan(status=current, changes=changes, deletions=deletions, recheck_s=recheck)


def _expiry(facts: JobFacts[Job], ended_at: datetime, now: datetime) -> tuple[tuple[Deletion, ...], float | None]:
    ttl = facts.job.spec.run_policy.ttl_seconds_after_finished
    if ttl is None:
        return (), None
    left = (ended_at + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0:
        return (), left
    meta = facts.job.metadata
    return (Deletion(JOB_KINDS[facts.job.kind], meta.name, meta.namespace, meta.uid),), None
