"""Pictures made by a program: what photographs hardly show, and what needs no licence.

Text, line art, screenshots, flat drawings, charts and signs, in matplotlib's fonts. They are made at twice their size
and halved, so that edges are as soft as a good renderer's; some keep the hard stairs of a screen.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sr_env.photos import PhotoSource, Pixels

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
#: Numbers the generator's seeds apart from every other use of small integers.
_SEED = 20_17
#: Share of pictures that keep hard edges.
_HARD = 0.15


class Drawings(PhotoSource):
    """Drawings by number: the same number gives the same picture in every run.

    Args:
        count: How many.
        side: Their side in pixels.
        first: Number of the first; ranges that do not overlap share no picture.
    """

    def __init__(self, count: int, side: int, first: int = 0) -> None:
        self.side, self.first = side, first
        kinds = list(KINDS)
        self.names = tuple(f"{kinds[number % len(kinds)]} {number}" for number in range(first, first + count))
        self.shapes = ((side, side),) * count
        self._kept: dict[int, Pixels] = {}

    def __getitem__(self, index: int) -> Pixels:
        """Picture ``index``, made when it is first asked for."""
        number = self.first + range(len(self))[index]
        if number not in self._kept:
            self._kept[number] = draw(number, self.side)
        return self._kept[number]


def draw(number: int, side: int) -> Pixels:
    """One picture.

    Args:
        number: Which; its remainder by the number of ``KINDS`` says of what kind it is.
        side: Side in pixels.

    Returns:
        uint8 RGB [side, side, 3].
    """
    rng = np.random.default_rng([_SEED, number])
    factor = 1 if rng.random() < _HARD else 2
    canvas = _Canvas(rng, side * factor, factor)
    list(KINDS.values())[number % len(KINDS)](canvas)
    return np.asarray(canvas.image.reduce(factor) if factor > 1 else canvas.image)


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)  # other engines set it otherwise


class _Canvas:
    """A picture that is being drawn; lengths are in pixels of the finished one, times ``unit`` on the canvas."""

    def __init__(self, rng: np.random.Generator, side: int, unit: int) -> None:
        self.rng, self.side, self.unit = rng, side, unit
        self.paper, self.ink = self._papers()
        self.image = Image.new("RGB", (side, side), self.paper)
        self.pen = ImageDraw.Draw(self.image)

    def _papers(self) -> tuple[Colour, Colour]:
        """Background and text colour, far enough apart to be read: mostly dark on light."""
        light, dark = self.rng.integers(200, 256, 3), self.rng.integers(0, 70, 3)
        if self.rng.random() < 0.5:
            light, dark = np.full_like(light, 255), np.zeros_like(dark)
        pair = [(int(r), int(g), int(b)) for r, g, b in (light, dark)]
        return (pair[1], pair[0]) if self.rng.random() < 0.25 else (pair[0], pair[1])

    def colour(self) -> Colour:
        """Any colour."""
        red, green, blue = (int(value) for value in self.rng.integers(0, 256, 3))
        return red, green, blue

    def length(self, low: float, high: float) -> int:
        """A length drawn uniformly, in pixels of the canvas."""
        return max(1, round(float(self.rng.uniform(low, high)) * self.unit))

    def font(self, low: float, high: float) -> ImageFont.FreeTypeFont:
        """A font of a size drawn between two, in pixels of the finished picture."""
        return _font(_FONTS[self.rng.integers(len(_FONTS))], self.length(low, high))

    def words(self, count: int) -> str:
        """Words of random letters, of the lengths that words have."""
        letters = np.array(list(string.ascii_lowercase + string.digits[:3] + string.ascii_uppercase[:6]))
        return " ".join("".join(self.rng.choice(letters, size)) for size in self.rng.integers(1, 10, count))

    def point(self) -> tuple[int, int]:
        """A point, at times a little outside."""
        x, y = (int(value) for value in self.rng.integers(-self.side // 8, self.side * 9 // 8, 2))
        return x, y

    def box(self, low: float = 0.08, high: float = 0.5) -> Box:
        """Left, top, right, bottom of a box whose sides are so large a share of the picture."""
        width, height = (int(value) for value in self.rng.uniform(low, high, 2) * self.side)
        left, top = (int(value) for value in self.rng.integers(-self.side // 10, self.side, 2))
        return left, top, left + width, top + height

    def curve(self) -> np.ndarray:
        """A smooth curve (cubic Bezier), float [40, 2]."""
        ends = np.array([self.point() for _ in range(4)], dtype=float)
        t = np.linspace(0, 1, 40)[:, None]
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        return np.sum([weight * end for weight, end in zip(weights, ends, strict=True)], axis=0)

    def stroke(self, points: np.ndarray, colour: Colour, width: int) -> None:
        """A line through points [N, 2]."""
        self.pen.line([(float(x), float(y)) for x, y in points], fill=colour, width=width, joint="curve")

    def lines_of_text(self, box: Box, font: ImageFont.FreeTypeFont, colour: Colour) -> None:
        """Fill a box with text."""
        left, top, right, bottom = box
        pitch = round(font.size * float(self.rng.uniform(1.1, 1.6)))
        for y in range(top, bottom - pitch + 1, max(1, pitch)):
            text = self.words(max(1, round((right - left) / (3 * font.size))))
            self.pen.text((left, y), text, fill=colour, font=font)


def _text(canvas: _Canvas) -> None:
    """A page: a heading and paragraphs, in one column or two."""
    side, margin = canvas.side, canvas.length(4, 20)
    heading = canvas.font(18, 40)
    canvas.pen.text((margin, margin), canvas.words(3), fill=canvas.colour(), font=heading)
    columns = int(canvas.rng.integers(1, 3))
    for column in range(columns):
        left = margin + column * (side // columns)
        box = (left, margin + round(1.5 * heading.size), left + side // columns - 2 * margin, side)
        canvas.lines_of_text(box, canvas.font(8, 20), canvas.ink)


def _line_art(canvas: _Canvas) -> None:
    """Curves of one ink, hatching, and circles."""
    for _ in range(int(canvas.rng.integers(8, 26))):
        canvas.stroke(canvas.curve(), canvas.ink, canvas.length(0.7, 5))
    for _ in range(int(canvas.rng.integers(1, 5))):
        left, top, right, bottom = canvas.box()
        pitch, slant, width = canvas.length(3, 9), canvas.length(-20, 40), canvas.length(0.6, 2)
        for x in range(left, right, pitch):
            canvas.pen.line([(x, top), (x + slant, bottom)], fill=canvas.ink, width=width)
    for _ in range(int(canvas.rng.integers(0, 5))):
        canvas.pen.ellipse(canvas.box(0.03, 0.3), outline=canvas.ink, width=canvas.length(0.8, 3))


def _screenshot(canvas: _Canvas) -> None:
    """A window: title bar, menu, buttons, a list whose every second row is shaded, a box of code."""
    side, pen = canvas.side, canvas.pen
    bar, accent = canvas.length(18, 30), canvas.colour()
    pen.rectangle((0, 0, side, bar), fill=accent)
    small = canvas.font(10, 14)
    pen.text((bar // 3, bar // 5), canvas.words(3), fill=(255, 255, 255), font=small)
    pen.text((bar // 3, bar + bar // 5), canvas.words(8), fill=canvas.ink, font=small)
    top, row = 2 * bar + canvas.length(4, 12), round(1.7 * small.size)
    shade = tuple((3 * a + b) // 4 for a, b in zip(canvas.paper, canvas.ink, strict=True))
    split = side // 2 + canvas.length(-30, 30)
    for number, y in enumerate(range(top, side, row)):
        if number % 2:
            pen.rectangle((0, y, split, y + row - 1), fill=shade)
        pen.text((canvas.unit * 6, y + row // 6), canvas.words(2), fill=canvas.ink, font=small)
    pen.line([(split, top), (split, side)], fill=canvas.ink, width=canvas.unit)
    for _ in range(3):
        height, left = canvas.length(16, 26), split + canvas.length(6, 60)
        box = (left, top, left + canvas.length(40, 90), top + height)
        pen.rounded_rectangle(box, radius=canvas.length(1, 8), fill=canvas.colour(), outline=canvas.ink)
        pen.text((left + height // 3, top + height // 8), canvas.words(1), fill=canvas.ink, font=small)
        top += height + canvas.length(4, 12)
    mono = _font("DejaVuSansMono", canvas.length(9, 13))
    canvas.lines_of_text((split + canvas.length(4, 12), top, side, side), mono, canvas.ink)


def _flat_drawing(canvas: _Canvas) -> None:
    """Flat shapes with dark outlines over a shaded ground, with a screen of dots and hair-like strokes."""
    side, rng = canvas.side, canvas.rng
    first, second = np.array(canvas.colour(), float), np.array(canvas.colour(), float)
    ramp = np.linspace(0, 1, side)[:, None, None] * (second - first) + first
    canvas.image.paste(Image.fromarray(np.broadcast_to(ramp, (side, side, 3)).astype(np.uint8)))
    outline = canvas.length(1, 4)
    for _ in range(int(rng.integers(5, 14))):
        if rng.random() < 0.5:
            canvas.pen.ellipse(canvas.box(), fill=canvas.colour(), outline=canvas.ink, width=outline)
        else:
            centre, radius = np.array(canvas.point()), rng.uniform(0.05, 0.3) * side
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            corners = centre + radius * np.stack((np.cos(angles), np.sin(angles)), 1)
            points = [(float(x), float(y)) for x, y in corners]
            canvas.pen.polygon(points, fill=canvas.colour(), outline=canvas.ink, width=outline)
    left, top, right, bottom = canvas.box(0.2, 0.6)
    pitch, dot = canvas.length(4, 8), canvas.length(0.8, 2)
    for number, y in enumerate(range(top, bottom, pitch)):
        for x in range(left + number % 2 * pitch // 2, right, pitch):
            canvas.pen.ellipse((x, y, x + dot, y + dot), fill=canvas.ink)
    root, width = canvas.curve(), canvas.length(0.5, 1.5)
    for _ in range(int(rng.integers(5, 25))):
        canvas.stroke(
            root + rng.normal(0, 0.02 * side, 2) + rng.normal(0, 0.002 * side, (40, 2)).cumsum(0), canvas.ink, width
        )


def _chart(canvas: _Canvas) -> None:
    """Axes, a grid, bars or curves, numbers at the ticks."""
    side, pen, rng = canvas.side, canvas.pen, canvas.rng
    left, bottom, font = canvas.length(24, 40), side - canvas.length(20, 36), canvas.font(8, 13)
    grey, ticks = (150, 150, 150), int(rng.integers(4, 10))
    for number in range(ticks):
        x, y = left + number * (side - left) // ticks, bottom - number * bottom // ticks
        pen.line([(left, y), (side, y)], fill=grey, width=1)
        pen.line([(x, 0), (x, bottom)], fill=grey, width=1)
        pen.text((canvas.unit, y - font.size), f"{number * 25}", fill=canvas.ink, font=font)
        pen.text((x, bottom + canvas.unit * 3), f"{number}", fill=canvas.ink, font=font)
    if rng.random() < 0.5:
        count, colour = int(rng.integers(4, 18)), canvas.colour()
        step = (side - left) // count
        for number in range(count):
            box = (left + number * step, int(rng.integers(0, bottom)), left + number * step + step * 2 // 3, bottom)
            pen.rectangle(box, fill=colour, outline=canvas.ink)
    for _ in range(int(rng.integers(1, 4))):
        curve = np.stack((np.linspace(left, side, 60), bottom / 2 + rng.normal(0, side / 40, 60).cumsum()), 1)
        canvas.stroke(curve, canvas.colour(), canvas.length(1, 3))
    pen.line([(left, 0), (left, bottom), (side, bottom)], fill=canvas.ink, width=canvas.length(1, 2))


def _sign(canvas: _Canvas) -> None:
    """Large letters on boards and rows of windows, seen aslant."""
    side, pen, rng = canvas.side, canvas.pen, canvas.rng
    pitch, gap = canvas.length(14, 40), canvas.length(3, 9)
    wall, pane = canvas.colour(), canvas.colour()
    pen.rectangle((0, 0, side, side), fill=wall)
    for y in range(0, side, pitch):
        for x in range(0, side, pitch):
            pen.rectangle((x + gap, y + gap, x + pitch - 1, y + pitch - 1), fill=pane, outline=canvas.ink)
    for _ in range(int(rng.integers(1, 4))):
        left, top = (int(value) for value in rng.integers(0, side * 2 // 3, 2))
        font, text = canvas.font(20, 64), canvas.words(1).upper()
        _, _, right, bottom = pen.textbbox((left, top), text, font=font)
        edge = canvas.length(4, 12)
        board = (left - edge, top - edge, int(right) + edge, int(bottom) + edge)
        pen.rectangle(board, fill=canvas.paper, outline=canvas.ink, width=canvas.length(1, 4))
        pen.text((left, top), text, fill=canvas.ink, font=font)
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], np.float32)
    pulled = corners + rng.uniform(-0.12, 0.12, (4, 2)).astype(np.float32) * side
    matrix = cv2.getPerspectiveTransform(pulled, corners)
    aslant = cv2.warpPerspective(
        np.asarray(canvas.image), matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    canvas.image = Image.fromarray(aslant)


KINDS: dict[str, Callable[[_Canvas], None]] = {
    "text": _text,
    "line art": _line_art,
    "screenshot": _screenshot,
    "flat drawing": _flat_drawing,
    "chart": _chart,
    "sign": _sign,
}
