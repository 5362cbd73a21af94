"""Which keys a change concerns. Rather one key too many: reconciling is idempotent."""

from __future__ import annotations

from collections.abc import Iterator

from espalier_api.names import OWNER_KIND
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, GRADING_JOB, MODEL_SERVER, Object
from espalier_operator import reading
from espalier_operator.cache import Cache
from espalier_operator.plan.kinds import JOB_KINDS
from espalier_operator.queue import Key


def affected(obj: Object, before: Object | None, cache: Cache, *, is_gone: bool = False) -> Iterator[Key]:
    """Keys to look at after `obj` changed (`before` is what was known of it)."""
    match obj["kind"]:
        case "GradingJob" | "BenchmarkJob":
            yield _key(obj)
            yield from _comparisons(obj, cache)
            if is_gone or before is None or reading.is_out_of_contest(before) != reading.is_out_of_contest(obj):
                yield from contest(cache)
        case "ModelServer":
            yield _key(obj)
            yield from _users(obj, cache)
            if is_gone:
                yield from contest(cache)
        case "Job" | "Deployment":
            yield from _owners(obj)
        case "Pod":
            yield from _labelled(obj, cache)
        case "Node":
            if is_gone or before is None or reading.node_essence(before) != reading.node_essence(obj):
                yield from (_key(server) for server in cache.all(MODEL_SERVER))
                yield from contest(cache)
        case "CertificateSigningRequest" | "BenchmarkComparison":
            yield _key(obj)


def contest(cache: Cache) -> Iterator[Key]:
    """Every job that might wait for Macs."""
    for kind in (GRADING_JOB, BENCHMARK_JOB):
        yield from (_key(job) for job in cache.all(kind) if not reading.is_out_of_contest(job))


def open_jobs(cache: Cache) -> Iterator[Key]:
    """Every job of any kind that has not ended, nor is paused."""
    yield from contest(cache)
    yield from (_key(job) for job in cache.all(BENCHMARK_COMPARISON) if not reading.is_out_of_contest(job))


def _key(obj: Object) -> Key:
    return Key(obj["kind"], obj["metadata"].get("namespace") or "", obj["metadata"]["name"])


def _owners(obj: Object) -> Iterator[Key]:
    meta = obj["metadata"]
    for ref in meta.get("ownerReferences") or ():
        if ref["kind"] == "ModelServer" or ref["kind"] in JOB_KINDS:
            yield Key(ref["kind"], meta.get("namespace") or "", ref["name"])


def _users(server: Object, cache: Cache) -> Iterator[Key]:
    """The job that owns a model server, and those that name it."""
    yield from _owners(server)
    name, namespace = server["metadata"]["name"], server["metadata"]["namespace"]
    for kind in (GRADING_JOB, BENCHMARK_JOB):
        yield from (_key(job) for job in cache.all(kind, namespace) if reading.names_server(job, name))


def _comparisons(job: Object, cache: Cache) -> Iterator[Key]:
    """Comparisons that wait for a benchmark."""
    if job["kind"] != "BenchmarkJob":
        return
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    for comparison in cache.all(BENCHMARK_COMPARISON, namespace):
        if name in reading.compared_runs(comparison):
            yield _key(comparison)


def _labelled(pod: Object, cache: Cache) -> Iterator[Key]:
    labels, namespace = pod["metadata"].get("labels") or {}, pod["metadata"]["namespace"]
    kind = {**JOB_KINDS, MODEL_SERVER.kind: MODEL_SERVER}.get(labels.get(OWNER_KIND, ""))
    if kind is None:
        return
    for owner in cache.all(kind, namespace):
        if reading.belongs(pod, kind.kind, owner["metadata"]["name"]):
            yield _key(owner)
