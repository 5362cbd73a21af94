"""All pods of this node: one worker per uid, started, told and ended as the API server's list says."""

from __future__ import annotations

import asyncio
import logging

from espalier_kit.errors import Retryable
from espalier_kube import watch
from espalier_kube.cluster import POD, Object
from espalier_node.context import Context
from espalier_node.stats import ContainerUsage
from espalier_node.worker import PodWorker

log = logging.getLogger(__name__)


class Pods:
    """Follows this node's pods."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.pulse = watch.Pulse()
        self.has_listed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; the pods' processes go on then."""
        selector = f"spec.nodeName={self._context.settings.name}"
        try:
            listing = await self._first_list(selector)
            self.remove_strangers({pod["metadata"]["uid"] for pod in listing})
            for pod in listing:
                self._update(pod)
            self.has_listed.set()
            async for event in watch.follow(
                self._context.cluster, POD, fields=selector, clock=self._context.clock, pulse=self.pulse
            ):
                if event.type == "DELETED":
                    self._vanish(event.object["metadata"]["uid"], event.object)
                else:
                    self._update(event.object)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def known(self) -> list[Object]:
        """The pods as last seen, for the kubelet API."""
        return [worker.pod.raw for worker in self._workers.values()]

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """A pod's worker by name."""
        return next((w for w in self._workers.values() if (w.pod.namespace, w.pod.name) == (namespace, name)), None)

    def running(self) -> tuple[int, int]:
        """How many containers run, in how many pods."""
        counts = [len(worker.runs()) for worker in self._workers.values()]
        return sum(counts), sum(1 for count in counts if count)

    def usages(self) -> list[ContainerUsage]:
        """What each running container uses."""
        machine = self._context.machine
        return [
            ContainerUsage(worker.pod, name, run.started_at, machine.usage(run.pid))
            for worker in self._workers.values()
            for name, run in worker.runs().items()
        ]

    def remove_strangers(self, wished: set[str]) -> None:
        """Pods deleted while no agent was there: nobody waits for their grace any more."""
        runtime = self._context.runtime
        for uid in set(runtime.pods()) - wished:
            log.info("removing a pod that was deleted meanwhile", extra={"uid": uid})
            for name in runtime.containers(uid):
                runtime.kill(uid, name)
            runtime.forget(uid)
            self._context.addresses.release(uid)

    async def _first_list(self, selector: str) -> tuple[Object, ...]:
        """What exists now, surely: nothing is removed before the API server has answered."""
        while True:
            try:
                return (await self._context.cluster.list(POD, fields=selector)).items
            except Retryable as error:
                log.warning("cannot list pods", extra={"error": str(error)})
                await self._context.clock.sleep(1.0)

    def _update(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            self._workers[uid].update(pod)
            return
        has_last_words = pod["metadata"].get("deletionGracePeriodSeconds") == 0
        if has_last_words and uid not in self._context.runtime.pods():
            return  # only a finalizer keeps the object
        worker = self._workers[uid] = PodWorker(self._context, pod)
        task = self._tasks[uid] = asyncio.create_task(worker.run(), name=f"pod {uid}")
        task.add_done_callback(lambda done: self._forget(uid, done))
        self._context.metrics.pods.set(len(self._workers))

    def _vanish(self, uid: str, last: Object) -> None:
        worker = self._workers.get(uid)
        if worker is None:
            return
        if "spec" in last:
            worker.update(last)
        worker.vanish()

    def _forget(self, uid: str, task: asyncio.Task[None]) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        self._context.metrics.pods.set(len(self._workers))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod worker ended", extra={"uid": uid, "error": repr(error)})
