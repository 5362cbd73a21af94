"""The coordinator's curve: durable tasks a second over workers' sessions and the tasks in flight in each."""

from __future__ import annotations

from collections.abc import Callable

from bench.pictures import Picture

SESSIONS = (2, 4, 8, 16, 32)
WINDOWS = (4, 16, 64, 128)


def curve(rate: Callable[[int, int], float]) -> Picture:
    """One line per number of sessions. `rate` measures once, from an empty database: (sessions, window) → tasks/s."""
    found = {sessions: [rate(sessions, window) for window in WINDOWS] for sessions in SESSIONS}
    lines = {f"{sessions} sessions": rates for sessions, rates in found.items()}
    return Picture("Durable tasks a second", "tasks in flight in each session", "tasks/s", WINDOWS, lines)


def best(picture: Picture) -> tuple[int, int]:
    """(sessions, window) of the highest point."""
    rates = {
        (sessions, window): rate for sessions, line in zip(SESSIONS, picture.lines.values(), strict=True)
        for window, rate in zip(WINDOWS, line, strict=True)
    }
    return max(rates, key=lambda point: rates[point])
