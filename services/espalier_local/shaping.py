"""How much a cable carries: a rate for each direction, by Linux's hierarchical token bucket (tc-htb(8)).

Both ends of a cable are shaped, since a queue shapes only what leaves. The rate belongs to the device: it outlives
`cut` and `mend` and goes with the cable.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from espalier_kit.errors import Misconfigured
from espalier_local.addresses import Cables
from espalier_local.cables import Command, run

_UNITS = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}
MIN_RATE, MAX_RATE = 8_000, 100_000_000_000
"""Bits per second."""
_MTU_BYTES = 1514
_BURST_S = 0.01
"""What may leave at once, in seconds of the rate: about as much as the kernel's clock lets pass unnoticed."""
_CLASS = "1:1"


def parse_rate(text: str) -> int:
    """Bits per second from "1mbit", "500kbit", "2.5gbit". Raises `Misconfigured`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?bit)", text.strip().lower())
    rate = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not MIN_RATE <= rate <= MAX_RATE:
        raise Misconfigured(
            f"{text!r} is no rate: write a number and kbit, mbit or gbit, such as 1mbit, from 8kbit to 100gbit"
        )
    return rate


def show_rate(rate: int) -> str:
    """As `parse_rate` reads it, in the largest unit that leaves no fraction."""
    unit = next(unit for unit in reversed(_UNITS) if rate % _UNITS[unit] == 0)
    return f"{rate // _UNITS[unit]}{unit}"


def shape_commands(cables: Cables, name: str, k: int, rate: int) -> list[Command]:
    """Let host k's cable carry `rate` bits per second each way. May be repeated, with another rate as well."""
    burst = max(_MTU_BYTES, round(rate * _BURST_S / 8))
    return [
        command
        for within, device in _ends(cables, name, k)
        for command in (
            ("tc", *within, "qdisc", "replace", "dev", device, "root", "handle", "1:", "htb", "default", "1"),
            (
                "tc", *within, "class", "replace", "dev", device, "parent", "1:", "classid", _CLASS,
                "htb", "rate", f"{rate}bit", "ceil", f"{rate}bit", "burst", f"{burst}b", "cburst", f"{burst}b",
            ),
        )
    ]  # fmt: skip


def unshape_commands(cables: Cables, name: str, k: int) -> list[Command]:
    """Let it carry what it can; only for a shaped cable, as there is nothing to delete otherwise."""
    return [("tc", *within, "qdisc", "delete", "dev", device, "root") for within, device in _ends(cables, name, k)]


def shape(cables: Cables, name: str, k: int, rate: int | None) -> None:
    """Give host k's cable a rate, or none. Raises `Permanent` with the tool's words."""
    if rate is None:
        commands = unshape_commands(cables, name, k) if rate_of(cables, k) is not None else []
    else:
        commands = shape_commands(cables, name, k, rate)
    for command in commands:
        run(command)


def rate_of(cables: Cables, k: int, *, ask: Callable[[Command], str] = run) -> int | None:
    """The rate of host k's cable in bits per second; None when it has none."""
    found = re.search(rf"class htb {_CLASS} .*?\brate (\S+)", ask(("tc", "class", "show", "dev", cables.plug(k))))
    return parse_rate(found[1]) if found else None


def _ends(cables: Cables, name: str, k: int) -> tuple[tuple[Command, str], ...]:
    """The words that lead to each end's network, and the device there: the switch's end, then the host's."""
    return ((), cables.plug(k)), (("-n", cables.namespace(name)), "eth0")
