"""The calls over HTTP: one route per call, JSON in and out, errors as problem details (RFC 9457)."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from espalier_coordinator.access import Identity
from espalier_coordinator.artifacts import DiskFull, TooLarge
from espalier_coordinator.calls.book import Calls
from espalier_coordinator.host import Host
from espalier_coordinator.routes import ROUTES, Route, call_of, stream_of
from espalier_coordinator.staying import while_known
from espalier_kit.errors import Conflict, EspalierError, Forbidden, NotFound, Permanent
from espalier_rpc.jsonform import from_json, from_text, is_map, to_json
from espalier_rpc.server import COMPRESS_FROM_BYTES, MAX_MESSAGE_BYTES, UNAUTHENTICATED

Identify = Callable[[Request], Awaitable[Identity]]

REFUSAL_S = 1.0
"""So long a stream may take to be refused; then it has begun, so that the client hears of it and its end is noticed."""
PROBLEM = "application/problem+json"
_STATUS: tuple[tuple[type[EspalierError], int], ...] = (
    (TooLarge, 413), (DiskFull, 507), (NotFound, 404), (Forbidden, 403), (Conflict, 409), (Permanent, 422),
    (EspalierError, 503),
)


def add_routes(web: FastAPI, host: Host, calls: Calls, identify: Identify) -> None:
    """Every call of the table; the more specific path comes first there."""
    for route in ROUTES:
        endpoint = _stream(route, calls, identify) if route.is_stream else _unary(route, host, calls, identify)
        web.add_api_route(route.path, endpoint, methods=[route.method], include_in_schema=False)


def _unary(route: Route, host: Host, calls: Calls, identify: Identify) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        caller = await identify(request)
        message = await message_of(route, request)
        try:
            told = await call_of(calls, route)(caller, message)
        except EspalierError:
            raise
        except Exception as error:  # what changes something broke in the middle: memory cannot be trusted any more
            if route.does_change:
                host.fail(error)
            raise
        return _response(request, json.dumps(to_json(told)).encode())

    return answer


def _stream(route: Route, calls: Calls, identify: Identify) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        caller = await identify(request)
        answers = stream_of(calls, route)(caller, await message_of(route, request))
        told = while_known(answers, partial(identify, request), caller)
        first = asyncio.ensure_future(anext(told))
        await asyncio.wait((first,), timeout=REFUSAL_S)
        if first.done():
            first.result()  # a refusal is an answer, not a broken stream

        async def lines() -> AsyncIterator[bytes]:
            yield json.dumps(to_json(await first)).encode() + b"\n"
            async for message in told:
                yield json.dumps(to_json(message)).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return answer


# ---------------------------------------------------------------- in


async def message_of(route: Route, request: Request) -> Any:
    """The call's message: the body's fields, or those of the query; what the path names counts."""
    fields: Mapping[str, Any] = route.message.DESCRIPTOR.fields_by_name
    data: dict[str, Any] = {}
    if route.has_body:
        data = _json_object(await _body(request))
    else:
        for name in request.query_params:
            if name not in fields or is_map(fields[name]):
                raise Permanent(f"{route.path} takes no {name!r}: it takes {', '.join(fields)}", reason="UnknownField")
            values = [from_text(fields[name], text, name) for text in request.query_params.getlist(name)]
            data[name] = values if fields[name].is_repeated else values[-1]
    try:
        return from_json(route.message, {**data, **request.path_params})
    except UnicodeEncodeError as error:
        raise Permanent(f"the request holds half a surrogate pair, which is no text: {error}", reason="InvalidText"
                        ) from error


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Permanent(f"the body is no JSON, or nested too deeply: {error}", reason="InvalidJson") from error
    if not isinstance(data, dict):
        raise Permanent("the body must be a JSON object", reason="InvalidJson")
    return data


async def _body(request: Request) -> bytes:
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MAX_MESSAGE_BYTES:
            raise _too_large()
    if request.headers.get("content-encoding", "") == "gzip":
        return _unpacked(bytes(read))
    return bytes(read)


def _unpacked(data: bytes) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        body = unpacking.decompress(data, MAX_MESSAGE_BYTES)
    except zlib.error as error:
        raise Permanent(f"the body is not gzip: {error}", reason="InvalidEncoding") from error
    if unpacking.unconsumed_tail:
        raise _too_large()
    return body


def _too_large() -> TooLarge:
    return TooLarge(f"a request may have at most {MAX_MESSAGE_BYTES} bytes: submit the tasks in several requests under "
                    "one uid, and put large payloads into the artifact store", reason="MessageTooLarge")


# ---------------------------------------------------------------- out


def _response(request: Request, body: bytes) -> Response:
    headers = {"vary": "accept-encoding"}
    if len(body) >= COMPRESS_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["content-encoding"] = gzip.compress(body, 5), "gzip"
    return Response(body, media_type="application/json", headers=headers)


def problem(error: EspalierError) -> Response:
    """The error as problem details; `reason` is its CamelCase word."""
    status = 401 if error.reason == UNAUTHENTICATED else next(s for kind, s in _STATUS if isinstance(error, kind))
    headers = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return JSONResponse({
        "type": f"urn:espalier:reason:{error.reason}", "title": HTTPStatus(status).phrase, "status": status,
        "detail": str(error), "reason": error.reason,
    }, status_code=status, media_type=PROBLEM, headers=headers)
