"""Settings of `espalier-sandbox`, from `ESPALIER_SANDBOX_*`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier_kit.settings import Settings

SOCKET = "espalier-sandbox"
"""An abstract Unix socket: it belongs to the network namespace, which a pod's containers share, and to no volume."""


class SandboxSettings(Settings):
    """One sandbox beside one worker."""

    socket: str = Field(
        default=SOCKET, min_length=1, max_length=100, description="The abstract Unix socket where the worker finds it."
    )
    runtime: Literal["container", "gvisor"] = Field(
        default="container", description="What the pod was promised; with gvisor nothing runs on another kernel."
    )
