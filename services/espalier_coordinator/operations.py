"""What people do besides submitting: retry what failed, keep templates, hold capacity back. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

from espalier_coordinator import graph, reservations, templates
from espalier_coordinator.core import Effects
from espalier_coordinator.model import Event, NewTask, Spent
from espalier_coordinator.recovery import Recovery
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.state import JobEntry, TaskEntry
from espalier_coordinator.store import (
    DropReservation,
    DropTemplate,
    PutJob,
    PutReopened,
    PutReservation,
    PutTemplate,
    Write,
)
from espalier_coordinator.templates import Template
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import TaskState


class Operations(Recovery):
    """Each returns what has to be done now; all of it is true once it is on disk."""

    def job(self, uid: str) -> JobEntry:
        """The job; raises `NotFound`."""
        if uid in self.archived:
            raise NotFound(f"job {uid!r} is archived: recall it first", reason="Archived")
        try:
            return self.jobs[uid]
        except KeyError:
            raise NotFound(f"no job {uid!r}: it was never submitted or has been deleted", reason="NotFound") from None

    # ------------------------------------------------------------ dead letters

    def retry(self, uid: str, keys: Collection[str] = ()) -> tuple[int, Effects]:
        """Failed tasks come back with all their retries, under the next attempt number, and with them what was skipped
        because of them. No keys: every failed one. Returns how many failed ones come back.

        What ran after a failed task all the same (`finished`) is not run again. Raises `NotFound` and `Permanent`.
        """
        entry = self.job(uid)
        if entry.written.cancelled:
            raise Permanent(f"job {uid!r} was cancelled: submit its tasks as a new job", reason="JobCancelled")
        tasks = [_failed(entry, key) for key in dict.fromkeys(keys)] or list(entry.tasks.values())
        tasks = [t for t in tasks if t.state is TaskState.FAILED and not t.is_settling]
        if not tasks:
            return 0, self._flush()
        spent = [Spent(t.spent.attempt + 1, 0, t.spent.lost) for t in tasks]
        for task in tasks:
            task.is_settling = True
        entry.written = replace(entry.written, finished_at=0.0)
        reopened = [PutReopened(t.record.id, s) for t, s in zip(tasks, spent, strict=True)]
        writes: list[Write] = [PutJob(entry.written), *reopened]
        self._commit(writes, partial(self._reopened, entry, tasks, spent))
        return len(tasks), self._flush()

    def _reopened(self, entry: JobEntry, tasks: list[TaskEntry], spent: list[Spent]) -> None:
        for task, now_spent in zip(tasks, spent, strict=True):
            self._settled(task)
            task.spent = now_spent
        if self.jobs.get(entry.job.uid) is not entry:
            return
        self._completed.pop(entry.job.uid, None)
        entry.job = replace(entry.job, finished_at=0.0)
        self._await_endpoints(entry)
        states = {key: (t.state, t.record.depends_on) for key, t in entry.tasks.items()}
        skipped = graph.revived(states, {t.record.key for t in tasks})
        for task in [*tasks, *(entry.tasks[key] for key in skipped)]:
            entry.move(task, Event.REOPENED)
            task.ending = None
        self.statistics.reopened += len(tasks)
        self._recount(entry)
        self._rebuild(entry)
        self._check_finished(entry)
        self._out.changed.add(entry.job.uid)

    def _recount(self, entry: JobEntry) -> None:
        """What the job's view says of ended tasks, from those that are still ended."""
        entry.tallies.clear()
        entry.failed.clear()
        leaves = [t for t in entry.leaves if t.is_final]
        entry.leaves.clear()
        for task in entry.tasks.values():
            if task.ending:
                self._count_ending(entry, task)
        entry.leaves.extend(leaves)

    def _rebuild(self, entry: JobEntry) -> None:
        """The graph anew: only what is blocked waits; what ran once, or may run already, waits for nothing again."""
        if entry.job.cancelled:
            for task in entry.tasks.values():
                if task.state is TaskState.BLOCKED:
                    entry.move(task, Event.CANCELLED)
            return
        open_keys = {key for key, t in entry.tasks.items() if t.state is TaskState.BLOCKED}
        entry.graph = graph.Graph()
        entry.graph.need(d.key for t in entry.tasks.values() for d in t.record.depends_on)
        nodes = [(key, entry.tasks[key].record.depends_on) for key in entry.tasks if key in open_keys]
        ready, skipped = entry.graph.add(nodes, entry.final_state)
        assert not skipped, "what would be skipped again was not revived"
        self._follow(entry, ready, [])

    # ------------------------------------------------------------ templates

    def template(self, namespace: str, name: str) -> Template:
        """Raises `NotFound`."""
        try:
            return self.templates[namespace, name]
        except KeyError:
            raise NotFound(f"no job template {name!r} in namespace {namespace}: see the list of templates",
                           reason="UnknownTemplate") from None

    def put_template(self, template: Template) -> Effects:
        """Store it as the next revision; the same again is no new one. Raises `Permanent` with a sentence."""
        templates.check(template)
        key = template.namespace, template.name
        before = self._written_templates.get(key)
        if before is None or replace(template, revision=before.revision) != before:
            stored = replace(template, revision=before.revision + 1 if before else 1)
            self._written_templates[key] = stored
            self._commit([PutTemplate(stored)], partial(self.templates.__setitem__, key, stored))
        return self._flush()

    def delete_template(self, namespace: str, name: str) -> Effects:
        """Jobs that came from it stay. Raises `NotFound`."""
        self.template(namespace, name)
        self._written_templates.pop((namespace, name), None)
        self._commit([DropTemplate(namespace, name)], partial(self._drop_template, (namespace, name)))
        return self._flush()

    def _drop_template(self, key: tuple[str, str]) -> None:
        self.templates.pop(key, None)

    def rendered(self, namespace: str, name: str, parameters: Mapping[str, str]) -> tuple[NewTask, ...]:
        """A template's tasks, for `submit`. Raises `NotFound`, and `Permanent` for a missing or unknown parameter."""
        return templates.render(self.template(namespace, name), parameters)

    # ------------------------------------------------------------ reservations

    def reserve(self, reservation: Reservation) -> Effects:
        """Hold capacity back from now on, also over a restart; the same name again replaces it. Raises `Permanent`.

        Nothing that runs is interrupted: slots are kept as they become free.
        """
        reservations.check(reservation, self._clock.now().timestamp())
        if not self._pool_of(reservation):
            others = self._written_reservations.values()
            reservations.check_share(reservation, others, self._seats(), share=self._limits.reserved_share)
        key = reservation.namespace, reservation.name
        self._written_reservations[key] = reservation
        self._commit([PutReservation(reservation)], partial(self.reservations.__setitem__, key, reservation))
        return self._flush()

    def release(self, namespace: str, name: str) -> Effects:
        """Give the capacity free. Raises `NotFound`."""
        if (namespace, name) not in self._written_reservations:
            raise NotFound(f"no reservation {name!r} in namespace {namespace}: it was released or is over",
                           reason="NotFound")
        self._drop_reservation(namespace, name)
        return self._flush()

    def _drop_reservation(self, namespace: str, name: str) -> None:
        del self._written_reservations[namespace, name]
        self._commit([DropReservation(namespace, name)], partial(self._released, (namespace, name)))

    def _released(self, key: tuple[str, str]) -> None:
        self.reservations.pop(key, None)

    def _expire_reservations(self) -> None:
        now = self._clock.now().timestamp()
        for key in [key for key, r in self._written_reservations.items() if r.until <= now]:
            self._drop_reservation(*key)


def _failed(entry: JobEntry, key: str) -> TaskEntry:
    task = entry.tasks.get(key)
    if task is None:
        raise NotFound(f"job {entry.job.uid!r} has no task {key!r}", reason="NotFound")
    if task.state is not TaskState.FAILED:
        raise Permanent(f"task {key!r} is {task.state.value}: only failed tasks can be retried", reason="NotFailed")
    return task
