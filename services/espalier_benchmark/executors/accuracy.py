"""`benchmark.accuracy`: one chunk of questions to one target, graded; `benchmark.loaded` only marks a point."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from espalier_api.benchmarktasks import TALLY_ITEMS, AccuracyTask, AccuracyValue, AskSettings, PackSettings
from espalier_benchmark.asking import Asker, Said
from espalier_benchmark.budget import Budget, share_of
from espalier_benchmark.evaluators import judge, lexical
from espalier_benchmark.evaluators.texts import TextRow, read_texts
from espalier_benchmark.executors.common import asker, faults, payload, source
from espalier_benchmark.items import Item
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.packs.model import Pack, first
from espalier_benchmark.packs.sandboxed import sandbox_of
from espalier_benchmark.questions import Identity, ItemRecord, Journal, to_lines
from espalier_kit.execution import Context, Outcome, Result, Task

T = TypeVar("T")
R = TypeVar("R")
NOT_ASKED = "not asked: "
"""How a record begins to say that a limit was reached."""


async def loaded(task: Task, context: Context) -> Result:
    """The load is over, however it went."""
    return Result()


async def accuracy(task: Task, context: Context, *, cache: Journal | None = None) -> Result:
    """Ask, grade, store. What a killed attempt asked on this machine is not asked again, nor is what `cache` knows."""
    wanted = payload(AccuracyTask, task.payload)
    journal = Journal(Path(tempfile.gettempdir()) / "espalier-benchmark" / f"{task.id}.jsonl")
    budget = share_of(wanted.settings.limits, wanted.share, **_spent(task))
    with faults():
        async with AsyncExitStack() as stack:
            desk = await _desk(stack, wanted, context, journal=journal, cache=cache, budget=budget)
            records = await (_of_pack(desk, wanted.pack) if wanted.pack else _of_texts(desk, stack))
    stored = await context.artifacts.put(to_lines(records))
    journal.close()
    asked = [record for record in records if not record.why.startswith(NOT_ASKED)]
    value = AccuracyValue(
        records=stored,
        items=len(asked),
        right=sum(record.score or 0.0 for record in asked),
        abstained=sum(record.score is None for record in asked),
        cached=sum(record.is_cached for record in asked),
        cost=budget.cost,
    )
    return Result(value=value.wire(), tallies={TALLY_ITEMS: float(len(asked))})


@dataclass(slots=True)
class Desk:
    """What asking needs: the target, whom it is, what was answered before, what may still be spent."""

    wanted: AccuracyTask
    context: Context
    ask: AskSettings
    model: Asker
    identity: Identity
    journal: Journal
    cache: Journal | None
    budget: Budget
    done: int = 0

    async def answer(self, item: Item) -> tuple[Said, bool] | None:
        """(answer, whether another run had paid for it); None where a limit forbids to ask."""
        key = self.identity.key(item)
        if self.cache is not None and (known := self.cache.get(key)) is not None:
            return known, True
        if (said := self.journal.get(key)) is None:
            if self.budget.stopped:
                return None
            said = await self.model.chat(item)
            self.journal.put(key, said)
            if self.cache is not None:
                self.cache.put(key, said)
        self.budget.spend(self.ask.price, prompt_tokens=said.prompt_tokens, output_tokens=said.output_tokens)
        return said, False

    async def each(self, values: Sequence[T], act: Callable[[T], Awaitable[R]]) -> list[R]:
        """`act` on each, as many at once as the job wants; progress as they end."""
        accuracy = self.wanted.settings.accuracy
        free = asyncio.Semaphore(accuracy.concurrency if accuracy else 1)

        async def one(value: T) -> R:
            async with free:
                result = await act(value)
            self.done += 1
            await self.context.progress(self.done / (len(values) + 1), f"{self.done} of {len(values)} questions")
            return result

        return await _together([one(value) for value in values])


async def _desk(
    stack: AsyncExitStack,
    wanted: AccuracyTask,
    context: Context,
    *,
    journal: Journal,
    cache: Journal | None,
    budget: Budget,
    number: int = -1,
) -> Desk:
    ask = wanted.settings.targets[wanted.target if number < 0 else number]
    model = await stack.enter_async_context(asker(context, ask))
    template = wanted.pack.template if wanted.pack else str(wanted.evaluator)
    return Desk(wanted, context, ask, model, _identity(ask, template), journal, cache, budget)


def _identity(ask: AskSettings, template: str) -> Identity:
    return Identity(
        model=ask.model or ask.role, revision=ask.revision, temperature=ask.temperature, seed=ask.seed,
        max_tokens=ask.max_tokens, template=template,
    )  # fmt: skip


async def _of_pack(desk: Desk, wanted: PackSettings) -> list[ItemRecord]:
    pack = await _open(wanted, desk)
    task = desk.wanted
    questions = first(pack.questions(), count=wanted.items)[task.first : task.first + task.count]
    answers = await desk.each([question.item for question in questions], desk.answer)
    given = [(question.id, answer) for question, answer in zip(questions, answers, strict=True)]
    grades = await pack.grade([(name, answer[0].text) for name, answer in given if answer])
    scored = {grade.id: grade for grade in grades}
    return [
        _record(name, answer, score=scored[name].score, why=scored[name].why) if answer else _unasked(name, desk)
        for name, answer in given
    ]


async def _open(wanted: PackSettings, desk: Desk) -> Pack:
    store = desk.context.artifacts
    file = await source(store, wanted.file, f"accuracy.packs.{wanted.name}") if wanted.file else None
    return await asyncio.to_thread(
        open_pack, wanted.name, file=file, items=wanted.items, seed=wanted.seed,
        sandbox=sandbox_of(desk.wanted.settings.sandbox),
    )  # fmt: skip


async def _of_texts(desk: Desk, stack: AsyncExitStack) -> list[ItemRecord]:
    settings, task = desk.wanted.settings, desk.wanted
    assert task.evaluator is not None
    assert settings.accuracy is not None
    assert settings.accuracy.texts is not None
    content = await source(desk.context.artifacts, settings.accuracy.texts, "accuracy.texts")
    rows = read_texts(content, task.evaluator, targets=len(settings.targets))
    chunk = rows[task.first : task.first + task.count]
    if task.evaluator == "perplexity":
        return await desk.each(chunk, lambda row: _perplexity(desk, row))
    if task.evaluator == "judge":
        return await _judged(desk, chunk, stack)
    rarity = lexical.rarities([row.prompt + " " + row.reference for row in rows])

    async def one(row: TextRow) -> ItemRecord:
        answer = await desk.answer(_as_item(row, desk.ask))
        if answer is None:
            return _unasked(row.id, desk)
        found = measure(str(task.evaluator), row, answer[0].text, rarity=rarity)
        return _record(row.id, answer, score=found, why="" if found is not None else "too few words to measure")

    return await desk.each(chunk, one)


def measure(evaluator: str, row: TextRow, answer: str, *, rarity: Mapping[str, float]) -> float | None:
    """A lexical evaluator's score. Pure."""
    if evaluator == "coherence":
        return lexical.coherence(answer)
    if evaluator == "faithfulness":
        return lexical.faithfulness(answer, row.context)
    return lexical.relevance(answer, row.reference or row.prompt, rarity=rarity)


async def _perplexity(desk: Desk, row: TextRow) -> ItemRecord:
    found = await desk.model.logprobs(row.text)
    desk.budget.spend(desk.ask.price, prompt_tokens=len(found), output_tokens=0)
    return ItemRecord(id=row.id, score=-sum(found) / len(found), weight=float(len(found)), prompt_tokens=len(found))


async def _judged(desk: Desk, rows: Sequence[TextRow], stack: AsyncExitStack) -> list[ItemRecord]:
    """Both targets' answers to each prompt, or the target's and the reference, before the judge in both orders."""
    settings = desk.wanted.settings
    assert settings.accuracy is not None
    assert settings.accuracy.judge is not None
    is_pair = len(settings.targets) == 2
    baseline = (
        await _desk(
            stack, desk.wanted, desk.context, journal=desk.journal, cache=desk.cache, budget=desk.budget, number=0
        )
        if is_pair
        else None
    )
    model = await stack.enter_async_context(asker(desk.context, settings.accuracy.judge))
    bench = replace(
        desk, ask=settings.accuracy.judge, model=model, identity=_identity(settings.accuracy.judge, "judge")
    )

    async def one(row: TextRow) -> ItemRecord:
        item = _as_item(row, desk.ask)
        own = await desk.answer(item)
        other = await baseline.answer(item) if baseline else (Said(row.reference), True)
        if own is None or other is None:
            return _unasked(row.id, desk)
        asked = judge.questions(row.prompt, other[0].text, own[0].text, reference=row.reference if is_pair else "")
        said = [await bench.answer(each) for each in asked]
        if said[0] is None or said[1] is None:
            return _unasked(row.id, desk)
        pair = judge.unswapped(judge.verdict(said[0][0].text), judge.verdict(said[1][0].text))
        found = judge.score(*pair)
        record = _record(row.id, own, score=found, why="" if found is not None else "the judge gave no verdict")
        return replace(record, verdicts=pair)

    return await desk.each(rows, one)


def _as_item(row: TextRow, ask: AskSettings) -> Item:
    text = f"{row.context}\n\n{row.prompt}" if row.context else row.prompt
    return Item((("user", text),), ask.max_tokens)


def _record(name: str, answer: tuple[Said, bool], *, score: float | None, why: str) -> ItemRecord:
    said, is_cached = answer
    return ItemRecord(
        id=name, score=score, why=why, text=said.text, finish=said.finish, prompt_tokens=said.prompt_tokens,
        output_tokens=said.output_tokens, is_cached=is_cached,
    )  # fmt: skip


def _unasked(name: str, desk: Desk) -> ItemRecord:
    return ItemRecord(id=name, score=None, why=NOT_ASKED + desk.budget.stopped)


def _spent(task: Task) -> dict[str, float]:
    values = [outcome.value for outcome in task.inputs.values() if isinstance(outcome, Outcome) and outcome.value]
    return {
        "spent_cost": sum(float(value.get("cost", 0.0)) for value in values),
        "spent_tokens": sum(float(value.get("outputTokens", 0)) for value in values),
    }


async def _together(work: Sequence[Awaitable[R]]) -> list[R]:
    """Results in order; the first error ends the rest."""

    async def one(each: Awaitable[R]) -> R:
        return await each

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each)) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]
