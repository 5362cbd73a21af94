"""What passes between the web front and the generation thread: frozen requests in, frozen events out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]
RunnerState = Literal["loading", "ready", "stopped", "dead"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; a seed makes the draw repeatable."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


class Constraint(Protocol):
    """A grammar's state for one answer; used by the generation thread only."""

    @property
    def is_done(self) -> bool:
        """Whether the grammar accepts no further token."""
        ...

    @property
    def error(self) -> str:
        """Why the grammar could not go on; empty while it can."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """One generation. `prefix_tokens` of the prompt's head are shared with other requests (their system message)."""

    id: str
    model: str
    tokens: tuple[int, ...]
    prefix_tokens: int
    prefix_key: str
    max_tokens: int
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one request; the speed is decode tokens per second."""

    queue_s: float
    prompt_s: float
    generation_s: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete; `length` may have cut it, JSON included."""

    reason: FinishReason
    completion_tokens: int
    cached_tokens: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer will not be completed; the sentence says why."""

    message: str
    code: str = "engine_error"


@dataclass(frozen=True, slots=True)
class Scoring:
    """A text whose own tokens' probabilities are wanted; nothing is generated."""

    id: str
    model: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Natural logarithms: of this token's probability after those before it, and of the likeliest one's."""

    logprob: float
    best_token: int
    best_logprob: float


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of all tokens but the first, which nothing stands before."""

    scores: tuple[TokenScore, ...]


Event = TextDelta | Finished | Scored | Failed
Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A loaded model, for `/v1/models` and limits."""

    name: str
    context_length: int
    created: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """The generation thread, as last published by itself."""

    state: RunnerState = "loading"
    message: str = ""
    running: int = 0
    waiting: int = 0
    prompt_cache_bytes: int = 0
    models: tuple[ModelCard, ...] = field(default=())
