"""An interleaved run of two targets: in each block the same items at the same moments, first one, then the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from espalier_benchmark.client import Sender
from espalier_benchmark.compare import turns
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import Item, Items
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Arrival, Bounds, Pattern, Schedule, part, schedule
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
class Share:
    """Which generator of how many this one is, and what it waits for before each turn: its common start."""

    number: int = 0
    of: int = 1
    start: Callable[[int], Awaitable[datetime | None]] | None = None
    """(turn) → wall time of its second 0, None for now."""
    begun: Callable[[Generator], None] = lambda generator: None
    """Told of each turn's generator, so that somebody can end it early."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A target's client and the watch that its client reads."""

    client: Sender
    watch: Stopwatch


async def run_paired(
    lanes: tuple[Lane, Lane],
    blocks: Blocks,
    *,
    items: Items,
    write: Callable[[Record], None],
    options: Options,
    share: Share = Share(),
) -> tuple[Health, ...]:
    """Run all turns, baseline (first) and candidate; one health per turn. A record's times count from its turn's start.

    Raises `Misconfigured` for a closed loop that ends by time: the faster target would be asked more.
    """
    offsets = _offsets(blocks)
    runs = [(WARM_UP_BLOCK, 0), (WARM_UP_BLOCK, 1)] if blocks.is_warmed_up else []
    healths = []
    for turn, (block, target) in enumerate([*runs, *turns(blocks.count)]):
        plan = part(_plan(blocks, max(block, 0)), number=share.number, of=share.of)
        own = items if block == WARM_UP_BLOCK else _shifted(items, offsets[block])
        at = await share.start(turn) if share.start else None
        generator = Generator(
            lanes[target].client,
            lanes[target].watch,
            items=own,
            write=write,
            options=replace(options, block=block, start_at=at),
        )
        share.begun(generator)
        healths.append(await generator.run(plan))
    return tuple(healths)


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
