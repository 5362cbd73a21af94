"""The client's side of the supervisor: write wishes, wake it, read states."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from espalier_kit.errors import NotFound, Retryable
from espalier_local.files import write_atomically
from espalier_local.layout import MARKER, Layout
from espalier_local.locks import is_held
from espalier_local.processtable import end_all, is_same, leftovers
from espalier_local.supervised import (
    Phase,
    ProcessSpec,
    ProcessState,
    Wish,
    spec_from_json,
    spec_to_json,
    states_from_json,
)

_LOOK_S = 0.02
STOP_S = 40.0
"""More than the sum of the processes' own deadlines; after it everything is killed."""
GRACE_S = 3.0
"""For pods, after the control plane is gone."""
_SWEEPS = 5


@dataclass(frozen=True, slots=True)
class Control:
    """Everything one may do with a cluster's processes."""

    layout: Layout

    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        return is_held(self.layout.supervisor_lock)

    def ensure(self) -> None:
        """Start the supervisor unless it lives; a new one adopts what an old one left running."""
        for directory in (self.layout.wishes, self.layout.logs):
            directory.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, MARKER: str(self.layout.root)}
        command = [sys.executable, "-P", "-m", "espalier_local.supervisor", str(self.layout.root)]
        with self.layout.log("supervisor").open("ab") as output:
            started = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd="/", check=False
            )
        if started.returncode or not self.is_running():
            words = tail(self.layout.log("supervisor"))
            raise Retryable(f"the supervisor did not start: {words}", reason="SupervisorFailed")

    def put(self, specs: Iterable[ProcessSpec]) -> None:
        """Wish these processes."""
        for spec in specs:
            write_atomically(self.layout.wish(spec.name), spec_to_json(spec))
        self.wake()

    def wish(self, name: str, wish: Wish) -> None:
        """Change the wish for one process; raises `NotFound`."""
        self.put([replace(self.spec(name), wish=wish)])

    def spec(self, name: str) -> ProcessSpec:
        """The present wish; raises `NotFound`."""
        try:
            return spec_from_json(self.layout.wish(name).read_text())
        except FileNotFoundError as error:
            raise NotFound(f"the cluster has no process {name}") from error

    def names(self) -> list[str]:
        """Every wished process, in the order in which they start."""
        specs = [spec_from_json(path.read_text()) for path in self.layout.wishes.glob("[!.]*.json")]
        return [spec.name for spec in sorted(specs, key=lambda spec: (spec.order, spec.name))]

    def wake(self) -> None:
        """Make the supervisor look at once instead of within a second."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            if self.is_running():
                os.kill(int(self.layout.supervisor_pid.read_text()), signal.SIGHUP)

    def states(self) -> dict[str, ProcessState]:
        """What the supervisor last wrote; empty before it wrote anything."""
        try:
            return states_from_json(self.layout.states.read_text())
        except FileNotFoundError:
            return {}

    def living(self) -> list[ProcessState]:
        """Those of the states whose process still runs, whether the supervisor does or not."""
        return [state for state in self.states().values() if state.pid and is_same(state.pid, state.started)]

    def wait(self, name: str, is_reached: Callable[[ProcessState], bool], *, timeout_s: float = 15.0) -> ProcessState:
        """Until the state of one process is as wanted; raises `Retryable` with the state it is stuck in."""
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.states().get(name)
            if state is not None and is_reached(state):
                return state
            if time.monotonic() > deadline:
                phase = state.phase if state else "unknown to the supervisor"
                raise Retryable(f"{name} is {phase} after {timeout_s:.0f} s", reason="Timeout")
            time.sleep(_LOOK_S)

    def stop(self) -> None:
        """Leave no process: the supervisor stops in its order, then goes whatever carries the cluster's marker."""
        if self.is_running():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                os.kill(int(self.layout.supervisor_pid.read_text()), signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        # Again until nothing is found: a process that forks while the table is read is seen only the next time.
        for _ in range(_SWEEPS):
            found = leftovers(self.layout.root)
            if not found:
                return
            end_all(found, grace_s=GRACE_S)
        pids = ", ".join(str(process.pid) for process in found)
        raise Retryable(f"processes of {self.layout.root.name} do not end: {pids}", reason="Timeout")


def is_phase(*phases: Phase) -> Callable[[ProcessState], bool]:
    """A predicate for `Control.wait`."""
    return lambda state: state.phase in phases


def tail(log: Path, lines: int = 2, width: int = 300) -> str:
    """The last lines of a log, cut, for a sentence; empty if there is none."""
    try:
        text = log.read_bytes()[-8192:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return " | ".join(line[:width] for line in text.strip().splitlines()[-lines:])
