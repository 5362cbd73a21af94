"""Who gets the Macs: all or none, the first in order first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from espalier_operator.plan.facts import Contender, Holder, MacFacts
from espalier_operator.plan.macs import place

START = datetime(2026, 1, 1, tzinfo=UTC)
TWO = MacFacts(capacity=2)


def job(name: str, *, need: int = 2, priority: int = 0, age_s: int = 0) -> Contender:
    return Contender(-priority, START - timedelta(seconds=age_s), "course", name, need)


ME = job("me", age_s=10)
CASES = {
    "free Macs": (ME, False, TWO, (), (), True),
    "needs none": (job("me", need=0), False, MacFacts(), (), (), True),
    "keeps what it has": (ME, True, MacFacts(), (Holder("x", 2),), (), True),
    "one is held": (ME, False, TWO, (Holder("GradingJob a/b", 1),), (), False),
    "too few even idle": (ME, False, MacFacts(capacity=1), (), (), False),
    "an older one is ahead": (ME, False, TWO, (), (job("old", age_s=60),), False),
    "a younger one is behind": (ME, False, TWO, (), (job("young"),), True),
    "a higher priority is ahead": (ME, False, TWO, (), (job("vip", priority=5),), False),
    "room for both": (job("me", need=1), False, TWO, (), (job("old", need=1, age_s=60),), True),
    "an impossible one blocks nobody": (ME, False, TWO, (), (job("huge", need=9, age_s=60),), True),
    "equal age goes by name": (job("b"), False, TWO, (), (job("a"),), False),
}


@pytest.mark.parametrize("case", CASES)
def test_placement(case: str) -> None:
    me, has_some, macs, holders, others, granted = CASES[case]
    assert place(me, has_some=has_some, macs=macs, holders=holders, others=others).granted is granted


def test_the_message_names_holders_and_what_is_missing() -> None:
    waiting = place(
        ME, has_some=False, macs=MacFacts(capacity=3), others=(job("old", need=1, age_s=60),),
        holders=(Holder("GradingJob course/x", 1), Holder("GradingJob course/x", 1)),
    )
    said = "needs 2 Macs, 1 free; GradingJob course/x holds 2; GradingJob course/old waits ahead for 1"
    assert waiting.message == said


def test_the_message_names_macs_that_are_away() -> None:
    waiting = place(ME, has_some=False, macs=MacFacts(1, ("mac-studio-2",)), holders=(), others=())
    assert waiting.message == "needs 2 Macs, but the cluster has 1 Ready (mac-studio-2 away): even idle that is too few"
