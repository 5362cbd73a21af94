"""`benchmark.report`: all records of a job together, judged, drawn and stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from espalier_api.benchmarkfigures import ReportFile
from espalier_api.benchmarktasks import (
    AccuracyValue,
    AskSettings,
    BenchmarkReportTask,
    BenchmarkSettings,
    BenchmarkValue,
    GenerateValue,
    runs_answers,
)
from espalier_benchmark import figures, plan
from espalier_benchmark.budget import cost_of
from espalier_benchmark.compare import METRICS, Comparison, Rules, compare
from espalier_benchmark.dag import chunk_of
from espalier_benchmark.executors.accuracy import NOT_ASKED
from espalier_benchmark.executors.common import faults, payload, source
from espalier_benchmark.executors.generate import health_of
from espalier_benchmark.measure import Window, summarise
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.packs.model import Manifest
from espalier_benchmark.paired import WARM_UP_BLOCK
from espalier_benchmark.questions import ItemRecord, from_lines
from espalier_benchmark.records import Record, read
from espalier_benchmark.rendezvous import Sighting, offset_between
from espalier_benchmark.report import Report, Run, report_files
from espalier_benchmark.validity import Health, Reason, Validity, judge
from espalier_kit.artifacts import SCHEME, ArtifactStore
from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent
from espalier_kit.execution import Context, Outcome, Result, Task, TaskState


@dataclass(slots=True)
class _Found:
    """What the job's tasks left."""

    records: list[Record] = field(default_factory=list)
    healths: list[Health] = field(default_factory=list)
    items: dict[tuple[int, str], list[ItemRecord]] = field(default_factory=lambda: defaultdict(list))
    files: dict[str, str] = field(default_factory=dict)
    """Raw records by the names that people see."""
    raw: dict[str, str] = field(default_factory=dict)
    """The same by task, for a comparison."""
    names: dict[str, str] = field(default_factory=dict)
    """From the one to the other."""
    problems: list[Reason] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)


async def report(task: Task, context: Context) -> Result:
    """Whatever is missing makes the run Invalid, with the reason; a report comes all the same."""
    settings = payload(BenchmarkReportTask, task.payload).settings
    with faults():
        found = await _collected(task.inputs, context.artifacts)
        manifests = await _manifests(settings, context.artifacts)
        made, value = await asyncio.to_thread(_made, settings, found, manifests)
        files = await asyncio.to_thread(report_files, made)
    digests = dict(found.files)
    for name, content in files.items():
        digests[name] = await context.artifacts.put(content)
    index = await context.artifacts.put(
        canonical_json({"job": settings.job, "files": digests, "raw": found.raw, "settings": settings.wire()})
    )
    listed = tuple(ReportFile(name=name, uri=f"{SCHEME}{digest}") for name, digest in sorted(digests.items()))
    return Result(value=value.model_copy(update={"index": index, "files": listed}).wire())


async def _collected(inputs: Mapping[str, Outcome], store: ArtifactStore) -> _Found:
    found = _Found()
    offsets: dict[int, list[Sighting]] = {}
    for key, outcome in sorted(inputs.items()):
        kind = key.partition("/")[0]
        if kind not in ("generate", "accuracy"):
            continue
        if outcome.state is not TaskState.DONE or outcome.value is None:
            said = outcome.message or outcome.reason or outcome.state.value
            reason = "GeneratorFailed" if kind == "generate" else "QuestionsMissing"
            found.problems.append(Reason(reason, f"{key}: {said}"))
        elif kind == "generate":
            await _add_load(found, GenerateValue.model_validate(outcome.value), offsets, store)
        else:
            await _add_items(found, key, AccuracyValue.model_validate(outcome.value), store)
    found.healths = [_with_offset(health, offsets) for health in found.healths]
    return found


async def _add_load(
    found: _Found, value: GenerateValue, sightings: dict[int, list[Sighting]], store: ArtifactStore
) -> None:
    lines = (await store.get(value.records)).decode().splitlines(keepends=True)
    found.records += await asyncio.to_thread(lambda: list(read(lines)))
    healths, seen = health_of(await store.get(value.health))
    found.healths += healths
    sightings[value.number] = [Sighting(**each) for each in seen]
    found.files[f"records-{value.number}.jsonl"] = value.records
    found.raw[f"records-{value.number}"] = value.records
    found.names[f"records-{value.number}"] = f"records-{value.number}.jsonl"
    found.files[f"health-{value.number}.json"] = value.health
    if value.stopped:
        found.stopped.append(f"generator {value.number}: {value.stopped}")


async def _add_items(found: _Found, key: str, value: AccuracyValue, store: ArtifactStore) -> None:
    target, name, _ = chunk_of(key)
    records = from_lines(await store.get(value.records))
    unasked = [record for record in records if record.why.startswith(NOT_ASKED)]
    found.items[target, name] += [record for record in records if record not in unasked]
    found.files[name_of(key)] = value.records
    found.raw[key] = value.records
    found.names[key] = name_of(key)
    if unasked:
        found.stopped.append(f"{name}: {len(unasked)} questions {unasked[0].why}")


def name_of(key: str) -> str:
    """The file of a chunk of questions."""
    return f"{key.replace('/', '-').replace(':', '-')}.jsonl"


def _with_offset(health: Health, sightings: Mapping[int, Sequence[Sighting]]) -> Health:
    if not health.generator or 0 not in sightings or health.generator not in sightings:
        return health
    offset = offset_between(sightings[0], sightings[health.generator])
    return replace(health, clock_offset_s=offset.value_s, clock_uncertainty_s=offset.uncertainty_s)


async def _manifests(settings: BenchmarkSettings, store: ArtifactStore) -> tuple[Manifest, ...]:
    found = []
    for wanted in settings.accuracy.packs if settings.accuracy else ():
        file = await source(store, wanted.file, f"accuracy.packs.{wanted.name}") if wanted.file else None
        pack = await asyncio.to_thread(open_pack, wanted.name, file=file, items=wanted.items, seed=wanted.seed)
        found.append(pack.manifest)
    return tuple(found)


def _made(settings: BenchmarkSettings, found: _Found, manifests: tuple[Manifest, ...]) -> tuple[Report, BenchmarkValue]:
    runs = tuple(_run(settings, target, found.records) for target in settings.targets) if settings.load else ()
    accuracy = tuple(
        figure
        for (target, name), records in sorted(found.items.items())
        for figure in figures.accuracy_figures(
            settings.targets[target].name, name, records, price=settings.targets[target].price,
            sandbox=settings.sandbox if runs_answers(name) else None,
        )
    )
    validity = _validity(settings, found)
    comparison = _comparison(settings, found.records)
    costs = [_cost(run, target) for run, target in zip(runs, settings.targets, strict=False)]
    costs += [figure.cost for figure in accuracy]
    known = [cost for cost in costs if cost is not None]
    made = Report(
        name=settings.job, runs=runs, validity=validity, accuracy=accuracy, comparison=comparison, manifests=manifests,
        cost=sum(known) if known else None, stopped="; ".join(found.stopped), job=settings.wire(), raw=found.names,
    )  # fmt: skip
    value = BenchmarkValue(
        index="",
        targets=tuple(
            figures.target_figures(
                run.target, run.records, run.summary, slo=run.slo, price=target.price,
                is_sweep=settings.load is not None and settings.load.pattern == "sweep",
            )
            for run, target in zip(runs, settings.targets, strict=False)
        ),
        accuracy=accuracy,
        validity=figures.validity_figure(validity),
        min_detectable_effect=_detectable(comparison),
        cost=made.cost,
        stopped=made.stopped,
    )  # fmt: skip
    return made, value


def _run(settings: BenchmarkSettings, target: AskSettings, records: Sequence[Record]) -> Run:
    assert settings.load is not None
    slo = plan.objective(settings.slo)
    window = plan.window(settings.load) if len(settings.targets) == 1 else Window()
    own = window.cut([r for r in records if r.target == target.name and r.block != WARM_UP_BLOCK])
    return Run(target.name, describe(settings), own, summarise(own, slo=slo), slo)


def describe(settings: BenchmarkSettings) -> str:
    """The load in words."""
    load = settings.load
    if load is None:
        return "no load"
    said = {name: value for name, value in load.wire().items() if name not in ("pattern", "trace") and value}
    return f"{load.pattern}, " + ", ".join(f"{name} {value}" for name, value in said.items())


def _validity(settings: BenchmarkSettings, found: _Found) -> Validity:
    if settings.load is None:
        return Validity(tuple(found.problems))
    return Validity((*found.problems, *judge(found.records, found.healths).reasons))


def _comparison(settings: BenchmarkSettings, records: Sequence[Record]) -> Comparison | None:
    """Of an interleaved run; none where its pairs are broken, which the validity tells."""
    if len(settings.targets) != 2 or settings.load is None:
        return None
    names = [target.name for target in settings.targets]
    try:
        return compare(records, baseline=names[0], candidate=names[1], metrics=list(METRICS), rules=Rules())
    except Permanent:
        return None


def _detectable(comparison: Comparison | None) -> float | None:
    if comparison is None:
        return None
    return next((each.min_detectable for each in comparison.differences if each.metric == "e2e"), None)


def _cost(run: Run, target: AskSettings) -> float | None:
    if target.price is None:
        return None
    return cost_of(target.price, prompt_tokens=run.summary.prompt_tokens, output_tokens=run.summary.output_tokens)
