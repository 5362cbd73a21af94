"""What scenarios share: repetition with a warm-up, machine facts, the result file, the page of results."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bench
from bench.pictures import Picture


@dataclass(frozen=True, slots=True)
class Options:
    """How to run a scenario. `quick` keeps its shape and shrinks n."""

    quick: bool = False
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over the repetitions."""

    median: float
    min: float
    max: float
    unit: str


@dataclass(frozen=True, slots=True)
class Result:
    """A result file. `n` is the number of measured repetitions; a ratio is ours against the peer or the limit."""

    scenario: str
    machine: str
    seed: int
    warmup: int
    n: int
    metrics: Mapping[str, Figure]
    ratios: Mapping[str, float] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """What a reader must know to judge the numbers, in a sentence."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """By the name that their file has after the scenario's."""
    is_quick: bool = False
    """Measured with `--quick`: the shape is the scenario's, the numbers of repetitions and tasks are not."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A benchmark: `run` measures and returns, it raises where something is wrong."""

    name: str
    summary: str
    run: Callable[[Options], Result]


def scenarios() -> dict[str, Scenario]:
    """Every `SCENARIO` of the modules in `bench/`, by name."""
    modules = (importlib.import_module(f"bench.{m.name}") for m in pkgutil.iter_modules(bench.__path__)
               if m.name != "__main__")
    found = [m.SCENARIO for m in modules if hasattr(m, "SCENARIO")]
    return {s.name: s for s in sorted(found, key=lambda s: s.name)}


def figure(values: Sequence[float], unit: str) -> Figure:
    """Median and spread."""
    return Figure(statistics.median(values), min(values), max(values), unit)


def repeat(
    measure: Callable[[], Mapping[str, float]], *, warmup: int, n: int, units: Mapping[str, str]
) -> dict[str, Figure]:
    """Run `measure` `warmup` + `n` times; the figures of the last `n`, each with its unit."""
    for _ in range(warmup):
        measure()
    runs = [measure() for _ in range(n)]
    return {name: figure([run[name] for run in runs], unit) for name, unit in units.items()}


def machine() -> str:
    """This machine in a line, with what else it was doing."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (f"{platform.system()} {platform.machine()}, {_processor()}, {cores} cores, {memory_gib:.0f} GiB, "
            f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown processor")


def to_json(result: Result) -> str:
    """The result file."""
    return json.dumps(asdict(result), indent=2) + "\n"


def from_json(text: str) -> Result:
    """Read a result file."""
    fields = json.loads(text)
    figures = {name: Figure(**f) for name, f in fields["metrics"].items()}
    pictures = {name: Picture(**f) for name, f in fields.get("pictures", {}).items()}
    return Result(**{**fields, "metrics": figures, "pictures": pictures})


def picture_file(result: Result, name: str) -> str:
    """Of a picture, beside the result file."""
    return f"{result.scenario}-{name}.svg"


def page(results: Iterable[Result], summaries: Mapping[str, str]) -> str:
    """`docs/performance.md`."""
    parts = [
        "# Performance\n\nWritten by `make performance` from the result files in `performance/`; edit neither.\n"
        "Each figure is the median of n repetitions with the smallest and the largest.\n",
    ]
    for result in results:
        parts.append(_section(result, summaries.get(result.scenario, "")))
    return "\n".join(parts)


def _section(result: Result, summary: str) -> str:
    rows = [
        f"| {name} | {_number(f.median)} | {_number(f.min)} – {_number(f.max)} | {f.unit} |"
        for name, f in result.metrics.items()
    ]
    ratios = [f"- {name}: {value:.3g}" for name, value in result.ratios.items()]
    peers = [f"- {name} {version}" for name, version in result.peers.items()]
    lines = [
        f"## {result.scenario}", "", *([summary, ""] if summary else []),
        *(["**Quick run** (`--quick`): fewer repetitions and smaller loads than the scenario has; no more than a hint.",
           ""] if result.is_quick else []),
        *([result.note, ""] if result.note else []),
        f"Machine: {result.machine}. n = {result.n} after {result.warmup} for warm-up, seed {result.seed}. "
        f"Again: `python -m bench run {result.scenario}`.", "",
        "| metric | median | spread | unit |", "|---|---:|---:|---|", *rows, "",
        *(f"![{picture.title}: {picture.y_label} over {picture.x_label}](performance/{picture_file(result, name)})\n"
          for name, picture in result.pictures.items()),
        *(["Ratios:", "", *ratios, ""] if ratios else []), *(["Measured against:", "", *peers, ""] if peers else []),
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
