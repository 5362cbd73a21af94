"""The work that a job of any kind wishes at the coordinator: hand over, pause, go on, new endpoints, cancel."""

from __future__ import annotations

from espalier_operator.plan.facts import J, Job, JobFacts
from espalier_operator.plan.life import Life
from espalier_operator.plan.models import endpoints, endpoints_digest
from espalier_operator.plan.outcome import WorkAction
from espalier_rpc.views import JobUpdate


def is_idle(facts: JobFacts[Job]) -> bool:
    """Whether no task runs, as far as we can know."""
    view = facts.coordinator.view
    if view is None or facts.coordinator.away_s is not None or view.is_final:
        return True
    return view.state == "suspended" and view.counts.running == 0


def stopping_work(facts: JobFacts[Job], *, cancel: bool = False) -> tuple[WorkAction, ...]:
    """Pause or cancel what the coordinator has of this job."""
    view = facts.coordinator.view
    if view is None or view.is_final or view.state == "cancelling":
        return ()
    if cancel:
        return (JobUpdate(view.uid, cancel=True),)
    return (JobUpdate(view.uid, suspended=True),) if view.state == "running" else ()


def running_work(life: Life[J], facts: JobFacts[J]) -> tuple[WorkAction, ...]:
    """Hand the job over once it may begin; later keep endpoints, priority and pausing as they should be."""
    view = facts.coordinator.view
    if view is None:
        return (life.request(facts),) if life.may_begin(facts) else ()
    if view.is_final or view.state == "cancelling":
        return ()
    wished, goes = endpoints(facts), life.goes(facts)
    priority = facts.job.spec.run_policy.priority
    update = JobUpdate(
        view.uid,
        priority=priority if priority != view.priority else None,
        suspended=None if goes == (view.state == "running") else not goes,
        endpoints=wished if endpoints_digest(wished) != facts.coordinator.pushed else None,
    )
    return () if update == JobUpdate(view.uid) else (update,)
