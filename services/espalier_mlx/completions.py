"""From a parsed request to tokens to an answer: admission, preparation, one generation's events, giving it up.

Sits between the routes and the generation thread; knows neither HTTP nor MLX.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from jinja2 import TemplateError

from espalier_kit.clock import Clock
from espalier_mlx.admission import Gate
from espalier_mlx.chat import ChatRequest
from espalier_mlx.codec import Codec, Encoded, Prompt
from espalier_mlx.echo import EchoRequest
from espalier_mlx.errors import ApiError, failed, invalid, unavailable, unknown_model
from espalier_mlx.metrics import Metrics
from espalier_mlx.work import (
    Constraint,
    Emit,
    Event,
    Failed,
    Finished,
    ModelCard,
    RunnerStatus,
    Scored,
    Scoring,
    TextDelta,
    Work,
)

T = TypeVar("T")


class Grammar(Protocol):
    """Compiles a JSON schema. Raises ValueError with the reason."""

    def compile(self, schema: Mapping[str, Any]) -> Constraint:
        """A fresh constraint."""
        ...


class Model(Protocol):
    """What the front needs of a loaded model."""

    @property
    def codec(self) -> Codec:
        """Text to tokens."""
        ...

    @property
    def grammars(self) -> Grammar:
        """Schema to constraint."""
        ...


class Generation(Protocol):
    """The generation thread as the front sees it; `runner.Runner` is one."""

    @property
    def status(self) -> RunnerStatus:
        """As last published."""
        ...

    @property
    def models(self) -> Mapping[str, Model]:
        """The loaded models; empty until ready."""
        ...

    def submit(self, work: Work, emit: Emit) -> None:
        """Begin; `emit` is called from another thread."""
        ...

    def score(self, work: Scoring, emit: Emit) -> None:
        """Begin; `emit` is called once, from another thread."""
        ...

    def cancel(self, work_id: str) -> None:
        """Give up; no further events."""
        ...


class Completion:
    """One request inside: iterate its events, then `close` it, always."""

    def __init__(self, owner: Completions, card: ModelCard, created: int) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.card = card
        self.created = created
        self.prompt_tokens = 0
        self._owner = owner
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._outcome = "cancelled"
        self._is_closed = False
        self.begun = owner.clock.monotonic()

    def emit_into(self, loop: asyncio.AbstractEventLoop) -> Emit:
        """The callback for the generation thread. A loop that has ended takes no more events, which is fine."""
        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        return emit

    async def events(self) -> AsyncIterator[TextDelta | Finished]:
        """Text, then how it finished. Raises `ApiError` if it failed."""
        while True:
            event = await self._events.get()
            if isinstance(event, Failed):
                raise self._failed(event)
            assert not isinstance(event, Scored)
            if isinstance(event, Finished):
                self._outcome = event.reason
                self._owner.metrics.finished(self.card.name, self.prompt_tokens, event)
            yield event
            if isinstance(event, Finished):
                return

    async def scored(self) -> Scored:
        """The scores of a text that was submitted for that. Raises `ApiError` if it failed."""
        event = await self._events.get()
        if isinstance(event, Failed):
            raise self._failed(event)
        assert isinstance(event, Scored)
        self._outcome = "scored"
        self._owner.metrics.ended(self.card.name, self._outcome)
        return event

    def _failed(self, event: Failed) -> ApiError:
        self._outcome = "error"
        make = unavailable if event.code == "server_shutting_down" else failed
        return make(event.message, code=event.code)

    def close(self) -> None:
        """Leave; what has not ended is cancelled. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._owner.left(self, self._outcome)


class Completions:
    """Lets requests in, one `Completion` each. Lives on the event loop."""

    def __init__(
        self, generation: Generation, gate: Gate, metrics: Metrics, *, clock: Clock, max_tokens: int
    ) -> None:
        self.generation = generation
        self.metrics = metrics
        self.clock = clock
        self.is_draining = False
        self._gate = gate
        self._max_tokens = max_tokens

    @property
    def inside(self) -> int:
        """Requests that have not been answered yet."""
        return self._gate.inside

    async def open(self, request: ChatRequest) -> Completion:
        """Admit, prepare and submit. Raises `ApiError`: 503, 404, 429 or 400."""
        completion = self._enter(request.model)
        work = await self._prepared(completion, partial(self._prepare, completion.id, request, completion.card))
        completion.prompt_tokens = len(work.tokens)
        self.generation.submit(work, completion.emit_into(asyncio.get_running_loop()))
        return completion

    async def open_scoring(self, request: EchoRequest) -> tuple[Completion, Encoded]:
        """The same for a text that is only scored."""
        completion = self._enter(request.model)
        encoded = await self._prepared(completion, partial(self._encoded, request, completion.card))
        completion.prompt_tokens = len(encoded.tokens)
        work = Scoring(completion.id, completion.card.name, encoded.tokens)
        self.generation.score(work, completion.emit_into(asyncio.get_running_loop()))
        return completion, encoded

    def _enter(self, model: str) -> Completion:
        card = self._card(model)
        try:
            self._gate.enter()
        except ApiError:
            self.metrics.ended(card.name, "refused")
            raise
        return Completion(self, card, int(self.clock.now().timestamp()))

    async def _prepared(self, completion: Completion, prepare: Callable[[], T]) -> T:
        """In a helper thread; whoever is refused there leaves again."""
        try:
            return await asyncio.to_thread(prepare)
        except BaseException as error:
            self._gate.leave(0.0)
            self.metrics.ended(completion.card.name, "refused" if isinstance(error, ApiError) else "error")
            raise

    def _encoded(self, request: EchoRequest, card: ModelCard) -> Encoded:
        encoded = self.generation.models[card.name].codec.encode_text(request.text)
        if not 2 <= len(encoded.tokens) <= card.context_length:
            raise invalid(
                f"This text has {len(encoded.tokens)} tokens: give at least 2 and at most {card.context_length}, the "
                "model's context", param="prompt", code="context_length_exceeded",
            )
        return encoded

    def left(self, completion: Completion, outcome: str) -> None:
        """A completion closed itself."""
        self._gate.leave(self.clock.monotonic() - completion.begun)
        if outcome == "cancelled":
            self.generation.cancel(completion.id)
        if outcome in ("cancelled", "error"):
            self.metrics.ended(completion.card.name, outcome)

    def _card(self, name: str) -> ModelCard:
        status = self.generation.status
        if self.is_draining:
            raise unavailable("The server is shutting down; ask another one", code="server_shutting_down")
        if status.state != "ready":
            raise unavailable(f"The server is not ready ({status.state})", code="server_not_ready")
        cards = {card.name: card for card in status.models}
        if name not in cards:
            raise unknown_model(name, tuple(cards))
        return cards[name]

    def _prepare(self, work_id: str, request: ChatRequest, card: ModelCard) -> Work:
        """Tokens and grammar; in a helper thread, since a long prompt takes a while."""
        model = self.generation.models[card.name]
        prompt = _encode(model.codec, request)
        room = card.context_length - len(prompt.tokens)
        if room < 1 or (request.limit or 1) > room:
            raise invalid(
                f"The model's context is {card.context_length} tokens; this prompt has {len(prompt.tokens)} "
                f"and asks for {request.limit or 1} more: shorten it", param="messages", code="context_length_exceeded",
            )
        return Work(
            id=work_id, model=card.name, tokens=prompt.tokens, prefix_tokens=prompt.prefix_tokens,
            prefix_key=f"{card.name}:{prompt.prefix_key}" if prompt.prefix_key else "",
            max_tokens=request.limit or min(room, self._max_tokens), sampling=request.sampling, stop=request.stops,
            constraint=_constraint(model.grammars, request),
        )


def _encode(codec: Codec, request: ChatRequest) -> Prompt:
    try:
        return codec.encode([message.plain() for message in request.messages])
    except TemplateError as error:
        raise invalid(f"The model's chat template refuses these messages: {error}", param="messages") from error


def _constraint(grammars: Grammar, request: ChatRequest) -> Constraint | None:
    schema = request.answer_schema
    if schema is None:
        return None
    try:
        return grammars.compile(schema)
    except ValueError as error:
        message = f"The JSON schema cannot be used: {error}"
        raise invalid(message, param="response_format", code="invalid_json_schema") from error
