"""What a benchmark sends and asks: load, dataset, accuracy, objectives, gates, prices and limits."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from espalier_api.common import MAX_TASK_SECONDS, Rule, Source
from espalier_api.meta import Model
from espalier_api.modelref import ServerRef

PackName = Annotated[str, Field(min_length=1, max_length=128)]
Evaluator = Literal["perplexity", "coherence", "relevance", "faithfulness", "judge"]


def _only_with(field: str, *patterns: str) -> Rule:
    """`field` stands where its pattern reads it, and nowhere else."""
    named = " or ".join(patterns)
    listed = ", ".join(f"'{pattern}'" for pattern in patterns)
    return Rule(
        rule=f"has(self.{field}) == (self.pattern in [{listed}])",
        message=f"load.{field} goes with load.pattern {named}: set it there, and only there",
    )


class Trace(Model):
    """Recorded arrivals."""

    source: Source
    format: Literal["azure", "mooncake"] = Field(description="Azure's CSV, or Mooncake's JSON lines.")
    speed: float = Field(default=1, gt=0, le=1000, description="2 replays twice as fast.")


class Load(Model):
    """When requests are sent. With two targets, `durationSeconds` and `requests` bound one block of one target."""

    pattern: Literal["constant", "poisson", "gamma", "concurrency", "ramp", "sweep", "trace"]
    rate: float | None = Field(default=None, gt=0, le=100_000, description="Requests per second, all generators.")
    cv: float | None = Field(default=None, gt=0, le=100, description="Gamma: coefficient of variation; > 1 is bursts.")
    start_rate: float | None = Field(default=None, ge=0, le=100_000, description="Ramp: requests per second at first.")
    end_rate: float | None = Field(default=None, ge=0, le=100_000, description="Ramp: requests per second at last.")
    rates: tuple[Annotated[float, Field(gt=0, le=100_000)], ...] | None = Field(
        default=None, min_length=1, max_length=64, description="Sweep: requests per second, stage by stage."
    )
    concurrency: int | None = Field(default=None, ge=1, le=10_000, description="Requests in flight, all generators.")
    trace: Trace | None = None
    duration_seconds: int | None = Field(default=None, ge=1, le=MAX_TASK_SECONDS)
    requests: int | None = Field(default=None, ge=1, le=5_000_000)
    warmup_seconds: int = Field(default=0, ge=0, le=600, description="Cut from the start of what is measured.")
    cooldown_seconds: int = Field(default=0, ge=0, le=600, description="Cut from the end of what is measured.")
    blocks: int | None = Field(
        default=None, ge=6, le=500, description="Two targets: how often each is run, in turns; 12 if not said."
    )
    max_in_flight: int | None = Field(default=None, ge=1, le=100_000, description="Requests held back beyond it.")
    timeout_seconds: int = Field(default=120, ge=1, le=MAX_TASK_SECONDS, description="Of one request.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of arrivals and synthetic prompts.")

    rules: ClassVar[tuple[Rule, ...]] = (
        _only_with("rate", "constant", "poisson", "gamma"),
        _only_with("cv", "gamma"),
        _only_with("startRate", "ramp"),
        _only_with("endRate", "ramp"),
        _only_with("rates", "sweep"),
        _only_with("concurrency", "concurrency"),
        _only_with("trace", "trace"),
        Rule(
            rule="self.pattern == 'trace' || has(self.durationSeconds) || has(self.requests)",
            message="say how long the run is: load.durationSeconds, load.requests, or both",
        ),
        Rule(
            rule="!(self.pattern in ['ramp', 'sweep']) || has(self.durationSeconds)",
            message="a ramp or a sweep needs load.durationSeconds",
        ),
        Rule(
            rule="!has(self.durationSeconds) || self.warmupSeconds + self.cooldownSeconds < self.durationSeconds",
            message="load.warmupSeconds and load.cooldownSeconds leave nothing to measure: lengthen durationSeconds",
        ),
    )


class Synthetic(Model):
    """Prompts made from the load's seed, none a prefix of another."""

    prompt_tokens: int = Field(default=128, ge=1, le=1_000_000)
    output_tokens: int = Field(default=128, ge=1, le=8192)


class Dataset(Model):
    """What the load asks; synthetic prompts if nothing is said."""

    synthetic: Synthetic | None = None
    file: Source | None = Field(
        default=None, description="JSON lines with `prompt` or `messages`, and `max_tokens` if wanted."
    )
    pack: PackName | None = Field(default=None, description="The prompts of an accuracy pack.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="[has(self.synthetic), has(self.file), has(self.pack)].filter(x, x).size() <= 1",
            message="dataset takes one of synthetic, file or pack",
        ),
    )


class Pack(Model):
    """Questions with known answers."""

    name: PackName = Field(
        description="`reasoning-gym:<task>`, `humaneval`, `bfcl:simple`, `bfcl:parallel`, `gsm8k`, `mmlu`, `ifeval`."
    )
    file: Source | None = Field(default=None, description="The questions of a pack that is not built in.")
    items: int | None = Field(default=None, ge=1, le=100_000, description="The first so many; all if not said.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class Accuracy(Model):
    """How right the answers are; asked after the load, so that neither disturbs the other."""

    packs: tuple[Pack, ...] = Field(default=(), max_length=16)
    evaluators: tuple[Evaluator, ...] = Field(default=(), max_length=5)
    texts: Source | None = Field(
        default=None, description="JSON lines for the evaluators: `prompt` or `text`, `context`, `reference`."
    )
    judge: ServerRef | None = None
    concurrency: int = Field(default=4, ge=1, le=256, description="Questions in flight, per generator.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="self.packs.size() + self.evaluators.size() > 0",
            message="accuracy needs a pack or an evaluator: add one, or remove accuracy",
        ),
        Rule(
            rule="(self.evaluators.size() > 0) == has(self.texts)",
            message="accuracy.texts is what evaluators read: set both, or neither",
        ),
        Rule(
            rule="self.evaluators.exists(e, e == 'judge') == has(self.judge)",
            message="evaluator judge asks accuracy.judge: set both, or neither",
        ),
    )


class Slo(Model):
    """What a good request keeps, in milliseconds from the moment it was due."""

    ttft_ms: float | None = Field(default=None, gt=0, le=3_600_000)
    itl_ms: float | None = Field(default=None, gt=0, le=3_600_000)
    e2e_ms: float | None = Field(default=None, alias="e2eMs", gt=0, le=3_600_000)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="has(self.ttftMs) || has(self.itlMs) || has(self.e2eMs)",
            message="slo asks nothing: set ttftMs, itlMs or e2eMs, or remove slo",
        ),
        Rule(
            rule="!has(self.ttftMs) || !has(self.e2eMs) || self.ttftMs <= self.e2eMs",
            message="slo cannot be kept: the first token is allowed more time than the whole answer",
        ),
    )


class Gate(Model):
    """One limit that a figure must keep for the condition Passed."""

    metric: Literal[
        "ttft", "itl", "tpot", "e2e", "requestsPerSecond", "outputTokensPerSecond", "goodputPerSecond", "goodShare",
        "errorShare", "accuracy",
    ]  # fmt: skip
    statistic: Literal["p50", "p90", "p95", "p99"] | None = Field(
        default=None, description="Of a latency, in milliseconds on the clock from when a request was due; p50."
    )
    name: PackName | None = Field(default=None, description="Accuracy: which pack or evaluator.")
    target: str | None = Field(default=None, max_length=63, description="Which target; every one if not said.")
    max: float | None = None
    min: float | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(rule="has(self.max) || has(self.min)", message="a gate needs max or min"),
        Rule(
            rule="!has(self.statistic) || self.metric in ['ttft', 'itl', 'tpot', 'e2e']",
            message="gate: only latencies have a statistic",
        ),
        Rule(rule="has(self.name) == (self.metric == 'accuracy')", message="gate: metric accuracy needs name"),
    )


class Price(Model):
    """What a target's tokens cost, in whatever currency."""

    input_per_million: float = Field(default=0, ge=0, le=1_000_000)
    output_per_million: float = Field(default=0, ge=0, le=1_000_000)


class Limits(Model):
    """Where a job stops asking, visibly."""

    max_cost: float | None = Field(default=None, gt=0, description="In the currency of the prices.")
    max_output_tokens: int | None = Field(default=None, ge=1)
