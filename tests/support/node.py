"""Builders of pods and runs, and a runtime without processes, for tests of the node agent."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from espalier_kit.clock import ManualClock
from espalier_kit.errors import Retryable
from espalier_kube.cluster import Object
from espalier_node import podspec
from espalier_node.podspec import PodSpec
from espalier_node.runtime import ContainerConfig, ExecResult, Run
from espalier_node.steps import View
from espalier_node.streaming.channels import Command

START = datetime(2026, 1, 1, tzinfo=UTC)
UID = "6f1c1e0e-0000-4000-8000-000000000001"


def container(name: str = "main", **fields: Any) -> Object:
    """A container of our own image."""
    return {"name": name, "image": "espalier-worker:test", **fields}


def pod_object(*containers: Object, init: tuple[Object, ...] = (), **fields: Any) -> Object:
    """A pod as the API server has it; `fields` go into the spec, except metadata and status."""
    metadata = {"name": "p", "namespace": "class", "uid": UID, "generation": 1, **fields.pop("metadata", {})}
    status = fields.pop("status", {})
    spec: Object = {"restartPolicy": "Always", "containers": list(containers) or [container()], **fields}
    if init:
        spec["initContainers"] = list(init)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def pod(*containers: Object, init: tuple[Object, ...] = (), **fields: Any) -> PodSpec:
    """The same, parsed."""
    return podspec.parse(pod_object(*containers, init=init, **fields))


def run(*, code: int | None = None, seconds: float = 1.0, attempt: int = 0, streak: int = 0) -> Run:
    """A run that began at `START`; without a code it still runs."""
    begun = Run(attempt, f"process://{attempt}", START, streak)
    if code is None:
        return begun
    return dataclasses.replace(
        begun, finished_at=START + timedelta(seconds=seconds), exit_code=code,
        reason="Completed" if code == 0 else "Error",
    )  # fmt: skip


def view(*, code: int | None = None, ready: bool = False, **fields: Any) -> View:
    """A container that runs (`code` None) or ended."""
    return View(runs=(run(code=code, **fields),), is_started=code is None, is_ready=ready)


class FakeRuntime:
    """`espalier_node.runtime.Runtime` in memory: a test ends runs by `end`, and commands succeed unless `ill`."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._runs: dict[tuple[str, str], tuple[Run, ...]] = {}
        self._ended: dict[tuple[str, str], asyncio.Event] = {}
        self.configs: list[ContainerConfig] = []
        self.signals: list[tuple[str, str]] = []
        self.obeys = True
        self.ill: set[str] = set()
        self.refuses: str = ""

    async def start(self, config: ContainerConfig) -> Run:
        if self.refuses:
            raise Retryable(self.refuses, reason="Failed")
        key = (config.pod_uid, config.name)
        started = Run(config.attempt, f"process://{config.name}.{config.attempt}", self._clock.now(), config.streak)
        self._runs[key] = (started, *self._runs.get(key, ())[:1])
        self._ended[key] = asyncio.Event()
        self.configs.append(config)
        return started

    def end(self, name: str, code: int, *, uid: str = UID) -> None:
        """The process exits."""
        newest, *older = self._runs[(uid, name)]
        ended = dataclasses.replace(
            newest, finished_at=self._clock.now(), exit_code=code, reason="Completed" if code == 0 else "Error"
        )
        self._runs[(uid, name)] = (ended, *older)
        self._ended[(uid, name)].set()

    def runs(self, pod_uid: str, name: str) -> tuple[Run, ...]:
        return self._runs.get((pod_uid, name), ())

    async def wait(self, pod_uid: str, name: str) -> Run:
        await self._ended[(pod_uid, name)].wait()
        return self._runs[(pod_uid, name)][0]

    def terminate(self, pod_uid: str, name: str) -> None:
        self.signals.append(("TERM", name))
        if self.obeys:
            self.end(name, 143, uid=pod_uid)

    def kill(self, pod_uid: str, name: str) -> None:
        self.signals.append(("KILL", name))
        if self._runs[(pod_uid, name)][0].is_running:
            self.end(name, 137, uid=pod_uid)

    async def execute(self, pod_uid: str, name: str, command: tuple[str, ...], *, timeout_s: float) -> ExecResult:
        return ExecResult(1, "ill") if name in self.ill else ExecResult(0, "")

    async def interact(
        self, pod_uid: str, name: str, command: tuple[str, ...], *, has_stdin: bool, is_tty: bool
    ) -> Command:
        raise Retryable(f"container {name} has no processes", reason="NotRunning")

    def log_path(self, pod_uid: str, name: str, *, previous: bool = False) -> Path | None:
        return None

    def pods(self) -> tuple[str, ...]:
        return tuple({uid for uid, _ in self._runs})

    def containers(self, pod_uid: str) -> tuple[str, ...]:
        return tuple(name for uid, name in self._runs if uid == pod_uid)

    def forget(self, pod_uid: str) -> None:
        for key in [key for key in self._runs if key[0] == pod_uid]:
            del self._runs[key]


def states(status: Mapping[str, Any]) -> dict[str, str]:
    """Container → `running`, or the reason for waiting or ending."""
    found = {}
    for one in (*status.get("initContainerStatuses", ()), *status["containerStatuses"]):
        ((kind, detail),) = one["state"].items()
        found[one["name"]] = "running" if kind == "running" else detail["reason"]
    return found
