"""Settings of `espalier-worker`, from `ESPALIER_WORKER_*`."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Json, SecretStr

from espalier_kit.settings import Settings, level

WEB_PORT = 8081
"""Of the coordinator, unless `coordinator_web` says otherwise."""


def _cpus() -> int:
    return min(os.cpu_count() or 1, 1024)


def _or_none(value: object) -> object:
    return value or None


class WorkerSettings(Settings):
    """One worker process. `job_uid` makes it a dedicated worker; empty: it serves its whole namespace."""

    coordinator: str = Field(
        pattern=r"^(https?://)?([^\s:/]+|\[[0-9a-fA-F:]+\]):[0-9]+$",
        description="HOST:PORT of its gRPC; http:// in front: without TLS.",
    )
    coordinator_web: str = Field(default="", pattern=r"^(https?://[^\s]+)?$", description="Empty: that host at 8081.")
    coordinator_name: str = Field(default="", description="Name in the coordinator's certificate; empty: the host's.")
    insecure: bool = Field(default=False, description="Plain http:// to other machines too.")
    ca_file: Annotated[Path | None, BeforeValidator(_or_none)] = Field(
        default=Path("/var/run/secrets/espalier/ca/ca.crt"),
        description="Who signed the coordinator's certificate; empty: the machine's authorities.",
    )
    token_file: Path = Field(
        default=Path("/var/run/secrets/espalier/token"), description="A service account's token, read for each call."
    )
    api_key: SecretStr = Field(default=SecretStr(""), description="Instead of the token file.")
    cert_file: Path | None = Field(default=None, description="A client certificate, where the coordinator wants one.")
    key_file: Path | None = Field(default=None, description="The private key of that certificate.")
    namespace: str = Field(default="", description="Whose tasks it runs; empty: its account's or key's own.")
    job_uid: str = Field(default="", description="Run this job's tasks alone; empty: its namespace's or its pool's.")
    pool: str = Field(default="", description="The shared pool it works for; its account must belong to it.")
    capacity: int = Field(default_factory=_cpus, ge=1, le=1024, description="Tasks at once; default: CPUs.")
    prefetch: int = Field(default=2, ge=0, le=64, description="Tasks fetched ahead of those that run.")
    id: str = Field(default_factory=lambda: str(uuid.uuid4()), min_length=1, description="Its name; default: a UUID.")
    host: str = Field(default="127.0.0.1", description="Where health and metrics are served.")
    port: int = Field(default=0, ge=0, le=65535, description="Of health and metrics; 0: any free one, which is logged.")
    transport: Literal["session", "calls"] = Field(default="session", description="One stream, or a call at a time.")
    pull_interval_s: float = Field(default=1.0, gt=0, description="How often calls ask for tasks.")
    heartbeat_s: float = Field(default=0.0, ge=0, description="0: as often as the coordinator says.")
    executors: str = Field(default="", description="Further ones: TYPE=MODULE:FUNCTION, comma-separated.")
    types: str = Field(default="", description="Task types to take, comma-separated; empty: all that are installed.")
    tags: str = Field(default="", description="What this worker offers to tasks that require it, comma-separated.")
    resources: Json[dict[str, float]] = Field(
        default_factory=dict, description="What its tasks share, as JSON, e.g. {\"gpu\": 1, \"memoryGiB\": 16}."
    )
    once: bool = Field(default=False, description="Run one task, report it and end.")
    log_level: Annotated[str, BeforeValidator(level)] = Field(
        default="INFO", description="debug, info, warning or error."
    )
    drain_s: float = Field(default=20.0, ge=0, description="After SIGTERM: seconds that running tasks may still take.")


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated setting."""
    return tuple(word for part in text.split(",") if (word := part.strip()))
