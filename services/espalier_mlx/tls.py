"""The serving certificate: where it lies, and taking a renewed one without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from espalier_kit.clock import wait_or_stop

log = logging.getLogger(__name__)

CHECK_S = 10.0


def options(directory: Path | None) -> dict[str, str]:
    """uvicorn's options for a directory with `tls.crt` and `tls.key`; none without one."""
    if directory is None:
        return {}
    return {"ssl_certfile": str(directory / "tls.crt"), "ssl_keyfile": str(directory / "tls.key")}


async def reload(
    context: ssl.SSLContext | None, directory: Path | None, ended: asyncio.Event, *, every_s: float = CHECK_S
) -> None:
    """Until `ended`: load the certificate into the context when its files change; new connections get it."""
    if context is None or directory is None:
        await ended.wait()
        return
    seen = _changed_ns(directory)
    while not await wait_or_stop(ended, every_s):
        now = _changed_ns(directory)
        if now == seen:
            continue
        try:
            context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
            seen = now
        except (OSError, ssl.SSLError):
            log.warning("cannot load the renewed certificate; trying again", exc_info=True)


def _changed_ns(directory: Path) -> int:
    try:
        return max((directory / name).stat().st_mtime_ns for name in ("tls.crt", "tls.key"))
    except OSError:
        return 0
