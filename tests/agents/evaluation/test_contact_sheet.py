"""Contact sheets: every pixel of a crop is a square of the sheet, in the right cell, and the crops are where asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.contact_sheet import (
    MAX_WIDTH,
    PLACES,
    SheetRow,
    check_width,
    choose_places,
    crop_reconstructions,
    draw_sheets,
    window,
)
from blindsr_agents.evaluation.methods import ReconstructionMethod
from PIL import Image

from sr_env.degradation import Degradation
from sr_env.photos import PhotoSource
from sr_env.utils.images import to_images, to_uint8


def test_pixels_are_squares_in_their_cells() -> None:
    rng = np.random.default_rng(0)
    rows = [
        SheetRow(f"row {number}", {name: rng.integers(0, 256, (8, 8, 3), np.uint8) for name in ("bicubic", "HR")})
        for number in range(5)
    ]
    sheets = draw_sheets(rows, zoom=3, rows_per_sheet=2)
    assert [sheet.height for sheet in sheets] == [sheets[0].height] * 2 + [sheets[2].height]
    assert sheets[2].height < sheets[0].height
    for number, row in enumerate(rows):
        sheet = np.asarray(sheets[number // 2])
        for column, picture in enumerate(row.pictures.values()):
            top, left = 18 + number % 2 * (18 + 24 + 6) + 18, column * (24 + 6)
            cell = sheet[top : top + 24, left : left + 24]
            assert all(np.array_equal(cell[y::3, x::3], picture) for y in range(3) for x in range(3))


def test_sheets_are_no_wider_than_a_screen() -> None:
    check_width(6, 96, 3)
    with pytest.raises(ValueError, match=r"9 columns of 96 pixels at 3 times .* give a side of at most 72,") as refused:
        check_width(9, 96, 3)
    check_width(9, 72, 3)
    assert str(MAX_WIDTH) in str(refused.value)


@pytest.fixture
def program(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("contact_sheet")


def test_windows_stay_inside_and_on_the_grid() -> None:
    for centre in (0, 50, 77, 160):
        first, size = window(centre, 96, 161, 4)
        assert size == 96
        assert first % 4 == 0
        assert 0 <= first <= 161 - 96
        assert abs(first + 48 - min(max(centre, 48), 161 - 48)) <= 4
    assert window(50, 320, 161, 4) == (0, 160)


def test_crops_are_where_they_were_asked_for(random_photos: list[np.ndarray]) -> None:
    """HR is the photo's own, and a method's crop is that of its reconstruction of what lies around."""
    photo, degradation = random_photos[3], Degradation(4)
    methods = [ReconstructionMethod("nearest", lambda lr, kernels: lr.repeat_interleave(4, 2).repeat_interleave(4, 3))]
    shown = crop_reconstructions(photo, (100, 200), (32, 96), 1.3, methods, degradation, torch.device("cpu"))
    assert list(shown) == ["nearest", "HR"]
    np.testing.assert_array_equal(shown["HR"], photo[84:116, 184:216])
    hr = to_images(photo[None, 52:148, 152:248].copy())
    lr = to_uint8(degradation(hr, degradation.build(np.array([1.3]))))[0, 8:16, 8:16]
    np.testing.assert_array_equal(shown["nearest"], lr.repeat(4, 0).repeat(4, 1))


def test_sheets_of_a_folder(
    program: ModuleType, photo_folder: Path, tiny_renderer: Path, tiny_predictor: Path, tmp_path: Path
) -> None:
    """A folder without the pictures of the list: the most detailed crop of each, drawings among them, every column."""
    settings = program.Settings(
        data=str(photo_folder),
        held_out=2,
        renderers=(str(tiny_renderer),),
        predictor=str(tiny_predictor),
        out=tmp_path,
        pictures=3,
        rows=2,
        side=64,
        context=96,
        device="cpu",
    )
    written = program.main(settings)
    assert [path.name for path in written] == ["sheet_1.png", "sheet_2.png"]
    assert Image.open(written[0]).size[0] == 3 * (64 * 3 + 6) - 6  # bicubic, the renderer, HR
    for wrong in ({"side": 164}, {"side": 66}, {"context": 32}):
        with pytest.raises(ValueError, match="give a side that is a multiple of 4"):
            program.main(program.Settings(**{**vars(settings), **wrong}))
    with pytest.raises(ValueError, match="rows is 0: give at least 1"):
        program.main(program.Settings(**{**vars(settings), "rows": 0}))


class Named(PhotoSource):
    """Black pictures of given names, one of them with a white pixel."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names, self.shapes = names, ((500, 500),) * len(names)

    def __getitem__(self, index: int) -> np.ndarray:
        picture = np.zeros((500, 500, 3), np.uint8)
        picture[300, 40 * index + 50] = 255
        return picture


def test_the_written_list_is_taken_where_it_fits() -> None:
    names = tuple(f"folder/{place[1]}" for place in reversed(PLACES))
    chosen = choose_places(Named(names), 4, 96, 3)
    assert [(kind, row, column) for kind, _, row, column in chosen] == [
        (kind, row, column) for kind, _, row, column in PLACES
    ]
    assert [index for _, index, _, _ in chosen] == list(range(12))[::-1]


def test_without_a_list_the_most_detailed_crops_are_taken() -> None:
    chosen = choose_places(Named(tuple("abcde")), 4, 96, 3)
    assert [index for _, index, _, _ in chosen] == [0, 2, 4]
    for _, index, row, column in chosen:
        assert abs(row - 300) <= 48
        assert abs(column - (40 * index + 50)) <= 48
