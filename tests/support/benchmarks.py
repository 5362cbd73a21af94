"""Whole benchmarks in one process, against servers whose delays and answers a test decides."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from espalier_api.benchmarkload import Load, Price, Synthetic
from espalier_api.benchmarktasks import (
    AskSettings,
    BenchmarkSettings,
    BenchmarkValue,
    CompareSide,
    CompareTask,
    CompareValue,
    DatasetSettings,
)
from espalier_benchmark.executors.compare import compare
from espalier_benchmark.local import FolderArtifacts, LocalContext, LocalRun
from espalier_kit.execution import Executor, ModelEndpoint, Outcome, Result, Task, TaskState

QUIET = Load(pattern="poisson", rate=40, requests=40)


def target(number: int = 0, **fields: Any) -> AskSettings:
    given = {"max_tokens": 256, "temperature": 0, "seed": 0, **fields}
    return AskSettings(role=f"target-{number}", name=f"target-{number}", **given)


def settings(**fields: Any) -> BenchmarkSettings:
    dataset = DatasetSettings(synthetic=Synthetic(prompt_tokens=5, output_tokens=8))
    return BenchmarkSettings(**{"job": "bench", "targets": (target(),), "dataset": dataset, **fields})


def price() -> Price:
    return Price(input_per_million=1, output_per_million=2)


def endpoint(url: str, number: int = 0, **fields: Any) -> ModelEndpoint:
    return ModelEndpoint(f"target-{number}", url, "timed", **fields)


class Bench:
    """A folder for artifacts, and runs in it."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderArtifacts(folder)

    async def run(self, wanted: BenchmarkSettings, *servers: ModelEndpoint, uid: str = "") -> BenchmarkValue:
        self.last = LocalRun(self.store, servers, uid or uuid.uuid4().hex)
        return await self.last.run(wanted)

    async def compare(
        self, baseline: BenchmarkValue, candidate: BenchmarkValue, *metrics: str, targets: tuple[str, str] = ("", ""),
        margin: float = 0.05,
    ) -> CompareValue:
        sides = [
            CompareSide(job=name, target=which or "target-0", index=value.index)
            for name, value, which in zip(("before", "after"), (baseline, candidate), targets, strict=True)
        ]
        wanted = CompareTask(
            baseline=sides[0], candidate=sides[1], metrics=metrics, margin=margin, alpha=0.05, power=0.8, seed=0
        )
        return CompareValue.model_validate((await self.call(compare, wanted.wire())).value)

    async def call(
        self, executor: Executor, payload: dict[str, Any], *servers: ModelEndpoint,
        inputs: dict[str, dict[str, Any]] | None = None,
    ) -> Result:
        """One executor as a worker calls it."""
        task = Task(
            id=uuid.uuid4().hex, job_uid="u", job_name="job", namespace="ns", key="k", type="t", payload=payload,
            inputs={key: Outcome(TaskState.DONE, value) for key, value in (inputs or {}).items()}, attempt=1,
            deadline=datetime.now(UTC) + timedelta(seconds=60),
        )  # fmt: skip
        return await executor(task, LocalContext(self.store, servers, lambda key, fraction, message: None))

    async def file(self, value: BenchmarkValue | CompareValue, name: str) -> bytes:
        index = json.loads(await self.store.get(value.index))
        return await self.store.get(index["files"][name])


def texts(*rows: dict[str, str]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def said(answer: Callable[[object], str], make: Callable[[str], dict[str, Any]]) -> Callable[..., Any]:
    """A `whole` of `TimedServer`: what it says to the last message."""

    def whole(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, make(answer(body["messages"][-1]["content"]))

    return whole
