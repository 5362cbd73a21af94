"""The running program: thread, web server, watchdog and drain, put together once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

import uvicorn

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.errors import Misconfigured, Permanent
from espalier_mlx import process, pulse, tls
from espalier_mlx.access import ApiKey
from espalier_mlx.admission import Gate, Limits
from espalier_mlx.completions import Completions
from espalier_mlx.metrics import Metrics
from espalier_mlx.runner import Runner, RunnerLimits
from espalier_mlx.server import Identity, make_app
from espalier_mlx.settings import MlxSettings, names_of

log = logging.getLogger(__name__)

_WATCH_S = 1.0
_SHOWN_S = 2.0
"""How long a stalled process still answers 503 before it ends, so that a probe can see why."""
_GRACE_S = 5
_KEEP_ALIVE_S = 30


class _Web(uvicorn.Server):  # type: ignore[misc]  # uvicorn counts as untyped here
    """uvicorn without its own signal handlers: the program drains first, then stops the server itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: MlxSettings, stop: asyncio.Event) -> None:
    """Serve until `stop`, then drain. Raises `Misconfigured` for a model that does not load; a stall ends with 1."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    clock = SystemClock()
    beats = pulse.Pulse(clock.monotonic())
    metrics = Metrics()
    limits = RunnerLimits(settings.max_concurrency, settings.prefill_step, settings.prompt_cache_bytes)
    runner = Runner(names_of(settings), limits, clock=clock, pulse=beats, observer=metrics)
    gate = Gate(Limits(settings.max_concurrency, settings.queue_limit))
    completions = Completions(runner, gate, metrics, clock=clock, max_tokens=settings.max_tokens)
    fault = _fault_of(runner, beats, settings, clock)
    identity = _identity(settings)
    _publish(metrics, runner, beats, identity, clock)
    key = ApiKey(settings.api_key_file) if settings.api_key_file else None
    app = make_app(completions, beats, fault=fault, identity=identity, key=key)
    parts = _Parts(_web(app, settings), _listener(settings), runner, completions, settings, fault)
    runner.start()
    with parts.listener:
        await _run(parts, stop)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a running program consists of."""

    web: _Web
    listener: socket.socket
    runner: Runner
    completions: Completions
    settings: MlxSettings
    fault: Callable[[], str]


async def _run(parts: _Parts, stop: asyncio.Event) -> None:
    """Until `stop` or a fault; leaves nothing running."""
    runner, clock = parts.runner, parts.completions.clock
    ended = asyncio.Event()
    serving = asyncio.create_task(parts.web.serve([parts.listener]))
    stopping = asyncio.create_task(stop.wait())
    helpers = [
        asyncio.create_task(watch(parts.fault, ended, clock=clock, give_up=lambda why: _give_up(runner))),
        asyncio.create_task(tls.reload(parts.web.config.ssl, parts.settings.tls_dir, ended)),
    ]
    try:
        await asyncio.wait({serving, stopping, *helpers}, return_when=asyncio.FIRST_COMPLETED)
        for helper in helpers:
            if helper.done():
                helper.result()
        if stopping.done():
            await _drain(runner, parts.completions, parts.settings.drain_s)
    finally:
        ended.set()
        stopping.cancel()
        parts.web.should_exit = True
        await asyncio.gather(serving, *helpers, return_exceptions=True)
        await asyncio.to_thread(runner.stop, _GRACE_S)
    serving.result()


async def watch(
    fault: Callable[[], str], ended: asyncio.Event, *, clock: Clock, give_up: Callable[[str], Awaitable[None]]
) -> None:
    """Look each second whether there is a fault; then let `give_up` end the program."""
    while not ended.is_set():
        reason = fault()
        if reason:
            log.error("the server is of no use", extra={"reason": reason})
            await give_up(reason)
            return
        await clock.sleep(_WATCH_S)


async def _give_up(runner: Runner) -> None:
    """A bad model is the setting's fault (78). A thread stuck in native code cannot be joined: end hard."""
    if isinstance(runner.failure, Permanent):
        raise Misconfigured(str(runner.failure), reason=runner.failure.reason)
    await asyncio.sleep(_SHOWN_S)
    logging.shutdown()
    os._exit(1)


async def _drain(runner: Runner, completions: Completions, drain_s: float) -> None:
    """Refuse new requests, let the running ones finish in time, fail the rest."""
    completions.is_draining = True
    log.info("draining", extra={"inside": completions.inside, "seconds": drain_s})
    clock = completions.clock
    deadline = clock.monotonic() + drain_s
    while completions.inside and clock.monotonic() < deadline:
        await clock.sleep(0.05)
    if not await asyncio.to_thread(runner.stop, _GRACE_S):
        log.warning("the generation thread did not end in time")


def _listener(settings: MlxSettings) -> socket.socket:
    """The bound socket. Port 0 takes any; the log line tells which. Raises `Misconfigured`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"ESPALIER_MLX_HOST, ESPALIER_MLX_PORT: cannot listen on {settings.host}, {settings.port}: {error.strerror}"
        ) from error
    log.info("listening", extra={"host": settings.host, "port": listener.getsockname()[1]})
    return listener


def _web(app: object, settings: MlxSettings) -> _Web:
    """uvicorn, its TLS context loaded. Raises `Misconfigured`."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, lifespan="off",
        timeout_graceful_shutdown=_GRACE_S, timeout_keep_alive=_KEEP_ALIVE_S, **tls.options(settings.tls_dir),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"ESPALIER_MLX_TLS_DIR: {settings.tls_dir}: {error}") from error
    return _Web(config)


def _fault_of(runner: Runner, beats: pulse.Pulse, settings: MlxSettings, clock: Clock) -> Callable[[], str]:
    begun = clock.monotonic()
    patience = pulse.Patience(settings.watchdog_s, settings.load_timeout_s)

    def fault() -> str:
        now = clock.monotonic()
        status = runner.status
        return pulse.fault(
            beats, state=status.state, message=status.message, age_s=now - begun, now=now, patience=patience
        )

    return fault


def _identity(settings: MlxSettings) -> Identity:
    node = settings.node or socket.gethostname()
    device = "metal" if sys.platform == "darwin" else f"cpu ({platform.machine()})"
    blas = process.blas_in_use(platform=sys.platform)
    if blas == "reference":
        log.warning(
            "MLX computes with its reference BLAS, many times slower: install libopenblas0-pthread",
            extra={"blas": blas},
        )
    return Identity(node, device, blas, version("espalier"))


def _publish(metrics: Metrics, runner: Runner, beats: pulse.Pulse, identity: Identity, clock: Clock) -> None:
    metrics.backend(device=identity.device, blas=identity.blas)
    metrics.gauge("running", "Requests in the batch.", lambda: runner.status.running)
    metrics.gauge("waiting", "Requests in the queue.", lambda: runner.status.waiting)
    metrics.gauge("prompt_cache_bytes", "Bytes of shared prefixes.", lambda: runner.status.prompt_cache_bytes)
    metrics.gauge("tokens_per_second", "Decode speed over the last requests.", beats.tokens_per_second)
    metrics.gauge(
        "stalled_seconds", "How long work has waited for a token.", lambda: beats.stalled_s(clock.monotonic())
    )

