"""The generation thread: takes requests, keeps the batches full, sends events, and never lets one request harm another.

MLX arrays belong to the thread that made them, so loading, warm-up and generation all happen here. The event loop talks
to it through a queue and reads one published, frozen status.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError
from espalier_mlx import schedule
from espalier_mlx.engine import Engine, Generated, Prefilled, bound_memory
from espalier_mlx.loading import LoadedModel, load_model, parameter_count
from espalier_mlx.pulse import Pulse, Speed
from espalier_mlx.text import TextStream
from espalier_mlx.work import (
    Emit,
    Failed,
    Finished,
    FinishReason,
    ModelCard,
    RunnerState,
    RunnerStatus,
    Sampling,
    Scored,
    Scoring,
    TextDelta,
    Timings,
    TokenScore,
    Work,
)

log = logging.getLogger(__name__)

_MAX_FAULTS_IN_A_ROW = 3
_WARM_UP_TOKENS = 4


class Observer(Protocol):
    """Where counts go (`metrics`); called from the generation thread."""

    def tokens(self, model: str, count: int) -> None:
        """So many answer tokens came out."""
        ...


@dataclass(slots=True)
class _Job:
    """A request inside this thread."""

    work: Work
    emit: Emit
    submitted: float
    started: float = 0.0
    prompt_done: float = 0.0
    produced: int = 0
    cached: int = 0
    is_computing_prefix: bool = False
    text: TextStream | None = None


@dataclass(slots=True)
class _ScoreJob:
    """A text being scored, a chunk in each round, so that running answers go on meanwhile."""

    chunks: Iterator[tuple[TokenScore, ...]]
    emit: Emit
    found: list[TokenScore] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """What the thread needs of the settings."""

    max_concurrency: int
    prefill_step: int
    prompt_cache_bytes: int


@dataclass(slots=True)
class _State:
    """All that the thread owns."""

    engines: dict[str, Engine] = field(default_factory=dict)
    waiting: dict[str, _Job] = field(default_factory=dict)
    running: dict[str, _Job] = field(default_factory=dict)
    scoring: dict[str, _ScoreJob] = field(default_factory=dict)
    faults: int = 0


Command = Callable[[], None]
Load = Callable[[str, str], LoadedModel]
"""(name, source) → the model, loaded in the calling thread."""


class Runner:
    """`start`, `submit`, `cancel`, `stop`; everything else is the thread's own business."""

    def __init__(
        self, sources: Mapping[str, str], limits: RunnerLimits, *, clock: Clock, pulse: Pulse, observer: Observer,
        load: Load = load_model,
    ) -> None:
        self._sources = sources
        self._limits = limits
        self._clock = clock
        self._pulse = pulse
        self._observer = observer
        self._load_model = load
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._state = _State()
        self._cards: tuple[ModelCard, ...] = ()
        self.status = RunnerStatus()
        self.models: Mapping[str, LoadedModel] = {}
        """Read their codecs and grammars from any thread; their networks from none but this one."""
        self.failure: Exception | None = None
        """Why the thread died, if it did."""

    def start(self) -> None:
        """Begin loading; `status.state` tells when it is ready, or dead."""
        self._thread.start()

    def submit(self, work: Work, emit: Emit) -> None:
        """Queue a request; its events go to `emit`, called from the generation thread."""
        job = _Job(work, emit, submitted=self._clock.monotonic())
        self._commands.put(lambda: self._enqueue(job))

    def score(self, work: Scoring, emit: Emit) -> None:
        """Queue a text; one `Scored` or `Failed` goes to `emit`."""
        self._commands.put(lambda: self._begin_scoring(work, emit))

    def cancel(self, work_id: str) -> None:
        """Forget a request, waiting or running; no further events. Unknown ids are fine."""
        self._commands.put(lambda: self._drop(work_id))

    def stop(self, timeout_s: float) -> bool:
        """Fail what is left and end the thread; returns whether it ended in time."""
        self._stopping.set()
        self._commands.put(lambda: None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- everything below runs in the generation thread ----

    def _run(self) -> None:
        try:
            self._load()
            while not self._stopping.is_set():
                self._turn()
            self._fail_all("The server is shutting down", code="server_shutting_down")
            self._publish("stopped")
        except EspalierError as error:
            self._die(error)
        except Exception as error:
            log.exception("generation thread failed")
            self._die(error)

    def _load(self) -> None:
        bound_memory()
        models: dict[str, LoadedModel] = {}
        for name, source in self._sources.items():
            begun = self._clock.monotonic()
            model = self._load_model(name, source)
            engine = Engine(
                model, max_concurrency=self._limits.max_concurrency, prefill_step=self._limits.prefill_step,
                prompt_cache_bytes=self._limits.prompt_cache_bytes // len(self._sources),
            )
            self._warm_up(engine)
            models[name], self._state.engines[name] = model, engine
            seconds = round(self._clock.monotonic() - begun, 2)
            parameters = parameter_count(model.network)
            log.info("model ready", extra={"model": name, "parameters": parameters, "seconds": seconds})
        created = int(self._clock.now().timestamp())
        self._cards = tuple(ModelCard(m.name, m.context_length, created, m.fingerprint) for m in models.values())
        self.models = models
        self._publish("ready")

    def _warm_up(self, engine: Engine) -> None:
        """A first answer: compiles what there is to compile, and proves that tokens come out."""
        prompt = engine.model.codec.encode([{"role": "user", "content": "Say hello."}])
        greedy = Sampling(temperature=0.0)
        engine.start(Work("warm-up", engine.model.name, prompt.tokens, 0, "", _WARM_UP_TOKENS, greedy))
        while not engine.is_idle:
            for _ in engine.step():
                self._pulse.beat(self._clock.monotonic())

    def _turn(self) -> None:
        """One round: commands, new entries, one step of each batch. Blocks only when there is nothing to do."""
        is_idle = not self._state.waiting and not self._state.running and not self._state.scoring
        self._pulse.set_busy(not is_idle, self._clock.monotonic())
        self._take_commands(wait=is_idle)
        self._begin_next()
        for engine in self._state.engines.values():
            if not engine.is_idle:
                self._advance(engine)
        self._score_next()
        self._publish("ready")

    def _take_commands(self, *, wait: bool) -> None:
        try:
            command = self._commands.get(block=wait)
            while True:
                command()
                command = self._commands.get_nowait()
        except queue.Empty:
            return

    def _enqueue(self, job: _Job) -> None:
        self._state.waiting[job.work.id] = job
        self._pulse.set_busy(True, self._clock.monotonic())

    def _begin_scoring(self, work: Scoring, emit: Emit) -> None:
        self._state.scoring[work.id] = _ScoreJob(self._state.engines[work.model].scores(work.tokens), emit)
        self._pulse.set_busy(True, self._clock.monotonic())

    def _score_next(self) -> None:
        """One chunk of the text that has waited longest."""
        work_id = next(iter(self._state.scoring), None)
        if work_id is None:
            return
        job = self._state.scoring[work_id]
        try:
            chunk = next(job.chunks, None)
        except Exception:
            log.exception("scoring failed")
            del self._state.scoring[work_id]
            job.emit(Failed("The engine failed while it scored this text; try again"))
            return
        self._pulse.beat(self._clock.monotonic())
        if chunk is None:
            del self._state.scoring[work_id]
            job.emit(Scored(tuple(job.found)))
        else:
            job.found += chunk

    def _drop(self, work_id: str) -> None:
        self._state.scoring.pop(work_id, None)
        self._state.waiting.pop(work_id, None)
        job = self._state.running.pop(work_id, None)
        if job is not None:
            self._state.engines[job.work.model].remove(work_id)

    def _begin_next(self) -> None:
        state = self._state
        chosen = schedule.choose(
            [schedule.Candidate(job.work.id, job.work.prefix_key) for job in state.waiting.values()],
            running=len(state.running), max_concurrency=self._limits.max_concurrency,
            cached={key for engine in state.engines.values() for key in engine.prefixes},
            computing={job.work.prefix_key for job in state.running.values() if job.is_computing_prefix},
        )
        for work_id in chosen:
            job = state.waiting.pop(work_id)
            engine = state.engines[job.work.model]
            job.started = self._clock.monotonic()
            job.text = TextStream(engine.model.codec.decoder(), job.work.stop)
            job.cached = engine.start(job.work)
            job.is_computing_prefix = bool(job.work.prefix_key) and not job.cached
            state.running[work_id] = job

    def _advance(self, engine: Engine) -> None:
        try:
            for event in engine.step():
                self._handle(engine, event)
            self._state.faults = 0
        except Exception:
            log.exception("generation step failed", extra={"model": engine.model.name})
            self._recover(engine)

    def _recover(self, engine: Engine) -> None:
        """Answer those who were in the batch, then go on with an empty one; repeated faults end the thread."""
        for work_id in engine.reset():
            self._finish(work_id, Failed("The engine failed while it generated this answer; try again"))
        self._state.faults += 1
        if self._state.faults >= _MAX_FAULTS_IN_A_ROW:
            raise RuntimeError(f"{self._state.faults} generation steps in a row failed")

    def _handle(self, engine: Engine, event: Prefilled | Generated) -> None:
        now = self._clock.monotonic()
        job = self._state.running.get(event.id)
        if isinstance(event, Prefilled):
            self._pulse.beat(now)
            if job is not None:
                job.is_computing_prefix = job.is_computing_prefix and not event.is_prefix_done
                job.prompt_done = now if event.is_prompt_done else job.prompt_done
            return
        self._pulse.beat(now, tokens=1)
        self._observer.tokens(engine.model.name, 1)
        if job is not None:
            self._take_token(engine, job, event)

    def _take_token(self, engine: Engine, job: _Job, event: Generated) -> None:
        assert job.text is not None
        job.produced += 1
        text = "" if event.is_end else job.text.push(event.token)
        constraint = job.work.constraint
        if constraint is not None and constraint.error:
            engine.remove(job.work.id)
            message = f"The schema's grammar failed: {constraint.error[:300]}"
            self._finish(job.work.id, Failed(message, code="grammar_error"))
            return
        is_complete = event.is_end or job.text.is_stopped or (constraint is not None and constraint.is_done)
        reason: FinishReason | None = "stop" if is_complete else "length" if event.is_last else None
        if reason is not None:
            text += job.text.flush()
        if text:
            job.emit(TextDelta(text))
        if reason is not None:
            engine.remove(job.work.id)
            self._finish(job.work.id, self._finished(job, reason))

    def _finished(self, job: _Job, reason: FinishReason) -> Finished:
        now = self._clock.monotonic()
        prompt_done = job.prompt_done or now
        generation_s = max(now - prompt_done, 1e-9)
        self._pulse.record(Speed(job.produced, generation_s))
        timings = Timings(
            queue_s=job.started - job.submitted, prompt_s=prompt_done - job.started, generation_s=generation_s,
            tokens_per_second=job.produced / generation_s,
        )
        return Finished(reason, job.produced, job.cached, timings)

    def _finish(self, work_id: str, event: Finished | Failed) -> None:
        job = self._state.running.pop(work_id, None) or self._state.waiting.pop(work_id, None)
        if job is not None:
            job.emit(event)

    def _fail_all(self, message: str, *, code: str) -> None:
        for work_id in _ids(self._state.running, self._state.waiting):
            self._finish(work_id, Failed(message, code=code))
        for job in self._state.scoring.values():
            job.emit(Failed(message, code=code))
        self._state.scoring.clear()

    def _die(self, error: Exception) -> None:
        self.failure = error
        self._fail_all("The engine has failed; the server restarts", code="engine_dead")
        self._publish("dead", message=str(error) or type(error).__name__)

    def _publish(self, name: RunnerState, *, message: str = "") -> None:
        state = self._state
        self.status = RunnerStatus(
            state=name, message=message, running=len(state.running), waiting=len(state.waiting),
            prompt_cache_bytes=sum(engine.prefixes.nbytes for engine in state.engines.values()), models=self._cards,
        )


def _ids(*groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(work_id for group in groups for work_id in group)
