"""The load generator over real sockets, against a server that keeps a diary of every token it sent."""

from __future__ import annotations

import itertools
import statistics
from datetime import UTC, datetime
from pathlib import Path

from espalier_benchmark.client import Client
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import synthetic
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Bounds, Concurrency, Poisson, Schedule, schedule
from espalier_benchmark.validity import Health
from espalier_kit.certificates import issue, make_authority
from espalier_kit.clock import SystemClock
from espalier_kit.execution import ModelEndpoint
from tests.support.timed_server import TimedServer, spread

ALLOWED: dict[str, dict[int, tuple[float, float]]] = {
    "ttft": {50: (0.004, 0.04), 90: (0.010, 0.04)},
    "itl": {50: (0.002, 0.02), 90: (0.002, 0.02)},
    "e2e": {50: (0.004, 0.04), 90: (0.010, 0.04)},
}
"""How far a percentile may be off, in seconds and as a share of it, on a machine that does other things too. On a quiet
one 2 ms + 2 % are kept: `python -m bench run benchmark` raises beyond them.
"""
TRIES = 3
"""What others do to this machine can only add to an error, in one run; what the generator adds is in every run."""


async def generate(endpoint: ModelEndpoint, plan: Schedule) -> tuple[list[Record], Health, float]:
    """Records, the generator's health, and what the monotonic clock showed at the run's start."""
    records: list[Record] = []
    watch, clock = Stopwatch(SystemClock()), SystemClock()
    async with Client(endpoint, watch.now) as client:
        items = synthetic(seed=1, prompt_tokens=5, output_tokens=8)
        health = await Generator(client, watch, items=items, write=records.append, options=Options()).run(plan)
        zero = clock.monotonic() - watch.now()
    return sorted(records, key=lambda record: record.sent_s), health, zero


def target(url: str, **more: str) -> ModelEndpoint:
    return ModelEndpoint(role="target", url=url, model="timed", name="target", **more)  # type: ignore[arg-type]


async def test_what_is_measured_is_what_the_server_did() -> None:
    """Against the server's own diary: never earlier than it was sent, and p50 and p90 of all three are hardly off."""
    for _ in range(TRIES):
        server = TimedServer(spread(3))
        async with server.serving() as url:
            records, health, zero = await generate(target(url), schedule(Poisson(40.0), Bounds(requests=200), seed=2))
        assert (health.sent, [r.error for r in records if r.error]) == (200, [])
        measured = sorted(records, key=lambda record: record.first_s or 0)
        for record, (_, sent) in zip(measured, sorted(server.diary, key=lambda entry: entry[1][0]), strict=True):
            assert record.first_s is not None
            assert len(record.chunks) == len(sent) == 8
            assert zero + record.first_s - sent[0] > -0.001
        if not (off := beyond_what_is_allowed(records, server.diary)):
            return
    raise AssertionError(f"in each of {TRIES} runs, in the last one (measured, true): {off}")


def beyond_what_is_allowed(
    records: list[Record], diary: list[tuple[float, list[float]]]
) -> dict[str, tuple[float, float]]:
    """(measured, true) of each percentile that is too far off, in seconds."""
    pairs = {
        "ttft": ([r.ttft_s or 0.0 for r in records], [sent[0] - arrived for arrived, sent in diary]),
        "itl": (
            [gap for r in records for gap, _ in r.gaps()],
            [after - before for _, sent in diary for before, after in itertools.pairwise(sent)],
        ),
        "e2e": ([r.service_s for r in records], [sent[-1] - arrived for arrived, sent in diary]),
    }
    found = {}
    for name, values in pairs.items():
        for percent, (seconds, share) in ALLOWED[name].items():
            ours, true = (statistics.quantiles(each, n=100, method="inclusive")[percent - 1] for each in values)
            if abs(ours - true) > seconds + share * true:
                found[f"{name} p{percent}"] = (ours, true)
    return found


async def test_connections_are_kept_from_one_request_to_the_next() -> None:
    server = TimedServer(spread(3, scale=0.1))
    async with server.serving() as url:
        await generate(target(url), schedule(Concurrency(2), Bounds(requests=12), seed=1))
    assert (len(server.diary), server.connections) == (12, 2)


async def test_a_key_and_a_certificate_for_another_name_than_the_address_are_used(tmp_path: Path) -> None:
    authority = make_authority("test", datetime.now(UTC))
    pair = issue(authority, "mac.espalier", datetime.now(UTC), hosts=["mac.espalier"], is_server=True)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    server = TimedServer(spread(3, scale=0.1), api_key="sesame", certificate=(str(certificate), str(key)))
    plan = schedule(Concurrency(2), Bounds(requests=4), seed=1)
    trusted = {"server_name": "mac.espalier", "ca_pem": authority.certificate.decode()}
    async with server.serving() as url:
        known, _, _ = await generate(target(url, api_key="sesame", **trusted), plan)
        unknown, _, _ = await generate(target(url, api_key="wrong", **trusted), plan)
        other, _, _ = await generate(target(url, api_key="sesame", ca_pem=trusted["ca_pem"]), plan)
    assert [record.error for record in known] == [""] * 4
    assert {(record.error, record.detail) for record in unknown} == {("http-401", "wrong key")}
    assert {record.error for record in other} == {"connect"}
