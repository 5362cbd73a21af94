"""Running a class in one process: the executors themselves, an artifact store in memory, the DAG's rules by hand."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from typing import Any

from espalier_api.gradingjob import Execution, PerformanceTargets
from espalier_api.tasks import GradingSettings, JudgeSettings
from espalier_kit.digest import sha256, task_id
from espalier_kit.errors import EspalierError, NotFound
from espalier_kit.execution import Executor, ModelEndpoint, Outcome, Task, TaskSpec, TaskState, When


@dataclass
class MemoryArtifacts:
    """An `ArtifactStore` in a dict."""

    kept: dict[str, bytes] = field(default_factory=dict)

    async def put(self, data: bytes | AsyncIterable[bytes]) -> str:
        content = data if isinstance(data, bytes) else b"".join([chunk async for chunk in data])
        self.kept[sha256(content)] = content
        return sha256(content)

    async def get(self, digest: str) -> bytes:
        if digest not in self.kept:
            raise NotFound(f"no artifact {digest}", reason="NotFound")
        return self.kept[digest]

    async def stream(self, digest: str) -> AsyncIterator[bytes]:
        yield await self.get(digest)


@dataclass
class LentContext:
    """A `Context` with fixed endpoints."""

    artifacts: MemoryArtifacts
    servers: tuple[ModelEndpoint, ...] = ()
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        return logging.LoggerAdapter(logging.getLogger("tests.grading"), {})

    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        return self.servers

    async def progress(self, fraction: float, message: str = "") -> None:
        assert 0 <= fraction <= 1, message


@dataclass
class Run:
    """A class being graded."""

    context: LentContext
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    tallies: dict[str, float] = field(default_factory=dict)
    seconds: float = 300.0
    """The deadline of each attempt."""
    _specs: dict[str, TaskSpec] = field(default_factory=dict)

    async def grade(self, settings: GradingSettings) -> Outcome:
        """From admission to report; the report's outcome, or the admission's if it failed."""
        self._specs["admit"] = TaskSpec("admit", "grading.admit", settings.wire())
        while ready := self._ready():
            await asyncio.gather(*(self._run(spec) for spec in ready))
        return self.outcomes.get("report", self.outcomes["admit"])

    def file(self, name: str) -> bytes:
        """A file of the report."""
        report = self.outcomes["report"].value
        assert report is not None
        index = json.loads(self.context.artifacts.kept[report["index"]])
        return self.context.artifacts.kept[index["files"][name]]

    def by_student(self) -> dict[str, dict[str, Any]]:
        """Each submission of `report.json` by the student's folder."""
        names = json.loads(self.file("restricted/names.json"))
        return {names[row["pseudonym"]]: row for row in json.loads(self.file("report.json"))["submissions"]}

    def _ready(self) -> list[TaskSpec]:
        ready = []
        for key, spec in self._specs.items():
            if key in self.outcomes or any(d.key not in self.outcomes for d in spec.depends_on):
                continue
            if any(d.when is When.DONE and self.outcomes[d.key].state is not TaskState.DONE for d in spec.depends_on):
                self.outcomes[key] = Outcome(TaskState.SKIPPED, reason="DependencyFailed")
                return self._ready()
            ready.append(spec)
        return ready

    async def _run(self, spec: TaskSpec) -> None:
        payload = json.loads(json.dumps(dict(spec.payload)))
        inputs = {d.key: self.outcomes[d.key] for d in spec.depends_on}
        task = Task(
            id=task_id("uid-1", spec.key),
            job_uid="uid-1",
            job_name="ps1",
            namespace="class",
            key=spec.key,
            type=spec.type,
            payload=payload,
            inputs=inputs,
            attempt=1,
            deadline=datetime.now(UTC) + timedelta(seconds=self.seconds),
        )
        try:
            result = await executor(spec.type)(task, self.context)
        except EspalierError as error:
            self.outcomes[spec.key] = Outcome(TaskState.FAILED, reason=error.reason, message=str(error))
            return
        for name, value in result.tallies.items():
            self.tallies[name] = self.tallies.get(name, 0.0) + value
        self._specs.update({child.key: child for child in result.children})
        self.outcomes[spec.key] = Outcome(TaskState.DONE, value=json.loads(json.dumps(dict(result.value))))


def executor(type_: str) -> Executor:
    """The executor that a worker would find."""
    (found,) = entry_points(group="espalier.executors", name=type_)
    loaded: Executor = found.load()
    return loaded


def settings(assignment: str, submissions: str, **more: Any) -> GradingSettings:
    """A job's settings, small answers."""
    values: Mapping[str, Any] = {
        "scale_points": 37.5,
        "execution": Execution(),
        "targets": PerformanceTargets(),
        "code": JudgeSettings(max_tokens=800, temperature=0.1, seed=1),
        "feedback": JudgeSettings(max_tokens=1200, temperature=0.3, seed=1),
        **more,
    }
    return GradingSettings(assignment=assignment, submissions=submissions, **values)


def endpoint(role: str, url: str, **more: Any) -> ModelEndpoint:
    """A ready endpoint."""
    return ModelEndpoint(role=role, url=url, model=f"{role}-model", name=f"mac/{role}", **more)
