"""Curves as an SVG file that shows itself: no script, nothing fetched, readable on a light and on a dark page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from espalier_benchmark.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks

_KEY = 130.0
"""Width of the column that names the lines."""
_COLOURS = ("#2563b8", "#c2571a", "#2f8f4e", "#8a3fb0", "#b0303f", "#5a6675")


@dataclass(frozen=True, slots=True)
class Picture:
    """Lines over one axis: `lines` holds y for each of `xs`, by what a line is called. The xs stand equally far apart,
    as powers do.
    """

    title: str
    x_label: str
    y_label: str
    xs: Sequence[float]
    lines: Mapping[str, Sequence[float]]


def svg(picture: Picture) -> str:
    """The file's text. A point tells its value where a pointer rests on it."""
    top = max(y for ys in picture.lines.values() for y in ys)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + _KEY:g} {HEIGHT + 20:g}" role="img"'
        f' aria-label="{escape(picture.title)}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH + _KEY:g}" height="{HEIGHT + 20:g}" fill="#ffffff"/>',
        *_axes(picture, top),
    ]
    for number, (label, ys) in enumerate(picture.lines.items()):
        parts += _line(picture, label, ys, number=number, top=top)
    return "\n".join([*parts, "</svg>", ""])


def _axes(picture: Picture, top: float) -> list[str]:
    grey = 'fill="#5a6675"'
    parts = []
    for value in ticks(top):
        y = _y(value, top)
        parts.append(f'<line x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:g}" y2="{y:g}" stroke="#d9dfe7"/>')
        parts.append(f'<text x="{LEFT - 6:g}" y="{y + 4:g}" text-anchor="end" {grey}>{value:,.0f}</text>')
    for position, x in enumerate(picture.xs):
        at = _x(position, len(picture.xs))
        parts.append(f'<text x="{at:g}" y="{HEIGHT - BOTTOM + 16:g}" text-anchor="middle" {grey}>{x:g}</text>')
    parts.append(
        f'<text x="{LEFT:g}" y="{HEIGHT + 12:g}" {grey}>{escape(picture.y_label)} over {escape(picture.x_label)}</text>'
    )
    return parts


def _line(picture: Picture, label: str, ys: Sequence[float], *, number: int, top: float) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    points = [(_x(position, len(ys)), _y(y, top)) for position, y in enumerate(ys)]
    joined = " ".join(f"{x:g},{y:g}" for x, y in points)
    key = f'<text x="{WIDTH:g}" y="{TOP + 16 * (number + 1):g}" fill="{colour}">— {escape(label)}</text>'
    told = [f"{escape(label)}, {at:g}: {value:,.0f}" for at, value in zip(picture.xs, ys, strict=True)]
    dots = [
        f'<circle cx="{x:g}" cy="{y:g}" r="3" fill="{colour}"><title>{text}</title></circle>'
        for (x, y), text in zip(points, told, strict=True)
    ]
    return [f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots, key]


def _x(position: int, count: int) -> float:
    inset = 24.0
    return round(LEFT + inset + (WIDTH - LEFT - RIGHT - 2 * inset) * position / max(1, count - 1), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)
