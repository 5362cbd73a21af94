"""Where a job is: an object of the cluster, or a job that only a coordinator has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from espalier_cli.connection import cluster_of, job_of, rest_of
from espalier_cli.coordinator import Format, Target, coordinator_of, uid_of
from espalier_cli.objects import ObjectJob
from espalier_cli.options import SHORT, is_object_name, job_reference
from espalier_cli.submitted import SubmittedJob
from espalier_kit.errors import Conflict, NotFound
from espalier_kube.cluster import Cluster
from espalier_rpc.rest import RestClient


class Job(Protocol):
    """One job, wherever it is kept."""

    async def show(self, output: Format) -> None: ...

    async def watch(self, output: Format) -> bool:
        """Follow it to its end; whether it completed."""
        ...

    async def cancel(self, reason: str) -> None: ...

    async def suspend(self, is_suspended: bool) -> None: ...


@asynccontextmanager
async def job_at(target: Target, reference: str) -> AsyncIterator[Job]:
    """`gj/NAME` is an object; a name alone is one of any kind, else a job of the coordinator, by name or uid.

    Raises `NotFound`, and `Conflict` where it is not clear which is meant.
    """
    async with AsyncExitStack() as stack:
        if target.is_plain:
            yield await _submitted(await stack.enter_async_context(coordinator_of(target)), target, reference)
            return
        cluster = await stack.enter_async_context(cluster_of(target.where))
        found = await find_object(cluster, reference, target.namespace)
        yield found or await _fallback(stack, cluster, target, reference)


async def _submitted(rest: RestClient, target: Target, reference: str) -> SubmittedJob:
    return SubmittedJob(rest, await uid_of(rest, reference, target.namespace))


async def _fallback(stack: AsyncExitStack, cluster: Cluster, target: Target, reference: str) -> SubmittedJob:
    try:
        return await _submitted(await stack.enter_async_context(rest_of(cluster, target.where)), target, reference)
    except NotFound as error:
        kinds = " or ".join(kind.kind for kind in SHORT.values())
        said = f"there is no {kinds} {reference} in namespace {target.namespace}, and {error}"
        raise NotFound(said) from error


async def find_object(cluster: Cluster, reference: str, namespace: str) -> ObjectJob | None:
    """The object, or None where a name alone fits none. Raises `NotFound` where its kind is named."""
    if "/" in reference:
        kind, name = job_reference(reference)
        return ObjectJob(cluster, kind, await job_of(cluster, name, namespace, kind))
    found: dict[str, ObjectJob] = {}
    for short, kind in SHORT.items() if is_object_name(reference) else ():
        try:
            found[short] = ObjectJob(cluster, kind, await cluster.get(kind, reference, namespace))
        except NotFound:
            continue
    if len(found) > 1:
        raise Conflict(f"say which: {' or '.join(f'{short}/{reference}' for short in found)}")
    return next(iter(found.values()), None)
