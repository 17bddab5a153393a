"""The picture that ``render()`` shows: what went in, what came out, the two kernels and the metric values, labelled."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sr_env.degradation import bicubic_resize
from sr_env.simulator import Episode, Simulator
from sr_env.utils.images import to_uint8

_MIN_CELL = 224  # pixels: below, labels and table would not fit under one another
_GAP = 16
_LABEL = 26
_ROW = 25
_COLUMN_GAP = 14
_MULTIPLE = 16  # video encoders want sides that are multiples of their block
_DIFFERENCE_GAIN = 8

_BACKGROUND = (24, 26, 31)
_FRAME = (66, 70, 80)
_STRIPE = (33, 36, 43)
_TEXT = (232, 234, 238)
_DIM = (150, 156, 168)
_BEST = (126, 217, 140)

_WIDEST_NUMBER = "-0.00e+00"

Pixels = NDArray[np.uint8]


def scene_panel(simulator: Simulator, index: int = 0, episode: Episode | None = None) -> Pixels:
    """The labelled picture of one sub-environment's scene.

    Args:
        simulator: Whose episodes are shown.
        index: Which sub-environment.
        episode: The episodes, where others than the running ones are to be shown.

    Returns:
        uint8 RGB ``[H, W, 3]``, as :func:`draw_panel`.

    Raises:
        RuntimeError: There was no reset yet.
    """
    episode = episode or simulator.episode
    scenes, current, steps = episode.scenes, episode.current, int(episode.steps[index])
    one = slice(index, index + 1)
    truth = scenes.truth
    size = (current.sr.shape[-2], current.sr.shape[-1])
    # The same rows and columns before and after the action keep the picture's shape constant.
    values = {
        name: {
            "reference": float(episode.reference.terms[name][index]),
            "sr": float(value[index]) if steps else math.nan,
        }
        for name, value in current.terms.items()
    }
    values |= {name: {"sr": float(value[index])} for name, value in current.values.items()}
    values["reward"] = {"sr": float(episode.reward[index])}
    title = simulator.photos.names[int(scenes.photo[index])]
    codes = current.code[one]
    if truth is not None:
        codes = torch.cat((codes, truth.code[one]))
        widths = ", ".join(f"{value:.2f}" for value in truth.kernels.widths[index].unique().tolist())
        title += f", kernel width {widths}"
    chosen, *true = simulator.basis.decode(codes).cpu().numpy()
    return draw_panel(
        lr=to_uint8(scenes.lr[one])[0],
        bicubic=to_uint8(bicubic_resize(scenes.lr[one], size).clamp(0, 1))[0],
        sr=to_uint8(current.sr[one])[0],
        hr=None if truth is None else to_uint8(truth.hr[one])[0],
        kernel_true=true[0] if true else None,
        kernel_chosen=chosen,
        values=values,
        lower_is_better=[name for name, metric in simulator.metrics.items() if not metric.higher_is_better],
        title=f"{title}, step {steps}",
    )


def draw_panel(
    *,
    lr: Pixels,
    bicubic: Pixels,
    sr: Pixels,
    hr: Pixels | None,
    kernel_true: NDArray[np.floating[Any]] | None,
    kernel_chosen: NDArray[np.floating[Any]],
    values: Mapping[str, Mapping[str, float]] | None = None,
    lower_is_better: Collection[str] = (),
    title: str = "",
) -> Pixels:
    """Draw one scene.

    Above: the LR patch enlarged by bicubic interpolation, SR, HR and their absolute difference (mean over the channels,
    times 8, as a heat map). Below: the LR pixels as they are, the true and the chosen kernel on one colour scale
    (square root of the weight, so that a narrow kernel does not blacken a wide one), and the table of values, where the
    best of each row is green and marked. Small patches are enlarged by a whole factor without smoothing. Where there is
    no HR, the difference is that of SR and the bicubic enlargement.

    Args:
        lr: Observed patch, uint8 RGB ``[h, w, 3]``.
        bicubic: LR enlarged, uint8 RGB ``[H, W, 3]``.
        sr: Reconstruction, uint8 RGB ``[H, W, 3]``.
        hr: Ground truth, uint8 RGB ``[H, W, 3]``; None where there is none.
        kernel_true: Blur kernel of the degradation, ``[k, k]``, non-negative; None where it is unknown.
        kernel_chosen: Kernel that the action stands for, ``[k, k]``; negative weights are drawn as none.
        values: Rows of the table: ``{"psnr": {"reference": 27.1, "sr": 28.3}, "reward": {"sr": 1.2}}``; the columns are
            the inner names, in the order they first appear. Missing and NaN values are drawn as a dash.
        lower_is_better: Names of the rows where the smallest value is best.
        title: One line at the top, shortened where it does not fit.

    Returns:
        uint8 RGB ``[Hp, Wp, 3]``. The shape depends only on the sizes of the patches, the names in ``values`` and
        whether there is a title, not on any number, so that the frames of a video agree; both sides are multiples of
        16.

    Raises:
        ValueError: A picture is no uint8 RGB array, SR, HR and bicubic differ in size, or a kernel is not
            two-dimensional.
    """
    pictures = {"lr": lr, "bicubic": bicubic, "sr": sr} | ({} if hr is None else {"hr": hr})
    for name, picture in pictures.items():
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"{name} is {picture.dtype} of shape {list(picture.shape)}; give uint8 RGB [H, W, 3]")
    sizes = {name: list(picture.shape) for name, picture in pictures.items() if name != "lr"}
    if any(shape != list(sr.shape) for shape in sizes.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
        raise ValueError(f"{told} must have one shape; enlarge lr by the scale")
    kernels = {} if kernel_true is None else {"true": kernel_true}
    kernels["chosen"] = kernel_chosen
    for name, kernel in kernels.items():
        if kernel.ndim != 2 or 0 in kernel.shape:
            raise ValueError(f"kernel_{name} has shape {list(kernel.shape)}; give a kernel [k, k]")

    factor = max(1, math.ceil(_MIN_CELL / min(sr.shape[:2])))
    height, width = sr.shape[0] * factor, sr.shape[1] * factor
    kernels = {name: np.nan_to_num(np.asarray(kernel, np.float64)) for name, kernel in kernels.items()}
    peak = max(1e-12, *(kernel.max() for kernel in kernels.values()))
    large = f"{sr.shape[1]} x {sr.shape[0]}"
    compared, name = (bicubic, "bicubic") if hr is None else (hr, "HR")
    above = [
        ("LR, bicubic", "", _fit(bicubic, height, width)),
        ("SR", large if hr is None else "", _fit(sr, height, width)),
        *([] if hr is None else [("HR", large, _fit(hr, height, width))]),
        (f"|SR - {name}|", f"x {_DIFFERENCE_GAIN}", _fit(_difference(sr, compared), height, width)),
    ]
    below = [
        ("LR", f"{lr.shape[1]} x {lr.shape[0]}", _fit(lr, height, width)),
        *(
            (f"{name} kernel", f"peak {kernel.max():.3f}", _fit(_heat(kernel, peak), height, width))
            for name, kernel in kernels.items()
        ),
    ]
    cells = max(len(above) - 1, len(below))  # beside the table

    rows = {name: dict(row) for name, row in (values or {}).items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    name_width = max((_text_width(name) for name in rows), default=0) + 2 * _COLUMN_GAP
    column_widths = [_COLUMN_GAP + max(_text_width("  " + _WIDEST_NUMBER), _text_width(name)) for name in columns]
    table_width = max(width, name_width + sum(column_widths) + _COLUMN_GAP)
    table_height = _ROW * (1 + len(rows)) if rows else 0

    top = _GAP + (_LABEL if title else 0)
    full_width = _round_up((cells + 2) * _GAP + cells * width + max(table_width, width))
    full_height = _round_up(top + 2 * (_LABEL + _GAP) + height + max(height, table_height))
    canvas = np.empty((full_height, full_width, 3), np.uint8)
    canvas[:] = _BACKGROUND
    second = top + _LABEL + height + _GAP
    for y, row in ((top, above), (second, below)):
        for number, (_, _, cell) in enumerate(row):
            x = _GAP + number * (width + _GAP)
            canvas[y + _LABEL : y + _LABEL + height, x : x + width] = cell

    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    if title:
        draw.text((_GAP, _GAP // 2 + 4), _shorten(title, full_width - 2 * _GAP), font=_font(), fill=_TEXT)
    for y, row in ((top, above), (second, below)):
        for number, (label, note, _) in enumerate(row):
            x = _GAP + number * (width + _GAP)
            draw.text((x, y + _LABEL // 2), label, font=_font(), fill=_TEXT, anchor="lm")
            draw.text((x + width, y + _LABEL // 2), note, font=_font(), fill=_DIM, anchor="rm")
            draw.rectangle((x - 1, y + _LABEL - 1, x + width, y + _LABEL + height), outline=_FRAME)
    left = _GAP + cells * (width + _GAP)
    if rows:
        _draw_table(draw, (left, second + _LABEL), table_width, rows, columns, column_widths, lower_is_better)
    return np.array(image)


def _draw_table(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    rows: Mapping[str, Mapping[str, float]],
    columns: list[str],
    column_widths: list[int],
    lower_is_better: Collection[str],
) -> None:
    left, top = corner
    # Columns end at the right edge; the names begin at the left one.
    ends = [left + width - _COLUMN_GAP - sum(column_widths[number + 1 :]) for number in range(len(columns))]
    for end, column in zip(ends, columns, strict=True):
        draw.text((end, top + _ROW // 2), column, font=_font(), fill=_DIM, anchor="rm")
    draw.line((left, top + _ROW - 1, left + width - 1, top + _ROW - 1), fill=_FRAME)
    for number, (name, row) in enumerate(rows.items()):
        y = top + _ROW * (number + 1)
        if number % 2:
            draw.rectangle((left, y, left + width - 1, y + _ROW - 1), fill=_STRIPE)
        draw.text((left + _COLUMN_GAP, y + _ROW // 2), name, font=_font(), fill=_TEXT, anchor="lm")
        best = _best(row, name in lower_is_better)
        for end, column in zip(ends, columns, strict=True):
            value = row.get(column, math.nan)
            text = _number(value)
            colour = _BEST if column in best else _DIM if math.isnan(value) else _TEXT
            draw.text((end, y + _ROW // 2), text, font=_font(), fill=colour, anchor="rm")
            if column in best:  # a mark beside the colour, for those who do not tell green from white
                x, middle = end - _text_width(text) - 12, y + _ROW // 2
                draw.polygon(((x, middle - 4), (x + 6, middle), (x, middle + 4)), fill=_BEST)


def _best(row: Mapping[str, float], lower: bool) -> set[str]:
    """Columns that share the best value as printed; none where there is nothing to compare."""
    known = {column: value for column, value in row.items() if not math.isnan(value)}
    if len(known) < 2:
        return set()
    best = min(known.values()) if lower else max(known.values())
    winners = {column for column, value in known.items() if _number(value) == _number(best)}
    return set() if len(winners) == len(known) else winners


def _number(value: float) -> str:
    """At most nine characters."""
    if math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 9999.5:
        return f"{value:.2e}"
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 999.5 else f"{value:.1f}"


def _difference(sr: Pixels, hr: Pixels) -> Pixels:
    difference = cv2.absdiff(sr, hr).mean(axis=2, dtype=np.float32) * _DIFFERENCE_GAIN
    return _colours(np.minimum(difference, 255).astype(np.uint8))


def _heat(kernel: NDArray[np.floating[Any]], peak: float) -> Pixels:
    return _colours(np.rint(255 * np.sqrt(kernel.clip(0, peak) / peak)).astype(np.uint8))


def _colours(levels: Pixels) -> Pixels:
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1])


def _fit(picture: Pixels, height: int, width: int) -> Pixels:
    """Enlarge by the largest whole factor that fits and centre; what is left over takes the first pixel's colour."""
    factor = max(1, min(height // picture.shape[0], width // picture.shape[1]))
    large = picture[:height, :width].repeat(factor, axis=0).repeat(factor, axis=1)
    cell = np.empty((height, width, 3), np.uint8)
    cell[:] = picture[0, 0]
    y, x = (height - large.shape[0]) // 2, (width - large.shape[1]) // 2
    cell[y : y + large.shape[0], x : x + large.shape[1]] = large
    return cell


def _round_up(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font: no file to find."""
    return ImageFont.load_default(15)


@lru_cache(maxsize=1024)
def _text_width(text: str) -> int:
    return math.ceil(_font().getlength(text))


def _shorten(text: str, width: int) -> str:
    if _font().getlength(text) <= width:
        return text
    length = bisect.bisect(range(len(text)), width, key=lambda length: _text_width(text[:length] + "...")) - 1
    return text[: max(length, 0)].rstrip() + "..."
