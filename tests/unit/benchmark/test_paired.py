"""The interleaved run, in virtual time: two servers asked the same, and the slower one found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from espalier_benchmark.client import Client
from espalier_benchmark.compare import Rules, compare
from espalier_benchmark.generate import Options, Stopwatch
from espalier_benchmark.items import synthetic
from espalier_benchmark.paired import Blocks, Lane, run_paired
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Bounds, Concurrency, Pattern, Poisson
from espalier_benchmark.validity import judge
from espalier_kit.clock import ManualClock
from espalier_kit.errors import Misconfigured
from espalier_kit.execution import ModelEndpoint
from tests.support.timed_server import Timing, VirtualServer, spread, virtually


async def paired(
    candidate: Callable[[int], Timing], *, pattern: Pattern, blocks: int = 12
) -> tuple[list[Record], list[VirtualServer], str]:
    clock, records = ManualClock(), list[Record]()
    servers = [VirtualServer(clock, spread(1)), VirtualServer(clock, candidate)]

    async def work() -> str:
        lanes = []
        for name, server in zip("ab", servers, strict=True):
            watch = Stopwatch(clock, cpu=lambda: 0.0)
            endpoint = ModelEndpoint(role="target", url="http://model.invalid", model="timed", name=name)
            lanes.append(Lane(Client(endpoint, watch.now, transport=server), watch))
        healths = await run_paired(
            (lanes[0], lanes[1]),
            Blocks(pattern, Bounds(requests=10), count=blocks),
            items=synthetic(seed=1, prompt_tokens=4, output_tokens=8),
            write=records.append,
            options=Options(),
        )
        return judge(records, healths).verdict

    return records, servers, await virtually(clock, work())


@pytest.mark.parametrize("pattern", [Poisson(20.0), Concurrency(2)], ids=["open", "closed"])
async def test_a_server_5_percent_slower_is_found_in_an_interleaved_run(pattern: Pattern) -> None:
    records, servers, verdict = await paired(spread(1, scale=1.05), pattern=pattern)
    found = compare(records, baseline="a", candidate="b", metrics=["ttft", "e2e", "itl"], rules=Rules(margin=0.02))
    assert [each.verdict for each in found.differences] == ["Regressed"] * 3
    assert [each.delta for each in found.differences] == pytest.approx([0.05] * 3, abs=1e-6)
    assert {each.blocks for each in found.differences} == {12}
    assert verdict == "Valid"
    assert servers[0].prompts == servers[1].prompts
    assert len(set(servers[0].prompts[10:])) == 120, "no item twice, but for the warm-up"


async def test_two_equal_servers_pass_within_a_margin() -> None:
    records, _, _ = await paired(spread(1), pattern=Poisson(20.0), blocks=8)
    found = compare(records, baseline="a", candidate="b", metrics=["e2e"], rules=Rules(margin=0.01))
    assert (found.verdict, found.is_passing) == ("Passed", True)


async def test_a_closed_loop_that_ends_by_time_cannot_be_compared() -> None:
    lanes = (Lane, Lane)
    with pytest.raises(Misconfigured, match="after a number of requests"):
        await run_paired(
            lanes,  # type: ignore[arg-type]  # refused before any lane is touched
            Blocks(Concurrency(2), Bounds(duration_s=5.0), count=6, is_warmed_up=False),
            items=synthetic(seed=1, prompt_tokens=4, output_tokens=8),
            write=lambda record: None,
            options=Options(),
        )
