"""Anything may happen in any order: submissions, results, crashes, a stuck disk, workers that vanish and come back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from espalier_coordinator.messages import Assignment, Close, Lease, Verdict
from espalier_coordinator.model import FINAL, Ending, NewTask
from espalier_kit.execution import Dependency, When
from tests.support.coordination import UID, Session, World, lease_of, task

NAMES = ("w0", "w1", "w2")


class Life(RuleBasedStateMachine):
    """Workers are honest: they keep a result until it is acked, and say in Hello what they hold."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.sessions: dict[str, Session] = {}
        self.held: dict[str, dict[Lease, Assignment]] = {name: {} for name in NAMES}
        self.results: dict[str, dict[Lease, Assignment]] = {name: {} for name in NAMES}
        self.owner: dict[Lease, str] = {}
        self.endings: dict[str, Ending] = {}
        self.submitted = 0
        self.world.submit(task("root"))

    # ------------------------------------------------------------ what happens

    @rule(count=st.integers(1, 3), when=st.sampled_from(When), data=st.data())
    def submit(self, count: int, when: When, data: st.DataObject) -> None:
        tasks = []
        for _ in range(count):
            before = data.draw(st.sampled_from(["", "root", *(t.key for t in tasks)]))
            edges = (Dependency(before, when),) if before else ()
            self.submitted += 1
            tasks.append(NewTask(f"t{self.submitted}", "t", depends_on=edges, retries=20))
        self.world.submit(*tasks)

    @rule(name=st.sampled_from(NAMES))
    def connect(self, name: str) -> None:
        holds = [*self.held[name].values(), *self.results[name].values()]
        self.sessions[name] = self.world.worker(name, holds=holds)
        for assignment in list(self.results[name].values()):
            self.sessions[name].report(assignment, tallies={"n": 1})
        self.listen()

    @rule(name=st.sampled_from(NAMES), n=st.integers(1, 4))
    def want(self, name: str, n: int) -> None:
        if self.alive(name) is None:
            self.connect(name)
        self.sessions[name].want(n)
        self.listen()

    @rule(name=st.sampled_from(NAMES), verdict=st.sampled_from(Verdict), has_child=st.booleans(), data=st.data())
    def finish(self, name: str, verdict: Verdict, has_child: bool, data: st.DataObject) -> None:
        if not self.held[name]:
            return
        lease = data.draw(st.sampled_from(sorted(self.held[name], key=str)))
        assignment = self.held[name].pop(lease)
        self.results[name][lease] = assignment
        if session := self.alive(name):
            children = (task(f"child-of-{assignment.record.key}"),) if has_child and verdict is Verdict.DONE else ()
            tallies = {"n": 1.0} if verdict is Verdict.DONE else {}
            session.report(assignment, verdict, tallies=tallies, children=children)
            self.listen()

    @rule(name=st.sampled_from(NAMES))
    def hand_back(self, name: str) -> None:
        if (session := self.alive(name)) and self.held[name]:
            lease, assignment = next(iter(self.held[name].items()))
            del self.held[name][lease]
            session.hand_back(assignment)
            self.listen()

    @rule(name=st.sampled_from(NAMES))
    def lose_stream(self, name: str) -> None:
        session = self.sessions.pop(name, None)
        if session and session.number in self.world.sessions:
            session.hang_up()

    @rule(name=st.sampled_from(NAMES))
    def die(self, name: str) -> None:
        self.lose_stream(name)
        self.held[name].clear()
        self.results[name].clear()

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

    @rule(is_suspended=st.booleans(), priority=st.integers(0, 2))
    def steer(self, is_suspended: bool, priority: int) -> None:
        self.world.update(suspended=is_suspended, priority=priority)
        self.listen()

    @rule(chance=st.integers(0, 9))
    def cancel(self, chance: int) -> None:
        if chance == 9:  # rarely: little happens afterwards
            self.world.update(cancel=True)
            self.listen()

    @rule()
    def crash(self) -> None:
        self.world.crash()
        self.sessions.clear()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def results_are_for_ever(self) -> None:
        for stored in self.world.store.load().tasks:
            if stored.ending:
                assert self.endings.setdefault(stored.record.id, stored.ending) == stored.ending

    @invariant()
    def tallies_count_each_result_once(self) -> None:
        if UID in self.world.engine.jobs and not self.world.is_disk_stuck:
            expected = sum(e.tallies.get("n", 0.0) for e in self.endings.values())
            assert self.world.view().tallies.get("n", 0.0) == expected

    @invariant()
    def counts_add_up(self) -> None:
        for entry in self.world.engine.jobs.values():
            assert sum(entry.counts.values()) == len(entry.tasks)
            assert min(entry.counts.values(), default=0) >= 0

    def teardown(self) -> None:
        """Whatever happened: with a disk, a worker and time, everything ends."""
        self.world.is_disk_stuck = False
        self.world.write()
        self.world.update(suspended=False)
        self.connect("w0")
        for _ in range(600):
            if self.world.engine.job(UID).is_finished:
                break
            session = self.alive("w0") or self.world.worker("w0", holds=self.held["w0"].values())
            self.sessions["w0"] = session
            self.want("w0", 5)
            for lease, assignment in list(self.held["w0"].items()):
                del self.held["w0"][lease]
                session.report(assignment, tallies={"n": 1})
            self.world.pass_time(5, session)
            self.listen()
        assert set(self.world.states().values()) <= FINAL, self.world.states()

    # ------------------------------------------------------------ the workers' side

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
            self._take(name, session, heard)

    def _take(self, name: str, session: Session, heard: list[object]) -> None:
        said = Session(self.world, session.number, name)
        said.heard = heard  # type: ignore[assignment]
        for assignment in said.assignments():
            lease = lease_of(assignment)
            others = [n for n in NAMES if n != name and (lease in self.held[n] or lease in self.results[n])]
            assert not others, f"{lease} is held by {others} and was granted to {name}"
            self.held[name][lease] = assignment
        for lease in said.acked():
            self._check_ack(lease)
            self.results[name].pop(lease, None)
        for lease in said.cancelled():
            self.held[name].pop(lease, None)

    def _check_ack(self, lease: Lease) -> None:
        """An ack means: on disk, or it no longer matters: the attempt was closed, or the job cancelled for good."""
        snapshot = self.world.store.load()
        stored = {t.record.id: t for t in snapshot.tasks}[lease.task_id]
        is_cancelled = any(job.cancelled for job in snapshot.jobs)
        assert stored.ending is not None or stored.spent.attempt >= lease.attempt or is_cancelled


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
