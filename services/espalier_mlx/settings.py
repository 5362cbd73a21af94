"""Settings of espalier-mlx, from `ESPALIER_MLX_*`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, field_validator

from espalier_kit.settings import Settings

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _as_bytes(value: Any) -> Any:
    """Bytes of a plain number or of a Kubernetes quantity such as `512Mi`."""
    if not isinstance(value, str):
        return value
    number = value.rstrip("kMGTi")
    unit = value[len(number):]
    if unit not in _UNITS:
        raise ValueError(f"{value!r} is not a size: write bytes or a quantity such as 512Mi")
    try:
        return int(Decimal(number) * _UNITS[unit])
    except ArithmeticError as error:
        raise ValueError(f"{value!r} is not a size: write bytes or a quantity such as 512Mi") from error


ByteCount = Annotated[int, BeforeValidator(_as_bytes), Field(ge=0)]


class ServedModel(BaseModel):
    """One model: `name` is what requests say; `source` as in `ModelServer.spec.models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=253)
    source: str = Field(min_length=1, max_length=512)


class MlxSettings(Settings):
    """What one server process is told. Times in seconds."""

    host: str = "127.0.0.1"
    """Where it serves."""
    port: int = Field(default=8100, ge=0, le=65535)
    """Of the API, health and metrics."""
    models: Json[tuple[ServedModel, ...]]
    """What it serves, as a JSON list of {"name": …, "source": …}."""
    max_concurrency: int = Field(default=8, ge=1, le=64)
    """Answers made at once."""
    queue_limit: int = Field(default=32, ge=0, le=4096)
    """Requests that may wait beyond those; one more is told 429."""
    prompt_cache_bytes: ByteCount = 512 * 2**20
    """Memory for beginnings of prompts that come again: bytes, or a quantity such as 512Mi."""
    prefill_step: int = Field(default=256, ge=16, le=4096)
    """Prompt tokens computed at once: the longest pause that a new prompt puts into running answers."""
    max_tokens: int = Field(default=4096, ge=1)
    """Tokens of an answer whose request names no limit; the context length bounds it too."""
    tls_dir: Path | None = None
    """Folder with tls.crt and tls.key; without it HTTP is served in the clear."""
    api_key_file: Path | None = None
    """File with the key that requests must show; without it none is asked for."""
    node: str = ""
    """Name of its node, shown in /distributed/status."""
    drain_s: float = Field(default=20.0, ge=0)
    """After SIGTERM: seconds that running answers may still take."""
    watchdog_s: float = Field(default=120.0, gt=0)
    """An answer that makes no token for so long ends the process."""
    load_timeout_s: float = Field(default=1800.0, gt=0)
    """So long the models may take to load."""

    @field_validator("models")
    @classmethod
    def _names_are_unique(cls, models: tuple[ServedModel, ...]) -> tuple[ServedModel, ...]:
        if not models:
            raise ValueError("name at least one model")
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise ValueError("each model name may stand only once")
        return models

    @field_validator("tls_dir", "api_key_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value


def names_of(settings: MlxSettings) -> Mapping[str, str]:
    """Model name → source, in the order given."""
    return {model.name: model.source for model in settings.models}
