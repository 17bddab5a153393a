"""Averages of two renderers."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import interpolate
import pytest
import torch
from blindsr_pretrain.interpolation import InterpolationSettings
from blindsr_pretrain.validation import ValidationSet

from sr_env.degradation import load_basis
from sr_env.models import AMNet, load_renderer, save_checkpoint
from sr_env.utils.checks import FileInTheWayError, UsageError


@pytest.fixture
def two_renderers(tmp_path: Path) -> list[Path]:
    """Two renderers of one architecture with other weights."""
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        card = {"steps": 10 + seed, "seed": seed, "command": f"python {seed}", "validation": {"psnr": 20.0 + seed}}
        network = AMNet(scale=4, channels=8, blocks=1)
        paths.append(save_checkpoint(folder / "tiny_x4.safetensors", network, load_basis("isotropic", 4), 4, card))
    return paths


@pytest.fixture
def averaging(photo_folder: Path) -> Callable[..., InterpolationSettings]:
    """Settings of an average that is measured on one small photo."""
    return partial(InterpolationSettings, data=str(photo_folder), patch_size=64, validation_photos=1, device="cpu")


def test_interpolation_lies_between_two_renderers(
    two_renderers: list[Path], averaging: Callable[..., InterpolationSettings], tmp_path: Path
) -> None:
    first, second = map(str, two_renderers)
    settings = averaging(first=first, second=second, share=0.25, out=tmp_path / "mean")
    figures = interpolate.main(settings)
    result = load_renderer(tmp_path / "mean" / "tiny_x4.safetensors")
    ends = [load_renderer(path).network.state_dict() for path in two_renderers]
    for name, value in result.network.state_dict().items():
        torch.testing.assert_close(value, 0.75 * ends[0][name] + 0.25 * ends[1][name])
    assert result.card["validation"] == figures
    assert figures.keys() >= {"psnr", "psnr_2.6", "lpips"}
    assert result.card["steps"] == 10
    parts = result.card["interpolated"]
    assert [part["share"] for part in parts] == [0.75, 0.25]
    assert [part["validation"]["psnr"] for part in parts] == [20.0, 21.0]
    assert [part["weights"] for part in parts] == ["run0/tiny_x4.safetensors", "run1/tiny_x4.safetensors"]


def test_interpolation_is_measured_with_a_predictor_s_codes(
    tiny_renderer: Path, tiny_predictor: Path, averaging: Callable[..., InterpolationSettings], tmp_path: Path
) -> None:
    settings = averaging(first=str(tiny_renderer), second=str(tiny_renderer), out=tmp_path / "true")
    true = interpolate.main(settings)
    blind = interpolate.main(replace(settings, predictor=str(tiny_predictor), out=tmp_path / "blind"))
    assert blind["psnr_true_kernel"] == true["psnr"]
    assert blind["lpips_true_kernel"] == true["lpips"]
    assert blind["psnr"] != true["psnr"]


def test_interpolation_refuses_what_cannot_be_averaged(
    two_renderers: list[Path], tiny_renderer: Path, tmp_path: Path
) -> None:
    first = str(two_renderers[0])
    network = AMNet(scale=4, channels=8, blocks=2)
    other = save_checkpoint(tmp_path / "deeper.safetensors", network, load_basis("isotropic", 4), 4, {})
    with pytest.raises(ValueError, match=r"tiny_x4\.safetensors and deeper\.safetensors differ in architecture"):
        interpolate.main(InterpolationSettings(first=first, second=str(other), out=tmp_path / "mean"))
    with pytest.raises(ValueError, match="choose another --out"):
        interpolate.main(InterpolationSettings(first=first, second=str(tiny_renderer), out=two_renderers[0].parent))
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        InterpolationSettings(first=first, second=first, share=1.5)
    assert not (tmp_path / "mean").exists()


def test_a_stopped_measurement_ends_as_one_that_was_not(
    two_renderers: list[Path],
    tiny_predictor: Path,
    averaging: Callable[..., InterpolationSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six units: three kernel widths, with predicted and with true codes; it is stopped in the fifth."""
    first, second = map(str, two_renderers)
    settings = averaging(first=first, second=second, predictor=str(tiny_predictor), out=tmp_path / "whole")
    whole = interpolate.main(settings)
    cut = replace(settings, out=tmp_path / "cut")
    values, begun = ValidationSet._values, []

    def stopped(self: ValidationSet, kernel: str, *rest: Any) -> dict[str, float]:
        begun.append(kernel)
        if len(begun) == 5:
            signal.raise_signal(signal.SIGTERM)
        return values(self, kernel, *rest)

    monkeypatch.setattr(ValidationSet, "_values", stopped)
    with pytest.raises(SystemExit):
        interpolate.main(cut)
    assert [path.name for path in cut.out.iterdir()] == ["finished.json"]
    with pytest.raises(FileInTheWayError, match=r"finished\.json exists: add --resume to go on"):
        interpolate.main(cut)
    with pytest.raises(UsageError, match=r"--second was tiny_x4 \(digest \w+\) and is .*--share was 0\.5 and is 0\.25"):
        interpolate.main(replace(cut, second=first, share=0.25, resume=True))
    assert interpolate.main(replace(cut, resume=True)) == whole
    assert begun == ["0.2", "1.3", "2.6", "0.2", "1.3", "1.3", "2.6"]
    one, other = (folder / "tiny_x4.safetensors" for folder in (settings.out, cut.out))
    assert one.read_bytes() == other.read_bytes()
    cards = [json.loads(path.with_suffix(".json").read_text()) for path in (one, other)]
    assert cards[0] == cards[1]
    (cut.out / "finished.json").unlink()
    with pytest.raises(FileInTheWayError, match=r"tiny_x4\.safetensors of an earlier run exists: choose another --out"):
        interpolate.main(cut)
