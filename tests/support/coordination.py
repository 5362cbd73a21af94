"""A coordinator's engine with a clock that stands still and a disk that a test may stop or pull out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from espalier_coordinator.engine import Commit, Effects, Engine, Limits
from espalier_coordinator.messages import (
    Ack,
    Assignment,
    Cancel,
    Close,
    Drain,
    Hello,
    JobContext,
    Lease,
    Message,
    Progress,
    Report,
    Revoke,
    Tasks,
    Verdict,
)
from espalier_coordinator.model import Job, NewTask
from espalier_coordinator.state import TaskEntry
from espalier_coordinator.store import Deposed, PutWorker, TaskStore
from espalier_coordinator.store.memory import MemoryStore
from espalier_coordinator.views import JobPicture, job_picture
from espalier_kit.execution import Dependency, ModelEndpoint, TaskState, When
from espalier_kit.retry import Backoff

UID = "job-1"
M = TypeVar("M")


class Hands:
    """A clock that a test moves; nobody sleeps on it."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the engine does not sleep")

    def move(self, seconds: float) -> None:
        self._elapsed_s += seconds


def task(key: str, *after: str, finished: Iterable[str] = (), **fields: object) -> NewTask:
    """A task of type `t` that waits for `after` to be done and for `finished` to have ended."""
    edges = [Dependency(k) for k in after] + [Dependency(k, When.FINISHED) for k in finished]
    return NewTask(key, fields.pop("type", "t"), depends_on=tuple(edges), **fields)  # type: ignore[arg-type]


class Session:
    """A worker's side of one stream."""

    def __init__(self, world: World, number: int, worker: str) -> None:
        self.world = world
        self.number = number
        self.worker = worker
        self.heard: list[Message] = []

    def want(self, n: int = 1) -> list[Assignment]:
        """Ask for more; returns what came at once."""
        before = len(self.assignments())
        self.world.do(self.world.engine.want(self.number, n))
        return self.assignments()[before:]

    def report(self, assignment: Assignment, verdict: Verdict = Verdict.DONE, **fields: object) -> None:
        self.reports(Report(lease_of(assignment), verdict, **fields))  # type: ignore[arg-type]

    def reports(self, *reports: Report) -> None:
        self.world.do(self.world.engine.results(self.number, reports))

    def heartbeat(self, *progress: Progress) -> None:
        self.world.do(self.world.engine.heartbeat(self.number, progress))

    def revoked(self) -> list[Lease]:
        return [lease for m in self.all(Revoke) for lease in m.leases]

    def hand_back(self, *assignments: Assignment) -> None:
        self.world.do(self.world.engine.hand_back(self.number, [lease_of(a) for a in assignments]))

    def hang_up(self) -> None:
        self.world.do(self.world.engine.disconnect(self.number))

    def all(self, kind: type[M]) -> list[M]:
        return [m for m in self.heard if isinstance(m, kind)]

    def assignments(self) -> list[Assignment]:
        return [a for m in self.all(Tasks) for a in m.tasks]

    def keys(self) -> list[str]:
        return [a.record.key for a in self.assignments()]

    def acked(self) -> list[Lease]:
        return [lease for m in self.all(Ack) for lease in m.leases]

    def cancelled(self) -> list[Lease]:
        return [lease for m in self.all(Cancel) for lease in m.leases]

    @property
    def is_drained(self) -> bool:
        return bool(self.all(Drain))

    @property
    def is_closed(self) -> bool:
        return bool(self.all(Close))

    def contexts(self) -> list[JobContext]:
        return self.all(JobContext)


class World:
    """One coordinator over its crashes. Commits return at once unless `is_disk_stuck`."""

    def __init__(self, limits: Limits | None = None, *, reopen: Callable[[TaskStore | None], TaskStore] | None = None
                 ) -> None:
        """`reopen` gets the store of the process before, None at first, and opens the same database again."""
        self.clock = Hands()
        self._reopen = reopen or _in_memory
        self.store: TaskStore = self._reopen(None)
        self.limits = limits or Limits(backoff=Backoff(1.0, 8.0))
        self.is_disk_stuck = False
        self.sessions: dict[int, Session] = {}
        self.changed: set[str] = set()
        self._waiting: list[Commit] = []
        self._next_session = 0
        self.engine = self._start()

    def _start(self) -> Engine:
        epoch = str(self.store.begin_epoch())
        self.engine = Engine(self.clock, random.Random(7), epoch=epoch, limits=self.limits)
        self.do(self.engine.load(self.store.load()))
        return self.engine

    def crash(self) -> None:
        """kill -9 and start again: what was not on disk is gone, and every stream is broken."""
        self.store.close()
        self.store = self._reopen(self.store)
        self._waiting.clear()
        self.sessions.clear()
        self.is_disk_stuck = False
        self._start()

    def depose(self) -> None:
        """Another coordinator takes over; what this one still has to write is refused."""
        old, waiting, self._waiting = self.store, self._waiting, []
        self.store = self._reopen(old)
        self.sessions.clear()
        self.is_disk_stuck = False
        self._start()
        late = [write for commit in waiting for write in commit.writes]
        with pytest.raises(Deposed):
            old.commit(late or [PutWorker("late")])
        old.close()

    def recall(self, uid: str) -> None:
        """Bring an archived job back, as every caller does before it names a job."""
        if uid in self.engine.archived:
            self.do(self.engine.recall(self.store.job(uid)))

    def do(self, effects: Effects) -> None:
        """What the host does."""
        for number, message in effects.messages:
            if session := self.sessions.get(number):
                session.heard.append(message)
        self.changed |= effects.changed
        if effects.commit:
            self._waiting.append(effects.commit)
        if not self.is_disk_stuck:
            self.write()

    def write(self) -> None:
        """Let the disk do what waits for it, in order."""
        waiting, self._waiting = self._waiting, []
        for commit in waiting:
            self.store.commit(commit.writes)
            self.do(self.engine.committed([commit.ticket]))

    def submit(
        self, *tasks: NewTask, uid: str = UID, endpoints: tuple[ModelEndpoint, ...] | None = None, **job: object
    ) -> None:
        fields = {"namespace": "ns", "name": uid, **job}
        self.do(self.engine.submit(Job(uid, **fields), tasks, endpoints))  # type: ignore[arg-type]

    def update(self, uid: str = UID, **change: object) -> None:
        self.do(self.engine.update(uid, **change))  # type: ignore[arg-type]

    def delete(self, uid: str = UID) -> None:
        self.do(self.engine.delete(uid))

    def worker(
        self, name: str = "w", *, holds: Iterable[Assignment] = (), namespace: str | None = "ns", capacity: int = 4,
        types: Iterable[str] = ("t",), tags: Iterable[str] = (), job_uid: str = "", **more: object,
    ) -> Session:
        """Open a session and say Hello."""
        self._next_session += 1
        session = Session(self, self._next_session, name)
        self.sessions[session.number] = session
        hello = Hello(name, namespace, capacity, frozenset(types), frozenset(tags), job_uid,
                      tuple(lease_of(a) for a in holds), **more)  # type: ignore[arg-type]
        self.do(self.engine.hello(session.number, hello))
        return session

    def pass_time(self, seconds: float, *alive: Session) -> None:
        """Time goes by in half seconds; `alive` workers send heartbeats."""
        for _ in range(round(seconds * 2)):
            self.clock.move(0.5)
            for session in alive:
                session.heartbeat()
            self.do(self.engine.tick())

    def view(self, uid: str = UID) -> JobPicture:
        return job_picture(self.engine, self.engine.job(uid))

    def entry(self, key: str, uid: str = UID) -> TaskEntry:
        return self.engine.job(uid).tasks[key]

    def states(self, uid: str = UID) -> dict[str, TaskState]:
        return {key: entry.state for key, entry in self.engine.job(uid).tasks.items()}


def _in_memory(before: TaskStore | None) -> TaskStore:
    return MemoryStore(before.tables if isinstance(before, MemoryStore) else None)


def lease_of(assignment: Assignment) -> Lease:
    """The lease that it grants."""
    return Lease(assignment.record.id, assignment.attempt)
