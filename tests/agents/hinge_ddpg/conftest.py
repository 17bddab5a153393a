"""A small HingeDDPG, scenes for its memory, and the settings of a small run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.hinge_ddpg import HingeDDPG, HingeDDPGSettings, SceneBuffer

from sr_env.envs.sb3 import BlindSRVecEnv
from sr_env.envs.vector import BlindSRVectorEnv


@pytest.fixture(autouse=True)
def own_generator() -> Iterator[None]:
    """The agent seeds torch's global generator, which no other test is to notice."""
    with torch.random.fork_rng():
        yield


@pytest.fixture
def centred(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a small environment whose rewards are above the pretrained actor's."""
    return {**tiny_settings, "reference": "predictor"}


@pytest.fixture
def make(centred: dict[str, Any], tiny_predictor: Path) -> Callable[..., HingeDDPG]:
    """Builds a small agent on a vector environment of four."""

    def build(env_changes: dict[str, Any] | None = None, **changes: Any) -> HingeDDPG:
        env = BlindSRVecEnv(BlindSRVectorEnv(4, **{**centred, **(env_changes or {})}))
        small: dict[str, Any] = {
            "predictor": str(tiny_predictor),
            "buffer_size": 64,
            "constant_steps": 0,
            "learning_starts": 8,
            "batch_size": 16,
            "gradient_steps": 2,
            "warmup_updates": 2,
            "critics": 2,
            "policy_kwargs": {"hidden": 64, "dropout": 0.0},
            "seed": 0,
            "device": "cpu",
        }
        return HingeDDPG(env=env, **{**small, **changes})

    return build


@pytest.fixture
def remember() -> Callable[..., None]:
    """Adds four scenes to a memory."""
    return _remember


def _remember(
    memory: SceneBuffer,
    images: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    widths: Sequence[float] = (1.0,) * 4,
    descriptions: np.ndarray | None = None,
) -> None:
    memory.announce(memory.descriptions[0] if descriptions is None else descriptions)
    memory.add(images, images, actions, rewards, np.ones(4), [{"kernel_width": np.full(2, w)} for w in widths])


@pytest.fixture
def small(
    tiny_renderer: Path, tiny_predictor: Path, photo_folder: Path, tmp_path: Path
) -> Callable[..., HingeDDPGSettings]:
    """Settings of a run of seconds that writes to the folder ``out``."""

    def build(**changes: Any) -> HingeDDPGSettings:
        common: dict[str, Any] = {
            "out": tmp_path / "out",
            "photos": str(photo_folder),
            "reward": {"psnr": 1.0},
            "controls": ("code",),
            "renderer": str(tiny_renderer),
            "predictor": str(tiny_predictor),
            "patch_size": 64,
            "steps": 24,
            "envs": 4,
            "constant_steps": 8,
            "learning_starts": 4,
            "warmup_updates": 1,
            "gradient_steps": 1,
            "batch_size": 8,
            "buffer_size": 64,
            "select_every": 12,
            "selection_side": 64,
            "actions_per_scene": 2,
            "selection_widths": (0.2, 2.6),
            "constant_renderings": 16,
            "test_crops": 3,
            "device": "cpu",
        }
        return HingeDDPGSettings(**{**common, **changes})

    return build
