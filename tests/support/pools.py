"""Shared worker pools on a local cluster: probe executors in their pods, jobs from the administrator's side."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from espalier_api.names import COORDINATOR_AUDIENCE
from espalier_cli.forwarding import reachable
from espalier_kit.execution import TaskSpec
from espalier_kube.client import Client
from espalier_kube.cluster import CONFIG_MAP, DEPLOYMENT, Object
from espalier_kube.objects import config_map, metadata
from espalier_kube.watch import follow
from espalier_local.cluster import Cluster
from espalier_rpc.client import CoordinatorClient, channel
from espalier_rpc.views import JobRequest, JobView

SYSTEM = "espalier-system"
EXECUTORS = "probe-executors"

_MODULE = '''
import asyncio, hashlib, os, time
from espalier_kit.execution import Result

async def tell(task, verb):
    _, writer = await asyncio.open_connection(task.payload["host"], task.payload["port"])
    writer.write(f"{verb} {task.key} {task.attempt} {os.uname().nodename}\\n".encode())
    writer.close()
    await writer.wait_closed()

async def sleep(task, context):
    """Tells when it begins and, `seconds` later, when it ends."""
    await tell(task, "begin")
    await asyncio.sleep(task.payload["seconds"])
    await tell(task, "end")
    return Result(value={"key": task.key})

async def nap(task, context):
    """The same without a word, where nobody outside can be told."""
    await asyncio.sleep(task.payload["seconds"])
    return Result(value={"key": task.key})

async def burn(task, context):
    """Takes about a third of a core."""
    end = time.monotonic() + task.payload["seconds"]
    while time.monotonic() < end:
        await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", b"", b"", 100_000)
        await asyncio.sleep(0.1)
    return Result(value={"key": task.key})

async def store(task, context):
    """Reads an artifact of the job's namespace and stores another."""
    text = (await context.artifacts.get(task.payload["sha256"])).decode()
    return Result(value={"text": text, "sha256": await context.artifacts.put(text.upper().encode())})
'''
_ENTRY_POINTS = "[espalier.executors]\n" + "".join(
    f"probe.{name} = probe_executors:{name}\n" for name in ("sleep", "nap", "burn", "store")
)


def executors() -> Object:
    """Executors of our own, as anybody would give a pool some."""
    data = {"probe_executors.py": _MODULE, "entry_points.txt": _ENTRY_POINTS}
    return config_map(metadata(EXECUTORS, SYSTEM), data)


def pool_values(**pools: dict[str, Any]) -> dict[str, Any]:
    """Chart values: small pools on the Linux node whose workers have the probe executors."""
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    return {
        "poolDefaults": {
            "executors": EXECUTORS, "nodeSelector": {"espalier.dev/node-kind": "linux"}, "resources": small,
            "capacity": 2, "prefetch": 2,
        },
        "pools": [{"name": name, **options} for name, options in pools.items()],
    }  # fmt: skip


@dataclass
class Diary:
    """What the sleeping tasks told, as lines (verb, key, attempt, pod)."""

    host: str
    port: int
    lines: list[tuple[str, str, int, str]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def task(self, key: str, seconds: float) -> TaskSpec:
        """A task that tells us."""
        payload = {"host": self.host, "port": self.port, "seconds": seconds}
        return TaskSpec(key=key, type="probe.sleep", payload=payload)

    def keys(self, verb: str) -> list[str]:
        """Keys of the tasks that told this, in the order they did."""
        return [key for told, key, _, _ in self.lines if told == verb]

    def pods(self) -> set[str]:
        """Who ran something."""
        return {pod for _, _, _, pod in self.lines}

    def more_than_once(self) -> dict[str, int]:
        """Tasks that began more than once."""
        return {key: count for key, count in Counter(self.keys("begin")).items() if count > 1}

    async def until(self, predicate: Callable[[], bool], what: str, *, timeout_s: float = 30.0) -> None:
        """Wait until what was told makes `predicate` true."""
        try:
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait_for(predicate)
        except TimeoutError:
            raise AssertionError(f"never within {timeout_s} s: {what}; {len(self.lines)} lines") from None


@asynccontextmanager
async def open_diary(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Diary]:
    """A diary where pods reach it: on loopback those that are processes; 0 is any port."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, key, attempt, pod = (await reader.readline()).decode().split()
        writer.close()
        async with diary.changed:
            diary.lines.append((verb, key, int(attempt), pod))
            diary.changed.notify_all()

    server = await asyncio.start_server(listen, host, port)
    diary = Diary(host, int(server.sockets[0].getsockname()[1]))
    async with server:
        yield diary


@asynccontextmanager
async def coordinator_of(client: Client, local: Cluster) -> AsyncIterator[CoordinatorClient]:
    """The coordinator as the operator's account sees it, from outside the cluster."""
    found = (await client.get(CONFIG_MAP, "espalier-coordinator", SYSTEM))["data"]
    token, _ = await client.create_token("espalier-operator", SYSTEM, audience=COORDINATOR_AUDIENCE, expiration_s=3600)
    async with reachable(f"https://{found['grpc']}", local.kubeconfig) as url:
        address = url.removeprefix("https://")
        wire = channel(address, ca_pem=found["ca.crt"], server_name=found["name"], token=lambda: token)
        made = CoordinatorClient(wire)
        try:
            yield made
        finally:
            await made.close()


def request(uid: str, tasks: list[TaskSpec], *, pool: str, namespace: str = "default") -> JobRequest:
    """A job without an object: the operator's sweep leaves kinds alone that are not its own."""
    return JobRequest(uid=uid, namespace=namespace, name=uid, kind="Probe", tasks=tuple(tasks), pool=pool, retries=0)


async def until_ended(coordinator: CoordinatorClient, uid: str, *, timeout_s: float) -> JobView:
    """The job's last view."""
    last: JobView | None = None
    try:
        async with asyncio.timeout(timeout_s):
            async for view in coordinator.watch():
                if view.uid == uid:
                    last = view
                    if view.is_final:
                        return view
    except TimeoutError:
        raise AssertionError(f"job {uid} did not end within {timeout_s} s: {last}") from None
    raise AssertionError("unreachable: the watch never ends")


async def until_replicas(client: Client, pool: str, wished: int, *, timeout_s: float, is_ready: bool = False) -> None:
    """Until the pool's Deployment wants so many workers and, if asked, has exactly so many, all ready."""

    def fits(found: Object) -> bool:
        status = found.get("status", {})
        have = status.get("replicas", 0) == status.get("readyReplicas", 0) == wished
        return bool(found["spec"]["replicas"] == wished and (have or not is_ready))

    await _until(client, pool, fits, what=f"{wished} replicas", timeout_s=timeout_s)


async def until_fewer_replicas(client: Client, pool: str, than: int, *, timeout_s: float) -> None:
    """Until the pool's Deployment wants fewer workers."""
    await _until(
        client, pool, lambda found: found["spec"]["replicas"] < than, what=f"fewer than {than} replicas",
        timeout_s=timeout_s,
    )


async def _until(
    client: Client, pool: str, fits: Callable[[Object], bool], *, what: str, timeout_s: float
) -> None:
    name = f"espalier-pool-{pool}"
    last: Object = {}

    async def watch() -> None:
        nonlocal last
        async with aclosing(follow(client, DEPLOYMENT, SYSTEM, fields=f"metadata.name={name}")) as changes:
            async for event in changes:
                last = event.object
                if fits(last):
                    return

    try:
        await asyncio.wait_for(watch(), timeout_s)
    except TimeoutError:
        seen = (last.get("spec", {}).get("replicas"), last.get("status"))
        raise AssertionError(f"{name}: no {what} within {timeout_s} s: {seen}") from None
