"""The real `Cluster`: the official client's transport and credentials, and paths of our own (ADR 0003).

The generated model classes are not used: objects stay JSON, which keeps memory and start-up small.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from espalier_api.names import FIELD_MANAGER
from espalier_kit.errors import Conflict, EspalierError, Forbidden, Gone, Misconfigured, NotFound, Permanent, Retryable
from espalier_kube.cluster import POD, SERVICE_ACCOUNT, Kind, Listing, Object, WatchEvent

CALL_TIMEOUT_S = 30
PAGE = 500
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"

Observer = Callable[[str, int], None]
"""Called with (verb, status code) after each call; for metrics."""


async def connect(kubeconfig: Path | None = None, *, observer: Observer | None = None) -> Client:
    """A client from a kubeconfig file, or from the pod's service account.

    The authority comes from there alone, never from the environment. Raises `Misconfigured` when neither can be read.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(configuration)
        else:
            await load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError) as error:
        where = kubeconfig or "the pod's service account"
        raise Misconfigured(
            f"cannot read Kubernetes credentials from {where}: {error}", reason="NoCredentials"
        ) from error
    configuration.client_session_kwargs = {"trust_env": False}
    return Client(ApiClient(configuration), configuration, observer)


class Client:
    """`espalier_kube.cluster.Cluster` over HTTP."""

    def __init__(self, api: ApiClient, configuration: Configuration, observer: Observer | None = None) -> None:
        self._api = api
        self._configuration = configuration
        self._observe: Observer = observer or (lambda _verb, _code: None)

    @property
    def server(self) -> str:
        """The API server's address, `https://host:port`."""
        return str(self._configuration.host)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        return await self._json("get", "GET", path(kind, namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        items: list[Object] = []
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE), "continue": None}
        while True:
            page = await self._json("list", "GET", path(kind, namespace), query=query)
            items += ({"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page.get("items") or ())
            query["continue"] = page["metadata"].get("continue")
            if not query["continue"]:
                return Listing(tuple(items), page["metadata"]["resourceVersion"])

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
        timeout_s: int = 240,
    ) -> AsyncGenerator[WatchEvent, None]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(timeout_s),
        }
        response = await self._send("watch", "GET", path(kind, namespace), query=query, timeout_s=timeout_s + 15)
        try:
            async for line in response.content:
                yield _watch_event(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Retryable(f"the watch of {kind.plural} broke: {error!r}", reason="WatchBroken") from error
        finally:
            _cut(response)

    async def create(self, obj: Object) -> Object:
        kind, namespace, _ = _identify(obj)
        return await self._json("create", "POST", _collection(kind, namespace), body=obj, query=_MANAGED)

    async def replace(self, obj: Object, *, subresource: str | None = None) -> Object:
        kind, namespace, name = _identify(obj)
        return await self._json("update", "PUT", _item(kind, namespace, name, subresource), body=obj, query=_MANAGED)

    async def apply(self, obj: Object, *, subresource: str | None = None, force: bool = True) -> Object:
        kind, namespace, name = _identify(obj)
        query = {**_MANAGED, "force": str(force).lower()}
        return await self._json(
            "apply", "PATCH", _item(kind, namespace, name, subresource), body=obj, query=query, content=_APPLY
        )

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any],
        *,
        subresource: str | None = None,
        strategic: bool = False,
    ) -> Object:
        content = _STRATEGIC if strategic else _MERGE
        return await self._json(
            "patch", "PATCH", path(kind, namespace, name, subresource), body=patch, query=_MANAGED, content=content
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        body: Object = {"propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self._json("delete", "DELETE", path(kind, namespace, name), body=body)
        except NotFound:
            return

    async def create_token(
        self,
        service_account: str,
        namespace: str,
        *,
        audience: str | None,
        expiration_s: int,
        bound_pod: tuple[str, str] | None = None,
    ) -> tuple[str, str]:
        spec: Object = {"audiences": [audience] if audience else [], "expirationSeconds": expiration_s}
        if bound_pod is not None:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": bound_pod[0], "uid": bound_pod[1]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = await self._json("create", "POST", path(SERVICE_ACCOUNT, namespace, service_account, "token"), body=body)
        return made["status"]["token"], made["status"]["expirationTimestamp"]

    async def logs(self, name: str, namespace: str, *, container: str | None = None, tail: int | None = None) -> str:
        query = {"container": container, "tailLines": None if tail is None else str(tail)}
        where = path(POD, namespace, name, "log")
        response = await self._send("get", "GET", where, query=query)
        async with _whole(f"get {where}"):
            return await response.text()

    async def close(self) -> None:
        await self._api.close()
        await asyncio.sleep(0)  # streams that were cut a moment ago let go of their sockets in the loop's next turn

    async def _json(
        self,
        verb: str,
        method: str,
        where: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Object:
        response = await self._send(verb, method, where, query=query, body=body, content=content)
        async with _whole(f"{verb} {where}"):
            parsed: Object = await response.json(content_type=None)
        return parsed

    async def _send(
        self,
        verb: str,
        method: str,
        where: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> aiohttp.ClientResponse:
        chosen = {key: value for key, value in (query or {}).items() if value is not None}
        url = f"{self._configuration.host}{where}" + (f"?{urlencode(chosen)}" if chosen else "")
        headers = {"Content-Type": content, "Accept": "application/json", **await self._authorisation()}
        try:
            answer = await self._api.call_api(
                method,
                url,
                headers,
                dict(body) if body is not None else None,
                _request_timeout=aiohttp.ClientTimeout(total=timeout_s),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._observe(verb, 0)
            raise Retryable(
                f"the API server cannot be reached at {self._configuration.host}: {error!r}",
                reason="ApiServerUnreachable",
            ) from error
        response: aiohttp.ClientResponse = answer.response
        self._observe(verb, response.status)
        if response.status >= 400:
            async with _whole(f"{verb} {where}"):
                said = await response.read()
            raise _error(response.status, said, response.headers.get("Retry-After"))
        return response

    async def _authorisation(self) -> dict[str, str]:
        setting = (await self._configuration.auth_settings()).get("BearerToken")
        return {"Authorization": str(setting["value"])} if setting and setting.get("value") else {}


@contextlib.asynccontextmanager
async def _whole(call: str) -> AsyncIterator[None]:
    """While an answer is read: one that breaks off raises `Retryable`."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Retryable(f"the API server's answer to {call} broke off: {error!r}") from error


def _cut(response: aiohttp.ClientResponse) -> None:
    """End a stream that is not at its end, at once.

    A farewell in TLS waits for the server's, and whoever closes the client and the event loop next leaves the socket
    open meanwhile.
    """
    if response.connection is not None and (transport := response.connection.transport) is not None:
        transport.abort()
    response.close()


_MANAGED = {"fieldManager": FIELD_MANAGER}


def path(kind: Kind, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """The REST path; without a namespace a namespaced kind means all namespaces."""
    parts = ["apis", kind.group, kind.version] if kind.group else ["api", kind.version]
    if kind.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts += [kind.plural, *([name] if name else []), *([subresource] if subresource else [])]
    return "/" + "/".join(quote(part, safe=":") for part in parts)


def _identify(obj: Object) -> tuple[tuple[str, str], str | None, str]:
    metadata = obj.get("metadata") or {}
    return (obj["apiVersion"], obj["kind"]), metadata.get("namespace"), metadata.get("name", "")


def plural(kind: str) -> str:
    """The resource name of a kind, by the API's own naming rule."""
    lower = kind.lower()
    if lower.endswith("s") and not lower.endswith("ss"):
        return lower
    if lower.endswith(("ss", "ch", "x")):
        return lower + "es"
    return lower[:-1] + "ies" if lower.endswith("y") else lower + "s"


def _kind(identity: tuple[str, str]) -> Kind:
    api_version, kind = identity
    group, _, version = api_version.rpartition("/")
    return Kind(group, version, kind, plural(kind))


def _collection(identity: tuple[str, str], namespace: str | None) -> str:
    return path(_kind(identity), namespace)


def _item(identity: tuple[str, str], namespace: str | None, name: str, subresource: str | None) -> str:
    return path(_kind(identity), namespace, name, subresource)


def _watch_event(raw: Object) -> WatchEvent:
    if raw["type"] == "ERROR":
        status = raw["object"]
        raise _error(int(status.get("code", 500)), json.dumps(status).encode(), None)
    return WatchEvent(raw["type"], raw["object"])


def _error(status: int, body: bytes, retry_after: str | None) -> EspalierError:
    try:
        parsed = json.loads(body)
        message, reason = str(parsed.get("message", "")), str(parsed.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = body[:500].decode(errors="replace"), ""
    message = message or f"HTTP {status}"
    by_status: dict[int, type[EspalierError]] = {
        401: Forbidden,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        410: Gone,
    }
    if status in by_status:
        return by_status[status](message, reason=reason or str(status))
    if status == 429 or status >= 500:
        return Retryable(message, reason=reason or str(status), after_s=_seconds(retry_after))
    return Permanent(message, reason=reason or str(status))


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
