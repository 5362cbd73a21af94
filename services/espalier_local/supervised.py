"""What the supervisor keeps alive: the wish for each process, its state, and the pure decision between the two."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 10.0
STEADY_S = 20.0
"""A process that ran this long begins again with the shortest back-off."""


class Wish(StrEnum):
    """What the owner of the cluster wants of a process."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"


class Phase(StrEnum):
    """What is."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Step(StrEnum):
    """What the supervisor does next for one process; TERMINATE and KILL go to its whole process group."""

    NONE = "none"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A wished process. Higher `order` stops first.

    It starts once `after` (host, port) takes connections, or, where `authority` names a CA file, once the API server
    there says over TLS that it is ready.
    """

    name: str
    argv: tuple[str, ...]
    order: int
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, int] | None = None
    authority: str = ""
    wish: Wish = Wish.RUN
    stop_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """An actual process. `started` is the kernel's start time, which with the pid names a process for good; `since`
    is when the phase began and `not_before` the end of a back-off, both in seconds since the epoch."""

    name: str
    phase: Phase = Phase.WAITING
    pid: int | None = None
    started: float | None = None
    since: float = 0.0
    not_before: float = 0.0
    restarts: int = 0
    failures_in_row: int = 0
    last_exit: str = ""


def decide(spec: ProcessSpec | None, state: ProcessState, now: float) -> Step:
    """The next step from wish and state; a spec that was taken away is a wish to stop."""
    if spec is None or spec.wish is Wish.STOP:
        return _towards_stop(spec.stop_s if spec else 5.0, state, now)
    if state.pid is None:
        return Step.START if now >= state.not_before else Step.NONE
    if spec.wish is Wish.PAUSE and state.phase is Phase.RUNNING:
        return Step.PAUSE
    if spec.wish is Wish.RUN and state.phase is Phase.PAUSED:
        return Step.RESUME
    return Step.NONE


def _towards_stop(deadline_s: float, state: ProcessState, now: float) -> Step:
    if state.pid is None:
        return Step.NONE
    if state.phase is not Phase.STOPPING:
        return Step.TERMINATE
    return Step.KILL if now - state.since > deadline_s else Step.NONE


def while_stopping(specs: Mapping[str, ProcessSpec], living: Collection[str]) -> dict[str, ProcessSpec]:
    """The wishes of a supervisor that ends: the last order stops, the ones before it stay, nothing is started again."""
    last = max((specs[name].order for name in living if name in specs), default=0)
    return {
        name: replace(spec, wish=Wish.STOP) if spec.order >= last else spec
        for name, spec in specs.items() if name in living
    }  # fmt: skip


def after_exit(state: ProcessState, how: str, now: float) -> ProcessState:
    """The state once the process is gone: stopped if that was wished, else a restart after a back-off that doubles."""
    if state.phase is Phase.STOPPING:
        return replace(state, phase=Phase.STOPPED, pid=None, started=None, since=now, last_exit=how)
    failures = 0 if now - state.since > STEADY_S else state.failures_in_row
    backoff = min(BACKOFF_FIRST_S * 2**failures, BACKOFF_LAST_S)
    return replace(
        state, phase=Phase.WAITING, pid=None, started=None, since=now, not_before=now + backoff,
        restarts=state.restarts + 1, failures_in_row=failures + 1, last_exit=how,
    )  # fmt: skip


def spec_to_json(spec: ProcessSpec) -> str:
    """One file per wish."""
    return json.dumps(asdict(spec))


def spec_from_json(text: str) -> ProcessSpec:
    """The inverse of `spec_to_json`."""
    data: dict[str, Any] = json.loads(text)
    after = data["after"]
    data |= {"argv": tuple(data["argv"]), "wish": Wish(data["wish"]), "after": (after[0], after[1]) if after else None}
    return ProcessSpec(**data)


def states_to_json(states: Mapping[str, ProcessState]) -> str:
    """All states, in one file that is replaced at once."""
    return json.dumps({name: asdict(state) for name, state in states.items()})


def states_from_json(text: str) -> dict[str, ProcessState]:
    """The inverse of `states_to_json`."""
    return {name: ProcessState(**{**data, "phase": Phase(data["phase"])}) for name, data in json.loads(text).items()}
