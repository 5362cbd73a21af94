"""The load generator against a server in virtual time: exact clocks, failures by kind, coordinated omission shown."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from espalier_benchmark.client import Client
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import synthetic
from espalier_benchmark.measure import summarise
from espalier_benchmark.quantiles import percentiles
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Bounds, Concurrency, Constant, Poisson, Schedule, part, schedule
from espalier_benchmark.transport import Cut, Reply, Transport, Unreachable
from espalier_benchmark.validity import Health, judge
from espalier_kit.clock import Clock, ManualClock, SystemClock
from espalier_kit.execution import ModelEndpoint
from tests.support.timed_server import Timing, VirtualServer, ending, event, spread, token_event, virtually

ITEMS = synthetic(seed=1, prompt_tokens=5, output_tokens=8)
ENDPOINT = ModelEndpoint(role="target", url="http://model.invalid", model="timed", name="target")
PLAIN = Options()


async def generate(
    plan: Schedule, transport: Transport, clock: Clock, options: Options = PLAIN
) -> tuple[list[Record], Health]:
    records: list[Record] = []
    watch = Stopwatch(clock, cpu=lambda: 0.0)
    async with Client(ENDPOINT, watch.now, transport=transport) as client:
        health = await Generator(client, watch, items=ITEMS, write=records.append, options=options).run(plan)
    return records, health


async def run(
    plan: Schedule,
    timing: Callable[[int], Timing],
    *,
    stall: tuple[float, float] = (0.0, 0.0),
    options: Options = PLAIN,
) -> tuple[list[Record], Health]:
    clock = ManualClock()
    server = VirtualServer(clock, timing, stall)
    return await virtually(clock, generate(plan, server, clock, options))


async def test_every_clock_is_exact() -> None:
    plan, timing = schedule(Poisson(20.0), Bounds(requests=60), seed=5), spread(1)
    records, health = await run(plan, timing)
    assert judge(records, [health]).verdict == "Valid"
    assert (health.scheduled, health.sent) == (60, 60)
    for record, arrival in zip(sorted(records, key=lambda r: r.index), plan.arrivals, strict=True):
        expected = timing(arrival.index)
        assert record.is_ok
        assert (record.intended_s, record.output_tokens, record.token_source) == (arrival.at_s, 8, "usage")
        assert record.sent_s == pytest.approx(arrival.at_s)
        assert record.ttft_s == pytest.approx(expected.first_s)
        assert record.tpot_s == pytest.approx(expected.gap_s)
        assert [gap for gap, _ in record.gaps()] == pytest.approx([expected.gap_s] * 7)
        assert record.service_s == record.response_s == pytest.approx(expected.total_s)


async def test_medians_and_p90_of_a_known_distribution_are_found() -> None:
    timing = spread(2)
    records, _ = await run(schedule(Constant(50.0), Bounds(requests=400), seed=1), timing)
    truth = {"ttft": lambda t: t.first_s, "e2e": lambda t: t.total_s, "tpot": lambda t: t.gap_s}
    summary = summarise(records)
    for name, read in truth.items():
        exact = percentiles([read(timing(number)) for number in range(400)], qs=(0.5, 0.9))
        found = summary.latency(name).percentiles[:2]
        assert [p.value for p in found] == pytest.approx([p.value for p in exact])


async def test_a_stall_of_two_seconds_shows_in_response_time_and_not_only_in_service_time() -> None:
    """With at most 4 in flight, a stalled server delays 4 of 1,000 sends but 100 users."""
    plan = schedule(Constant(50.0), Bounds(requests=1000), seed=1)
    records, health = await run(
        plan, lambda _: Timing(0.02, 0.001, 5), stall=(10.0, 12.0), options=Options(max_in_flight=4)
    )
    summary = summarise(records)
    service, response = (summary.latency("e2e", clock).percentiles[3] for clock in ("service", "response"))
    assert service.name == "p99"
    assert service.value == pytest.approx(0.024, abs=0.001)
    assert response.value is not None
    assert 1.7 < response.value < 2.1
    assert sum(record.service_s > 1 for record in records) == 4
    assert judge(records, [health]).verdict == "Valid", "the run's own limit is not the client's lag"


async def test_an_open_loop_does_not_wait_for_the_server() -> None:
    records, _ = await run(schedule(Constant(10.0), Bounds(requests=30), seed=1), lambda _: Timing(5.0, 0.1, 2))
    assert max(record.client_lag_s for record in records) < 1e-6
    assert max(record.sent_s for record in records) < min(record.ended_s for record in records)


async def test_a_closed_loop_keeps_its_users_busy() -> None:
    plan = schedule(Concurrency(3), Bounds(requests=12), seed=1)
    records, _ = await run(plan, lambda _: Timing(0.4, 0.1, 2))
    assert sorted(record.index for record in records) == list(range(12))
    assert max(record.ended_s for record in records) == pytest.approx(2.0)
    assert {round(record.intended_s, 6) for record in records} == {0.0, 0.5, 1.0, 1.5}


async def test_a_closed_loop_ends_with_its_time() -> None:
    records, _ = await run(schedule(Concurrency(2), Bounds(duration_s=1.2), seed=1), lambda _: Timing(0.4, 0.1, 2))
    assert len(records) == 6
    assert all(record.is_ok for record in records)


async def test_generators_that_share_a_schedule_start_at_the_same_moment_on_their_own_clocks() -> None:
    clock = ManualClock()
    plan, start = schedule(Constant(10.0), Bounds(requests=20), seed=1), clock.now() + timedelta(seconds=3)
    found: list[Record] = []
    for number, offset in ((0, 0.0), (1, 0.004)):
        own = ManualClock(clock.now() + timedelta(seconds=offset))
        options = Options(generator=number, clock_offset_s=offset, start_at=start)
        server = VirtualServer(own, lambda _: Timing(0.1, 0.01, 2))
        records, health = await virtually(own, generate(part(plan, number=number, of=2), server, own, options))
        assert own.monotonic() > 3.0
        assert health.started_at == pytest.approx(start.timestamp())
        found += records
    assert sorted(record.index for record in found) == list(range(20))
    assert {record.generator for record in found if record.index % 2} == {1}


async def test_what_takes_too_long_is_censored_not_averaged() -> None:
    slow = {3: Timing(0.1, 50.0, 3), 5: Timing(400.0, 1.0, 1)}
    records, _ = await run(
        schedule(Constant(10.0), Bounds(requests=50), seed=1),
        lambda number: slow.get(number, Timing(0.1, 0.01, 3)),
        options=Options(timeout_s=20.0),
    )
    found = {record.index: record for record in records if not record.is_ok}
    assert {index: record.error for index, record in found.items()} == {3: "timeout", 5: "timeout"}
    assert found[3].ttft_s == pytest.approx(0.1)
    summary = summarise(records)
    assert summary.errors == {"timeout": 2}
    assert summary.latency("e2e").mean_s is None
    assert summary.latency("e2e").percentiles[0].n == 50


async def test_what_is_left_at_the_end_is_unfinished_and_what_was_held_back_never_sent() -> None:
    records, health = await run(
        schedule(Constant(10.0), Bounds(requests=10), seed=1),
        lambda _: Timing(1000.0, 1.0, 1),
        options=Options(drain_s=2.0, max_in_flight=6),
    )
    assert [sum(r.error == kind for r in records) for kind in ("unfinished", "not-sent")] == [6, 4]
    reasons = [each.reason for each in judge(records, [health]).reasons]
    assert reasons == ["NothingMeasured", "NotSent"]


async def test_an_answer_ends_with_its_end_mark_not_with_its_connection() -> None:
    clock = ManualClock()
    server = VirtualServer(clock, lambda _: Timing(0.1, 0.01, 3), lingers_s=1000.0)
    plan = schedule(Constant(10.0), Bounds(requests=2), seed=1)
    records, _ = await virtually(clock, generate(plan, server, clock, Options(timeout_s=5.0)))
    assert [(record.error, round(record.service_s, 6)) for record in records] == [("", 0.12)] * 2


class Scripted:
    """Gives one status and body, or raises at once."""

    def __init__(self, response: tuple[int, bytes] | Exception) -> None:
        self._response = response

    @contextlib.asynccontextmanager
    async def post(self, body: bytes) -> AsyncIterator[Reply]:
        if isinstance(self._response, Exception):
            raise self._response
        yield Whole(*self._response)

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Whole:
    status: int
    body: bytes

    async def data(self) -> AsyncIterator[bytes]:
        yield self.body


FAILURES: dict[str, tuple[tuple[int, bytes] | Exception, str]] = {
    "overloaded": ((429, b"later"), "http-429"),
    "broken": ((500, b""), "http-500"),
    "away": (Unreachable("refused"), "connect"),
    "hung up": (Cut("peer closed"), "cut"),
    "cut": ((200, token_event("x")), "cut"),
    "silent": ((200, ending(0)), "empty"),
    "says so": ((200, event({"error": {"message": "out of memory"}})), "server"),
    "no JSON": ((200, b"data: {oops\n\n"), "protocol"),
    "no chunk": ((200, b'data: {"choices": [7]}\n\n'), "protocol"),
}


@pytest.mark.parametrize(("response", "kind"), FAILURES.values(), ids=FAILURES)
async def test_every_failure_has_its_kind(response: tuple[int, bytes] | Exception, kind: str) -> None:
    plan = schedule(Constant(10.0), Bounds(requests=1), seed=1)
    clock = ManualClock()
    (record,), health = await virtually(clock, generate(plan, Scripted(response), clock))
    assert record.error == kind
    assert record.detail
    assert judge([record], [health]).reasons[0].reason == "NothingMeasured"


async def test_an_overloaded_generator_makes_the_run_invalid() -> None:
    """Real time: each send costs the client 30 ms of its loop where one is due every 10 ms."""
    server = VirtualServer(SystemClock(), lambda _: Timing(0.001, 0.001, 2), busy=lambda: time.sleep(0.03))
    plan = schedule(Constant(100.0), Bounds(requests=30), seed=1)
    records, health = await generate(plan, server, SystemClock())
    assert all(record.is_ok for record in records)
    verdict = judge(records, [health])
    assert verdict.verdict == "Invalid"
    assert "ClientOverloaded" in [each.reason for each in verdict.reasons]


def test_an_overloaded_generator_is_not_excused_by_the_latency_that_it_made_itself() -> None:
    """Seen at 500 requests a second: sent 60 ms late, TTFT of 9 s measured where the server took 60 ms."""
    records = [
        Record(
            index=i, target="t", intended_s=i / 500, sent_s=i / 500 + 0.06, first_s=i / 500 + 9, ended_s=i / 500 + 10
        )
        for i in range(500)
    ]
    health = Health(scheduled=500, sent=500, wall_s=11.0, loop_lags_s=(0.1,) * 99, cpu_share=0.7)
    assert [each.reason for each in judge(records, [health]).reasons] == ["ClientOverloaded", "LoopLag"]


HEALTHY = Health(scheduled=100, sent=100, wall_s=10.0, loop_lags_s=(0.0,) * 99)
UNWELL = {
    "LoopLag": Health(scheduled=100, sent=100, wall_s=10.0, loop_lags_s=(0.05,) * 99),
    "CpuSaturated": Health(scheduled=100, sent=100, wall_s=10.0, cpu_share=0.97),
    "NotSent": Health(scheduled=100, sent=90, wall_s=10.0),
    "ClockOffset": Health(scheduled=100, sent=100, wall_s=10.0, clock_offset_s=-0.2),
}


@pytest.mark.parametrize(("reason", "health"), UNWELL.items(), ids=UNWELL)
def test_an_unwell_generator_makes_the_run_invalid(reason: str, health: Health) -> None:
    records = [
        Record(index=i, target="t", intended_s=i / 10, sent_s=i / 10, first_s=i / 10 + 0.05, ended_s=i / 10 + 0.1)
        for i in range(100)
    ]
    assert judge(records, [HEALTHY]).verdict == "Valid"
    assert [each.reason for each in judge(records, [HEALTHY, health]).reasons] == [reason]


def test_turns_of_one_generator_are_judged_as_one_run() -> None:
    def turns(*lags: float) -> list[Health]:
        return [Health(scheduled=4, sent=4, wall_s=0.5, loop_lags_s=(0.001,) * 24 + (lag,)) for lag in lags]

    record = Record(index=0, target="t", intended_s=0.0, sent_s=0.0, first_s=0.05, ended_s=0.1)
    assert judge([record], turns(0.05, *[0.001] * 9)).verdict == "Valid", "one late probe of 250 is no tail"
    late = turns(*[0.05] * 10)
    assert [each.reason for each in judge([record], late).reasons] == ["LoopLag"]
    full = [*turns(0.001), Health(scheduled=4, sent=4, wall_s=0.5, cpu_share=0.97)]
    assert [each.reason for each in judge([record], full).reasons] == ["CpuSaturated"]
