"""Contact sheets: small crops at several times their size, one row a picture, one column a method.

The figure of the benchmark (:mod:`blindsr_agents.evaluation.figures`) is for a page and scales its crops to fit; here
every pixel is a square, so that a grid, a weave or a ripple is seen as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from blindsr_agents.evaluation.figures import cut, detailed_crop
from blindsr_agents.evaluation.methods import ReconstructionMethod, reconstruct
from sr_env.degradation import Degradation
from sr_env.photos import PhotoSource, Pixels
from sr_env.utils.checks import UsageError
from sr_env.utils.devices import Precision
from sr_env.utils.images import to_images

#: Kind, picture, and centre (row, column) of the crop: chosen by eye among the pictures that pretraining holds out.
PLACES = (
    ("edges", "172032.jpg", 250, 263),
    ("face, hair", "198004.jpg", 135, 120),
    ("fur", "159029.jpg", 170, 230),
    ("foliage", "27059.jpg", 125, 242),
    ("building", "elementary__Barn_Grafitti.jpg", 270, 520),
    ("sky, rock", "deepin__luca-micheli-ruWkmt3nU58-unsplash.jpg", 265, 520),
    ("striped cloth", "388067.jpg", 380, 165),
    ("bricks", "170054.jpg", 50, 240),
    ("small print", "147080.jpg", 180, 100),
    ("number, cloth", "226060.jpg", 208, 81),
    ("drawing, line art", "line art 385", 110, 250),
    ("drawing, text", "text 384", 90, 60),
)
#: Widest sheet in pixels that most screens and viewers show without shrinking it.
MAX_WIDTH = 2000
_GAP = 6
_LINE = 18  # pixels of a line of text
_GROUND, _INK = (250, 250, 250), (20, 20, 20)


@dataclass(frozen=True)
class SheetRow:
    """One picture.

    Attributes:
        label: What is shown, above it.
        pictures: Column -> uint8 [side, side, 3].
    """

    label: str
    pictures: Mapping[str, NDArray[np.uint8]]


def choose_places(photos: PhotoSource, scale: int, side: int, count: int) -> list[tuple[str, int, int, int]]:
    """What is shown: the written list where all its pictures are there, else the most detailed crops.

    Args:
        photos: The pictures.
        scale: Magnification.
        side: Side of a crop in HR pixels.
        count: Pictures at most where there is no list for them, spread evenly over all.

    Returns:
        Label, index of the picture, and centre (row, column) of each crop.
    """
    names = [Path(name).name for name in photos.names]
    listed = [(kind, names.index(name), row, column) for kind, name, row, column in PLACES if name in names]
    if len(listed) == len(PLACES):
        return listed
    chosen = []
    for index in np.linspace(0, len(photos) - 1, min(count, len(photos))).round().astype(int).tolist():
        top, left, size = detailed_crop(to_images(photos[index][None].copy()), scale, side)
        chosen.append(("most detail", index, top + size // 2, left + size // 2))
    return chosen


def check_width(columns: int, side: int, zoom: int) -> None:
    """Refuse sheets that are too wide, before anything is rendered.

    Raises:
        UsageError: So many columns of such crops are over ``MAX_WIDTH`` pixels.
    """
    if (wide := _width(columns, side, zoom)) > MAX_WIDTH:
        fits = max(((MAX_WIDTH + _GAP) // columns - _GAP) // zoom, 1)
        raise UsageError(
            f"{columns} columns of {side} pixels at {zoom} times their size are {wide} pixels wide, over {MAX_WIDTH}: "
            f"give a side of at most {fits}, or fewer renderers"
        )


def crop_reconstructions(
    picture: Pixels,
    centre: tuple[int, int],
    extent: tuple[int, int],
    width: float,
    methods: Sequence[ReconstructionMethod],
    degradation: Degradation,
    device: torch.device,
    precision: Precision = "fp32",
) -> dict[str, NDArray[np.uint8]]:
    """A crop by every method and in HR, reconstructed with what lies around it.

    Args:
        picture: The HR picture, uint8 [H, W, 3].
        centre: Row and column of the crop's centre.
        extent: Side of the crop, and of what is reconstructed around it, in HR pixels.
        width: Kernel width in HR pixels.
        methods: The columns before HR.
        degradation: How HR becomes LR.
        device: Where the networks are.
        precision: Of the networks.

    Returns:
        Name -> uint8 [side, side, 3]; the last is "HR".
    """
    (side, context), scale = extent, degradation.scale
    (row, column), (height, breadth) = centre, picture.shape[:2]
    top, tall = window(row, context, height, scale)
    left, wide = window(column, context, breadth, scale)
    hr = to_images(picture[None, top : top + tall, left : left + wide].copy(), device)
    place = (window(row - top, side, tall, scale)[0], window(column - left, side, wide, scale)[0], side)
    kernels = degradation.build(np.array([width]), device=device)
    lr = degradation(hr, kernels)
    shown = {m.name: cut(reconstruct(m, lr, kernels, precision), place) for m in methods}
    return shown | {"HR": cut(hr, place)}


def window(centre: int, side: int, length: int, scale: int) -> tuple[int, int]:
    """First pixel, and how many, of a stretch around a centre that stays inside; both are multiples of the scale."""
    size = min(side, length) // scale * scale
    return min(max(centre - size // 2, 0), length - size) // scale * scale, size


def draw_sheets(rows: Sequence[SheetRow], zoom: int = 3, rows_per_sheet: int = 4) -> list[Image.Image]:
    """Compose the sheets.

    Args:
        rows: All with the same columns, and crops of one size.
        zoom: Pixels of the sheet for each of a crop, along either side.
        rows_per_sheet: Rows of a sheet; the last may have fewer.
    """
    return [_sheet(rows[first : first + rows_per_sheet], zoom) for first in range(0, len(rows), rows_per_sheet)]


def _width(columns: int, side: int, zoom: int) -> int:
    return columns * (side * zoom + _GAP) - _GAP


def _sheet(rows: Sequence[SheetRow], zoom: int) -> Image.Image:
    titles = list(rows[0].pictures)
    side = len(rows[0].pictures[titles[0]])
    cell = side * zoom
    pitch = _LINE + cell + _GAP
    sheet = Image.new("RGB", (_width(len(titles), side, zoom), _LINE + len(rows) * pitch), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(titles):
        pen.text((column * (cell + _GAP), 1), title, fill=_INK, font=font)
    for number, row in enumerate(rows):
        top = _LINE + number * pitch
        pen.text((0, top + 1), row.label, fill=_INK, font=font)
        for column, title in enumerate(titles):
            enlarged = row.pictures[title].repeat(zoom, axis=0).repeat(zoom, axis=1)
            sheet.paste(Image.fromarray(enlarged), (column * (cell + _GAP), top + _LINE))
    return sheet
