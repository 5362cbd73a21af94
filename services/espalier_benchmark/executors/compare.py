"""`benchmark.compare`: two runs whose records are stored; a verdict with its intervals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from espalier_api.benchmarkfigures import ReportFile
from espalier_api.benchmarktasks import BenchmarkSettings, CompareSide, CompareTask, CompareValue
from espalier_benchmark import plan, verdict
from espalier_benchmark.compare import Rules
from espalier_benchmark.executors.common import faults, payload
from espalier_benchmark.executors.dag import chunk_of
from espalier_benchmark.measure import Window
from espalier_benchmark.paired import WARM_UP_BLOCK
from espalier_benchmark.questions import ItemRecord, from_lines
from espalier_benchmark.records import Record, read
from espalier_kit.artifacts import SCHEME, ArtifactStore
from espalier_kit.digest import canonical_json
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import Context, EvaluatorFault, Result, Task


@dataclass(frozen=True, slots=True)
class _Index:
    """What a job's report left: raw files by name, and the settings that they came from."""

    files: Mapping[str, str]
    settings: BenchmarkSettings


async def compare(task: Task, context: Context) -> Result:
    """Raises `EvaluatorFault`: UnknownMetric, BadComparison, NotPaired, NothingPaired, SourceNotFound."""
    wanted = payload(CompareTask, task.payload)
    with faults():
        rules = Rules(margin=wanted.margin, alpha=wanted.alpha, power=wanted.power, seed=wanted.seed)
        sides = [await _side(side, context.artifacts) for side in (wanted.baseline, wanted.candidate)]
        try:
            found = await asyncio.to_thread(
                verdict.decide, sides[0], sides[1], metrics=wanted.metrics, rules=rules,
                is_one_run=wanted.baseline.index == wanted.candidate.index,
            )  # fmt: skip
        except Permanent as error:
            raise EvaluatorFault(str(error), reason=error.reason) from error
    stored = await context.artifacts.put(verdict.as_page(found, wanted.baseline.job, wanted.candidate.job))
    plain = await context.artifacts.put(verdict.as_json(found))
    files = {"comparison.html": stored, "comparison.json": plain}
    index = await context.artifacts.put(canonical_json({"job": task.job_name, "files": files}))
    value = CompareValue(
        verdict=found.verdict,
        metric=found.metric,
        delta=found.delta,
        interleaved=found.is_interleaved,
        differences=found.differences,
        index=index,
        files=tuple(ReportFile(name=name, uri=f"{SCHEME}{digest}") for name, digest in sorted(files.items())),
        message=found.message,
    )
    return Result(value=value.wire())


async def _side(side: CompareSide, store: ArtifactStore) -> verdict.Side:
    index = await _index(side, store)
    names = [target.name for target in index.settings.targets]
    if side.target not in names:
        raise EvaluatorFault(
            f"BenchmarkJob {side.job} has no target {side.target!r}; it has {', '.join(names)}", reason="SourceNotFound"
        )
    number = names.index(side.target)
    records: list[Record] = []
    items: dict[str, list[ItemRecord]] = {}
    for name, digest in sorted(index.files.items()):
        if name.startswith("records-"):
            lines = (await _get(store, digest, side)).decode().splitlines(keepends=True)
            records += [record for record in read(lines) if record.target == side.target]
        elif name.startswith(f"accuracy/{number}/"):
            _, pack, _ = chunk_of(name)
            items.setdefault(pack, []).extend(from_lines(await _get(store, digest, side)))
    load = index.settings.load
    window = plan.window(load) if load and len(names) == 1 else Window()
    kept = [record for record in window.cut(records) if record.block != WARM_UP_BLOCK]
    return verdict.Side(job=side.job, target=side.target, records=tuple(kept), items=items, is_paired=len(names) == 2)


async def _index(side: CompareSide, store: ArtifactStore) -> _Index:
    found: dict[str, Any] = json.loads(await _get(store, side.index, side))
    return _Index(found["raw"], BenchmarkSettings.model_validate(found["settings"]))


async def _get(store: ArtifactStore, digest: str, side: CompareSide) -> bytes:
    try:
        return await store.get(digest)
    except NotFound as error:
        raise EvaluatorFault(
            f"the records of BenchmarkJob {side.job} are gone (no artifact {digest[:12]}…): run it again",
            reason="SourceNotFound",
        ) from error
