"""Settings of espalier-coordinator: `ESPALIER_COORDINATOR_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from espalier_kit.settings import Settings


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


class CoordinatorSettings(Settings):
    """Times in seconds. `data` holds the database and the artifacts, `tls_dir` tls.crt and tls.key."""

    host: str = "0.0.0.0"
    grpc_port: int = Field(default=50051, ge=0, le=65535)
    http_port: int = Field(default=8081, ge=0, le=65535)
    data: Path
    tls_dir: Path
    admins: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    lease_s: float = Field(default=30.0, gt=0)
    heartbeat_s: float = Field(default=5.0, gt=0)
