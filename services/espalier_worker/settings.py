"""Settings of `espalier-worker`, from `ESPALIER_WORKER_*`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, Json

from espalier_kit.settings import Settings


class WorkerSettings(Settings):
    """One worker process. `job_uid` makes it a dedicated worker; empty: it serves its whole namespace."""

    coordinator: str = Field(pattern=r"^[^\s:/]+:[0-9]+$", description="host:port of gRPC")
    coordinator_web: str = Field(pattern=r"^https://[^\s]+$")
    coordinator_name: str = Field(min_length=1, description="The name that the coordinator's certificate carries.")
    ca_file: Path = Path("/var/run/secrets/espalier/ca/ca.crt")
    token_file: Path = Path("/var/run/secrets/espalier/token")
    namespace: str = Field(min_length=1)
    job_uid: str = ""
    pool: str = Field(default="", description="The shared pool it works for; its account must belong to it.")
    capacity: int = Field(default=4, ge=1, le=64)
    prefetch: int = Field(default=2, ge=0, le=64)
    id: str = Field(min_length=1, description="The pod's name.")
    host: str = "127.0.0.1"
    port: int = Field(default=8082, ge=0, le=65535, description="Health and metrics; 0 takes any free one.")
    types: str = Field(default="", description="Task types to take, comma-separated; empty: all that are installed.")
    tags: str = Field(default="", description="What this worker offers to tasks that require it, comma-separated.")
    resources: Json[dict[str, float]] = Field(
        default_factory=dict, description="What its tasks share, as JSON, e.g. {\"gpu\": 1, \"memoryGiB\": 16}."
    )
    once: bool = Field(default=False, description="Run one task, report it and end.")
    drain_s: float = Field(default=20.0, ge=0, description="After SIGTERM: seconds that running tasks may still take.")


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated setting."""
    return tuple(word for part in text.split(",") if (word := part.strip()))
