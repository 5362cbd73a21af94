"""Digests of a job's sources: an artifact's name is its digest; a ConfigMap's bytes go to the artifact store first."""

from __future__ import annotations

from collections.abc import Callable

from espalier_api.common import Source
from espalier_kit.artifacts import SCHEME, ArtifactStore
from espalier_kit.digest import sha256
from espalier_kit.errors import EspalierError, NotFound
from espalier_kube.cluster import CONFIG_MAP, Cluster
from espalier_kube.objects import config_map_bytes
from espalier_operator.plan.facts import Job, Problem, SourceFacts
from espalier_operator.plan.kinds import sources_of

_CONFIG_MAP = "configmap://"


class SourceResolver:
    """`observe.Sources` over the API server and the artifact store. Digests are remembered, problems are not."""

    def __init__(self, cluster: Cluster, store_of: Callable[[str], ArtifactStore]) -> None:
        self._cluster = cluster
        self._store_of = store_of
        self._known: dict[tuple[str, str], str] = {}

    async def resolve(self, job: Job) -> SourceFacts:
        """All digests, or the first problem."""
        digests: dict[str, str] = {}
        for field, source in sources_of(job).items():
            found = await self._digest(job, field, source)
            if isinstance(found, Problem):
                return SourceFacts(problem=found)
            digests[field] = found
        return SourceFacts(digests)

    def forget(self, uid: str) -> None:
        """The job is gone."""
        for key in [k for k in self._known if k[0] == uid]:
            del self._known[key]

    async def _digest(self, job: Job, field: str, source: Source) -> str | Problem:
        key = (job.metadata.uid, field)
        if key not in self._known:
            found = await self._find(job.metadata.namespace, field, source)
            if isinstance(found, Problem):
                return found
            self._known[key] = found
        return self._known[key]

    async def _find(self, namespace: str, field: str, source: Source) -> str | Problem:
        if source.uri.startswith(SCHEME):
            return _verified(field, source, source.uri.removeprefix(SCHEME))
        return await self._from_config_map(namespace, field, source)

    async def _from_config_map(self, namespace: str, field: str, source: Source) -> str | Problem:
        name, _, key = source.uri.removeprefix(_CONFIG_MAP).partition("/")
        try:
            data = config_map_bytes(await self._cluster.get(CONFIG_MAP, name, namespace), key)
        except NotFound:
            return Problem("SourceNotFound", f"spec.{field}: there is no ConfigMap {name} in namespace {namespace}")
        if data is None:
            return Problem("SourceNotFound", f"spec.{field}: ConfigMap {name} has no key {key}")
        checked = _verified(field, source, sha256(data))
        if isinstance(checked, Problem):
            return checked
        try:
            return await self._store_of(namespace).put(data)
        except EspalierError as error:
            return Problem("CoordinatorUnavailable", f"spec.{field}: its bytes cannot be stored: {error}")


def _verified(field: str, source: Source, digest: str) -> str | Problem:
    if source.sha256 not in (None, digest):
        said = f"spec.{field}: {source.uri} has sha256 {digest}, but spec.{field}.sha256 wants {source.sha256}"
        return Problem("SourceNotFound", said)
    return digest
