"""Payloads and values of `benchmark.*` tasks: operator and executors agree without importing each other.

The operator submits one task `benchmark.admit`. It checks everything that only the targets and the data can show and
returns, as children, `benchmark.generate` (one per generator, all from one schedule and one start),
`benchmark.accuracy` (a chunk of items each, after all generators have finished) and `benchmark.report` (after all of
them, however they ended).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier_api.benchmarkfigures import (
    AccuracyFigures,
    DifferenceFigures,
    ReportFile,
    TargetFigures,
    Validity,
    Verdict,
)
from espalier_api.benchmarkload import Evaluator, Limits, Load, Price, Slo, Synthetic
from espalier_api.meta import Model

ADMIT = "benchmark.admit"
GENERATE = "benchmark.generate"
LOADED = "benchmark.loaded"
"""A task without a result of its own between load and questions: those depend on nothing that differs from run to run.
"""
ACCURACY = "benchmark.accuracy"
REPORT = "benchmark.report"
COMPARE = "benchmark.compare"

EVALUATION = "evaluation"
"""A workflow's task that asks a pack."""

JUDGE_ROLE = "judge"
AnswerSandbox = Literal["bubblewrap", "container", "gvisor"]

REJECTIONS = (
    "UnknownPack", "TargetUnreachable", "NoLogProbabilities", "BadDataset", "ImpossibleObjective", "BadLoad",
    "SourceNotFound", "BadTrace", "ScheduleTooLong", "NotPairable", "BadPack", "PackNotInstalled", "PackChanged",
    "Refused",
)  # fmt: skip
"""Reasons of an `EvaluatorFault` of `benchmark.admit`: the job's Accepted becomes False with the fault's message."""
COMPARISON_REJECTIONS = ("UnknownMetric", "BadComparison", "NotPaired", "NothingPaired", "SourceNotFound")
"""The same for `benchmark.compare`."""

TALLY_ADMITTED = "admitted"
"""Written once (1) by `benchmark.admit` when it lets the job pass."""
TALLY_REQUESTS = "requests"
TALLY_ITEMS = "items"
"""Requests that generators have ended and questions that were answered, as their tasks finish."""


def runs_answers(pack: str) -> bool:
    """Whether what a model answers to the pack of that name is run, or run by its scorer."""
    return pack.partition(":")[0] in ("humaneval", "reasoning-gym")


def target_role(number: int) -> str:
    """The role of a target's endpoints, by its place in the spec."""
    return f"target-{number}"


class AskSettings(Model):
    """How a model is asked. Its servers come with the job's endpoints, by `role`."""

    role: str
    name: str = Field(description="In reports.")
    model: str | None = Field(default=None, description="None: the endpoint's own.")
    max_tokens: int
    temperature: float
    seed: int
    price: Price | None = None
    revision: str = Field(default="", description="What the server calls its model's revision; admission fills it in.")


class DatasetSettings(Model):
    """What the load asks: exactly one of them is set."""

    synthetic: Synthetic | None = None
    file: str | None = Field(default=None, description="sha256 of the JSON lines, in the artifact store.")
    pack: str | None = None


class PackSettings(Model):
    """One pack; `file` is the sha256 of its questions where it is not built in."""

    name: str
    file: str | None = None
    items: int | None = None
    seed: int = 0
    template: str = Field(default="", description="sha256 of the prompt's template; admission fills it in.")


class AccuracySettings(Model):
    """All questions of a job; `texts` is a sha256."""

    packs: tuple[PackSettings, ...] = ()
    evaluators: tuple[Evaluator, ...] = ()
    texts: str | None = None
    judge: AskSettings | None = None
    concurrency: int = 4


class BenchmarkSettings(Model):
    """What every task of a job knows: the payload of `benchmark.admit`. `trace` holds `load.trace.source`."""

    job: str
    targets: tuple[AskSettings, ...]
    load: Load | None = None
    trace: str | None = Field(default=None, description="sha256 of the trace.")
    dataset: DatasetSettings
    accuracy: AccuracySettings | None = None
    slo: Slo | None = None
    limits: Limits | None = None
    generators: int = 1
    cache: bool = False
    placement: Literal["linux", "mlx"] = "linux"
    sandbox: AnswerSandbox = Field(default="bubblewrap", description="What confines answers that run.")


class GenerateTask(Model):
    """Payload of `benchmark.generate`: generator `number` of `settings.generators`."""

    settings: BenchmarkSettings
    number: int
    start_at: float = Field(description="The common start: seconds since 1970 on the clock of who admitted.")


class GenerateValue(Model):
    """Value of `benchmark.generate`. `records` and `health` are sha256 of what it wrote."""

    number: int
    records: str
    health: str
    requests: int
    succeeded: int
    output_tokens: int = 0
    cost: float = 0.0
    stopped: str = Field(default="", description="Why it ended early (a limit), in words.")


class AccuracyTask(Model):
    """Payload of `benchmark.accuracy`: items `first` … `first + count - 1` of one pack or evaluator on one target."""

    settings: BenchmarkSettings
    target: int
    pack: PackSettings | None = None
    evaluator: Evaluator | None = None
    first: int
    count: int
    share: float = Field(default=1.0, description="Of what the load left of the limits.")


class AccuracyValue(Model):
    """Value of `benchmark.accuracy`. `records` is the sha256 of one JSON line per item."""

    records: str
    items: int
    right: float
    abstained: int = 0
    cached: int = 0
    cost: float = 0.0


class BenchmarkReportTask(Model):
    """Payload of `benchmark.report`; what it reports on are its inputs."""

    settings: BenchmarkSettings


class BenchmarkValue(Model):
    """Value of `benchmark.report`: what the operator puts into the status."""

    index: str = Field(description="sha256 of the index.json that names all files, raw records included.")
    files: tuple[ReportFile, ...] = ()
    targets: tuple[TargetFigures, ...]
    accuracy: tuple[AccuracyFigures, ...] = ()
    validity: Validity
    min_detectable_effect: float | None = None
    cost: float | None = None
    stopped: str = Field(default="", description="Why the job asked less than was wished (a limit), in words.")


class CompareSide(Model):
    """One run: `index` is the sha256 of its report's index.json."""

    job: str
    target: str
    index: str


class CompareTask(Model):
    """Payload of `benchmark.compare`."""

    baseline: CompareSide
    candidate: CompareSide
    metrics: tuple[str, ...]
    margin: float
    alpha: float
    power: float
    seed: int


class CompareValue(Model):
    """Value of `benchmark.compare`; `metric` decided the verdict, `delta` is that metric's, relative."""

    verdict: Verdict
    metric: str
    delta: float | None = None
    interleaved: bool
    differences: tuple[DifferenceFigures, ...]
    index: str
    files: tuple[ReportFile, ...] = ()
    message: str = ""
