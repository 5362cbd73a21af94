"""What to do next with a pod's containers (pure): init containers in order, sidecars, restarts with back-off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from espalier_node.podspec import ContainerSpec, PodSpec
from espalier_node.runtime import Run

HEALTHY_S = 600.0
"""A run at least this long ends the streak of crashes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run, as its status tells it."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What is known of one container: its runs (newest first), its probes, and what keeps it from starting."""

    runs: tuple[Run, ...] = ()
    is_started: bool = False
    """Running, and the startup probe (if any) has passed."""
    is_ready: bool = False
    waiting: Waiting | None = None
    """An obstacle found at the last try to start it."""

    @property
    def run(self) -> Run | None:
        return self.runs[0] if self.runs else None

    @property
    def is_running(self) -> bool:
        return self.run is not None and self.run.is_running

    @property
    def has_succeeded(self) -> bool:
        return self.run is not None and not self.run.is_running and self.run.exit_code == 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Back-off between restarts."""

    first_s: float = 10.0
    longest_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do now. `waiting` says why other containers wait; `wake_at` when to look again if nothing happens."""

    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    wake_at: datetime | None = None


Progress = Literal["Pending", "Running", "Succeeded", "Failed"]


def streak_after(run: Run) -> int:
    """Quick ends in a row, this run's included."""
    return 0 if run.seconds >= HEALTHY_S else run.streak + 1


def backoff_s(run: Run, limits: Limits) -> float:
    """How long after its end a container waits: not at all the first time, then doubling."""
    quick = streak_after(run)
    return 0.0 if quick <= 1 else min(limits.first_s * 2 ** (quick - 2), limits.longest_s)


def initialised(pod: PodSpec, views: Mapping[str, View]) -> bool:
    """Whether every init container has done its part."""
    return all(has_done_its_part(c, views.get(c.name, View())) for c in pod.init)


def progress(pod: PodSpec, views: Mapping[str, View]) -> Progress:
    """The pod's phase by its containers alone."""
    failed_init = any(
        not c.is_sidecar and c.restart == "Never" and _has_failed(views.get(c.name, View())) for c in pod.init
    )
    if failed_init:
        return "Failed"
    found = [views.get(c.name, View()) for c in pod.main]
    if not initialised(pod, views) and not any(view.runs for view in found):
        return "Pending"
    if any(not view.runs for view in found):
        return "Pending"
    if any(view.is_running for view in found):
        return "Running"
    if pod.restart_policy == "Always":
        return "Running"
    if all(view.has_succeeded for view in found):
        return "Succeeded"
    return "Failed" if pod.restart_policy == "Never" else "Running"


def next_steps(pod: PodSpec, views: Mapping[str, View], now: datetime, limits: Limits) -> Steps:
    """Which containers to start or stop now, for a pod that is not being deleted."""
    if progress(pod, views) in ("Succeeded", "Failed"):
        return Steps(stop=tuple(c.name for c in pod.init if views.get(c.name, View()).is_running))
    if not _main_has_begun(pod, views):
        for container in pod.init:
            view = views.get(container.name, View())
            if container.is_sidecar and view.is_started:
                continue
            if not has_done_its_part(container, view):
                return _sidecars_kept(pod, views, container, _advance([container], views, now, limits), now, limits)
    sidecars = [c for c in pod.init if c.is_sidecar]
    return _advance([*sidecars, *pod.main], views, now, limits)


def _sidecars_kept(
    pod: PodSpec, views: Mapping[str, View], current: ContainerSpec, steps: Steps, now: datetime, limits: Limits
) -> Steps:
    """A sidecar that ended while a later init container works is started again too."""
    before = [c for c in pod.init[: pod.init.index(current)] if c.is_sidecar]
    kept = _advance(before, views, now, limits)
    times = [t for t in (kept.wake_at, steps.wake_at) if t is not None]
    return Steps(
        start=(*kept.start, *steps.start), waiting={**kept.waiting, **steps.waiting}, wake_at=min(times, default=None)
    )


def _main_has_begun(pod: PodSpec, views: Mapping[str, View]) -> bool:
    return any(views.get(c.name, View()).runs for c in pod.main)


def has_done_its_part(container: ContainerSpec, view: View) -> bool:
    """Whether an init container no longer keeps the next from starting."""
    return view.is_started if container.is_sidecar else view.has_succeeded


def _has_failed(view: View) -> bool:
    return view.run is not None and not view.run.is_running and view.run.exit_code != 0


def _advance(containers: list[ContainerSpec], views: Mapping[str, View], now: datetime, limits: Limits) -> Steps:
    start: list[str] = []
    waiting: dict[str, Waiting] = {}
    times: list[datetime] = []
    for container in containers:
        run = views.get(container.name, View()).run
        if not _wants_start(container, run):
            continue
        due = run.finished_at + timedelta(seconds=backoff_s(run, limits)) if run and run.finished_at else now
        if due <= now:
            start.append(container.name)
        elif run is not None:
            delay = backoff_s(run, limits)
            waiting[container.name] = Waiting(
                "CrashLoopBackOff", f"back-off {delay:g}s restarting failed container={container.name}"
            )
            times.append(due)
    return Steps(start=tuple(start), waiting=waiting, wake_at=min(times, default=None))


def _wants_start(container: ContainerSpec, run: Run | None) -> bool:
    if run is None:
        return True
    if run.is_running:
        return False
    if container.restart == "Always":
        return True
    return container.restart == "OnFailure" and run.exit_code != 0
