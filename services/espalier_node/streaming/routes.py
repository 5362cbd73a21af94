"""The kubelet API's streaming routes: find the container, speak the client's protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from espalier_kit.errors import EspalierError, NotFound, Permanent
from espalier_node import logs
from espalier_node.context import Context
from espalier_node.pods import Pods
from espalier_node.streaming import channels, portforward
from espalier_node.worker import PodWorker

MAX_MESSAGE_BYTES = 8 << 20


class Streams:
    """exec, attach and port-forward."""

    def __init__(self, context: Context, pods: Pods) -> None:
        self._context, self._pods = context, pods

    async def execute(self, request: web.Request) -> web.StreamResponse:
        """Run a command in a container; its end is told as a Status."""
        worker, name = find(self._pods, request), request.match_info["container"]
        wish = channels.wish_of(request.query, tuple(request.query.getall("command", [])))
        socket = await _upgraded(request, channels.PROTOCOLS)
        try:
            command = await self._context.runtime.interact(
                worker.pod.uid, name, wish.command, has_stdin=wish.has_stdin, is_tty=wish.is_tty
            )
        except (EspalierError, OSError) as error:
            await channels.refuse(socket, str(error))
        else:
            await channels.serve_command(socket, command)
        return socket

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """What a container writes from now on. Containers here have no standard input to attach to."""
        worker, name = find(self._pods, request), request.match_info["container"]
        if channels.is_set(request.query, "input"):
            raise Permanent(f"container {name} has no standard input on this node; attach without -i, or use exec -i")
        path = self._context.runtime.log_path(worker.pod.uid, name)
        if path is None:
            raise Permanent(f"container {name} in pod {worker.pod.name} is waiting to start")
        attempt = self._context.runtime.runs(worker.pod.uid, name)[0].attempt
        socket = await _upgraded(request, channels.PROTOCOLS)
        await channels.serve_output(socket, self._follow(path, worker, name, attempt))
        return socket

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Connections to a pod's ports."""
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        worker = self._pods.find(namespace, name)
        if worker is None:
            raise NotFound(f"pod {namespace}/{name} is not on this node")
        address = self._context.addresses.held(worker.pod.uid)
        if not address:
            raise Permanent(f"pod {namespace}/{name} has no address yet: it has not started")
        socket = await _upgraded(request, (portforward.PROTOCOL,))
        await portforward.Forwarding(socket, address).run()
        return socket

    async def _follow(self, path: Path, worker: PodWorker, name: str, attempt: int) -> AsyncIterator[tuple[int, bytes]]:
        def is_running() -> bool:
            runs = self._context.runtime.runs(worker.pod.uid, name)
            return bool(runs) and runs[0].attempt == attempt and runs[0].is_running

        async for piece in logs.follow(path, logs.Wish(tail=0), is_running):
            yield channels.STDOUT, piece


def find(pods: Pods, request: web.Request) -> PodWorker:
    """The pod that the path names, if it is here and has that container; raises `NotFound`."""
    namespace, pod, name = (request.match_info[word] for word in ("namespace", "pod", "container"))
    worker = pods.find(namespace, pod)
    if worker is None:
        raise NotFound(f"pod {namespace}/{pod} is not on this node")
    if name not in {container.name for container in worker.pod.containers}:
        raise NotFound(f"pod {namespace}/{pod} has no container {name}")
    return worker


async def _upgraded(request: web.Request, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """A WebSocket in the first protocol that both know; raises `Permanent` with what a client has to change."""
    offered = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if request.headers.get("Upgrade", "").lower() != "websocket" or not set(offered) & set(protocols):
        wanted = " or ".join(protocols)
        raise Permanent(f"this node speaks {wanted} over WebSockets only; use kubectl 1.31 or newer", reason="Protocol")
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=MAX_MESSAGE_BYTES)
    await socket.prepare(request)
    return socket
