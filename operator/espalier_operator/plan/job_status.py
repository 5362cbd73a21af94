"""A job's status, of whatever kind: conditions, phase and numbers, recomputed from facts each time."""

from __future__ import annotations

from datetime import datetime

from espalier_api.common import JobStatus
from espalier_api.meta import find_condition, is_true
from espalier_operator.plan.conditions import Conditions, State, job_phase
from espalier_operator.plan.ending import Ending
from espalier_operator.plan.facts import J, Job, JobFacts
from espalier_operator.plan.kinds import workers_of
from espalier_operator.plan.life import Life, updated
from espalier_operator.plan.models import servers_down, servers_partly
from espalier_operator.plan.progress import task_counts

AWAY_S = 6.0
"""A coordinator that restarts is back in seconds; only after this long is it worth a condition."""
WORKER_START_S = 30.0


def going_on(
    life: Life[J], facts: JobFacts[J], now: datetime, *, progressing: State, reason: str, message: str,
    is_rejected: bool,
) -> JobStatus:
    """The status of a job that has not ended."""
    away = _is_away(facts)
    conditions = Conditions(facts.job.status.conditions, now, facts.job.metadata.generation)
    if away and progressing == "True":
        said = f"the coordinator has not answered for {int((facts.coordinator.away_s or 0) // 10) * 10} s or more"
        conditions.set("Progressing", "Unknown", "CoordinatorUnavailable", said)
    else:
        conditions.set("Progressing", progressing, reason, message)
    _accept(life, conditions, facts, reason, message, is_rejected=is_rejected)
    _degrade(life, conditions, facts, now)
    suspended = reason == "SuspendedByUser"
    conditions.set("Suspended", "True" if suspended else "False", "SuspendedByUser" if suspended else "NotSuspended")
    return updated(_numbers(life, facts, now), {
        "observed_generation": facts.job.metadata.generation,
        "conditions": conditions.result(),
        "phase": job_phase(conditions.result()),
    })


def ended(life: Life[J], facts: JobFacts[J], end: Ending, now: datetime) -> JobStatus:
    """The last status: the terminal condition, and the report's figures."""
    conditions = Conditions(facts.job.status.conditions, now, facts.job.metadata.generation)
    conditions.set(end.type, "True", end.reason, end.message)
    conditions.set("Progressing", "False", end.reason, end.message)
    conditions.set("Suspended", "False", "NotSuspended")
    if end.is_rejected:
        conditions.set("Accepted", "False", end.reason, end.message)
    elif facts.coordinator.view is not None and life.is_admitted(facts, facts.coordinator.view):
        conditions.set("Accepted", "True", "Accepted", life.checked)
    else:
        conditions.drop("Accepted")
    _degrade(life, conditions, facts, now, has_ended=True)
    wished = updated(_numbers(life, facts, now), life.reported(facts, end, conditions))
    return updated(wished, {
        "observed_generation": facts.job.metadata.generation,
        "conditions": conditions.result(),
        "phase": job_phase(conditions.result()),
        "completion_time": now.replace(microsecond=0),
        "estimated_seconds_left": None,
    })


def waits_for(life: Life[J], facts: JobFacts[J]) -> str:
    """What keeps a placed job from running."""
    view, waiting = facts.coordinator.view, servers_down(facts)
    if not waiting and not life.may_begin(facts):
        waiting = servers_partly(facts)
    if waiting:
        return "; ".join(waiting)
    if view is None:
        return "handing the work over"
    wanted = workers_of(facts.job).replicas
    return f"{view.workers} of {wanted} workers are connected" if view.workers < wanted else "workers are starting"


def _is_away(facts: JobFacts[Job]) -> bool:
    return facts.coordinator.away_s is not None and facts.coordinator.away_s >= AWAY_S


def _accept(
    life: Life[J], conditions: Conditions, facts: JobFacts[J], reason: str, message: str, *, is_rejected: bool
) -> None:
    view = facts.coordinator.view
    if is_rejected:
        conditions.set("Accepted", "False", reason, message)
    elif view is not None and life.is_admitted(facts, view):
        conditions.set("Accepted", "True", "Accepted", life.checked)
    elif not is_true(conditions.current, "Accepted"):
        unknown = "Admitting" if view is not None else reason
        conditions.set("Accepted", "Unknown", unknown, "" if view is not None else "not handed over yet")


def _degrade(
    life: Life[J], conditions: Conditions, facts: JobFacts[J], now: datetime, *, has_ended: bool = False
) -> None:
    view = facts.coordinator.view
    found = list(life.degraded(view)) if view is not None else []
    old = find_condition(conditions.current, "Degraded")
    sticky = life.sticky
    if old is not None and old.status == "True" and old.reason in sticky and not any(r in sticky for r, _ in found):
        found.insert(0, (old.reason, old.message.partition("; ")[0]))
    if not has_ended:
        if view is not None and (said := life.unreached(facts, view)):
            found.append(("EndpointUnavailable", said))
        found += _acute(facts, now)
    if found:
        conditions.set("Degraded", "True", found[0][0], "; ".join(message for _, message in found))
    else:
        conditions.set("Degraded", "False", "NoDegradation")


def _acute(facts: JobFacts[Job], now: datetime) -> list[tuple[str, str]]:
    view, started = facts.coordinator.view, facts.job.status.start_time
    found: list[tuple[str, str]] = []
    if view is not None and view.state == "running":
        found += [("ModelServerDown", clause) for clause in servers_down(facts)]
    if _is_away(facts) and not facts.job.spec.run_policy.suspend:
        found.append(("CoordinatorUnavailable", "the coordinator does not answer"))
    elif view is not None and view.state == "running" and started is not None:
        waited = (now - started).total_seconds() > WORKER_START_S
        if waited and view.workers == 0 and view.counts.pending + view.counts.running > 0:
            pool = workers_of(facts.job).pool
            who = f"no worker of pool {pool}" if pool else "no worker"
            found.append(("WorkerMissing", f"{who} is connected although tasks wait"))
    return found


def _numbers(life: Life[J], facts: JobFacts[J], now: datetime) -> JobStatus:
    old, view = facts.job.status, facts.coordinator.view
    if view is None:
        return old
    started = old.start_time or now.replace(microsecond=0)
    return updated(old, {"start_time": started, "tasks": task_counts(view), **life.numbers(facts, view, now)})
