"""A benchmark in one process, without a coordinator: the same executors, tasks and rules, artifacts in a folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from espalier_api.benchmarktasks import ACCURACY, ADMIT, GENERATE, LOADED, REPORT, BenchmarkSettings, BenchmarkValue
from espalier_benchmark.dag import REPORT_KEY
from espalier_benchmark.executors.accuracy import accuracy, loaded
from espalier_benchmark.executors.admit import admit
from espalier_benchmark.executors.generate import generate
from espalier_benchmark.executors.report import report
from espalier_benchmark.questions import Journal
from espalier_kit.digest import sha256, task_id
from espalier_kit.errors import EspalierError, NotFound
from espalier_kit.execution import (
    EvaluatorFault,
    Executor,
    ModelEndpoint,
    Outcome,
    Result,
    Task,
    TaskSpec,
    TaskState,
    UserFault,
    When,
)

EXECUTORS: Mapping[str, Executor] = {
    ADMIT: admit,
    GENERATE: generate,
    LOADED: loaded,
    ACCURACY: accuracy,
    REPORT: report,
}
ADMIT_KEY = "admit"
RETRIES = 2
_DEADLINE_S = 3600.0
log = logging.getLogger(__name__)


class FolderArtifacts:
    """An `ArtifactStore` in a folder, a file a digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    async def put(self, data: bytes | AsyncIterable[bytes]) -> str:
        """Store."""
        content = data if isinstance(data, bytes) else b"".join([chunk async for chunk in data])
        digest = sha256(content)
        await asyncio.to_thread((self._folder / digest).write_bytes, content)
        return digest

    async def get(self, sha256: str) -> bytes:
        """Raises `NotFound`."""
        path = self._folder / sha256
        if not path.is_file():
            raise NotFound(f"no artifact {sha256}", reason="NotFound")
        return await asyncio.to_thread(path.read_bytes)

    async def stream(self, sha256: str) -> AsyncIterator[bytes]:
        """The bytes in one piece."""
        yield await self.get(sha256)


@dataclass(slots=True)
class LocalContext:
    """What an executor is lent. `told` hears of progress."""

    store: FolderArtifacts
    servers: tuple[ModelEndpoint, ...]
    told: Callable[[str, float, str], None]
    key: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cancelled(self) -> asyncio.Event:
        """Never set: a person ends the process."""
        return self.stop

    @property
    def artifacts(self) -> FolderArtifacts:
        """The folder."""
        return self.store

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """With the task's key."""
        return logging.LoggerAdapter(log, {"task": self.key})

    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        """Those that were given."""
        return self.servers

    async def progress(self, fraction: float, message: str = "") -> None:
        """Tell."""
        self.told(self.key, fraction, message)


@dataclass(slots=True)
class LocalRun:
    """One job. `uid` decides the tasks' identities: the same one again goes on with the answers that were kept."""

    store: FolderArtifacts
    servers: tuple[ModelEndpoint, ...]
    uid: str
    told: Callable[[str, float, str], None] = lambda key, fraction, message: None
    cache: Path | None = None
    """Where answers to questions are kept for other runs too."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _specs: dict[str, TaskSpec] = field(default_factory=dict)

    async def run(self, settings: BenchmarkSettings) -> BenchmarkValue:
        """To the report. Raises the admission's or the report's fault."""
        self._specs[ADMIT_KEY] = TaskSpec(ADMIT_KEY, ADMIT, settings.wire())
        while ready := self._ready():
            await asyncio.gather(*(self._end(spec) for spec in ready))
        last = self.outcomes.get(REPORT_KEY, self.outcomes[ADMIT_KEY])
        if last.state is not TaskState.DONE or last.value is None:
            raise EvaluatorFault(last.message, reason=last.reason)
        return BenchmarkValue.model_validate(last.value)

    def _ready(self) -> list[TaskSpec]:
        """Generators all at once, since they wait for each other; questions one chunk after the other."""
        found = [spec for key, spec in self._specs.items() if key not in self.outcomes and self._is_free(spec)]
        return [spec for spec in found if spec.type == GENERATE] or found[:1]

    def _is_free(self, spec: TaskSpec) -> bool:
        states = [(self.outcomes.get(edge.key), edge.when) for edge in spec.depends_on]
        return all(out and (when is When.FINISHED or out.state is TaskState.DONE) for out, when in states)

    async def _end(self, spec: TaskSpec) -> None:
        for attempt in range(1, RETRIES + 2):
            try:
                result = await self._call(spec, attempt)
            except EspalierError as error:
                self.outcomes[spec.key] = Outcome(TaskState.FAILED, None, error.reason, str(error))
                if isinstance(error, UserFault | EvaluatorFault):
                    return
            else:
                self.outcomes[spec.key] = Outcome(TaskState.DONE, result.value)
                self._specs |= {child.key: child for child in result.children}
                return

    async def _call(self, spec: TaskSpec, attempt: int) -> Result:
        seconds = spec.timeout_s or _DEADLINE_S
        task = Task(
            id=task_id(self.uid, spec.key),
            job_uid=self.uid,
            job_name="local",
            namespace="local",
            key=spec.key,
            type=spec.type,
            payload=spec.payload,
            inputs={edge.key: self.outcomes[edge.key] for edge in spec.depends_on},
            attempt=attempt,
            deadline=datetime.now(UTC) + timedelta(seconds=seconds),
        )
        context = LocalContext(self.store, self.servers, self.told, spec.key)
        if spec.type == ACCURACY and self.cache is not None:
            return await accuracy(task, context, cache=Journal(self.cache / "answers.jsonl"))
        return await EXECUTORS[spec.type](task, context)
