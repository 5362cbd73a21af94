"""Anything may happen to a coordinator, in any order, on any store: the rules and what must hold whatever they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from espalier_coordinator.engine import Limits
from espalier_coordinator.messages import Ack, Assignment, Cancel, Close, Lease, Message, Revoke, Tasks, Verdict
from espalier_coordinator.model import CACHED, FINAL, Ending, NewTask
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.scheduling import Lane, may_run
from espalier_coordinator.state import WorkerEntry
from espalier_coordinator.store import StoredTask, TaskStore
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.execution import Dependency, TaskState, When
from espalier_kit.retry import Backoff
from tests.support.coordination import UID, Session, World, lease_of, task

NAMES = ("w0", "w1", "w2")
URGENT = "urgent"
GPU = (("gpu", 1.0),)


class Life(RuleBasedStateMachine):
    """Workers are honest: they keep a result until it is acked, say in Hello what they hold, and give back on Revoke
    what they have not started. `w0` alone has a GPU, and reservations are on it."""

    can_depose = True
    """Whether two processes may have the database open."""

    def __init__(self) -> None:
        super().__init__()
        limits = Limits(backoff=Backoff(1.0, 8.0), max_completed_jobs=0, cache_entries=2)
        self.world = World(limits, reopen=self.open)
        self.sessions: dict[str, Session] = {}
        self.held: dict[str, dict[Lease, Assignment]] = {name: {} for name in NAMES}
        self.started: dict[str, set[Lease]] = {name: set() for name in NAMES}
        self.revoked: dict[str, set[Lease]] = {name: set() for name in NAMES}
        self.results: dict[str, dict[Lease, Assignment]] = {name: {} for name in NAMES}
        self.endings: dict[str, Ending] = {}
        self.reopening: set[str] = set()
        self.submitted = 0
        self.world.submit(task("root"))

    def open(self, before: TaskStore | None) -> TaskStore:
        """The store of the next process; `before` is that of the last one on the same database, None for a new life."""
        return MemoryStore(before.tables if isinstance(before, MemoryStore) else None)

    # ------------------------------------------------------------ submitters

    @rule(uid=st.sampled_from([UID, URGENT]), count=st.integers(1, 3), when=st.sampled_from(When), data=st.data(),
          does_cache=st.booleans(), needs_gpu=st.booleans(), retries=st.sampled_from([0, 20]))
    def submit(self, uid: str, count: int, when: When, data: st.DataObject, does_cache: bool, needs_gpu: bool,
               retries: int) -> None:
        tasks: list[NewTask] = []
        for _ in range(count):
            before = data.draw(st.sampled_from(["", *(["root"] if uid == UID else []), *(t.key for t in tasks)]))
            edges = (Dependency(before, when),) if before else ()
            self.submitted += 1
            tasks.append(NewTask(
                f"t{self.submitted}", "t", b"%d" % data.draw(st.integers(1, 2)), depends_on=edges, retries=retries,
                cache="read-write" if does_cache else "", resources=GPU if needs_gpu else (),
            ))
        self.world.recall(uid)
        self.world.submit(*tasks, uid=uid)
        self.listen()

    @rule(uid=st.sampled_from([UID, URGENT]), is_suspended=st.booleans(), priority=st.integers(0, 2),
          max_running=st.sampled_from([0, 1, 3]), per_s=st.sampled_from([0.0, 0.5]))
    def steer(self, uid: str, is_suspended: bool, priority: int, max_running: int, per_s: float) -> None:
        self.world.recall(uid)
        if uid in self.world.engine.jobs:
            self.world.update(uid, suspended=is_suspended, priority=priority, max_running=max_running,
                              max_tasks_per_s=per_s)
            self.listen()

    @rule(uid=st.sampled_from([UID, URGENT]))
    def retry(self, uid: str) -> None:
        self.world.recall(uid)
        entry = self.world.engine.jobs.get(uid)
        if entry and not entry.written.cancelled:
            self.reopening |= {
                t.record.id for t in entry.tasks.values() if t.state is TaskState.FAILED and not t.is_settling
            }
            _, effects = self.world.engine.retry(uid)
            self.world.do(effects)
            self.listen()

    @rule(chance=st.integers(0, 9), uid=st.sampled_from([UID, URGENT]))
    def cancel(self, chance: int, uid: str) -> None:
        if chance == 9:  # rarely: little happens afterwards
            self.world.recall(uid)
            if uid in self.world.engine.jobs:
                self.world.update(uid, cancel=True)
                self.listen()

    @rule(slots=st.integers(1, 2))
    def reserve(self, slots: int) -> None:
        until = self.world.clock.now().timestamp() + 20
        kept = Reservation("ns", "r", slots, frozenset({"gpu"}), URGENT, until)
        self.world.do(self.world.engine.reserve(kept))

    # ------------------------------------------------------------ workers

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        holds = [*self.held[name].values(), *self.results[name].values()]
        is_first = name == "w0"
        self.sessions[name] = self.world.worker(
            name, holds=holds, capacity=2, prefetch=2, version="1", tags=("gpu",) if is_first else (),
            resources=GPU if is_first else (),
        )
        self.revoked[name].clear()
        for assignment in list(self.results[name].values()):
            self.report(self.sessions[name], assignment, Verdict.DONE)
        self.listen()

    @rule(name=st.sampled_from(NAMES), n=st.integers(1, 4))
    def want(self, name: str, n: int) -> None:
        if self.alive(name) is None:
            self.connect(name)
        session = self.alive(name)
        if session is None:
            return
        waiting = self.waiting()
        granted = session.want(n)
        self.check_order(session.worker, granted, waiting & self.waiting())
        self.check_reservations(granted)
        self.listen()

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        self.started[name] |= set(list(self.held[name])[:2])

    @rule(name=st.sampled_from(NAMES), verdict=st.sampled_from(Verdict), has_child=st.booleans(), data=st.data())
    def finish(self, name: str, verdict: Verdict, has_child: bool, data: st.DataObject) -> None:
        if not self.held[name]:
            return
        lease = data.draw(st.sampled_from(sorted(self.held[name], key=str)))
        assignment = self.held[name].pop(lease)
        self.results[name][lease] = assignment
        if session := self.alive(name):
            children = (task(f"child-of-{assignment.record.key}"),) if has_child and verdict is Verdict.DONE else ()
            self.report(session, assignment, verdict, children)
            self.listen()

    @rule(name=st.sampled_from(NAMES))
    def give_back(self, name: str) -> None:
        """What was asked for and not started; without a question, anything that is not started."""
        asked = self.revoked[name] or set(self.held[name])
        leases = [lease for lease in asked if lease in self.held[name] and lease not in self.started[name]]
        self.revoked[name].clear()
        if (session := self.alive(name)) and leases:
            session.hand_back(*(self.held[name].pop(lease) for lease in leases[:1]))
            self.listen()

    @rule(name=st.sampled_from(NAMES))
    def lose_stream(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session and session.number in self.world.sessions:
            session.hang_up()

    @rule(name=st.sampled_from(NAMES))
    def die(self, name: str) -> None:
        self.lose_stream(name)
        for book in (self.held[name], self.results[name], self.started[name], self.revoked[name]):
            book.clear()

    # ------------------------------------------------------------ the world

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds, *[s for n in NAMES if (s := self.alive(n))][:1])
        self.listen()

    @rule()
    def stick(self) -> None:
        self.world.is_disk_stuck = True

    @rule()
    def unstick(self) -> None:
        self.world.is_disk_stuck = False
        self.world.write()
        self.listen()

    @rule()
    def crash(self) -> None:
        self.world.crash()
        self.sessions.clear()

    @rule()
    def depose(self) -> None:
        if self.can_depose:
            self.world.depose()
            self.sessions.clear()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def the_store_agrees(self) -> None:
        """One accepted result each, for ever unless somebody asked again; memory says what the disk says."""
        stored = {t.record.id: t for uid in (UID, URGENT) for t in self.world.store.job(uid).tasks}
        for id_, found in stored.items():
            self.check_result(id_, found)
        if not self.world.is_disk_stuck:
            self.check_counts(stored.values())

    def check_result(self, id_: str, stored: StoredTask) -> None:
        before = self.endings.get(id_)
        if before is not None and stored.ending != before:
            assert id_ in self.reopening, f"{stored.record.key}: {before} became {stored.ending}"
            assert before.state is TaskState.FAILED
            self.reopening.discard(id_)
        if stored.ending is None:
            self.endings.pop(id_, None)
            return
        self.endings[id_] = stored.ending
        if stored.ending.reason == CACHED:
            assert stored.ending.value == stored.record.payload, "somebody else's result"

    def check_counts(self, stored: Iterable[StoredTask]) -> None:
        ended: dict[str, Counter[TaskState]] = {UID: Counter(), URGENT: Counter()}
        tallies: Counter[str] = Counter()
        for found in stored:
            if found.ending:
                ended[found.record.job_uid][found.ending.state] += 1
                tallies[found.record.job_uid] += int(found.ending.tallies.get("n", 0))
        for uid, entry in self.world.engine.jobs.items():
            for state in (TaskState.DONE, TaskState.FAILED):
                assert entry.counts[state] == ended[uid][state]
            assert entry.tallies.get("n", 0.0) == tallies[uid]

    @invariant()
    def counts_add_up(self) -> None:
        for entry in self.world.engine.jobs.values():
            assert sum(entry.counts.values()) == len(entry.tasks)
            assert min(entry.counts.values(), default=0) >= 0

    @invariant()
    def nobody_shares_a_lease(self) -> None:
        holders: dict[str, str] = {}
        for worker in self.world.engine.workers.values():
            for id_, entry in worker.leases.items():
                assert holders.setdefault(id_, worker.key) == worker.key, f"{entry.record.key} is leased twice"
                assert entry.lease is not None
                assert entry.lease.worker == worker.key
                assert entry.state is TaskState.RUNNING

    def waiting(self) -> set[tuple[Lane, int]]:
        """Every task that may be handed out: its lane and its place."""
        lanes = self.world.engine.ready._lanes
        return {(lane, n) for lane, queue in lanes.items() for n, _ in (*queue._line, *queue._back)}

    def check_order(self, name: str, granted: Sequence[Assignment], stayed: set[tuple[Lane, int]]) -> None:
        """No task went out while one of higher rank, that this worker might have had, stayed."""
        engine = self.world.engine
        worker = next(w for w in engine.workers.values() if w.key == f"ns/{name}")
        if not granted or engine.reservations or any(
            e.job.max_running or e.job.max_tasks_per_s for e in engine.jobs.values()
        ):
            return
        last = max(self.rank(a.record.job_uid, a.record.sequence) for a in granted)
        for lane, sequence in stayed:
            if may_run(worker.profile, lane) and not lane.resources and not engine.jobs[lane.job_uid].is_held:
                assert self.rank(lane.job_uid, sequence) > last, f"{lane} was passed over"

    def rank(self, uid: str, sequence: int) -> tuple[int, int]:
        return -self.world.engine.jobs[uid].job.priority, sequence

    def check_reservations(self, granted: Sequence[Assignment]) -> None:
        """Whoever got something left enough for whom capacity is held."""
        engine = self.world.engine
        reservation = engine.reservations.get(("ns", "r"))
        kept = [w for w in engine.workers.values() if w.session is not None and w.key == "ns/w0"]
        others = [a for a in granted if a.record.job_uid != URGENT]
        if not (reservation and kept and others and "ns/w0" in {self._holder(a) for a in others}):
            return
        used = sum(t.record.job_uid == URGENT for w in kept for t in w.leases.values())
        assert sum(map(_free, kept)) >= max(0, reservation.slots - used)

    def _holder(self, assignment: Assignment) -> str:
        entry = self.world.engine.task(assignment.record.id)
        return entry.lease.worker if entry and entry.lease else ""

    def teardown(self) -> None:
        """Whatever happened: with a disk, a worker and time, everything ends."""
        self.world.is_disk_stuck = False
        self.world.write()
        for uid in (UID, URGENT):
            self.world.recall(uid)
            if uid in self.world.engine.jobs:
                self.world.update(uid, suspended=False, max_running=0, max_tasks_per_s=0.0)
        self.connect("w0")
        for _ in range(600):
            if all(e.is_finished for e in self.world.engine.jobs.values()):
                break
            self.work_off()
        open_tasks = {k: t.state for e in self.world.engine.jobs.values() for k, t in e.tasks.items()}
        assert set(open_tasks.values()) <= FINAL, open_tasks
        self.the_store_agrees()
        self.world.store.close()

    def work_off(self) -> None:
        if self.alive("w0") is None:
            self.connect("w0")
        self.want("w0", 5)
        session = self.sessions["w0"]
        for lease, assignment in list(self.held["w0"].items()):
            del self.held["w0"][lease]
            self.report(session, assignment, Verdict.DONE)
        self.world.pass_time(5, session)
        self.listen()

    # ------------------------------------------------------------ the workers' side

    def report(self, session: Session, assignment: Assignment, verdict: Verdict, children: Sequence[NewTask] = ()
               ) -> None:
        tallies = {"n": 1.0} if verdict is Verdict.DONE else {}
        value = assignment.record.payload if verdict is Verdict.DONE else b""
        session.report(assignment, verdict, tallies=tallies, value=value, children=tuple(children))

    def alive(self, name: str) -> Session | None:
        session = self.sessions.get(name)
        if session is None or session.is_closed or session.number not in self.world.sessions:
            self.sessions.pop(name, None)
            return None
        return session

    def listen(self) -> None:
        """Take what the sessions heard since."""
        for name, session in self.sessions.items():
            heard, session.heard = session.heard, [m for m in session.heard if isinstance(m, Close)]
            for message in heard:
                self._take(name, message)

    def _take(self, name: str, message: Message) -> None:
        match message:
            case Tasks(assignments):
                for assignment in assignments:
                    self._granted(name, assignment)
            case Ack(leases):
                for lease in leases:
                    self._check_ack(lease)
                    self.results[name].pop(lease, None)
            case Cancel(leases):
                for lease in leases:
                    self.held[name].pop(lease, None)
            case Revoke(leases):
                self.revoked[name].update(leases)

    def _granted(self, name: str, assignment: Assignment) -> None:
        lease = lease_of(assignment)
        others = [n for n in NAMES if n != name and (lease in self.held[n] or lease in self.results[n])]
        assert not others, f"{lease} is held by {others} and was granted to {name}"
        for edge, given in zip(assignment.record.depends_on, assignment.inputs, strict=True):
            assert given.state in FINAL
            assert edge.when is When.FINISHED or given.state is TaskState.DONE
        self.started[name].discard(lease)
        self.held[name][lease] = assignment

    def _check_ack(self, lease: Lease) -> None:
        """An ack means: on disk, or it no longer matters: the attempt was closed, or the job cancelled for good."""
        for uid in (UID, URGENT):
            snapshot = self.world.store.job(uid)
            for stored in snapshot.tasks:
                if stored.record.id == lease.task_id:
                    is_cancelled = any(job.cancelled for job in snapshot.jobs)
                    assert stored.ending is not None or stored.spent.attempt >= lease.attempt or is_cancelled


def _free(worker: WorkerEntry) -> int:
    return max(0, worker.capacity - len(worker.leases))
