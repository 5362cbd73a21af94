"""An OpenAI-compatible server without a model: it answers by script, at the speed it is told to. For tests and benches.

Its figures are labelled *simulated* wherever they are shown. Time can be compressed: a server at 30 tok/s and
compression
10 answers ten times sooner and still reports 30 tok/s, so that a day of a class fits into an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

CHARACTERS_PER_TOKEN = 4
Script = Callable[[Mapping[str, Any]], str]
_FENCED = re.compile(r"<STUDENT-\w+ criterion (\d+) cell (\d+)>\n(.*?)\n</STUDENT-\w+>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of prompts and of answers; `compression` divides the waiting, not the figures; 0 waits not at
    all.
    """

    prompt: float = 500.0
    output: float = 30.0
    compression: float = 0.0
    output_tokens: int | None = None
    slots: int = 1


@dataclass(slots=True)
class ScriptedServer:
    """One simulated model. `failures` are status codes given, in order, instead of the next answers."""

    model: str
    speed: Speed = Speed()
    script: Script = field(default=lambda body: quoting(body))
    api_key: str | None = None
    failures: list[int] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keep_requests: bool = True

    def app(self) -> FastAPI:
        """The web application."""
        app = FastAPI(openapi_url=None)
        slots = asyncio.Semaphore(self.speed.slots)

        @app.get("/ready")
        async def ready() -> dict[str, Any]:
            return {"ready": True, "models": [self.model], "tokens_per_second": self.speed.output}

        @app.get("/v1/models")
        async def models(request: Request) -> JSONResponse:
            if self._is_stranger(request):
                return _error(401, "wrong API key")
            return JSONResponse({"object": "list", "data": [{"id": self.model, "object": "model"}]})

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> JSONResponse:
            if self._is_stranger(request):
                return _error(401, "wrong API key")
            if self.failures:
                return _error(self.failures.pop(0), "scripted failure")
            body = await request.json()
            if self.keep_requests:
                self.requests.append(body)
            return await self._answer(body, slots)

        return app

    def _is_stranger(self, request: Request) -> bool:
        return self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}"

    async def _answer(self, body: Mapping[str, Any], slots: asyncio.Semaphore) -> JSONResponse:
        arrived = time.monotonic()
        content = self.script(body)
        prompt = sum(len(message["content"]) for message in body["messages"]) // CHARACTERS_PER_TOKEN
        output = self.speed.output_tokens or max(1, len(content) // CHARACTERS_PER_TOKEN)
        prompt_s, output_s = prompt / self.speed.prompt, output / self.speed.output
        async with slots:
            queued = time.monotonic() - arrived
            if self.speed.compression:
                await asyncio.sleep((prompt_s + output_s) / self.speed.compression)
        return JSONResponse(
            {
                "id": "scripted",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": self.model,
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                ],
                "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output},
                "timings": {
                    "queue_s": queued,
                    "prompt_eval_time_seconds": prompt_s,
                    "generation_time_seconds": output_s,
                    "tokens_per_second": self.speed.output,
                    "cached_tokens": 0,
                },
            }
        )


def quoting(body: Mapping[str, Any], *, level: str = "MET") -> str:
    """A judge that quotes the beginning of each answer and finds it good: every verdict has real evidence."""
    answer: dict[str, Any] = {}
    for number, cell, text in _FENCED.findall(body["messages"][-1]["content"]):
        answer.setdefault(number, {"q": text[:24], "c": cell, "v": level})
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    if "comment" in schema.get("properties", {}):
        answer["comment"] = "Good work."
    return json.dumps(answer)


@contextlib.asynccontextmanager
async def serving(
    server: ScriptedServer, *, host: str = "127.0.0.1", port: int = 0, certificate: tuple[str, str] | None = None
) -> AsyncIterator[str]:
    """Serve until the block ends; yields the base address."""
    listener = socket.create_server((host, port))
    config = uvicorn.Config(server.app(), log_level="error", ws="none", lifespan="off", access_log=False)
    if certificate is not None:
        config.ssl_certfile, config.ssl_keyfile = certificate
        config.ssl_version = ssl.PROTOCOL_TLS_SERVER
    uvicorn_server = _Server(config)
    running = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    try:
        while not uvicorn_server.started:
            if running.done():
                running.result()
            await asyncio.sleep(0.005)
        yield f"{'https' if certificate else 'http'}://{host}:{listener.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = True
        await running
        listener.close()


class _Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is untyped here
    """Leaves the program's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own is untyped
        yield


def _error(status: int, message: str) -> JSONResponse:
    headers = {"Retry-After": "0.1"} if status == 429 else {}
    return JSONResponse(
        {"error": {"message": message, "type": "scripted", "code": status}}, status_code=status, headers=headers
    )


def main() -> None:
    """Serve one simulated model on a given port until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--tokens-per-second", type=float, default=30.0)
    parser.add_argument("--prompt-tokens-per-second", type=float, default=500.0)
    parser.add_argument("--compression", type=float, default=1.0)
    parser.add_argument("--output-tokens", type=int)
    parser.add_argument("--slots", type=int, default=1)
    given = parser.parse_args()
    speed = Speed(
        given.prompt_tokens_per_second, given.tokens_per_second, given.compression, given.output_tokens, given.slots
    )
    server = ScriptedServer(given.model, speed, keep_requests=False)

    async def serve() -> None:
        async with serving(server, host=given.host, port=given.port):
            await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
