"""Settings of espalier-coordinator: `ESPALIER_COORDINATOR_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from espalier_coordinator.fairness import Fairness
from espalier_coordinator.pools import read_pools
from espalier_kit.settings import Settings, level

SHORTEST_UNUSED_S = 86_400.0


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _is_postgres(url: SecretStr) -> SecretStr:
    if url.get_secret_value() and not url.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError("expected postgresql://USER:PASSWORD@HOST/DATABASE, or nothing for SQLite in DATA")
    return url


def _is_long(seconds: float) -> float:
    if 0 < seconds < SHORTEST_UNUSED_S:
        raise ValueError(f"expected at least {SHORTEST_UNUSED_S:.0f} (a day), or 0 for never: what a running task has "
                         "stored is named only when it ends")
    return seconds


class CoordinatorSettings(Settings):
    """Times in seconds. Without a certificate only loopback is served, unless `insecure` says otherwise."""

    host: str = "0.0.0.0"
    """Where all ports are served."""
    grpc_port: int = Field(default=50051, ge=0, le=65535)
    """Of the calls and of workers' sessions; 0: any free one."""
    http_port: int = Field(default=8081, ge=0, le=65535)
    """Of the calls over HTTP, artifacts, health and metrics; 0: any free one."""
    scaling_port: int = Field(default=0, ge=0, le=65535)
    """Of the metrics API for the API server; 0: none."""
    health_port: int = Field(default=0, ge=0, le=65535)
    """Of grpc.health.v1 in plain text, for probes that speak no TLS; 0: none."""
    data: Path
    """Folder of the artifacts and, unless DATABASE names another, of the database."""
    database: Annotated[SecretStr, AfterValidator(_is_postgres)] = SecretStr("")
    """postgresql://USER:PASSWORD@HOST/DATABASE; empty: SQLite in DATA."""
    tls_dir: Path | None = None
    """Folder with tls.crt and tls.key, which may be renewed while it runs."""
    tls_cert: Path | None = None
    """The certificate, instead of TLS_DIR."""
    tls_key: Path | None = None
    """Its private key."""
    client_ca: Path | None = None
    """gRPC callers must show a certificate that this authority has signed."""
    insecure: bool = False
    """Serve other machines without a certificate too: the network itself is private."""
    callers: Path | None = None
    """File of those who are known by API key or client certificate."""
    token_review: bool | None = None
    """Ask the API server for service accounts; default: where there is no CALLERS."""
    admins: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """User names that may everything, comma-separated."""
    pools: Annotated[dict[str, str], BeforeValidator(read_pools)] = Field(default_factory=dict)
    """Whose account works for which shared pool: ACCOUNT=POOL, comma-separated."""
    lease_s: float = Field(default=30.0, gt=0)
    """A worker that is silent for so long is gone: its tasks are queued again."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    """How often workers are asked for a sign of life."""
    health_timeout_s: float = Field(default=10.0, gt=0)
    """A worker that is silent for longer is degraded; after LEASE_S it is gone."""
    fairness: Fairness = Fairness.PRIORITY
    """How jobs of one priority share the workers: priority (first come, first served), weighted-jobs or
    weighted-namespaces."""
    max_completed_jobs: int = Field(default=1000, ge=0)
    """Kept in memory; older ones are read from the database when somebody asks."""
    completed_ttl_s: float = Field(default=0.0, ge=0)
    """After that, completed jobs are forgotten; 0: never, unless somebody deletes them."""
    cache_entries: int = Field(default=10_000, ge=0)
    """Results kept to answer for equal tasks."""
    reserved_share: float = Field(default=0.5, ge=0, le=1)
    """Of the slots on workers that serve every namespace, what the reservations of one may hold back."""
    reservation_max_s: float = Field(default=86_400.0, ge=0)
    """For so long a submitter may hold capacity back; 0: for any time."""
    artifact_share: float = Field(default=0.5, ge=0, le=1)
    """Of the volume, what the artifacts of one namespace may fill; 0: as much as there is."""
    artifact_unused_s: Annotated[float, AfterValidator(_is_long)] = Field(default=30 * 86_400.0, ge=0)
    """Artifacts that nothing names go so long after they were last put or read; 0: never."""
    retries: int = Field(default=3, ge=0)
    """Of a job that does not say."""
    log_level: Annotated[str, BeforeValidator(level)] = "INFO"
    """debug, info, warning or error."""
