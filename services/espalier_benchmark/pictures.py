"""The same plots as PNG: the page's geometry, drawn by Pillow at twice its size. The only import of Pillow."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from espalier_benchmark.plots import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Plot

SCALE = 2
_HEADER = 26.0
_FONT_SIZE = 11 * SCALE
_COLOURS = ("#2563b8", "#c2571a", "#2f8f4e", "#8a3fb0")
_TEXT, _AXIS = "#5a6675", "#d9dfe7"
_DOT = 2.0


def as_png(plot: Plot) -> bytes:
    """The picture's file."""
    image = Image.new("RGB", (round(WIDTH * SCALE), round((HEIGHT + _HEADER) * SCALE)), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_FONT_SIZE)
    _frame(draw, plot, font)
    for number, line in enumerate(plot.lines):
        points = [_at(*map(float, pair.split(","))) for pair in line.points.split()]
        if len(points) > 1:
            draw.line(points, fill=_COLOURS[number % len(_COLOURS)], width=2 * SCALE)
    for x, y in plot.dots:
        left, top = _at(x - _DOT, y - _DOT)
        right, bottom = _at(x + _DOT, y + _DOT)
        draw.ellipse((left, top, right, bottom), fill=_COLOURS[0])
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _frame(draw: ImageDraw.ImageDraw, plot: Plot, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    for tick in plot.y_ticks:
        draw.line([_at(LEFT, tick.at), _at(WIDTH - RIGHT, tick.at)], fill=_AXIS, width=SCALE)
        draw.text(_at(LEFT - 6, tick.at), tick.text, fill=_TEXT, font=font, anchor="rm")
    for tick in plot.x_ticks:
        draw.text(_at(tick.at, HEIGHT - BOTTOM + 4), tick.text, fill=_TEXT, font=font, anchor="mt")
    draw.text(_at(WIDTH - RIGHT, HEIGHT - 2), plot.x_label, fill=_TEXT, font=font, anchor="rb")
    draw.text((LEFT * SCALE, 2 * SCALE), plot.title, fill="black", font=font)
    x = LEFT * SCALE
    for number, line in enumerate(plot.lines):
        label = f"— {line.label}   "
        draw.text((x, 16 * SCALE), label, fill=_COLOURS[number % len(_COLOURS)], font=font)
        x += draw.textlength(label, font=font)


def _at(x: float, y: float) -> tuple[float, float]:
    return x * SCALE, (y + _HEADER) * SCALE
