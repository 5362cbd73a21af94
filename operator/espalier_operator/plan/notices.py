"""Events of a job: what was lost and who came back, transitions of conditions."""

from __future__ import annotations

from collections.abc import Iterator

from espalier_api.common import JobStatus
from espalier_api.meta import Condition, find_condition
from espalier_operator.plan.conditions import TERMINAL
from espalier_operator.plan.facts import Job, JobFacts
from espalier_operator.plan.outcome import Notice


def notices(facts: JobFacts[Job], wished: JobStatus) -> tuple[Notice, ...]:
    """Everything to tell about this step."""
    return (*_losses(facts), *_restarts(facts), *_transitions(facts.job.status.conditions, wished.conditions))


def _losses(facts: JobFacts[Job]) -> Iterator[Notice]:
    for pod in facts.lost_pods:
        yield Notice(
            "WorkerLost", f"worker pod {pod.name} ended: {pod.why}; its tasks go to another worker", key=pod.uid,
            type="Warning", once=True,
        )
    view, told = facts.coordinator.view, facts.told.lost_leases
    if view is not None and told is not None and view.lost_leases > told:
        lost = view.lost_leases - told
        said = f"a worker vanished with {lost} running task{'s' if lost != 1 else ''}, which others take over"
        yield Notice("WorkerLost", said, key="lease", type="Warning")


def _restarts(facts: JobFacts[Job]) -> Iterator[Notice]:
    view = facts.coordinator.view
    if view is None or view.is_final:
        return
    if facts.told.epoch is not None and view.epoch != facts.told.epoch:
        said = f"the coordinator started again (epoch {view.epoch}) and reloaded {view.counts.pending} open tasks"
        yield Notice("CoordinatorRestarted", said, key=view.epoch, type="Warning")
    if facts.takeover and facts.told.takeover != facts.takeover:
        yield Notice("OperatorRestarted", f"a new operator process took over ({facts.takeover})", key=facts.takeover)


def _transitions(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> Iterator[Notice]:
    for condition in after:
        old = find_condition(before, condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if condition.type in TERMINAL and condition.status == "True":
            failed = condition.type == "Failed"
            yield Notice(
                condition.reason, condition.message, key=condition.type, type="Warning" if failed else "Normal"
            )
        if condition.type == "Degraded" and condition.status == "True":
            yield Notice(condition.reason, condition.message, key="Degraded", type="Warning")
        if condition.type == "Progressing" and condition.reason == "WaitingForNodes":
            yield Notice(condition.reason, condition.message, key="Progressing")
