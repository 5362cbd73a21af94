"""What the load asks and when, read from the artifact store."""

from __future__ import annotations

import asyncio

from espalier_api.benchmarktasks import BenchmarkSettings
from espalier_benchmark import plan
from espalier_benchmark.executors.common import source
from espalier_benchmark.items import Items, from_lines, in_turn, synthetic
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.schedule import Pattern, Schedule, schedule
from espalier_kit.artifacts import ArtifactStore
from espalier_kit.errors import Misconfigured

_SYNTHETIC_TOKENS = 128


async def pattern_of(settings: BenchmarkSettings, store: ArtifactStore) -> Pattern:
    """Raises `Misconfigured` (BadLoad, BadTrace) or `EvaluatorFault` (SourceNotFound)."""
    assert settings.load is not None
    if settings.load.pattern != "trace":
        return plan.pattern(settings.load)
    if not settings.trace:
        raise Misconfigured("load.pattern trace needs load.trace", reason="BadLoad")
    text = (await source(store, settings.trace, "load.trace")).decode("utf-8-sig", errors="replace")
    return plan.pattern(settings.load, await asyncio.to_thread(plan.arrivals, settings.load, text))


async def schedule_of(settings: BenchmarkSettings, pattern: Pattern) -> Schedule:
    """All generators' schedule."""
    assert settings.load is not None
    return await asyncio.to_thread(schedule, pattern, plan.bounds(settings.load), seed=settings.load.seed)


async def items_of(settings: BenchmarkSettings, store: ArtifactStore) -> Items:
    """Raises `Misconfigured` (BadDataset, UnknownPack) or `EvaluatorFault` (SourceNotFound)."""
    dataset, load = settings.dataset, settings.load
    if dataset.file:
        content = await source(store, dataset.file, "dataset.file")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Misconfigured(f"the dataset is no UTF-8 text: {error}", reason="BadDataset") from error
        return from_lines(text, max_tokens=max(target.max_tokens for target in settings.targets))
    if dataset.pack:
        pack = await asyncio.to_thread(open_pack, dataset.pack)
        return in_turn([question.item for question in pack.questions()])
    wanted = dataset.synthetic
    return synthetic(
        seed=load.seed if load else 0,
        prompt_tokens=wanted.prompt_tokens if wanted else _SYNTHETIC_TOKENS,
        output_tokens=wanted.output_tokens if wanted else _SYNTHETIC_TOKENS,
    )
