"""What predictors say of pictures of which it is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from blindsr_agents.evaluation.conditions import real_conditions
from blindsr_agents.evaluation.predictions import Predictions, measure_predictions, prediction_cells
from PIL import Image

from sr_env.degradation import Degradation
from sr_env.photos import ArrayPhotos
from sr_env.upscale import Upscaler


@pytest.fixture
def upscaler(tiny_real: dict[str, str]) -> Upscaler:
    return Upscaler(tiny_real["renderer"], predictor=tiny_real["predictor"], device="cpu", precision="fp32")


def test_what_is_so_is_the_conditions(upscaler: Upscaler, random_photos: list[np.ndarray]) -> None:
    photos = ArrayPhotos([random_photos[0][:96, :128], random_photos[1][:100, :90]])
    found = measure_predictions(upscaler, photos, Degradation(4, "real"), real_conditions(4))
    assert list(found) == [condition.name for condition in real_conditions(4)]
    np.testing.assert_allclose(found["noise 15"].true["noise"], 15, rtol=1e-5)
    np.testing.assert_allclose(found["JPEG 50"].true["quality"], 50, atol=0.6)
    np.testing.assert_allclose(found["sharpened"].true["sharpening"], 1, rtol=1e-5)
    np.testing.assert_allclose(found["blur 1.5"].true["width"], 6, atol=0.1)
    for each in found.values():
        for name in ("width", "noise", "quality", "sharpening"):
            assert each.true[name].shape == each.said[name].shape == (2,)


def test_said_is_what_would_be_rendered_with(upscaler: Upscaler, random_photos: list[np.ndarray]) -> None:
    photo = random_photos[0][:96, :96]
    clean = real_conditions(4)[:1]
    found = measure_predictions(upscaler, ArrayPhotos([photo]), Degradation(4, "real"), clean)["clean"]
    degradation, hr = Degradation(4, "real"), torch.from_numpy(photo[None].copy()).permute(0, 3, 1, 2) / 255
    lr = degradation(hr, clean[0].kernels(np.array([0]), torch.device("cpu")))[0].permute(1, 2, 0)
    own = upscaler.upscale((lr * 255).round().byte().numpy())
    assert found.said["width"][0] == pytest.approx(own.widths[0], abs=0.02)
    assert found.said["noise"][0] == pytest.approx(own.levels["noise"][0], abs=0.05)


def test_errors_are_means_of_differences() -> None:
    true, said = {"width": np.array([1.0, 2.0])}, {"width": np.array([2.0, 1.5])}
    header, row = prediction_cells({"clean": Predictions(true, said)})
    assert header == ["condition", "", "width", "said", "error"]
    assert row == ["clean", "", "1.50", "1.75", "0.75"]


def test_the_program_writes_its_table(
    benchmark_script: Callable[[str], ModuleType],
    tiny_real: dict[str, str],
    random_photos: list[np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = benchmark_script("predictions")
    (tmp_path / "data").mkdir()
    Image.fromarray(random_photos[0][:96, :96]).save(tmp_path / "data" / "a.png")
    networks = {"model": tiny_real["renderer"], "predictor": tiny_real["predictor"]}
    settings = program.Settings(
        **networks, data=str(tmp_path / "data"), held_out=0, out=tmp_path / "table.md", device="cpu", precision="fp32"
    )
    program.main(settings)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 11
    assert lines[0].startswith("| condition |")
    assert "1 photographs" in capsys.readouterr().out
