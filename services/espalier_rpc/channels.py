"""Channels to a coordinator: TLS or, on this machine, none; a rotating bearer token; a client certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

KEEPALIVE_S = 20
"""A peer that answers no ping for ten seconds after this long without a byte is away. Servers must permit it."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),  # it is back in seconds; the default is two minutes
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),  # nothing but settings decides where we go
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class ClientPair:
    """A client's certificate and key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "ClientPair(…)"


def channel(
    address: str, *, ca_pem: str | None, server_name: str | None, token: Callable[[], str],
    pair: ClientPair | None = None,
) -> grpc.aio.Channel:
    """A TLS channel to `address` (host:port).

    `ca_pem` None trusts the machine's roots; `server_name` is the name that the certificate must carry, whatever the
    address. `token` is asked anew for each call, since tokens rotate; it runs on a thread of gRPC's. An empty token is
    not sent: then `pair` says who calls.
    """
    tls = grpc.ssl_channel_credentials(
        None if ca_pem is None else ca_pem.encode(), pair.key if pair else None, pair.certificate if pair else None
    )
    credentials = grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(_Bearer(token)))
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", server_name)] if server_name else list(_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=options)


def plain_channel(address: str, *, token: Callable[[], str]) -> grpc.aio.Channel:
    """Without TLS: the token and everything else are readable on the way. For this machine and private networks."""
    kinds: tuple[Any, ...] = (_PlainUnary(token), _PlainWatch(token), _PlainSession(token))
    return grpc.aio.insecure_channel(address, options=list(_OPTIONS), interceptors=kinds)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


class _Bearer(grpc.AuthMetadataPlugin):
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            metadata = _metadata(self._token())
        except Exception as error:
            callback((), error)  # the call ends as UNAVAILABLE: an unreadable token file is worth another try
        else:
            callback(metadata, None)


class _Plain:
    """gRPC attaches credentials to no channel without TLS; what is sent is the same."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _with_token(self, details: Any) -> Any:
        metadata = [*(details.metadata or ()), *_metadata(self._token())]
        return details._replace(metadata=grpc.aio.Metadata(*metadata))


class _PlainUnary(_Plain, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_token(client_call_details), request)


class _PlainWatch(_Plain, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._with_token(client_call_details), request)


class _PlainSession(_Plain, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self._with_token(client_call_details), request_iterator)
