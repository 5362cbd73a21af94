"""From raw records to figures: percentiles with bounds on both clocks, throughput, goodput under an objective. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from espalier_benchmark.quantiles import PERCENTILES, Percentile, percentiles
from espalier_benchmark.records import CENSORED, Record
from espalier_kit.errors import Misconfigured

KEEPING_UP = 0.95
"""A stage of a sweep is saturated below this share of answered to offered requests per second."""


@dataclass(frozen=True, slots=True)
class Slo:
    """What a good request keeps, in milliseconds; None asks nothing. On the response clock: users wait from then."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None

    def __post_init__(self) -> None:
        """Raises `Misconfigured` for an objective that nothing can keep."""
        if any(limit is not None and not limit > 0 for limit in (self.ttft_ms, self.itl_ms, self.e2e_ms)):
            raise Misconfigured("an objective of 0 ms or less cannot be kept", reason="ImpossibleObjective")
        if self.ttft_ms is not None and self.e2e_ms is not None and self.ttft_ms > self.e2e_ms:
            raise Misconfigured(
                "the first token cannot be allowed more time than the whole answer", reason="ImpossibleObjective"
            )

    def is_met(self, record: Record) -> bool:
        """Whether this request was answered in time: first token, mean time per later token, end."""
        if not record.is_ok:
            return False
        pairs = (
            (self.ttft_ms, record.response_ttft_s),
            (self.itl_ms, record.tpot_s),
            (self.e2e_ms, record.response_s),
        )
        return all(limit is None or took is None or took * 1000 <= limit for limit, took in pairs)


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that counts: requests due in [`start_s`, `end_s`)."""

    start_s: float = 0.0
    end_s: float = float("inf")

    def cut(self, records: Sequence[Record]) -> list[Record]:
        """By the intended start, which no slow server can shift."""
        return [record for record in records if self.start_s <= record.intended_s < self.end_s]


@dataclass(frozen=True, slots=True)
class Latency:
    """One latency in seconds. `clock` is `service` (from the send) or `response` (from the moment it was due)."""

    name: str
    clock: str
    count: int
    mean_s: float | None
    percentiles: tuple[Percentile, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's figures. Rates are per second of `wall_s`, from the first due request to the last answer."""

    requests: int
    succeeded: int
    errors: Mapping[str, int]
    wall_s: float
    latencies: tuple[Latency, ...]
    requests_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: float = 0.0
    goodput_per_s: float = 0.0
    good: int = 0
    token_sources: Mapping[str, int] = field(default_factory=dict)

    def latency(self, name: str, clock: str = "service") -> Latency:
        """Raises KeyError for a latency that is not measured."""
        found = [each for each in self.latencies if (each.name, each.clock) == (name, clock)]
        if not found:
            raise KeyError(f"{name} on the {clock} clock")
        return found[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a sweep: what was offered and what came of it."""

    stage: int
    offered_per_s: float
    answered_per_s: float
    goodput_per_s: float

    @property
    def keeps_up(self) -> bool:
        """Whether the server answered what it was asked."""
        return self.answered_per_s >= KEEPING_UP * self.offered_per_s


DEFINITIONS: Mapping[str, str] = {
    "ttft": "first token of any channel, reasoning included",
    "ttft_content": "first token of the answer itself",
    "itl": "time between two chunks with text divided by the later one's tokens, each counted once per token",
    "chunk_gap": "time between two chunks with text, whatever they hold",
    "tpot": "time from the first chunk with text to the last, divided by the tokens after the first chunk",
    "e2e": "end of the answer",
    "service": "from the send, which includes the time to connect",
    "response": "from the moment the request was due, whether or not it could be sent then",
    "percentile": "order statistic with a distribution-free 95 % bound; no value where the samples cannot bound it",
    "independence": "bounds take samples as independent; tokens of one answer are not: those of itl are narrow",
    "censored": "requests that timed out or were not finished count as longer than every other",
}


def summarise(records: Sequence[Record], *, slo: Slo | None = None, window: Window = Window()) -> Summary:
    """The figures of the records in the window, errors counted and never averaged in."""
    kept = window.cut(records)
    answered = [record for record in kept if record.is_ok]
    wall = _wall(kept)
    good = sum((slo or Slo()).is_met(record) for record in kept)
    output = sum(record.output_tokens for record in answered)
    return Summary(
        requests=len(kept),
        succeeded=len(answered),
        errors=dict(sorted(Counter(record.error for record in kept if record.error).items())),
        wall_s=wall,
        latencies=_latencies(kept),
        requests_per_s=_per(len(answered), wall),
        output_tokens_per_s=_per(output, wall),
        prompt_tokens=sum(record.prompt_tokens for record in answered),
        output_tokens=output,
        goodput_per_s=_per(good, wall),
        good=good,
        token_sources=dict(sorted(Counter(record.token_source for record in answered).items())),
    )


def stages(records: Sequence[Record], *, slo: Slo | None = None) -> tuple[Stage, ...]:
    """A sweep's stages in order. A request counts as answered if that took no longer after the stage's end than the
    slowest of its first quarter: without a growing queue nothing is lost, with one the last quarter is late.
    """
    found = []
    for number in sorted({record.stage for record in records}):
        own = sorted((r for r in records if r.stage == number), key=lambda record: record.intended_s)
        start, end = own[0].intended_s, own[-1].intended_s
        early = [record.response_s for record in own[: max(1, len(own) // 4)] if record.is_ok]
        limit = end + max(early, default=0.0)
        answered = sum(record.is_ok and record.ended_s <= limit for record in own)
        good = sum((slo or Slo()).is_met(record) for record in own)
        found.append(Stage(number, *(_per(count, end - start) for count in (len(own), answered, good))))
    return tuple(found)


def saturation(found: Sequence[Stage]) -> Stage | None:
    """The last stage before the first that did not keep up: the most this server was shown to carry."""
    best = None
    for stage in sorted(found, key=lambda each: each.offered_per_s):
        if not stage.keeps_up:
            break
        best = stage
    return best


def _latencies(records: Sequence[Record]) -> tuple[Latency, ...]:
    censored = sum(record.error in CENSORED for record in records)
    no_first = sum(record.error in CENSORED and record.first_s is None for record in records)
    answered = [record for record in records if record.is_ok]
    started = [record for record in records if record.is_ok or record.error in CENSORED]

    def of(name: str, clock: str, read: Callable[[Record], float | None], *, lost: int) -> Latency:
        pool = started if name.startswith("ttft") else answered
        values = [value for record in pool if (value := read(record)) is not None]
        return _latency(name, clock, values, censored=lost)

    def content(record: Record) -> float | None:
        return None if record.first_content_s is None else record.first_content_s - record.sent_s

    return (
        of("ttft", "service", lambda r: r.ttft_s, lost=no_first),
        of("ttft", "response", lambda r: r.response_ttft_s, lost=no_first),
        of("ttft_content", "service", content, lost=no_first),
        _latency("itl", "service", token_gaps(answered)),
        _latency("chunk_gap", "service", chunk_gaps(answered)),
        of("tpot", "service", lambda r: r.tpot_s, lost=0),
        of("e2e", "service", lambda r: r.service_s, lost=censored),
        of("e2e", "response", lambda r: r.response_s, lost=censored),
    )


def token_gaps(records: Sequence[Record]) -> list[float]:
    """Inter-token latencies in seconds, one per token."""
    return [gap for record in records for gap, tokens in record.gaps() for _ in range(max(1, round(tokens)))]


def chunk_gaps(records: Sequence[Record]) -> list[float]:
    """Seconds between two chunks with text."""
    return [
        after[0] - before[0]
        for record in records
        for before, after in zip(record.chunks, record.chunks[1:], strict=False)
    ]


def _latency(name: str, clock: str, values: Sequence[float], *, censored: int = 0) -> Latency:
    mean = sum(values) / len(values) if values and not censored else None
    return Latency(name, clock, len(values), mean, percentiles(values, qs=PERCENTILES, censored=censored))


def _wall(records: Sequence[Record]) -> float:
    if not records:
        return 0.0
    return max(record.ended_s for record in records) - min(record.intended_s for record in records)


def _per(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
