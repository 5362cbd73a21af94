"""The agent's life: identity, Node, pods, kubelet API; until told to stop, which leaves the pods running."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.errors import Misconfigured
from espalier_kube import client
from espalier_kube.cluster import Cluster
from espalier_node import identity, kubelet, node
from espalier_node.addresses import AddressBook
from espalier_node.context import Context
from espalier_node.events import Events
from espalier_node.machine.base import Machine
from espalier_node.machine.linux import LinuxMachine
from espalier_node.machine.simulated import SimulatedMac
from espalier_node.metrics import Metrics
from espalier_node.node import NodeKeeper
from espalier_node.pods import Pods
from espalier_node.process import ProcessRuntime
from espalier_node.settings import NodeSettings

log = logging.getLogger(__name__)

SILENCE_S = 330.0
"""A watch that brought nothing, not even a new list, for this long is dead (it lists anew every 240 s)."""
_MARKER = "agent.pid"


def machine_for(settings: NodeSettings) -> Machine:
    """The machine as the settings say it is."""
    host = LinuxMachine(settings.state_dir)
    if settings.kind == "mlx" and settings.simulated:
        return SimulatedMac(host, chip=settings.profile.chip, memory_gb=settings.profile.memory_gb)
    return host


def runtime_for(settings: NodeSettings, machine: Machine) -> ProcessRuntime:
    """Processes on that machine."""
    return ProcessRuntime(
        settings.state_dir, machine, readable=[*settings.readable_paths, *settings.runtimes.values()],
        log_max_bytes=settings.log_max_bytes, nice=settings.nice if settings.kind == "mlx" else 0,
    )


async def run(settings: NodeSettings, stop: asyncio.Event, *, clock: Clock | None = None) -> None:
    """Be the node until `stop`. Raises `Misconfigured` when this machine cannot run containers."""
    with sole_agent(settings) as is_restart:
        machine = machine_for(settings)
        problem = machine.check()
        if problem is not None:
            raise Misconfigured(problem, reason="Misconfigured")
        ticks = clock or SystemClock()
        while not stop.is_set():
            if await _first_of(stop, identity.ensure(settings, ticks)):
                return
            await _session(settings, machine, ticks, stop, is_restart=is_restart)
            is_restart = False


def kill_pods(settings: NodeSettings) -> int:
    """Kill every process of every pod of this state directory; returns how many containers were running."""
    runtime = runtime_for(settings, machine_for(settings))
    count = count_running(runtime)[0]
    for uid in runtime.pods():
        for name in runtime.containers(uid):
            runtime.kill(uid, name)
    return count


def count_running(runtime: ProcessRuntime) -> tuple[int, int]:
    """Running containers, and pods that have any."""
    per_pod = [
        sum(1 for name in runtime.containers(uid) for run in runtime.runs(uid, name)[:1] if run.is_running)
        for uid in runtime.pods()
    ]
    return sum(per_pod), sum(1 for count in per_pod if count)


async def _session(
    settings: NodeSettings, machine: Machine, clock: Clock, stop: asyncio.Event, *, is_restart: bool
) -> None:
    """With one identity: until `stop`, or until the identity was renewed."""
    metrics = Metrics()
    cluster = await client.connect(
        settings.own_kubeconfig, observer=lambda verb, code: metrics.api_calls.labels(verb, str(code)).inc()
    )
    try:
        context, runtime = _context(settings, cluster, machine, metrics, clock)
        pods = Pods(context)
        check = _check(settings, machine, pods, clock)
        keeper = NodeKeeper(
            settings, cluster, clock, metrics, facts=machine.facts, pressure=machine.pressure, check=check
        )
        tasks: list[Coroutine[Any, Any, None]] = [
            _keep_node(keeper, context, pods, runtime, is_restart=is_restart),
            pods.run(),
            kubelet.serve(
                context, pods, client_ca=_client_ca(settings), check=check,
                certificate=lambda: identity.serving_certificate(cluster, settings, clock),
            ),
            identity.renew_when_due(cluster, settings, clock),
        ]
        await _first_of(stop, *tasks)
    finally:
        await cluster.close()


def _context(
    settings: NodeSettings, cluster: Cluster, machine: Machine, metrics: Metrics, clock: Clock
) -> tuple[Context, ProcessRuntime]:
    runtime = runtime_for(settings, machine)
    context = Context(
        settings=settings, cluster=cluster, runtime=runtime, events=Events(cluster, clock, settings.name),
        addresses=AddressBook(settings), metrics=metrics, clock=clock,
        api_server=identity.api_server(settings.own_kubeconfig),
        allocatable=node.allocatable(settings, machine.facts()), machine=machine,
    )
    return context, runtime


async def _keep_node(
    keeper: NodeKeeper, context: Context, pods: Pods, runtime: ProcessRuntime, *, is_restart: bool
) -> None:
    registered = await keeper.register()
    async with asyncio.TaskGroup() as group:
        group.create_task(keeper.keep_lease())
        group.create_task(keeper.keep_status())
        if is_restart:
            await pods.has_listed.wait()
            containers, of_pods = count_running(runtime)
            await context.events.write(
                {"apiVersion": "v1", "kind": "Node", **registered}, "AgentRestarted",
                f"The node agent started again and adopted {containers} running containers of {of_pods} pods",
                kind="Warning",
            )


def _check(settings: NodeSettings, machine: Machine, pods: Pods, clock: Clock) -> Callable[[], str | None]:
    began = clock.monotonic()

    def check() -> str | None:
        """The agent's own health, in one sentence if it is bad."""
        if not os.access(settings.state_dir, os.W_OK):
            return f"the state directory {settings.state_dir} cannot be written"
        silent_s = clock.monotonic() - max(began, pods.pulse.seen_at)
        if silent_s > SILENCE_S:
            return f"no news of pods for {silent_s:.0f} s"
        return machine.check()

    return check


def _client_ca(settings: NodeSettings) -> bytes:
    if settings.client_ca_file is not None:
        return settings.client_ca_file.read_bytes()
    return identity.cluster_ca(settings.own_kubeconfig)


async def _first_of(stop: asyncio.Event, *work: Coroutine[Any, Any, Any]) -> bool:
    """Run all until one returns or fails (its error is raised) or `stop`, then cancel the rest; was it `stop`?"""
    stopped = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return stopped in done
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)


@contextlib.contextmanager
def sole_agent(settings: NodeSettings) -> Iterator[bool]:
    """Hold the state directory; yields whether an agent held it before. Raises `Misconfigured` while another does."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.state_dir / _MARKER
    is_restart = path.exists()
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misconfigured(
                f"another agent works in {settings.state_dir}: stop it, or give this one its own state_dir",
                reason="Misconfigured",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield is_restart
