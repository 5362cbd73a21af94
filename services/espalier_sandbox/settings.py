"""Settings of `espalier-sandbox`, from `ESPALIER_SANDBOX_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier_kit.settings import Settings

SOCKET = Path("/run/espalier/sandbox.sock")


class SandboxSettings(Settings):
    """One sandbox beside one worker."""

    socket: Path = Field(default=SOCKET, description="Where the worker finds it; in a volume of both containers.")
    runtime: Literal["container", "gvisor"] = Field(
        default="container", description="What the pod was promised; with gvisor nothing runs on another kernel."
    )
