"""`benchmark.admit`: everything that only targets and data can show, then the job's tasks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from espalier_api.benchmarktasks import TALLY_ADMITTED, AskSettings, BenchmarkSettings, runs_answers
from espalier_benchmark import dag, plan
from espalier_benchmark.asking import Asker, Away, Said
from espalier_benchmark.evaluators.texts import read_texts
from espalier_benchmark.executors.common import CLOCK, faults, of_role, payload, source, style
from espalier_benchmark.executors.loading import items_of, pattern_of, schedule_of
from espalier_benchmark.items import Item
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.packs.model import Confined, Pack, first
from espalier_benchmark.packs.sandboxed import sandbox_of
from espalier_benchmark.schedule import Arrival
from espalier_kit.execution import Context, EvaluatorFault, ModelEndpoint, PlatformFault, Result, Task

READY_S = 120.0
"""How long every server of a target may take to become ready, if the attempt's deadline allows it."""
_MARGIN_S = 30.0
_POLL_S = 0.5
_HELLO = Item((("user", "Say hello."),), 16)
_SENTENCE = "The quick brown fox jumps over the lazy dog."


async def admit(task: Task, context: Context) -> Result:
    """Check the settings, the data and the targets, cheapest first; lay out the tasks. Raises `EvaluatorFault`."""
    settings = payload(BenchmarkSettings, task.payload)
    with faults():
        await _check_load(settings, context)
        sets = await _question_sets(settings, context)
        await context.progress(0.3, "the settings and the data are sound")
        end = CLOCK.monotonic() + _patience(task)
        greeted = [
            await _greet(target, context, end=end, is_scored=_is_scored(settings)) for target in settings.targets
        ]
        judge = settings.accuracy.judge if settings.accuracy else None
        if judge is not None:
            await _greet(judge, context, end=end, is_scored=False)
    await context.progress(0.9, "every target answered")
    known = settings.model_copy(
        update={"targets": tuple(_known(t, said) for t, said in zip(settings.targets, greeted, strict=True))}
    )
    return Result(
        value={"targets": [said.model for said in greeted], "questions": sum(each.count for each in sets)},
        tallies={TALLY_ADMITTED: 1.0},
        children=dag.children(known, sets, admit_key=task.key, now=CLOCK.now().timestamp()),
    )


async def _check_load(settings: BenchmarkSettings, context: Context) -> None:
    plan.objective(settings.slo)
    if settings.load is None:
        return
    pattern = await pattern_of(settings, context.artifacts)
    await schedule_of(settings, pattern)
    items = await items_of(settings, context.artifacts)
    items(Arrival(0, 0.0))


async def _question_sets(settings: BenchmarkSettings, context: Context) -> list[dag.QuestionSet]:
    """What is asked of each target, with the packs' sizes and templates filled in."""
    if settings.accuracy is None:
        return []
    found = []
    for wanted in settings.accuracy.packs:
        file = await source(context.artifacts, wanted.file, f"accuracy.packs.{wanted.name}") if wanted.file else None
        pack = await asyncio.to_thread(
            open_pack, wanted.name, file=file, items=wanted.items, seed=wanted.seed,
            sandbox=sandbox_of(settings.sandbox),
        )  # fmt: skip
        count = len(first(pack.questions(), count=wanted.items))
        await _check_sandbox(pack, settings)
        known = wanted.model_copy(update={"items": count, "template": pack.manifest.template_sha256})
        found += [dag.QuestionSet(number, count, pack=known) for number in range(len(settings.targets))]
    if settings.accuracy.texts:
        content = await source(context.artifacts, settings.accuracy.texts, "accuracy.texts")
        for evaluator in settings.accuracy.evaluators:
            count = len(read_texts(content, evaluator, targets=len(settings.targets)))
            found += [
                dag.QuestionSet(number, count, evaluator=evaluator)
                for number in dag.targets_of(evaluator, len(settings.targets))
            ]
    return found


async def _check_sandbox(pack: Pack, settings: BenchmarkSettings) -> None:
    """A pack whose answers run must find its own solution right here. Raises `EvaluatorFault` on Macs, where nothing
    confines an answer, and `PlatformFault` where the sandbox does not work.
    """
    name = pack.manifest.name
    if not runs_answers(name):
        return
    if settings.placement == "mlx":
        raise EvaluatorFault(
            f"pack {name} runs what the model wrote, and that never runs on Macs: set generators.placement to linux",
            reason="UnknownPack",
        )
    known = pack.questions()[0].id
    solution = cast(Confined, pack).solution(known)
    (grade,) = await pack.grade([(known, solution or "<answer></answer>")])
    if solution is not None and not grade.is_right:
        raise PlatformFault(f"pack {name} finds its own solution wrong here: {grade.why}", reason="SandboxFailed")


def _is_scored(settings: BenchmarkSettings) -> bool:
    return settings.accuracy is not None and "perplexity" in settings.accuracy.evaluators


@dataclass(frozen=True, slots=True)
class _Greeted:
    said: Said
    model: str


async def _greet(ask: AskSettings, context: Context, *, end: float, is_scored: bool) -> _Greeted:
    """Wait until every server of the target is ready, then ask each one. Raises TargetUnreachable."""
    endpoints = await _ready(ask, context, end=end)
    for endpoint in endpoints:
        async with Asker([endpoint], style(ask), clock=CLOCK) as asker:
            try:
                said = await asker.chat(_HELLO)
                if is_scored:
                    await asker.logprobs(_SENTENCE)
            except Away as error:
                raise EvaluatorFault(f"{ask.name}: {error}", reason="TargetUnreachable") from error
    return _Greeted(said, said.model or endpoint.model)


async def _ready(ask: AskSettings, context: Context, *, end: float) -> list[ModelEndpoint]:
    while True:
        found = of_role(context, ask)
        ready = [endpoint for endpoint in found if endpoint.ready]
        if found and len(ready) == len(found):
            return ready
        if CLOCK.monotonic() > end:
            raise EvaluatorFault(
                f"{ask.name}: {len(ready)} of {len(found)} servers are ready: a load starts when all are",
                reason="TargetUnreachable",
            )
        await CLOCK.sleep(_POLL_S)


def _known(ask: AskSettings, greeted: _Greeted) -> AskSettings:
    return ask.model_copy(update={"revision": greeted.said.fingerprint})


def _patience(task: Task) -> float:
    left = (task.deadline - datetime.now(UTC)).total_seconds() - _MARGIN_S
    return max(1.0, min(READY_S, left))
