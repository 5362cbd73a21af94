"""The coordinator's calls over HTTP, for tools: JSON in and out, problem details as errors by meaning."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from espalier_kit.errors import Conflict, EspalierError, Forbidden, NotFound, Permanent, Retryable

_MEANING: dict[int, type[EspalierError]] = {401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict}


class RestClient:
    """Over a client from `artifacts.web_client`. `token` empty: the client's certificate says who asks."""

    def __init__(
        self, http: httpx.AsyncClient, *, token: Callable[[], str], server_name: str | None = None
    ) -> None:
        self._http = http
        self._token = token
        self._extensions = {"sni_hostname": server_name} if server_name else {}

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer; query parameters that are empty or None are left out."""
        return await self._ask("GET", path, params={k: v for k, v in query.items() if v not in (None, "", [], ())})

    async def get_all(self, path: str, items: str, **query: Any) -> dict[str, Any]:
        """The answer with the `items` of all its pages."""
        told = await self.get(path, **query)
        found, token = told[items], told["next_page_token"]
        while token:
            page = await self.get(path, page_token=token, **query)
            found, token = found + page[items], page["next_page_token"]
        return {**told, items: found, "next_page_token": ""}

    async def post(self, path: str, **fields: Any) -> dict[str, Any]:
        return await self._ask("POST", path, json=fields)

    async def put(self, path: str, **fields: Any) -> dict[str, Any]:
        return await self._ask("PUT", path, json=fields)

    async def patch(self, path: str, **fields: Any) -> dict[str, Any]:
        return await self._ask("PATCH", path, json=fields)

    async def delete(self, path: str) -> dict[str, Any]:
        return await self._ask("DELETE", path)

    async def lines(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Each message of a stream; ends with it."""
        async with self._translated(), self._http.stream(
            "GET", path, headers=self._headers(), extensions=self._extensions, timeout=httpx.Timeout(10.0, read=None)
        ) as response:
            if response.is_error:
                raise error_of(response, await response.aread())
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        async with self._translated():
            response = await self._http.request(
                method, path, headers=self._headers(), extensions=self._extensions, **content
            )
        if response.is_error:
            raise error_of(response, response.content)
        told = response.json()
        assert isinstance(told, dict), "every call answers an object"
        return told

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"authorization": f"Bearer {token}"} if token else {}

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            said = f"{type(error).__name__} {error}".strip()
            raise Retryable(f"the coordinator at {self._http.base_url} cannot be reached: {said}") from error


def error_of(response: httpx.Response, body: bytes) -> EspalierError:
    """What a refusal means; its sentence is the coordinator's."""
    try:
        told = json.loads(body)
    except ValueError:
        told = {}
    detail = told.get("detail") if isinstance(told, dict) else None
    message = str(detail or f"{response.request.method} {response.request.url.path}: HTTP {response.status_code}")
    reason = str(told.get("reason", "")) if isinstance(told, dict) else ""
    kind = _MEANING.get(response.status_code, Retryable if response.status_code >= 500 else Permanent)
    return kind(message, reason=reason or f"Http{response.status_code}")
