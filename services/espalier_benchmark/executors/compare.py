"""`benchmark.compare`: two runs whose records are stored; a verdict with its intervals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from espalier_api.benchmarkfigures import ReportFile
from espalier_api.benchmarktasks import BenchmarkSettings, CompareSide, CompareTask, CompareValue
from espalier_benchmark import verdict
from espalier_benchmark.compare import Rules
from espalier_benchmark.executors.common import faults, payload
from espalier_kit.artifacts import SCHEME, ArtifactStore
from espalier_kit.digest import canonical_json
from espalier_kit.errors import NotFound, Permanent
from espalier_kit.execution import Context, EvaluatorFault, Result, Task


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
    index: dict[str, Any] = json.loads(await _get(store, side.index, side))
    settings = BenchmarkSettings.model_validate(index["settings"])
    raw = {key: await _get(store, digest, side) for key, digest in sorted(index["raw"].items())}
    return await asyncio.to_thread(verdict.side, settings, raw, job=side.job, target=side.target)


async def _get(store: ArtifactStore, digest: str, side: CompareSide) -> bytes:
    try:
        return await store.get(digest)
    except NotFound as error:
        raise EvaluatorFault(
            f"the records of BenchmarkJob {side.job} are gone (no artifact {digest[:12]}…): run it again",
            reason="SourceNotFound",
        ) from error
