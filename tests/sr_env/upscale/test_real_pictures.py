"""Models of longer codes: what is seen of noise and compression reaches the renderer, as far as it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_env import Upscaler
from sr_env.degradation import load_basis
from sr_env.models import AMNet, KernelPredictor, default_predictor, load_renderer, save_checkpoint
from sr_env.utils.checks import UsageError


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An untrained renderer and predictor of the longer code."""
    folder, basis = tmp_path_factory.mktemp("real"), load_basis("real", 4)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        renderer, predictor = AMNet(channels=8, blocks=1, code_length=18), KernelPredictor(channels=4, code_length=18)
        for parameter in renderer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    save_checkpoint(folder / "renderer.safetensors", renderer, basis, 4, {})
    save_checkpoint(folder / "predictor.safetensors", predictor, basis, 4, {})
    return {"model": folder / "renderer.safetensors", "predictor": folder / "predictor.safetensors", "device": "cpu"}


def test_noise_and_quality_are_said_and_dialled(real: dict[str, Any], photo: np.ndarray) -> None:
    full, half, none = (Upscaler(**real, denoise=share).upscale(photo) for share in (None, 0.5, 0.0))
    assert full.codes.shape == (1, 18)
    np.testing.assert_allclose(half.codes[:, 15:17], full.codes[:, 15:17] / 2)
    np.testing.assert_allclose(half.codes[:, [*range(15), 17]], full.codes[:, [*range(15), 17]])
    assert (none.codes[:, 15:17] == 0).all()
    assert none.levels["quality"].tolist() == [100]
    assert full.levels["noise"] == pytest.approx(5 * full.codes[:, 15].clip(min=0))
    assert not np.array_equal(full.pixels, none.pixels)
    assert full.widths.shape == (1,)


def test_a_given_kernel_leaves_noise_to_be_predicted(real: dict[str, Any], photo: np.ndarray) -> None:
    predicted = Upscaler(**real).upscale(photo)
    paths = {key: value for key, value in real.items() if key != "predictor"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sr_env.upscale.upscaler.default_predictor", lambda renderer: real["predictor"])
        given = Upscaler(**paths, kernel_width=7.0).upscale(photo)
        own = Upscaler(**paths, kernel=np.pad(np.ones((1, 1)), 10)).upscale(photo)
    np.testing.assert_allclose(given.codes[:, 15:], predicted.codes[:, 15:])
    assert given.widths.tolist() == pytest.approx([7.0], abs=0.05)
    assert own.widths[0] < 0.4


def test_models_without_noise_refuse_the_dial(tiny_renderer: Path, tiny_predictor: Path, real: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"denoise 0.5: give a share from 0 to 1, and a model that knows noise"):
        Upscaler(tiny_renderer, predictor=tiny_predictor, denoise=0.5, device="cpu")
    with pytest.raises(UsageError, match=r"denoise 1.5: give a share from 0 to 1$"):
        Upscaler(**real, denoise=1.5)


def test_every_family_has_its_predictor(real: dict[str, Any], tiny_renderer: Path) -> None:
    assert default_predictor(load_renderer(real["model"])) == "predictor_real_x4"
    assert default_predictor(load_renderer(tiny_renderer)) == "predictor_x4"
