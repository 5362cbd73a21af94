"""One pod's worker: what is wished, what runs, the next step. One task per pod uid: pods cannot disturb each other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from espalier_kit.errors import EspalierError, NotFound, Permanent, Retryable
from espalier_kube.cluster import POD, Object
from espalier_node import environment, files, images, podspec, podstate, steps, targets, volumes
from espalier_node.containers import Containers
from espalier_node.context import Context
from espalier_node.environment import Situation
from espalier_node.podspec import ContainerSpec, PodSpec
from espalier_node.runtime import ContainerConfig, Run
from espalier_node.steps import Steps, Waiting
from espalier_node.volumes import Volumes

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""How soon a container that cannot start yet, or a status that cannot be written, is tried again."""
FORGOTTEN_GRACE_S = 2.0
"""The longest grace of a pod that the API server no longer has: it was removed by force, and may have a successor."""


class PodWorker:
    """Brings one pod to what the API server wants of it and tells the API server what is."""

    def __init__(self, context: Context, pod: Object) -> None:
        self._context = context
        self._pod = podspec.parse(pod)
        self._seen_at: float | None = context.clock.monotonic()
        self._wake = asyncio.Event()
        self._is_gone = False
        self._waiting: dict[str, Waiting] = {}
        self._retry_at: datetime | None = None
        self._refreshed_at: float | None = None
        self._paths: dict[str, Path] = {}
        self._image_ids: dict[str, str] = {}
        self._failure: Waiting | None = None
        user, group = podspec.user_and_group(self._pod, self._pod.main[0], context.settings.uid)
        shared = podspec.volume_group(self._pod)
        self._volumes = Volumes(
            context.cluster, context.clock, context.pod_directory(self._pod.uid) / "volumes", user=user,
            group=group if shared is None else shared,
        )
        self._containers = Containers(context, self._pod, self._wake.set)

    @property
    def pod(self) -> PodSpec:
        return self._pod

    def update(self, pod: Object) -> None:
        """The API server has a newer version."""
        self._pod = podspec.parse(pod)
        self._containers.pod = self._pod
        self._wake.set()

    def vanish(self) -> None:
        """The API server has it no more."""
        self._is_gone = True
        self._wake.set()

    def runs(self) -> dict[str, Run]:
        """The containers that run."""
        views = self._containers.views({})
        return {name: view.run for name, view in views.items() if view.run is not None and view.is_running}

    async def run(self) -> None:
        """Until the pod is gone from the API server and its processes from this machine."""
        await self._containers.adopt()
        try:
            while not self._is_gone and not self._pod.is_deleting:
                self._wake.clear()
                await self._safely(self._turn())
                await self._sleep()
            await self._end()
        finally:
            await self._containers.close()
        self._context.runtime.forget(self._pod.uid)
        self._context.addresses.release(self._pod.uid)

    async def _turn(self) -> None:
        self._retry_at = None
        if not self._is_ended():
            await self._check_deadline()
            await self._advance()
        if not self._is_ended() or any(view.runs for view in self._containers.views({}).values()):
            await self._report()

    async def _safely(self, turn: Coroutine[Any, Any, None]) -> None:
        """A turn's fault is this pod's alone: log it, try again soon."""
        try:
            await turn
        except EspalierError as error:
            log.warning("pod turn failed", extra={"pod": self._pod.key, "uid": self._pod.uid, "error": str(error)})
            self._look_again(RETRY_S)
        except Exception:
            log.exception("pod turn failed", extra={"pod": self._pod.key, "uid": self._pod.uid})
            self._look_again(RETRY_S)

    def _is_ended(self) -> bool:
        return (self._pod.raw.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    async def _advance(self) -> None:
        now = self._context.clock.now()
        plan = steps.next_steps(self._pod, self._containers.views({}), now, self._context.limits)
        if self._failure is not None:
            plan = Steps(stop=tuple(c.name for c in self._pod.containers))
        self._waiting = dict(plan.waiting)
        if plan.wake_at is not None:
            self._retry_at = plan.wake_at
        for name in plan.stop:
            self._containers.stop(name, self._pod.grace_s)
        by_name = {c.name: c for c in self._pod.containers}
        for name in plan.start:
            await self._try_start(by_name[name])
        if not plan.start and self._volumes_due():
            await self._refresh_volumes()

    async def _try_start(self, container: ContainerSpec) -> None:
        try:
            sentence = podspec.unsupported(self._pod, container)
            if sentence is not None:
                raise Permanent(sentence, reason=environment.CONFIG_ERROR)
            image = images.resolve(container.image, self._context.settings.runtime_directories())
            self._image_ids[container.name] = image.image_id
            situation = self._situation()
            if not self._paths or self._volumes_due():
                self._paths = await self._volumes.prepare(self._pod, situation)
                self._refreshed_at = self._context.clock.monotonic()
            config = await self._configure(container, image, situation)
        except (Permanent, Retryable) as error:
            await self._obstacle(container, error)
            return
        except OSError as error:
            sentence = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            await self._obstacle(container, Retryable(sentence, reason=environment.CONFIG_ERROR))
            return
        await self._containers.start(container, config)
        if self._seen_at is not None:
            self._context.metrics.start_seconds.observe(self._context.clock.monotonic() - self._seen_at)
            self._seen_at = None

    async def _obstacle(self, container: ContainerSpec, error: Permanent | Retryable) -> None:
        """Wait with the sentence and try again; a pod is never failed for what somebody may still mend."""
        is_mount = error.reason == files.FAILED_MOUNT
        known = error.reason in (environment.CONFIG_ERROR, images.PULL_ERROR)
        reason = error.reason if known else "ContainerCreating" if is_mount else environment.CONFIG_ERROR
        self._waiting[container.name] = Waiting(reason, str(error))
        self._look_again(RETRY_S)
        before = (self._pod.raw.get("status") or {}).get("containerStatuses") or ()
        if not any(s["name"] == container.name and _message(s) == str(error) for s in before):
            event = "FailedMount" if is_mount else "Failed"
            await self._context.events.write(
                self._pod.raw, event, str(error), kind="Warning", container=None if is_mount else container.name
            )

    async def _configure(self, container: ContainerSpec, image: images.Image, situation: Situation) -> ContainerConfig:
        settings, pod = self._context.settings, self._pod
        sources = await volumes.read_sources(self._context.cluster, pod.namespace, *environment.references(container))
        values = environment.build(
            pod, container, base=self._base_environment(image), sources=sources, situation=situation
        )
        user, group = podspec.user_and_group(pod, container, settings.uid)
        attempt, streak = self._containers.next_attempt(container.name)
        return ContainerConfig(
            pod_uid=pod.uid, hostname=pod.raw["spec"].get("hostname") or pod.name, name=container.name,
            attempt=attempt, streak=streak,
            command=environment.command(container, values, (image.name,)),
            environment=values,
            working_directory=container.raw.get("workingDir") or "/",
            mounts=volumes.mounts(container, pod, self._paths, values),
            user=user, group=group, groups=podspec.further_groups(pod), hosts=_hosts(pod, situation.pod_ip),
            termination_message_path=targets.message_path(container.raw),
        )

    def _base_environment(self, image: images.Image) -> dict[str, str]:
        host, port = self._context.api_server
        return {
            "PATH": f"{image.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",
            "HOSTNAME": self._pod.raw["spec"].get("hostname") or self._pod.name,
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }

    def _situation(self) -> Situation:
        context = self._context
        return Situation(
            pod_ip=context.addresses.of(self._pod.raw), host_ip=context.host_ip, node_name=context.settings.name,
            allocatable=context.allocatable,
        )

    def _volumes_due(self) -> bool:
        if self._refreshed_at is None:
            return True
        age = self._context.clock.monotonic() - self._refreshed_at
        return self._volumes.needs_refresh(self._pod) and age >= self._context.settings.volume_refresh_s

    async def _refresh_volumes(self) -> None:
        """What is missing now leaves the files as they were; the next turn tries again."""
        self._refreshed_at = self._context.clock.monotonic()
        if not any(view.is_running for view in self._containers.views({}).values()):
            return
        try:
            self._paths = await self._volumes.prepare(self._pod, self._situation())
        except Permanent as error:
            await self._context.events.write(self._pod.raw, "FailedMount", str(error), kind="Warning")

    async def _check_deadline(self) -> None:
        deadline = self._pod.raw["spec"].get("activeDeadlineSeconds")
        began = (self._pod.raw.get("status") or {}).get("startTime")
        if deadline is None or began is None or self._failure is not None:
            return
        ends = datetime.fromisoformat(began) + timedelta(seconds=deadline)
        if self._context.clock.now() >= ends:
            self._failure = Waiting("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            await self._context.events.write(self._pod.raw, "DeadlineExceeded", self._failure.message)
        else:
            self._look_again((ends - self._context.clock.now()).total_seconds())

    async def _report(self, *, is_final: bool = False) -> None:
        views = self._containers.views(self._waiting)
        failure = self._failure if not any(view.is_running for view in views.values()) else None
        status = podstate.pod_status(
            self._pod, views, now=self._context.clock.now(), host_ip=self._context.host_ip,
            pod_ip=self._context.addresses.held(self._pod.uid), image_ids=self._known_image_ids(), failure=failure,
            is_final=is_final,
        )
        if not podstate.differs(self._pod.raw.get("status") or {}, status):
            return
        patch = {"metadata": {"uid": self._pod.uid}, "status": status}
        with contextlib.suppress(NotFound):
            written = await self._context.cluster.patch(
                POD, self._pod.name, self._pod.namespace, patch, subresource="status", strategic=True
            )
            self._keep(written)

    def _keep(self, written: Object) -> None:
        """The answer is as new as what the watch will bring; without it the next turn would write again."""
        if written["metadata"]["uid"] == self._pod.uid:
            self._pod = podspec.parse({"apiVersion": "v1", "kind": "Pod", **written})
            self._containers.pod = self._pod

    def _known_image_ids(self) -> Mapping[str, str]:
        old = self._pod.raw.get("status") or {}
        reported = (*(old.get("initContainerStatuses") or ()), *(old.get("containerStatuses") or ()))
        return {**{s["name"]: s.get("imageID", "") for s in reported}, **self._image_ids}

    def _look_again(self, seconds: float) -> None:
        at = self._context.clock.now() + timedelta(seconds=seconds)
        self._retry_at = at if self._retry_at is None else min(self._retry_at, at)

    async def _sleep(self) -> None:
        waits = [] if self._retry_at is None else [(self._retry_at - self._context.clock.now()).total_seconds()]
        if self._volumes.needs_refresh(self._pod) and not self._is_ended():
            waits.append(self._context.settings.volume_refresh_s)
        await self._woken(max(0.01, min(waits)) if waits else None)

    async def _woken(self, seconds: float | None) -> None:
        """Not by `wait_for`: where news and a cancellation come at the same moment it forgets the latter (Python 3.11).
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _end(self) -> None:
        """SIGTERM, grace, SIGKILL; the terminal status first, then the object: a Job counts the pod by its status."""
        await self._stop_all()
        while not self._is_gone:
            self._wake.clear()
            self._retry_at = None
            await self._safely(self._last_words())
            await self._sleep()

    async def _stop_all(self) -> None:
        main = [c.name for c in (*self._pod.main, *(c for c in self._pod.init if not c.is_sidecar))]
        sidecars = [c.name for c in reversed(self._pod.init) if c.is_sidecar]
        deadline = self._context.clock.monotonic() + self._grace_s()
        for names in (main, *([name] for name in sidecars)):
            for name in names:
                self._containers.stop(name, deadline - self._context.clock.monotonic())
            while any(self._containers.views({})[name].is_running for name in names):
                self._wake.clear()
                left = min(deadline - self._context.clock.monotonic(), self._grace_s())
                if left <= 0:
                    self._containers.kill_now()
                await self._woken(max(0.2, left))

    def _grace_s(self) -> float:
        if not self._is_gone:
            return self._pod.grace_s
        return min(self._pod.grace_s, FORGOTTEN_GRACE_S)

    async def _last_words(self) -> None:
        self._waiting = {}
        await self._report(is_final=True)
        pod = self._pod
        await self._context.cluster.delete(POD, pod.name, pod.namespace, uid=pod.uid, grace_s=0)
        self._look_again(10 * RETRY_S)


def _hosts(pod: PodSpec, address: str) -> tuple[tuple[str, str], ...]:
    spec = pod.raw["spec"]
    aliases = ((alias["ip"], " ".join(alias.get("hostnames") or ())) for alias in spec.get("hostAliases") or ())
    return ((address, spec.get("hostname") or pod.name), *aliases)


def _message(status: Object) -> str:
    return str(((status.get("state") or {}).get("waiting") or {}).get("message", ""))
