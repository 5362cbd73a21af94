"""`benchmark.generate`: one generator's share of the load, started together with the others."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from espalier_api.benchmarktasks import TALLY_REQUESTS, AskSettings, BenchmarkSettings, GenerateTask, GenerateValue
from espalier_benchmark import plan
from espalier_benchmark.asking import Asker, Refused
from espalier_benchmark.budget import Budget, share_of
from espalier_benchmark.dag import PATIENCE_S
from espalier_benchmark.executors.common import CLOCK, faults, payload, servers, style
from espalier_benchmark.executors.loading import items_of, pattern_of, schedule_of
from espalier_benchmark.fleet import Fleet
from espalier_benchmark.generate import Generator, Options, Stopwatch
from espalier_benchmark.items import Item, Items
from espalier_benchmark.paired import Lane, Share, run_paired
from espalier_benchmark.precise import precise_clock
from espalier_benchmark.records import Record, Writer
from espalier_benchmark.rendezvous import Rendezvous
from espalier_benchmark.schedule import Pattern, part
from espalier_benchmark.validity import Health
from espalier_kit.clock import Clock
from espalier_kit.digest import canonical_json
from espalier_kit.execution import Context, ModelEndpoint, Result, Task

_PROBE = Item((("user", "Say hello."),), 1, ignore_eos=True)
_PROGRESS_EVERY_S = 1.0


@dataclass(slots=True)
class _Run:
    """What one attempt keeps track of."""

    wanted: GenerateTask
    context: Context
    budget: Budget
    writer: Writer
    expected: int
    """Requests that this generator will send, warm-up and both targets included; 0 where only time ends the run."""
    requests: int = 0
    succeeded: int = 0
    output_tokens: float = 0.0
    stopped: str = ""
    _prices: Mapping[str, AskSettings] = field(default_factory=dict)
    _current: Generator | None = None

    async def tell(self) -> None:
        """How far it is, until cancelled."""
        while True:
            await CLOCK.sleep(_PROGRESS_EVERY_S)
            fraction = min(1.0, self.requests / self.expected) if self.expected else 0.0
            said = f"generator {self.wanted.number}: {self.requests} requests, {self.succeeded} answered"
            await self.context.progress(fraction, said)

    def begin(self, generator: Generator) -> None:
        """This generator sends now."""
        self._current = generator
        if self.stopped:
            generator.finish()

    def write(self, record: Record) -> None:
        """A request ended: keep it, count it, stop where a limit is reached."""
        self.writer(record)
        self.requests += 1
        self.succeeded += record.is_ok
        self.output_tokens += record.output_tokens
        ask = self._prices.get(record.target)
        self.budget.spend(
            ask.price if ask else None, prompt_tokens=record.prompt_tokens, output_tokens=record.output_tokens
        )
        if not self.stopped and (why := self.budget.stopped):
            self.stopped = why
            if self._current is not None:
                self._current.finish()


async def generate(task: Task, context: Context) -> Result:
    """Send this generator's requests when they are due. A second attempt starts the run over, with all others or not
    at all: half a load is no measurement.
    """
    wanted = payload(GenerateTask, task.payload)
    settings = wanted.settings
    assert settings.load is not None
    with faults(), tempfile.TemporaryDirectory(prefix="espalier-load-") as folder:
        pattern = await pattern_of(settings, context.artifacts)
        items = await items_of(settings, context.artifacts)
        path = Path(folder) / "records.jsonl"
        with path.open("w", encoding="utf-8") as file:
            run = _Run(
                wanted, context, share_of(settings.limits, 1 / settings.generators), Writer(file),
                expected=await _expected(settings, pattern),
                _prices={target.name: target for target in settings.targets},
            )  # fmt: skip
            meeting = _rendezvous(task, wanted, context)
            telling = asyncio.create_task(run.tell())
            try:
                healths = await _send(run, pattern, items, meeting)
            finally:
                telling.cancel()
        records = await context.artifacts.put(path.read_bytes())
    health = {
        "healths": [asdict(each) for each in healths],
        "sightings": [asdict(each) for each in meeting.sightings] if meeting else [],
    }
    value = GenerateValue(
        number=wanted.number, records=records, health=await context.artifacts.put(canonical_json(health)),
        requests=run.requests, succeeded=run.succeeded, output_tokens=round(run.output_tokens), cost=run.budget.cost,
        stopped=run.stopped,
    )  # fmt: skip
    return Result(value=value.wire(), tallies={TALLY_REQUESTS: float(run.requests)})


async def _send(run: _Run, pattern: Pattern, items: Items, meeting: Rendezvous | None) -> tuple[Health, ...]:
    settings = run.wanted.settings
    load = settings.load
    assert load is not None
    options = Options(
        timeout_s=float(load.timeout_seconds), drain_s=plan.drain_s(load), generator=run.wanted.number,
        max_in_flight=_own_limit(load.max_in_flight, run.wanted.number, settings.generators),
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        clock = stack.enter_context(precise_clock())
        lanes = [await _lane(stack, run.context, target, clock) for target in settings.targets]
        if len(lanes) == 2:
            share = Share(run.wanted.number, settings.generators, meeting.start if meeting else None, run.begin)
            return await run_paired(
                (lanes[0], lanes[1]), plan.blocks(load, pattern), items=items, write=run.write, options=options,
                share=share,
            )  # fmt: skip
        own = part(await schedule_of(settings, pattern), number=run.wanted.number, of=settings.generators)
        at = await meeting.start(0) if meeting else _not_before(run.wanted)
        generator = Generator(
            lanes[0].client, lanes[0].watch, items=items, write=run.write, options=replace(options, start_at=at)
        )
        run.begin(generator)
        return (await generator.run(own),)


async def _expected(settings: BenchmarkSettings, pattern: Pattern) -> int:
    """This generator's share, about: of two targets each is asked the same in every block, and once to warm up."""
    assert settings.load is not None
    whole = await schedule_of(settings, pattern)
    requests = len(whole.arrivals) or whole.bounds.requests or 0
    if len(settings.targets) == 2:
        requests *= 2 * (plan.blocks(settings.load, pattern).count + 1)
    return requests // settings.generators


async def _lane(stack: AsyncExitStack, context: Context, target: AskSettings, clock: Clock) -> Lane:
    """Every server is asked once before the start: connections exist then, and what it accepts is known."""
    endpoints = servers(context, target)
    takes = all([await _takes_ignore_eos(endpoint, target) for endpoint in endpoints])
    watch = Stopwatch(clock)
    fleet = Fleet(endpoints, watch.now, name=target.name, style=style(target, takes_ignore_eos=takes))
    return Lane(await stack.enter_async_context(fleet), watch)


async def _takes_ignore_eos(endpoint: ModelEndpoint, target: AskSettings) -> bool:
    async with Asker([endpoint], style(target, takes_ignore_eos=True), clock=CLOCK) as asker:
        try:
            await asker.chat(_PROBE)
        except Refused:
            return False
    return True


def _rendezvous(task: Task, wanted: GenerateTask, context: Context) -> Rendezvous | None:
    if wanted.settings.generators == 1:
        return None
    return Rendezvous(
        context.artifacts, CLOCK, uid=task.job_uid, number=wanted.number, of=wanted.settings.generators,
        patience_s=PATIENCE_S, not_before=datetime.fromtimestamp(wanted.start_at, UTC),
    )  # fmt: skip


def _not_before(wanted: GenerateTask) -> datetime | None:
    """The start that was agreed, if it is still to come: a single generator may be late without harm."""
    at = datetime.fromtimestamp(wanted.start_at, UTC)
    return at if at > CLOCK.now() else None


def _own_limit(limit: int | None, number: int, of: int) -> int | None:
    """This generator's part of the requests in flight; at least one."""
    return None if limit is None else max(1, limit // of + (number < limit % of))


def health_of(content: bytes) -> tuple[list[Health], list[dict[str, float]]]:
    """The artifact read back: healths, and sightings of the ticks."""
    found = json.loads(content)
    return [Health(**{**h, "loop_lags_s": tuple(h["loop_lags_s"])}) for h in found["healths"]], found["sightings"]
