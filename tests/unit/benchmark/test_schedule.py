"""Arrival schedules: their rates, their randomness, their sharing, their refusals."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier_benchmark.schedule import (
    Bounds,
    Concurrency,
    Constant,
    Gamma,
    Pattern,
    Poisson,
    Ramp,
    Schedule,
    Sweep,
    Trace,
    part,
    schedule,
)
from espalier_benchmark.traces import azure, mooncake
from espalier_kit.errors import Misconfigured

OPEN: dict[str, Pattern] = {
    "constant": Constant(50.0),
    "poisson": Poisson(50.0),
    "gamma": Gamma(50.0, cv=2.0),
    "ramp": Ramp(20.0, 80.0),
    "sweep": Sweep((25.0, 50.0, 75.0)),
}


def gaps(made: Schedule) -> list[float]:
    return [after.at_s - before.at_s for before, after in itertools.pairwise(made.arrivals)]


@pytest.mark.parametrize("pattern", OPEN.values(), ids=OPEN)
def test_a_schedule_is_the_same_for_the_same_seed_and_keeps_its_mean_rate(pattern: Pattern) -> None:
    made = schedule(pattern, Bounds(duration_s=200.0), seed=7)
    assert made == schedule(pattern, Bounds(duration_s=200.0), seed=7)
    assert len(made.arrivals) / 200.0 == pytest.approx(50.0, rel=0.05)
    assert [a.index for a in made.arrivals] == list(range(len(made.arrivals)))
    assert min(gaps(made)) >= 0
    assert made.arrivals[-1].at_s < 200.0


@pytest.mark.parametrize(("pattern", "cv"), [(Constant(50.0), 0.0), (Poisson(50.0), 1.0), (Gamma(50.0, cv=2.0), 2.0)])
def test_gaps_vary_as_asked(pattern: Pattern, cv: float) -> None:
    found = gaps(schedule(pattern, Bounds(requests=20_000), seed=3))
    assert statistics.stdev(found) / statistics.mean(found) == pytest.approx(cv, abs=0.1)


def test_other_seeds_give_other_arrivals() -> None:
    assert schedule(Poisson(5.0), Bounds(requests=9), seed=1) != schedule(Poisson(5.0), Bounds(requests=9), seed=2)


@pytest.mark.parametrize(("start", "end"), [(0.0, 100.0), (100.0, 0.0), (50.0, 50.0)])
def test_a_ramp_goes_from_its_first_rate_to_its_last(start: float, end: float) -> None:
    made = schedule(Ramp(start, end), Bounds(duration_s=100.0), seed=1)
    first = sum(a.at_s < 50 for a in made.arrivals)
    assert len(made.arrivals) == pytest.approx(5000, rel=0.05)
    assert first / len(made.arrivals) == pytest.approx((0.75 * start + 0.25 * end) / (start + end), abs=0.02)


def test_a_sweep_names_its_stages() -> None:
    made = schedule(Sweep((10.0, 40.0)), Bounds(duration_s=100.0), seed=1)
    counts = [sum(a.stage == stage for a in made.arrivals) for stage in (0, 1)]
    assert counts == pytest.approx([500, 2000], rel=0.1)
    assert all((a.at_s >= 50) == (a.stage == 1) for a in made.arrivals)


@given(of=st.integers(1, 9), requests=st.integers(1, 60), users=st.integers(1, 20))
def test_generators_share_a_schedule_without_gaps_or_doubles(of: int, requests: int, users: int) -> None:
    whole = schedule(Poisson(10.0), Bounds(requests=requests), seed=1)
    shares = [part(whole, number=number, of=of).arrivals for number in range(of)]
    assert sorted(itertools.chain(*shares), key=lambda a: a.index) == list(whole.arrivals)
    closed = [part(schedule(Concurrency(users), Bounds(requests=requests), seed=1), number=n, of=of) for n in range(of)]
    assert sum(each.users or 0 for each in closed) == users
    assert sorted(itertools.chain(*(each.numbers() for each in closed))) == list(range(requests))


def test_azure_and_mooncake_traces_are_replayed_at_their_own_times_or_faster() -> None:
    csv = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    lines = (
        '{"timestamp": 1500, "input_length": 9, "output_length": 3}\n'
        '{"timestamp": 0, "input_length": 8, "output_length": 2}\n'
    )
    made = schedule(Trace(azure(csv), speed=2.0), Bounds(), seed=1)
    assert [(round(a.at_s, 3), a.prompt_tokens, a.output_tokens) for a in made.arrivals] == [
        (0.0, 374, 44),
        (2.157, 396, 109),
    ]
    assert [(a.at_s, a.prompt_tokens) for a in mooncake(lines)] == [(0.0, 8), (1.5, 9)]


@pytest.mark.parametrize(
    ("text", "read", "says"),
    [
        ("a,b\n1,2\n", azure, "no column ContextTokens, GeneratedTokens, TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,2\n", azure, "line 2 of the trace"),
        ('{"timestamp": 1}\n', mooncake, "line 1 of the trace: KeyError 'input_length'"),
        ("\n", mooncake, "the trace is empty"),
    ],
)
def test_a_broken_trace_is_refused_with_a_sentence(text: str, read: object, says: str) -> None:
    assert callable(read)
    with pytest.raises(Misconfigured, match=says):
        read(text)


@pytest.mark.parametrize(
    ("pattern", "bounds", "says"),
    [
        (Constant(0.0), Bounds(requests=1), "are above 0"),
        (Poisson(float("nan")), Bounds(requests=1), "are above 0"),
        (Gamma(1.0, cv=-1.0), Bounds(requests=1), "are above 0"),
        (Sweep(()), Bounds(duration_s=1.0), "are above 0"),
        (Ramp(-1.0, 5.0), Bounds(duration_s=1.0), "not below 0"),
        (Ramp(1.0, 5.0), Bounds(requests=5), "needs a duration"),
        (Constant(1.0), Bounds(), "say how long"),
        (Constant(1.0), Bounds(requests=0), "above 0"),
    ],
)
def test_a_load_that_cannot_be_followed_is_refused(pattern: Pattern, bounds: Bounds, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        schedule(pattern, bounds, seed=1)
