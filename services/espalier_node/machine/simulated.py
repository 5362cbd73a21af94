"""A Mac played by another machine: the profile's hardware facts, the host's processes. `node` labels it simulated."""

from __future__ import annotations

import dataclasses

from espalier_node.machine.base import Facts, Machine, Pressure, Usage, View, Wrapped

_GIB = 1 << 30


class SimulatedMac:
    """`chip` and `memory_gb` come from settings; processes and isolation are those of `host`."""

    def __init__(self, host: Machine, *, chip: str, memory_gb: int) -> None:
        self._host = host
        self._chip, self._memory_gb = chip, memory_gb

    def facts(self) -> Facts:
        """The profile, with the host's CPUs and disk: what runs here really has those."""
        return dataclasses.replace(
            self._host.facts(),
            operating_system="darwin",
            architecture="arm64",
            memory_bytes=self._memory_gb * _GIB,
            os_image=f"macOS (simulated {self._chip})",
            labels={"espalier.dev/chip": _label(self._chip), "espalier.dev/memory-gb": str(self._memory_gb)},
        )

    def pressure(self) -> Pressure:
        return self._host.pressure()

    def usage(self, pid: int | None) -> Usage:
        return self._host.usage(pid)

    def wrap(self, view: View, command: tuple[str, ...]) -> Wrapped:
        return self._host.wrap(view, command)

    def enter(self, pid: int, view: View, command: tuple[str, ...]) -> tuple[str, ...]:
        return self._host.enter(pid, view, command)

    def identity(self, pid: int) -> str | None:
        return self._host.identity(pid)

    async def wait_for_exit(self, pid: int) -> None:
        await self._host.wait_for_exit(pid)

    def check(self) -> str | None:
        return self._host.check()


def _label(chip: str) -> str:
    """A label value: `Apple M3 Ultra` → `apple-m3-ultra`."""
    return "-".join("".join(c if c.isalnum() else " " for c in chip.lower()).split())
