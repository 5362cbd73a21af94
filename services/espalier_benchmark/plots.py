"""Pictures of a run as plain SVG geometry: the curves' points and the axes' ticks, for the page's template. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 12.0, 30.0
MAX_POINTS = 600


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: `points` as an SVG polyline wants them. `style` is a class of the page's style sheet."""

    label: str
    points: str
    style: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture, `alt` for those who do not see it."""

    title: str
    x_label: str
    alt: str
    lines: tuple[Line, ...]
    dots: tuple[tuple[float, float], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / self.x_max, 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.y_max, 1)

    def plot(
        self, title: str, x_label: str, *, lines: tuple[Line, ...] = (), dots: tuple[tuple[float, float], ...] = ()
    ) -> Plot:
        x_ticks = tuple(Tick(self.x(value), f"{value:g}") for value in ticks(self.x_max))
        y_ticks = tuple(Tick(self.y(value), f"{value:g}") for value in ticks(self.y_max))
        what = ", ".join(line.label for line in lines) or f"{len(dots)} requests"
        return Plot(title, x_label, f"{title}: {what}", lines, dots, x_ticks, y_ticks)


def cumulative(title: str, curves: Sequence[tuple[str, Sequence[float]]]) -> Plot | None:
    """Cumulative distributions of latencies (s), drawn in ms. None where nothing was measured."""
    ordered = [(label, sorted(values)) for label, values in curves if values]
    if not ordered:
        return None
    frame = _Frame(_ceiling(max(values[-1] for _, values in ordered) * 1e3), 1.0)
    lines = tuple(Line(label, _steps(frame, values), f"line{number}") for number, (label, values) in enumerate(ordered))
    return frame.plot(title, "ms", lines=lines)


def over_time(title: str, points: Sequence[tuple[float, float]]) -> Plot | None:
    """A dot per request: when it was due (s) and its latency (s, drawn in ms)."""
    if not points:
        return None
    frame = _Frame(_ceiling(max(at for at, _ in points)), _ceiling(max(took for _, took in points) * 1e3))
    kept = _thinned(sorted(points))
    return frame.plot(title, "s since the start", dots=tuple((frame.x(at), frame.y(took * 1e3)) for at, took in kept))


def ticks(top: float) -> tuple[float, ...]:
    """Round numbers from 0 to `top`."""
    step = 10 ** math.floor(math.log10(top))
    while top / step < 4:
        step /= 2
    return tuple(round(step * i, 10) for i in range(int(top / step + 1e-9) + 1))


def _steps(frame: _Frame, ordered: Sequence[float]) -> str:
    n = len(ordered)
    wanted = sorted({0, n - 1, *(int(i * n / MAX_POINTS) for i in range(MAX_POINTS) if n > 0)})
    return " ".join(f"{frame.x(ordered[i] * 1e3)},{frame.y((i + 1) / n)}" for i in wanted)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MAX_POINTS`, of each group the slowest: a thinned picture must not lose its outliers."""
    size = math.ceil(len(points) / MAX_POINTS)
    return [max(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)]


def _ceiling(value: float) -> float:
    """The next round number (1, 2 or 5 times a power of ten); 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(float(step * power) for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))
