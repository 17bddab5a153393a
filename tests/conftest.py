"""Shared fixtures: one torch thread (two on tiny nets are ten times slower), tiny networks, photos, the data folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sr_env.degradation import load_basis
from sr_env.models import AMNet
from sr_env.models.checkpoint import save_checkpoint
from sr_env.models.predictor import KernelPredictor
from sr_env.upscale import defaults

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with calibration images and benchmarks (``BLINDSR_SHARED``, else ``../shared``); skips where absent."""
    path = Path(os.environ.get("BLINDSR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "reference").is_dir():
        pytest.skip(f"no calibration data at {path}; set BLINDSR_SHARED to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def random_photos() -> list[np.ndarray]:
    """Five textured photos, uint8 [H, W, 3], 160 to 256 pixels a side: noise of several grain sizes over a ramp."""
    rng = np.random.default_rng(0)
    photos = []
    for height, width in ((160, 200), (192, 192), (256, 180), (208, 256), (164, 232)):
        ramp = np.add.outer(np.linspace(60, 110, height), np.linspace(0, 80, width))[..., None]
        grains = [cv2.resize(rng.normal(0, 20, (height // g, width // g, 3)), (width, height)) for g in (2, 7, 24)]
        photos.append(np.clip(ramp + np.sum(grains, axis=0), 0, 255).astype(np.uint8))
    return photos


@pytest.fixture(scope="session")
def photo_folder(random_photos: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with those photos as PNG files."""
    path = tmp_path_factory.mktemp("photos")
    for number, photo in enumerate(random_photos):
        Image.fromarray(photo).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="session")
def tiny_renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained x4 renderer, written as a checkpoint, whose modulation is not zero, so that the code matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AMNet(scale=4, channels=8, blocks=1)
        for block in network.body:
            torch.nn.init.normal_(block.modulation.mlp[-1].weight, std=0.2)
    path = tmp_path_factory.mktemp("renderer") / "tiny_renderer.safetensors"
    return save_checkpoint(path, network, load_basis("isotropic", 4), 4, {})


@pytest.fixture(scope="session")
def tiny_textured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained x4 renderer of another architecture, whose radius is larger and whose pictures differ much."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = AMNet(scale=4, channels=6, blocks=2, smooth=True)
        for block in network.body:
            torch.nn.init.normal_(block.modulation.mlp[-1].weight, std=0.2)
        with torch.no_grad():
            network.tail.weight.mul_(3)
    path = tmp_path_factory.mktemp("textured") / "tiny_textured.safetensors"
    return save_checkpoint(path, network, load_basis("isotropic", 4), 4, {})


@pytest.fixture(scope="module")
def textures(tiny_renderer: Path, tiny_textured: Path) -> Iterator[tuple[Path, Path]]:
    """Those two in the place of the released renderers between which a texture lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defaults, "TEXTURES", {4: (str(tiny_renderer), str(tiny_textured))})
        yield tiny_renderer, tiny_textured


@pytest.fixture(scope="session")
def tiny_predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained x4 predictor, written as a checkpoint."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = KernelPredictor(channels=8)
    path = tmp_path_factory.mktemp("predictor") / "tiny_predictor.safetensors"
    return save_checkpoint(path, network, load_basis("isotropic", 4), 4, {})


@pytest.fixture(scope="session")
def tiny_real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings ``renderer`` and ``predictor``: untrained x4 networks for the longer codes of the kernels "real"."""
    basis, folder = load_basis("real", 4), tmp_path_factory.mktemp("real")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = AMNet(scale=4, channels=8, blocks=1, code_length=basis.code_length)
        for block in network.body:
            torch.nn.init.normal_(block.modulation.mlp[-1].weight, std=0.2)
        predictor = KernelPredictor(channels=8, code_length=basis.code_length)
    renderer = save_checkpoint(folder / "tiny_real_renderer.safetensors", network, basis, 4, {})
    return {
        "renderer": str(renderer),
        "predictor": str(save_checkpoint(folder / "tiny_real_predictor.safetensors", predictor, basis, 4, {})),
    }


@pytest.fixture
def tiny_settings(tiny_renderer: Path, tiny_predictor: Path, random_photos: list[np.ndarray]) -> dict[str, Any]:
    """Settings of a small environment with the networks and photos above."""
    return {
        "photos": random_photos,
        "patch_size": 64,
        "renderer": str(tiny_renderer),
        "predictor": str(tiny_predictor),
        "device": "cpu",
    }
