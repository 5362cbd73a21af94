"""The one long-lived process of a cluster: starts what is wished, restarts what dies, stops all when told.

`python -m espalier_local.supervisor DIRECTORY` detaches itself and returns at once. Wishes are files, so that a
supervisor that was killed is simply started again: it adopts what still runs. SIGHUP: look at the wishes now.
SIGTERM: stop everything, last started first, then end.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from espalier_kit import logs
from espalier_local.files import write_atomically
from espalier_local.layout import MARKER, Layout
from espalier_local.processtable import is_same, signal_group, start_time
from espalier_local.readiness import accepts, is_ready
from espalier_local.supervised import (
    Phase,
    ProcessSpec,
    ProcessState,
    Step,
    after_exit,
    decide,
    spec_from_json,
    states_from_json,
    states_to_json,
    while_stopping,
)

log = logging.getLogger(__name__)
QUICK_S = 0.05
"""How often to look while something waits for a port, a back-off or a deadline."""
ADOPTED_S = 0.25
"""How often to look while there is an adopted process, whose death sends us no signal."""
SLOW_S = 1.0
"""How often to look otherwise; a death of our own child and a SIGHUP wake us at once."""


class Supervisor:
    """Owns the processes. `run` returns when all are stopped after `stop`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._states: dict[str, ProcessState] = {}
        self._saved = ""
        self._is_stopping = False

    def run(self) -> None:
        """Adopt, then loop until stopped."""
        self._adopt()
        with _Wakeup() as wakeup:
            while not self._tick():
                wakeup.wait(self._pause_s())

    def stop(self) -> None:
        """Begin to stop everything."""
        self._is_stopping = True

    def _adopt(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._states = states_from_json(self._layout.states.read_text())
        for name, state in self._states.items():
            if state.pid is not None and is_same(state.pid, state.started):
                log.info("adopted", extra={"component": name, "pid": state.pid})

    def _tick(self) -> bool:
        """Look once at everything; returns whether the work is over."""
        specs = self._wishes()
        for name in sorted(specs.keys() | self._states.keys()):
            state = self._reaped(self._states.get(name) or ProcessState(name))
            self._states[name] = self._perform(decide(specs.get(name), state, time.time()), specs.get(name), state)
        for name in [n for n, s in self._states.items() if n not in specs and s.pid is None]:
            del self._states[name]
        self._save()
        return self._is_stopping and all(state.pid is None for state in self._states.values())

    def _wishes(self) -> dict[str, ProcessSpec]:
        found = [spec_from_json(path.read_text()) for path in sorted(self._layout.wishes.glob("[!.]*.json"))]
        specs = {spec.name: spec for spec in found}
        if not self._is_stopping:
            return specs
        return while_stopping(specs, {name for name, state in self._states.items() if state.pid is not None})

    def _reaped(self, state: ProcessState) -> ProcessState:
        if state.pid is None:
            return state
        child = self._children.get(state.name)
        code = child.poll() if child else (None if is_same(state.pid, state.started) else 0)
        if code is None:
            return state
        self._children.pop(state.name, None)
        how = _how_it_ended(code) if child else "ended while no supervisor looked"
        if child or start_time(state.pid) is None:  # else the number is somebody else's by now, and so is its group
            # What the dead leader's group left behind would hold its ports.
            signal_group(state.pid, signal.SIGKILL)
        log.info("exited", extra={"component": state.name, "pid": state.pid, "how": how})
        return after_exit(state, how, time.time())

    def _perform(self, step: Step, spec: ProcessSpec | None, state: ProcessState) -> ProcessState:
        now = time.time()
        if step is Step.START and spec is not None:
            return self._start(spec, state, now)
        if state.pid is None or step is Step.NONE:
            return state
        if step is Step.PAUSE:
            signal_group(state.pid, signal.SIGSTOP)
            return replace(state, phase=Phase.PAUSED, since=now)
        if step is Step.RESUME:
            signal_group(state.pid, signal.SIGCONT)
            return replace(state, phase=Phase.RUNNING, since=now)
        if step is Step.KILL:
            signal_group(state.pid, signal.SIGKILL)
            return state
        signal_group(state.pid, signal.SIGTERM)
        signal_group(state.pid, signal.SIGCONT)
        return replace(state, phase=Phase.STOPPING, since=now)

    def _start(self, spec: ProcessSpec, state: ProcessState, now: float) -> ProcessState:
        if not _may_start(spec):
            return state
        environment = {**os.environ, **spec.environment, MARKER: str(self._layout.root)}
        try:
            with self._layout.log(spec.name).open("ab") as output:
                child = subprocess.Popen(
                    spec.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                    env=environment, cwd=self._layout.root,
                )  # fmt: skip
        except OSError as error:
            log.warning("cannot start", extra={"component": spec.name, "error": str(error)})
            return after_exit(state, f"cannot start: {error}", now)
        self._children[spec.name] = child
        log.info("started", extra={"component": spec.name, "pid": child.pid})
        return replace(state, phase=Phase.RUNNING, pid=child.pid, started=start_time(child.pid), since=now)

    def _pause_s(self) -> float:
        states = self._states.values()
        if not all(state.phase in (Phase.RUNNING, Phase.PAUSED, Phase.STOPPED) for state in states):
            return QUICK_S
        return ADOPTED_S if any(state.pid and state.name not in self._children for state in states) else SLOW_S

    def _save(self) -> None:
        text = states_to_json(self._states)
        if text == self._saved:
            return
        try:
            write_atomically(self._layout.states, text)
            self._saved = text
        except OSError as error:  # a full disk: keep supervising, write when there is room
            log.warning("cannot write state", extra={"error": str(error)})


class _Wakeup:
    """Waits for time or for a signal, whichever is first, without losing one."""

    def __enter__(self) -> _Wakeup:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def wait(self, seconds: float) -> None:
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _may_start(spec: ProcessSpec) -> bool:
    if spec.after is None:
        return True
    return is_ready(*spec.after, spec.authority) if spec.authority else accepts(*spec.after)


def _how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def main(arguments: list[str]) -> int:
    """Detach and supervise; the caller's process returns 0 once the lock is held, by us or an older supervisor."""
    layout = Layout(Path(arguments[0]))
    ready, locked = os.pipe()
    if os.fork():
        os.close(locked)
        os.read(ready, 1)  # ends when the child closes its end
        return 0
    os.setsid()
    with layout.supervisor_lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        write_atomically(layout.supervisor_pid, str(os.getpid()))
        logs.configure()
        supervisor = Supervisor(layout)
        signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
        for number in (signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        os.close(locked)
        supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
