"""The routes: OpenAI's, the probes, the metrics, and the two `/distributed` pages of the first design."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from espalier_mlx import chat, echo
from espalier_mlx.access import ApiKey, Entrance
from espalier_mlx.completions import Completion, Completions
from espalier_mlx.errors import ApiError, failed, unknown_model
from espalier_mlx.pulse import Pulse
from espalier_mlx.streaming import DONE, ClientGone, EventStream, event, unless_gone
from espalier_mlx.work import Finished, ModelCard, TextDelta

MAX_BODY_BYTES = 8 * 2**20
_CLIENT_CLOSED = 499


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers: the node's name, what computes, and the library's version."""

    node: str
    device: str
    blas: str
    version: str


def make_app(
    completions: Completions, pulse: Pulse, *, fault: Callable[[], str], identity: Identity, key: ApiKey | None
) -> FastAPI:
    """The ASGI application. `fault` says why the process is of no use, or nothing."""
    app = FastAPI(title="espalier-mlx", version=identity.version, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Entrance, key=key)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)
    _add_openai(app, completions)
    _add_echo(app, completions)
    _add_probes(app, completions, pulse, fault)
    _add_distributed(app, completions, pulse, fault, identity)
    return app


def _add_openai(app: FastAPI, completions: Completions) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(card) for card in completions.generation.status.models]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        cards = {card.name: card for card in completions.generation.status.models}
        if name not in cards:
            raise unknown_model(name, tuple(cards))
        return _card(cards[name])

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        asked = chat.parse(await _body(request))
        completion = await completions.open(asked)
        replies = chat.Replies(
            completion_id=completion.id, created=completion.created, model=completion.card.name,
            fingerprint=completion.card.fingerprint,
        )
        if asked.stream:
            return EventStream(_stream(completion, replies, has_usage=asked.has_usage_chunk), completion.close)
        try:
            return JSONResponse(await unless_gone(_whole(completion, replies), request.receive))
        except ClientGone:
            return Response(status_code=_CLIENT_CLOSED)
        finally:
            completion.close()


def _add_echo(app: FastAPI, completions: Completions) -> None:
    @app.post("/v1/completions")
    async def echoed(request: Request) -> Response:
        asked = echo.parse(await _body(request))
        completion, encoded = await completions.open_scoring(asked)
        codec = completions.generation.models[completion.card.name].codec
        base = {
            "id": completion.id, "created": completion.created, "model": completion.card.name,
            "system_fingerprint": completion.card.fingerprint,
        }
        try:
            scored = await unless_gone(completion.scored(), request.receive)
            return JSONResponse(echo.reply(asked, encoded, scored.scores, codec, base=base))
        except ClientGone:
            return Response(status_code=_CLIENT_CLOSED)
        finally:
            completion.close()


def _add_probes(app: FastAPI, completions: Completions, pulse: Pulse, fault: Callable[[], str]) -> None:
    @app.get("/health")
    @app.get("/healthz")
    async def health() -> JSONResponse:
        reason = fault()
        body = {"status": "stalled" if reason else "ok", "message": reason}
        return JSONResponse(body, status_code=503 if reason else 200)

    @app.get("/ready")
    @app.get("/readyz")
    async def ready() -> JSONResponse:
        status = completions.generation.status
        is_ready = status.state == "ready" and not completions.is_draining and not fault()
        body = {
            "ready": is_ready,
            "models": [card.name for card in status.models],
            "tokens_per_second": round(pulse.tokens_per_second(), 3),
            "generated_tokens_total": pulse.generated_tokens,
            "running": status.running,
            "waiting": status.waiting,
        }
        return JSONResponse(body, status_code=200 if is_ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(completions.metrics.render(), media_type="text/plain; version=0.0.4")


def _add_distributed(
    app: FastAPI, completions: Completions, pulse: Pulse, fault: Callable[[], str], identity: Identity
) -> None:
    def device() -> dict[str, Any]:
        return {
            "device_id": identity.node, "rank": 0, "role": "coordinator", "hostname": socket.gethostname(),
            "status": "unhealthy" if fault() else "healthy", "device": identity.device, "blas": identity.blas,
        }

    @app.get("/distributed/gpu-info")
    async def gpu_info() -> dict[str, Any]:
        cluster = {
            "total_devices": 1, "healthy_devices": 0 if fault() else 1, "world_size": 1,
            "gRPC_communication": "Not needed (one rank)",
        }
        return {"cluster_info": cluster, "devices": [device()]}

    @app.get("/distributed/status")
    async def status() -> dict[str, Any]:
        now = completions.generation.status
        return {
            "node": identity.node, "rank": 0, "world_size": 1, "backend": "single", "state": now.state,
            "message": fault(), "models": [card.name for card in now.models], "devices": [device()],
            "running": now.running, "waiting": now.waiting, "prompt_cache_bytes": now.prompt_cache_bytes,
            "tokens_per_second": round(pulse.tokens_per_second(), 3), "generated_tokens_total": pulse.generated_tokens,
        }


async def _whole(completion: Completion, replies: chat.Replies) -> dict[str, Any]:
    parts: list[str] = []
    async for item in completion.events():
        if isinstance(item, Finished):
            return replies.completion("".join(parts), completion.prompt_tokens, item)
        parts.append(item.text)
    raise failed("The answer ended without a reason")


async def _stream(completion: Completion, replies: chat.Replies, *, has_usage: bool) -> AsyncIterator[bytes]:
    yield event(replies.chunk({"role": "assistant", "content": ""}))
    try:
        async for item in completion.events():
            if isinstance(item, TextDelta):
                yield event(replies.chunk({"content": item.text}))
                continue
            yield event(replies.chunk({}, finished=item))
            if has_usage:
                yield event(replies.usage_chunk(completion.prompt_tokens, item))
    except ApiError as error:
        yield event(error.body())
    yield DONE


async def _body(request: Request) -> bytes:
    """The body, bounded: one request must not fill the memory."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES} bytes", kind="invalid_request_error")
    return bytes(body)


def _card(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name, "object": "model", "created": card.created, "owned_by": "espalier",
        "context_length": card.context_length,
    }


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    refused = ApiError(
        error.status_code, f"{request.method} {request.url.path}: {error.detail}", kind="invalid_request_error"
    )
    return JSONResponse(refused.body(), status_code=refused.status)


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(failed("The server has a fault; its log tells more").body(), status_code=500)
