"""An interleaved run of two targets: in each block the same items at the same moments, first one, then the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from espalier_benchmark.client import Client
from espalier_benchmark.compare import turns
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import Item, Items
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Arrival, Bounds, Pattern, Schedule, schedule
from espalier_benchmark.validity import Health
from espalier_kit.errors import Misconfigured

WARM_UP_BLOCK = -1
"""The block of records that no comparison reads: caches, connections and just-in-time compilation fill in it."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """`count` blocks, each one run of `pattern` within `bounds` per target; block B is drawn with `seed` + B."""

    pattern: Pattern
    bounds: Bounds
    count: int
    seed: int = 0
    is_warmed_up: bool = True


@dataclass(frozen=True, slots=True)
class Lane:
    """A target's client and the watch that its client reads."""

    client: Client
    watch: Stopwatch


async def run_paired(
    lanes: tuple[Lane, Lane],
    blocks: Blocks,
    *,
    items: Items,
    write: Callable[[Record], None],
    options: Options,
) -> tuple[Health, ...]:
    """Run all turns, baseline (first) and candidate; one health per turn. A record's times count from its turn's start.

    Raises `Misconfigured` for a closed loop that ends by time: the faster target would be asked more.
    """
    healths = []
    if blocks.is_warmed_up:
        for lane in lanes:
            healths.append(await _turn(lane, _plan(blocks, 0), WARM_UP_BLOCK, items, write, options))
    offsets = _offsets(blocks)
    for block, target in turns(blocks.count):
        own = _shifted(items, offsets[block])
        healths.append(await _turn(lanes[target], _plan(blocks, block), block, own, write, options))
    return tuple(healths)


async def _turn(
    lane: Lane, plan: Schedule, block: int, items: Items, write: Callable[[Record], None], options: Options
) -> Health:
    generator = Generator(
        lane.client, lane.watch, items=items, write=write, options=replace(options, block=block, start_at=None)
    )
    return await generator.run(plan)


def _plan(blocks: Blocks, block: int) -> Schedule:
    plan = schedule(blocks.pattern, blocks.bounds, seed=blocks.seed + block)
    if plan.users is not None and (plan.bounds.requests is None or plan.bounds.duration_s is not None):
        raise Misconfigured("a compared closed loop ends after a number of requests, not a time", reason="NotPairable")
    return plan


def _offsets(blocks: Blocks) -> list[int]:
    """How many items the blocks before each have used, so that no item is asked twice."""
    found, used = [], 0
    for block in range(blocks.count):
        found.append(used)
        plan = _plan(blocks, block)
        used += len(plan.arrivals) or plan.bounds.requests or 0
    return found


def _shifted(items: Items, offset: int) -> Items:
    def item(arrival: Arrival) -> Item:
        return items(replace(arrival, index=arrival.index + offset))

    return item
