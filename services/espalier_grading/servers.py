"""Ask a judge's model server over OpenAI's chat completions; fail over, visibly, when it is away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from espalier_api.tasks import Judge, JudgeSettings
from espalier_grading.judge import Question
from espalier_grading.model import Call
from espalier_kit.clock import Clock
from espalier_kit.execution import Context, ModelEndpoint, PlatformFault

CONNECT_SECONDS = 10.0
OWN_PATIENCE_SECONDS = 20.0
"""How long a judge waits for its own server's first readiness while another is ready already: servers start seconds
apart.
"""
FIRST_SHARE = 0.6
"""Share of the time left that one server may use while others could still be asked."""
_POLL_SECONDS = 0.5
_MAX_RETRY_AFTER = 30.0


class ServerAway(Exception):
    """This server did not answer this call; another may."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer. `is_failover` when a server of another role gave it."""

    content: str
    call: Call
    is_failover: bool


class Servers:
    """Asks the servers of a job's endpoints; remembers which have ever been ready, so that only a start is waited for.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: set[str] = set()

    async def ask(self, question: Question, settings: JudgeSettings, *, context: Context, seconds: float) -> Reply:
        """The first answer within `seconds`. Raises `PlatformFault` (ModelUnavailable) naming what each server said."""
        end = self._clock.monotonic() + seconds
        await self._until_ready(question.judge, context, end=end)
        problems: list[str] = []
        order = candidates(context.endpoints(), question.judge)
        for position, endpoint in enumerate(order):
            left = end - self._clock.monotonic()
            share = left if position == len(order) - 1 else left * FIRST_SHARE
            try:
                return await self._call(endpoint, question, settings, seconds=share)
            except ServerAway as error:
                problems.append(f"{endpoint.name or endpoint.url}: {error}")
                context.log.warning(
                    "model server away", extra={"server": endpoint.name, "role": endpoint.role, "problem": str(error)}
                )
        raise PlatformFault("; ".join(problems) or "the job has no model endpoint", reason="ModelUnavailable")

    async def _until_ready(self, judge: Judge, context: Context, *, end: float) -> None:
        began = self._clock.monotonic()
        while True:
            endpoints = context.endpoints()
            self._seen |= {e.url for e in endpoints if e.ready}
            own = [e for e in endpoints if e.role == judge]
            waited = self._clock.monotonic() - began
            if any(e.ready for e in own):
                return
            has_other = any(e.ready for e in endpoints)
            if has_other and (waited >= OWN_PATIENCE_SECONDS or not own or any(e.url in self._seen for e in own)):
                return  # a job starts once both judges have servers: one without any has lost them
            if self._clock.monotonic() + _POLL_SECONDS >= began + (end - began) * FIRST_SHARE:
                return
            await self._clock.sleep(_POLL_SECONDS)

    async def _call(
        self, endpoint: ModelEndpoint, question: Question, settings: JudgeSettings, *, seconds: float
    ) -> Reply:
        is_failover = endpoint.role != question.judge
        body = request_body(
            question, settings, model=endpoint.model if is_failover else settings.model or endpoint.model
        )
        try:
            async with asyncio.timeout(max(1.0, seconds)), client_of(endpoint) as client:
                while True:
                    started = self._clock.now().timestamp()
                    response = await client.post(
                        f"{endpoint.url.rstrip('/')}/v1/chat/completions",
                        json=body,
                        headers=headers_of(endpoint),
                        extensions=extensions_of(endpoint),
                    )
                    if response.status_code != 429:
                        break
                    await self._clock.sleep(_retry_after(response))
                ended = self._clock.now().timestamp()
        except TimeoutError as error:
            raise ServerAway(f"no answer within {seconds:.0f} s") from error
        except httpx.HTTPError as error:
            raise ServerAway(f"{type(error).__name__}: {error}"[:300]) from error
        if response.status_code != 200:
            raise ServerAway(f"HTTP {response.status_code}: {_error_text(response)}")
        return _reply(response, endpoint, times=(started, ended), is_failover=is_failover)


def candidates(endpoints: tuple[ModelEndpoint, ...], judge: Judge) -> list[ModelEndpoint]:
    """Own servers, then the other judge's, then fallbacks; those not ready come last, in the same order."""
    rank = {judge: 0, "fallback": 2}
    return sorted(endpoints, key=lambda e: (not e.ready, rank.get(e.role, 1)))


def request_body(question: Question, settings: JudgeSettings, *, model: str) -> dict[str, Any]:
    """The chat completion request."""
    return {
        "model": model,
        "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}],
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdicts", "strict": True, "schema": dict(question.schema)},
        },
    }


def measured(payload: Mapping[str, Any], endpoint: ModelEndpoint, *, started: float, ended: float) -> Call:
    """The call in the seed's figures; a server without `timings` is measured from outside, prompt time included."""
    usage, timings = payload.get("usage") or {}, payload.get("timings") or {}
    prompt, output = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    generation = float(timings.get("generation_time_seconds", ended - started))
    return Call(
        model=str(payload.get("model") or endpoint.model),
        server=endpoint.name or endpoint.node or endpoint.url,
        prompt_tokens=prompt,
        output_tokens=output,
        total_tokens=prompt + output,
        generation_time_seconds=round(generation, 4),
        tokens_per_second=round(
            float(timings.get("tokens_per_second", output / generation if generation > 0 else 0.0)), 2
        ),
        prompt_eval_time_seconds=round(float(timings.get("prompt_eval_time_seconds", 0.0)), 4),
        started=started,
        ended=ended,
    )


def _reply(
    response: httpx.Response, endpoint: ModelEndpoint, *, times: tuple[float, float], is_failover: bool
) -> Reply:
    try:
        payload = response.json()
        content = payload["choices"][0]["message"]["content"] or ""
        call = measured(payload, endpoint, started=times[0], ended=times[1])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerAway(f"its answer is no chat completion ({type(error).__name__})") from error
    return Reply(content=content, call=call, is_failover=is_failover)


def client_of(endpoint: ModelEndpoint) -> httpx.AsyncClient:
    """A client that trusts whom the endpoint says; the time of a call is its caller's to bound."""
    verify: ssl.SSLContext | bool = False
    if endpoint.url.startswith("https:"):
        verify = ssl.create_default_context(cadata=endpoint.ca_pem)
    return httpx.AsyncClient(verify=verify, trust_env=False, timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))


def extensions_of(endpoint: ModelEndpoint) -> dict[str, Any]:
    """The name that the certificate must carry, whatever address is dialled."""
    return {"sni_hostname": endpoint.server_name} if endpoint.server_name else {}


def headers_of(endpoint: ModelEndpoint) -> dict[str, str]:
    """The endpoint's key, where it has one."""
    return {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}


def _retry_after(response: httpx.Response) -> float:
    try:
        wished = float(response.headers.get("Retry-After", "1"))
    except ValueError:
        wished = 1.0
    return min(max(wished, 0.05), _MAX_RETRY_AFTER)


def _error_text(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
