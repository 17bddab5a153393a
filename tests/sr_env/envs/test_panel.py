"""The panel: everything shown where it belongs, nothing cut or overlapping, and one shape for one set of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import ImageDraw

from sr_env.envs import panel
from sr_env.envs.panel import draw_panel

VALUES = {
    "psnr_y": {"bicubic": 25.1, "reference": 27.1, "sr": 28.3},
    "lpips_alex": {"bicubic": 0.41, "reference": 0.31, "sr": 0.288},
    "niqe": {"bicubic": float("nan"), "reference": 5.3, "sr": -123456.7},
    "reward": {"sr": 1.2},
}


def gaussian(width: float, size: int = 21) -> np.ndarray:
    x = np.arange(size) - size // 2
    kernel = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * width**2))
    return kernel / kernel.sum()


def scene(height: int = 64, width: int | None = None, scale: int = 4, seed: int = 0, **other: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    width = width or height

    def picture(h: int, w: int) -> np.ndarray:
        return rng.integers(0, 256, (h, w, 3), dtype=np.uint8)

    return {
        "lr": picture(height // scale, width // scale),
        **{name: picture(height, width) for name in ("bicubic", "sr", "hr")},
        "kernel_true": gaussian(2.6),
        "kernel_chosen": gaussian(1.3),
        "values": VALUES,
        "lower_is_better": ("lpips_alex", "niqe"),
        "title": "BlindSR-v0",
        **other,
    }


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (96, 96), (192, 192), (250, 250), (512, 512), (32, 80), (96, 40)])
@pytest.mark.parametrize("scale", [2, 4])
def test_no_text_is_cut_or_overlaps(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], scale: int) -> None:
    boxes: list[tuple[str, tuple[float, ...]]] = []
    draw_text = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, position: Any, text: str, **options: Any) -> None:
        if text:
            boxes.append((text, self.textbbox(position, text, font=options["font"], anchor=options.get("anchor"))))
        draw_text(self, position, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    marks: list[Any] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "polygon", lambda self, points, **_: marks.append(points))
    scenes = scene(*size, scale=scale, title="a long title " * 100)
    image = draw_panel(**scenes)
    assert {"LR, bicubic", "SR", "HR", "|SR - HR|", "x 8", "true kernel", "chosen kernel"} <= {
        text for text, _ in boxes
    }
    assert {*VALUES, "reference", "28.300", "-1.23e+05"} <= {text for text, _ in boxes}
    boxes += [("mark", (points[0][0], points[0][1], points[1][0], points[2][1])) for points in marks]
    for number, (text, (left, top, right, bottom)) in enumerate(boxes):
        assert left >= 0, text
        assert top >= 0, text
        assert right <= image.shape[1], text
        assert bottom <= image.shape[0], text
        for other, (left2, top2, right2, bottom2) in boxes[:number]:
            assert right < left2 or right2 < left or bottom < top2 or bottom2 < top, (text, other)
        # Behind the text there is only background: no picture reaches under it.
        without = [tuple(pixel) for pixel in image[int(top) : int(bottom) + 1, int(left)]]
        assert max(max(pixel) - min(pixel) for pixel in without) < 90, text


def test_shape_depends_on_sizes_and_names_only() -> None:
    first = draw_panel(**scene())
    huge = {name: dict.fromkeys(row, -9.9e99) for name, row in VALUES.items()}
    second = draw_panel(**scene(seed=1, values=huge, title="another " * 50, kernel_true=gaussian(0.2)))
    assert first.shape == second.shape
    assert first.dtype == np.uint8
    assert first.shape[0] % 16 == first.shape[1] % 16 == 0
    assert (first != second).any()
    np.testing.assert_array_equal(first, draw_panel(**scene()))
    many = {f"metric{number}": {"reference": 0.0, "sr": 1.0} for number in range(40)}
    assert draw_panel(**scene(values=many)).shape[0] >= 41 * panel._ROW


@pytest.mark.parametrize("values", [{}, None, {"reward": {}}])
def test_without_values(values: dict[str, dict[str, float]] | None) -> None:
    assert draw_panel(**scene(values=values, title="")).shape[2] == 3


def find(image: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """Where ``picture``, enlarged by four, lies in ``image``."""
    large = np.kron(picture, np.ones((4, 4, 1), np.uint8))
    rows, columns = np.nonzero((image[:-3, :-3] == large[0, 0]).all(axis=2))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        part = image[row : row + large.shape[0], column : column + large.shape[1]]
        if part.shape == large.shape and (part == large).all():
            return row, column
    raise AssertionError("not in the panel")


def test_pictures_are_shown_whole_and_in_order() -> None:
    parts = scene()
    image = draw_panel(**parts)
    places = [find(image, parts[name]) for name in ("bicubic", "sr", "hr")]
    assert places[0][0] == places[1][0] == places[2][0]
    assert places[0][1] < places[1][1] < places[2][1]
    pitch = places[1][1] - places[0][1]
    top, left = places[2]
    difference = np.abs(parts["sr"].astype(float) - parts["hr"]).mean(axis=2)
    brightness = image[top : top + 256 : 4, left + pitch : left + pitch + 256 : 4].sum(axis=2)
    assert np.corrcoef(np.minimum(difference, 32).ravel(), brightness.ravel())[0, 1] > 0.9
    same = draw_panel(**{**parts, "sr": parts["hr"]})
    assert same[top : top + 256, left + pitch : left + pitch + 256].max() < 10


def test_kernels_share_a_colour_scale() -> None:
    parts = scene()
    image = draw_panel(**parts)
    top, left = find(image, parts["sr"])
    pitch = find(image, parts["hr"])[1] - left
    below = top + 256 + panel._GAP + panel._LABEL
    true, chosen = (image[below : below + 256, x : x + 256].astype(int) for x in (left, left + pitch))
    assert true[128, 128].sum() < chosen[128, 128].sum()  # width 2.6 has the lower peak
    assert (true.sum(axis=2) > 60).sum() > (chosen.sum(axis=2) > 60).sum()  # and reaches further
    bad = np.full((21, 21), np.nan)
    assert draw_panel(**scene(kernel_chosen=bad)).shape == image.shape
    assert draw_panel(**scene(kernel_true=np.zeros((15, 15)), kernel_chosen=bad)).shape == image.shape


def test_a_long_title_is_shortened_as_little_as_needed() -> None:
    text = "".join(np.random.default_rng(0).choice(list("il WM.x"), 300))
    short = panel._shorten(text, 400)
    kept = len(short) - 3
    assert text.startswith(short[:-3])
    assert panel._font().getlength(short) <= 400 < panel._font().getlength(text[: kept + 2] + "...")
    assert panel._shorten("fits", 400) == "fits"
    assert panel._shorten("x" * 50, 1) == "..."


def test_best_of_a_row() -> None:
    assert panel._best({"a": 1.0, "b": 2.0}, lower=False) == {"b"}
    assert panel._best({"a": 1.0, "b": 2.0}, lower=True) == {"a"}
    assert panel._best({"a": 1.0}, lower=False) == set()
    assert panel._best({"a": 1.0, "b": float("nan")}, lower=False) == set()
    assert panel._best({"a": 1.00001, "b": 1.00002}, lower=False) == set()  # the same as printed
    assert panel._best({"a": 3.0, "b": 3.0, "c": 1.0}, lower=False) == {"a", "b"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (28.3, "28.300"),
        (-0.0004, "0.000"),
        (999.4999, "999.500"),
        (1234.56, "1234.6"),
        (-1e7, "-1.00e+07"),
        (1e-9, "0.000"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert panel._number(value) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sr": np.zeros((64, 64, 3))}, "sr is float64"),
        ({"lr": np.zeros((16, 16), np.uint8)}, "lr is uint8 of shape"),
        ({"hr": np.zeros((60, 64, 3), np.uint8)}, "must have one shape"),
        ({"kernel_chosen": np.zeros(21)}, "kernel_chosen"),
    ],
)
def test_bad_input(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_panel(**{**scene(), **change})
