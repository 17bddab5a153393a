"""The measures of artefacts give the right value where it is known, and see nothing where nothing is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.artefacts import MEASURES, ArtefactMeter, gradients, grey_levels
from torch import Tensor

SIDE = 160
ROWS, COLUMNS = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")


def pictures(*grey: Tensor) -> Tensor:
    """Grey pictures [B, 3, H, W] in [0, 1] of grey levels [H, W]."""
    return torch.stack(grey)[:, None].expand(-1, 3, -1, -1) / 255


def edge(angle: float = 0.0) -> tuple[Tensor, Tensor]:
    """A step of 120 grey levels, 2 pixels wide, through the middle; and the distance from it."""
    distance = (COLUMNS - SIDE / 2) * math.cos(angle) + (ROWS - SIDE / 2) * math.sin(angle)
    return 60 + 120 * torch.special.ndtr(distance), distance


PLAIN = pictures(torch.full((SIDE, SIDE), 100.0), 100 + 0.1 * COLUMNS)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_grid_is_the_standard_deviation_of_the_phases(scale: int) -> None:
    meter = ArtefactMeter(PLAIN, scale)
    assert meter.places.flat_tiles == int(meter.flat.numel()) > 0
    phase = ROWS % scale * scale + COLUMNS % scale
    grid = 0.7 * torch.randn(scale**2, generator=torch.Generator().manual_seed(0))[phase.long()]
    expected = float(grid[:scale, :scale].std(correction=0))
    assert meter.measure(PLAIN + grid / 255)["grid"] == pytest.approx(expected, rel=1e-3)
    assert meter.measure(PLAIN)["grid"] == pytest.approx(0, abs=1e-3)
    # Another period leaves equal means in all phases, up to what a tile does not hold whole.
    other = torch.sin(2 * math.pi * COLUMNS / 7)
    assert meter.measure(PLAIN + other / 255)["grid"] < 0.15


def test_tiles_with_structure_are_not_searched_for_a_grid() -> None:
    busy = pictures(100 + 60 * torch.sin(2 * math.pi * COLUMNS / 8), torch.full((SIDE, SIDE), 100.0))
    meter = ArtefactMeter(busy, 4)
    assert not meter.flat[0].any()
    assert meter.flat[1].all()
    assert meter.places.flat_tiles == meter.flat[1].numel()


@pytest.mark.parametrize("along", [ROWS, COLUMNS])
def test_the_weave_is_the_mean_square_of_a_sinusoid(along: Tensor) -> None:
    meter = ArtefactMeter(PLAIN, 4)
    woven = PLAIN + 2.0 * torch.sin(2 * math.pi * along / 3) / 255
    assert meter.measure(woven)["weave"] == pytest.approx(2.0**2 / 2, rel=0.02)
    for period in (2.0, 5.0, 16.0):
        other = meter.measure(PLAIN + 2.0 * torch.sin(2 * math.pi * along / period) / 255)
        assert other["weave"] < 0.002 * 2


def test_noise_and_oblique_lines_are_no_weave() -> None:
    meter = ArtefactMeter(PLAIN, 4)
    noise = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    grainy = meter.measure(PLAIN + 2 * noise / 255)
    assert grainy["axial"] == pytest.approx(1, abs=0.15)
    lines = 3 * torch.sin(2 * math.pi * (ROWS + COLUMNS) / (3 * math.sqrt(2)))
    assert meter.measure(PLAIN + 2 * (noise + lines) / 255)["axial"] < 0.1
    woven = torch.sin(2 * math.pi * ROWS / 3)
    assert meter.measure(PLAIN + 2 * (noise + woven) / 255)["axial"] > 20


@pytest.mark.parametrize("angle", [0.0, math.pi / 2, 0.4])
@pytest.mark.parametrize("amplitude", [1.0, 3.0])
def test_the_ripple_is_the_mean_square_of_a_ringing_edge(angle: float, amplitude: float) -> None:
    clean, distance = edge(angle)
    hr = pictures(clean)
    meter = ArtefactMeter(hr, 4)
    assert meter.places.edge_sides >= 2 * 100
    ringing = amplitude * torch.cos(2 * math.pi * distance / 5) * (distance.abs() < 12)
    # By hand: two sides, offsets 3 to 8, less the best line; the peak of the gradient lies on the edge.
    offsets = np.arange(3, 8.01, 0.5)
    waves = amplitude * np.cos(2 * np.pi * offsets / 5)
    expected = np.mean((waves - np.polyval(np.polyfit(offsets, waves, 1), offsets)) ** 2)
    found = meter.measure(hr + ringing / 255)
    assert found["ripple"] == pytest.approx(expected, rel=0.12)
    assert found["across"] > 50
    assert meter.measure(hr)["ripple"] == pytest.approx(0, abs=1e-6)


def test_neither_softness_nor_grain_nor_a_shift_is_a_ripple() -> None:
    clean, distance = edge(0.4)
    hr = pictures(clean)
    meter = ArtefactMeter(hr, 4)
    soft = pictures(60 + 120 * torch.special.ndtr(distance / 1.5))
    ringing = pictures(clean + 3 * torch.cos(2 * math.pi * distance / 5))
    ripple = meter.measure(ringing)["ripple"]
    assert meter.measure(soft)["ripple"] < 0.15 * ripple
    assert meter.measure(hr + (5 + 0.05 * COLUMNS) / 255)["ripple"] == pytest.approx(0, abs=1e-5)
    grain = 6 * torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    grainy = meter.measure(hr + grain / 255)
    assert grainy["across"] == pytest.approx(1, abs=0.25)


def test_a_side_with_structure_of_its_own_is_left_out() -> None:
    clean, distance = edge()
    striped = clean + 20 * torch.sin(2 * math.pi * distance / 6) * (distance > 4)
    plain, one_sided = ArtefactMeter(pictures(clean), 4), ArtefactMeter(pictures(striped), 4)
    on_the_edge = plain.places.edge_sides // 2
    assert 0 < one_sided.places.edge_sides <= on_the_edge * 1.05
    ringing = 3 * torch.cos(2 * math.pi * distance / 5) * (distance > 0)
    assert one_sided.measure(pictures(striped + ringing))["ripple"] < 0.05
    assert plain.measure(pictures(clean + ringing))["ripple"] > 1


def test_a_constant_changes_nothing() -> None:
    clean, distance = edge(0.4)
    hr = pictures(clean, 60 + 0.2 * ROWS)
    invented = torch.cos(2 * math.pi * distance / 5) + torch.sin(2 * math.pi * COLUMNS / 3) + (COLUMNS % 4 == 0)
    noise = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    sr = hr + (invented + noise) / 255
    meter = ArtefactMeter(hr, 4)
    plain, brighter = meter.measure(sr), meter.measure(sr + 0.1)
    assert list(plain) == list(MEASURES) == ["grid", "weave", "axial", "ripple", "across"]
    for name, value in plain.items():
        assert value > 0.1, name
        assert brighter[name] == pytest.approx(value, rel=1e-3), name


def test_without_a_place_there_is_no_value() -> None:
    meter = ArtefactMeter(PLAIN, 4)
    assert meter.places.edge_sides == 0
    found = meter.measure(PLAIN)
    assert math.isnan(found["ripple"])
    with pytest.raises(ValueError, match=r"pictures of 64x160 pixels are too small .* give at least 96"):
        ArtefactMeter(PLAIN[..., :64], 4)
    with pytest.raises(ValueError, match="are compared with HR of"):
        meter.measure(PLAIN[:1])


def test_gradients_are_per_pixel() -> None:
    ramp = grey_levels(pictures(3 * COLUMNS[:, :80].repeat(1, 2) / 4 - 2 * ROWS / 4))
    inner = gradients(ramp)[0, :, 10:-10, 10:60]
    torch.testing.assert_close(inner[0], torch.full_like(inner[0], 0.75))
    torch.testing.assert_close(inner[1], torch.full_like(inner[1], -0.5))


def test_the_table(
    benchmark_script: Callable[[str], ModuleType], photo_folder: Path, tiny_renderer: Path, tmp_path: Path
) -> None:
    """The command, on small pictures: every width, HR and bicubic beside the renderer, the ripples of which are 1."""
    program = benchmark_script("artefacts")
    settings = program.Settings(
        data=str(photo_folder),
        held_out=0,
        renderers=(str(tiny_renderer),),
        widths=(0.5, 2.0),
        device="cpu",
        json=tmp_path / "new" / "artefacts.json",
    )
    values = program.main(settings)
    assert list(values) == ["HR", "bicubic", "tiny_renderer, true kernel"]
    assert all(list(widths) == ["0.5", "2.0"] for widths in values.values())
    assert settings.json.is_file()
    values["bicubic"] = {width: {**each, "ripple": 6.0} for width, each in values["HR"].items()}
    values["tiny_renderer, true kernel"] = {width: {**each, "ripple": 2.0} for width, each in values["HR"].items()}
    header, *rows = program.artefact_cells(values, "tiny_renderer, true kernel")
    assert header[-1] == "ripple ratio"
    assert [row[-1] for row in rows] == ["0.00", "3.00", "1.00"]
