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


def best(picture: Picture) -> tuple[str, float]:
    """The highest point: what it is called, and its rate."""
    points = [(y, label, x) for label, ys in picture.lines.items() for x, y in zip(picture.xs, ys, strict=True)]
    y, label, x = max(points)
    return f"{label} x {x:g} in flight", y
