"""Whether a judge's endpoint outside the platform can be asked, found out before any submission is: and if not, what a
person should change. Asked from where the judges ask, as nobody else sees the same network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx

from espalier_api.tasks import Judge
from espalier_grading.servers import client_of, extensions_of, headers_of
from espalier_kit.execution import ModelEndpoint

LIST_S = 10.0
ANSWER_S = 60.0
"""A server that loads the model for its first question needs this long."""
_SHOWN = 8
_MAX_TEXT = 120


class _Trouble(Exception):
    """What is wrong, and what a person should change."""


async def troubles(endpoints: Iterable[ModelEndpoint], judges: Iterable[Judge]) -> list[str]:
    """A sentence for each of these judges whose endpoint cannot be asked; none where all can."""
    by_role = {endpoint.role: endpoint for endpoint in endpoints}
    return [said for said in await asyncio.gather(*(_trouble(by_role.get(j), j) for j in judges)) if said]


async def _trouble(endpoint: ModelEndpoint | None, judge: Judge) -> str:
    if endpoint is None:
        return f"the {judge} judge has no endpoint yet"
    place = f"models.{judge}.endpoint"
    try:
        async with client_of(endpoint) as client:
            names = await _listed(client, endpoint, place)
            if not _is_among(endpoint.model, names):
                await _try(client, endpoint, place, names)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # a TimeoutError is an OSError
        why = str(error)[:_MAX_TEXT] or type(error).__name__
        change = f"start it, or apply a new GradingJob with another {place}.url"
        if "CERTIFICATE_VERIFY_FAILED" in why:
            change = f"name its authority in {place}.caSecretRef"
        return f"{_named(endpoint, judge)} does not answer ({why}): {change}"
    except _Trouble as trouble:
        return f"{_named(endpoint, judge)} {trouble}"
    return ""


async def _listed(client: httpx.AsyncClient, endpoint: ModelEndpoint, place: str) -> list[str]:
    """The models that it says it has; none where it does not say."""
    async with asyncio.timeout(LIST_S):
        response = await client.get(f"{endpoint.url.rstrip('/')}/v1/models", headers=headers_of(endpoint),
                                    extensions=extensions_of(endpoint))
    _check_key(response, endpoint, place)
    if response.status_code >= 500 and response.status_code != 501:
        raise _Trouble(f"answers HTTP {response.status_code}: see its log")
    try:
        return [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []


async def _try(client: httpx.AsyncClient, endpoint: ModelEndpoint, place: str, names: list[str]) -> None:
    """One short question. Not every server lists its models, or by the names it answers to."""
    async with asyncio.timeout(ANSWER_S):
        response = await client.post(
            f"{endpoint.url.rstrip('/')}/v1/chat/completions", headers=headers_of(endpoint),
            extensions=extensions_of(endpoint),
            json={"model": endpoint.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1},
        )
    _check_key(response, endpoint, place)
    if response.status_code in (200, 429):
        return
    if response.status_code >= 500:
        raise _Trouble(f"answers HTTP {response.status_code} for model {endpoint.model}: see its log")
    if names:
        has = ", ".join(names[:_SHOWN])
        raise _Trouble(f"does not serve {endpoint.model}, it serves {has}: load it there, or apply a new GradingJob "
                       f"with another {place}.model")
    raise _Trouble(f"answers HTTP {response.status_code} to /v1/chat/completions: apply a new GradingJob whose "
                   f"{place} names the url of an OpenAI-compatible server and a model that it serves")


def _check_key(response: httpx.Response, endpoint: ModelEndpoint, place: str) -> None:
    if response.status_code in (401, 403):
        change = "correct the Secret of" if endpoint.api_key else "it wants a key: apply a new GradingJob with"
        raise _Trouble(f"refuses us (HTTP {response.status_code}): {change} {place}.apiKeySecretRef")


def _is_among(model: str, names: list[str]) -> bool:
    return model in names or f"{model}:latest" in names


def _named(endpoint: ModelEndpoint, judge: Judge) -> str:
    return f"the {judge} judge's endpoint {endpoint.url[:_MAX_TEXT]}"
