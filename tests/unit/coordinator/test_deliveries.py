"""Answers and heartbeats that cross, come late or never: what is lost is found, what is held is never taken."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from espalier_coordinator.calls.deliveries import Deliveries
from espalier_coordinator.messages import Lease

PATIENCE_S = 10.0
LAG_S = PATIENCE_S / 2
"""What arrives at all arrives within it."""


@dataclass(frozen=True)
class Beat:
    """A heartbeat on its way."""

    receipt: str
    in_flight: frozenset[Lease]
    made_at: float


class Crossing(RuleBasedStateMachine):
    """A worker that pulls one answer after the other, on a network that loses answers and delays what it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases = 0
        self.book = Deliveries("1-x/7", patience_s=PATIENCE_S)
        self.held: set[Lease] = set()
        """As the coordinator believes."""
        self.has: set[Lease] = set()
        """As it is at the worker."""
        self.receipt = self.book.receipt
        self.answer: tuple[set[Lease], str, float] | None = None
        self.lost: dict[Lease, float] = {}
        self.beats: list[Beat] = []

    @precondition(lambda self: self.answer is None)
    @rule(count=st.integers(0, 3), is_lost=st.booleans())
    def pull(self, count: int, is_lost: bool) -> None:
        leases = {Lease(str(self.leases + n), 1) for n in range(count)}
        self.leases += count
        self.book.gave(leases, self.now)
        self.held |= leases
        if is_lost:
            self.lost.update(dict.fromkeys(leases, self.now))
        else:
            self.answer = (leases, self.book.receipt, self.now)

    @precondition(lambda self: self.answer is not None)
    @rule()
    def arrive(self) -> None:
        assert self.answer is not None
        leases, self.receipt, _ = self.answer
        self.has |= leases
        self.answer = None

    @precondition(lambda self: self.has)
    @rule()
    def report(self) -> None:
        ended = self.has.pop()
        self.held.discard(ended)

    @rule(seconds=st.sampled_from([0.5, 2.0, LAG_S, PATIENCE_S]))
    def wait(self, seconds: float) -> None:
        then = self.now + seconds
        if self.answer is not None and then - self.answer[2] >= LAG_S:
            self.arrive()
        while self.beats and then - self.beats[0].made_at >= LAG_S:
            self.beat()
        self.now = then

    @rule()
    def send(self) -> None:
        self.beats.append(Beat(self.receipt, frozenset(self.has), self.now))

    @precondition(lambda self: self.beats)
    @rule()
    def beat(self) -> None:
        beat = self.beats.pop(0)
        overdue = {lease for lease, at in self.lost.items() if self.now - at >= PATIENCE_S}
        found = set(self.book.lost(beat.receipt, beat.in_flight, self.held, self.now))
        coming = self.answer[0] if self.answer else set()
        assert not found & coming, "an answer that is under way is not lost"
        assert found <= set(self.lost), "what the worker has is not lost"
        assert overdue <= found
        self.held -= found
        for lease in found:
            del self.lost[lease]


Crossing.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCrossing = Crossing.TestCase


@pytest.mark.parametrize("receipt", ["", "0", "1-x/6/1", "1-x/7/", "1-x/7/-1", "1-x/7/²", "1-x/7/" + "9" * 5000])
def test_a_receipt_that_this_registration_did_not_give_says_nothing(receipt: str) -> None:
    book = Deliveries("1-x/7", patience_s=PATIENCE_S)
    lease = Lease("a", 1)
    book.gave([lease], 0.0)
    assert book.lost(receipt, [], [lease], 100.0) == ()
    assert book.lost(book.receipt, [], [lease], 0.0) == (lease,)
