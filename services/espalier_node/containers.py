"""The containers of one pod while they live: start, watch for their end, probe, stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from espalier_kit.errors import Retryable
from espalier_node import steps
from espalier_node.context import Context
from espalier_node.health import ProbeKind, Prober, Reports, Verdict, first_verdict
from espalier_node.logs import tail_text
from espalier_node.podspec import ContainerSpec, PodSpec
from espalier_node.probes import Outcome, attempt
from espalier_node.runtime import ContainerConfig, ExecResult, Run
from espalier_node.steps import View, Waiting

log = logging.getLogger(__name__)

HOOK_S = 30.0


class Containers:
    """Keeps a task per running container (its end, its probes) and calls `changed` whenever something did."""

    def __init__(self, context: Context, pod: PodSpec, changed: Callable[[], None]) -> None:
        self._context, self.pod, self._changed = context, pod, changed
        self._runs: dict[str, tuple[Run, ...]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self._hooks: dict[str, asyncio.Task[None]] = {}

    def views(self, waiting: Mapping[str, Waiting]) -> dict[str, View]:
        """What is known of each container."""
        found = {}
        for container in self.pod.containers:
            runs = self._runs.get(container.name, ())
            verdict = self._verdicts.get(container.name) if runs and runs[0].is_running else None
            found[container.name] = View(
                runs=runs,
                is_started=verdict is not None and verdict.is_started,
                is_ready=verdict is not None and verdict.is_ready,
                waiting=waiting.get(container.name),
            )
        return found

    async def adopt(self) -> None:
        """Take over what an earlier agent started."""
        for container in self.pod.containers:
            runs = self._context.runtime.runs(self.pod.uid, container.name)
            if runs:
                self._runs[container.name] = tuple(self._with_message(container, run) for run in runs)
                if runs[0].is_running:
                    self._context.metrics.adopted.inc()
                    self._watch(container, self._reported(container, runs[0]))

    def next_attempt(self, name: str) -> tuple[int, int]:
        """Number and streak of the next run."""
        runs = self._runs.get(name, ())
        return (runs[0].attempt + 1, steps.streak_after(runs[0])) if runs else (0, 0)

    async def start(self, container: ContainerSpec, config: ContainerConfig) -> None:
        """Start a run. A machine that cannot is told as a run that ended at once, so that back-off applies."""
        events, metrics = self._context.events, self._context.metrics
        try:
            run = await self._context.runtime.start(config)
        except Retryable as error:
            metrics.starts.labels("failed").inc()
            now = self._context.clock.now()
            run = Run(
                config.attempt, "", now, config.streak, finished_at=now, exit_code=128, reason="StartError",
                message=str(error),
            )
            self._push(container.name, run)
            await events.write(self.pod.raw, "Failed", str(error), kind="Warning", container=container.name)
            self._changed()
            return
        metrics.starts.labels("started").inc()
        self._push(container.name, run)
        self._watch(container, first_verdict(container, was_ready=False, was_started=False))
        self._changed()
        await events.write(self.pod.raw, "Started", f"Started container {container.name}", container=container.name)
        self._after_start(container)

    def stop(self, name: str, grace_s: float) -> None:
        """preStop, SIGTERM, grace, SIGKILL, in the background; once per run."""
        if not self._is_running(name) or name in self._stopping:
            return
        self._stopping[name] = asyncio.create_task(self._stop(name, max(0.0, grace_s)))

    def kill_now(self) -> None:
        """The grace is over for all."""
        for name in self._runs:
            if self._is_running(name):
                self._context.runtime.kill(self.pod.uid, name)

    async def close(self) -> None:
        """Stop watching; the processes go on."""
        tasks = [*self._tasks.values(), *self._stopping.values(), *self._hooks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_running(self, name: str) -> bool:
        runs = self._runs.get(name)
        return bool(runs) and runs is not None and runs[0].is_running

    def _push(self, name: str, run: Run) -> None:
        self._runs[name] = (run, *self._runs.get(name, ())[:1])

    def _watch(self, container: ContainerSpec, verdict: Verdict) -> None:
        self._verdicts[container.name] = verdict
        self._tasks[container.name] = asyncio.create_task(self._guard(container, self._live(container, verdict)))

    async def _guard(self, container: ContainerSpec, life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        except Exception:
            log.exception("watching a container failed", extra={"pod": self.pod.key, "container": container.name})

    async def _live(self, container: ContainerSpec, verdict: Verdict) -> None:
        """From start to end of one run."""
        prober = asyncio.create_task(self._guard(container, self._prober(container, verdict).run()))
        try:
            ended = await self._context.runtime.wait(self.pod.uid, container.name)
        finally:
            prober.cancel()
            await asyncio.gather(prober, return_exceptions=True)
        ended = self._with_message(container, ended)
        self._runs[container.name] = (ended, *self._runs[container.name][1:])
        self._context.metrics.exits.labels("completed" if ended.exit_code == 0 else "failed").inc()
        stopping = self._stopping.pop(container.name, None)
        if stopping is not None:
            stopping.cancel()  # its SIGKILL must not meet the next run
        self._changed()
        if stopping is None and ended.exit_code != 0:
            await self._tell_of_crash(container, ended)

    async def _tell_of_crash(self, container: ContainerSpec, ended: Run) -> None:
        delay = steps.backoff_s(ended, self._context.limits)
        if delay > 0 and container.restart != "Never":
            message = f"Back-off restarting failed container {container.name} in pod {self.pod.name}"
            await self._context.events.write(
                self.pod.raw, "BackOff", message, kind="Warning", container=container.name
            )

    def _prober(self, container: ContainerSpec, verdict: Verdict) -> Prober:
        async def execute(command: tuple[str, ...], timeout_s: float) -> ExecResult:
            return await self._context.runtime.execute(self.pod.uid, container.name, command, timeout_s=timeout_s)

        async def failed(kind: ProbeKind, message: str) -> None:
            self._context.metrics.probe_failures.labels(kind).inc()
            text = f"{kind.capitalize()} probe failed: {message}"
            await self._context.events.write(self.pod.raw, "Unhealthy", text, kind="Warning", container=container.name)

        async def fatal(kind: ProbeKind) -> None:
            text = f"Container {container.name} failed {kind} probe, will be restarted"
            await self._context.events.write(self.pod.raw, "Killing", text, container=container.name)
            probe = container.probe(kind) or {}
            self.stop(container.name, float(probe.get("terminationGracePeriodSeconds", self.pod.grace_s)))

        running_s = (self._context.clock.now() - self._runs[container.name][0].started_at).total_seconds()
        return Prober(
            container, verdict, address=self._address(), execute=execute,
            reports=Reports(self._changed, failed, fatal), running_s=running_s,
        )

    def _address(self) -> str:
        return self._context.addresses.held(self.pod.uid) or self._context.host_ip

    async def _stop(self, name: str, grace_s: float) -> None:
        container = next(c for c in self.pod.containers if c.name == name)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        await self._context.events.write(self.pod.raw, "Killing", f"Stopping container {name}", container=name)
        hook = (container.raw.get("lifecycle") or {}).get("preStop")
        if hook and grace_s > 0:
            await self._hook(container, "PreStop", hook, timeout_s=grace_s)
        self._context.runtime.terminate(self.pod.uid, name)
        await asyncio.sleep(max(0.0, deadline - loop.time()))
        self._context.runtime.kill(self.pod.uid, name)

    def _after_start(self, container: ContainerSpec) -> None:
        hook = (container.raw.get("lifecycle") or {}).get("postStart")
        if hook:
            self._hooks[container.name] = asyncio.create_task(self._post_start(container, hook))

    async def _post_start(self, container: ContainerSpec, hook: Mapping[str, Any]) -> None:
        outcome = await self._hook(container, "PostStart", hook, timeout_s=HOOK_S)
        if not outcome.is_success:
            self.stop(container.name, self.pod.grace_s)

    async def _hook(self, container: ContainerSpec, word: str, hook: Mapping[str, Any], *, timeout_s: float) -> Outcome:
        async def execute(command: tuple[str, ...], limit_s: float) -> ExecResult:
            return await self._context.runtime.execute(self.pod.uid, container.name, command, timeout_s=limit_s)

        outcome = Outcome(False, f"longer than {timeout_s:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                outcome = await attempt(
                    hook, container, address=self._address(), timeout_s=timeout_s, execute=execute
                )
        if not outcome.is_success:
            await self._context.events.write(
                self.pod.raw, f"Failed{word}Hook", f"{word}Hook failed: {outcome.message}", kind="Warning",
                container=container.name,
            )
        return outcome

    def _reported(self, container: ContainerSpec, run: Run) -> Verdict:
        """What the API server was last told of this very run."""
        status = self.pod.raw.get("status") or {}
        known = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
        same: Mapping[str, Any] = next((s for s in known if s.get("containerID") == run.container_id), {})
        return first_verdict(
            container, was_ready=bool(same.get("ready")), was_started=bool(same.get("started"))
        )

    def _with_message(self, container: ContainerSpec, run: Run) -> Run:
        """`FallbackToLogsOnError`: the end of the log stands in for a message that was not written."""
        if run.is_running or run.message or run.exit_code == 0:
            return run
        if container.raw.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return run
        path = self._context.runtime.log_path(self.pod.uid, container.name)
        return dataclasses.replace(run, message=tail_text(path) if path else "")
