"""What the pretrained predictor sees, in place of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_agents.stock import FeaturesVecEnv, SceneFeatures

from sr_env import BlindSRIterativeVectorEnv, BlindSRVecEnv, BlindSRVectorEnv, load_predictor


def test_features_are_standardised_and_the_predictors(tiny_predictor: Path) -> None:
    predictor = load_predictor(tiny_predictor).network
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    images[10:] //= 4
    lr = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    describe = SceneFeatures(predictor, lr)
    seen = describe(images)
    assert seen.shape == (20, *describe.space.shape)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    spread = seen.std(0, ddof=1)
    assert (spread < 1.001).all()
    assert (spread > 0.99).any()
    np.testing.assert_allclose(describe(images[3]), seen[3], atol=1e-4)
    raw = predictor.features(lr).detach().numpy()
    varied = int(raw.std(0).argmax())
    assert np.corrcoef(raw[:, varied], seen[:, varied])[0, 1] == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="1 LR image"):
        SceneFeatures(predictor, lr[:1])


def test_features_in_place_of_images(tiny_settings: dict[str, Any]) -> None:
    plain = BlindSRVecEnv(BlindSRVectorEnv(3, **tiny_settings))
    describe = SceneFeatures.of(plain.env.simulator, tiny_settings["predictor"])
    env = FeaturesVecEnv(BlindSRVecEnv(BlindSRVectorEnv(3, **tiny_settings)), describe)
    assert env.observation_space == describe.space
    for each in (plain, env):
        each.seed(5)
    images, seen = plain.reset(), env.reset()
    np.testing.assert_array_equal(seen, describe(images))
    for _ in range(2):
        actions = np.zeros((3, 10), np.float32)
        (images, expected, *_), (after, rewards, dones, infos) = plain.step(actions), env.step(actions)
        np.testing.assert_array_equal(rewards, expected)
        assert dones.all()
        np.testing.assert_array_equal([info["terminal_observation"] for info in infos], seen)
        np.testing.assert_array_equal(after, describe(images))
        assert not np.array_equal(after, seen)
        seen = after


def test_features_need_images(tiny_settings: dict[str, Any], tiny_predictor: Path) -> None:
    env = BlindSRVecEnv(BlindSRIterativeVectorEnv(2, **tiny_settings))
    describe = SceneFeatures.of(env.env.simulator, str(tiny_predictor))
    with pytest.raises(ValueError, match="are no images"):
        FeaturesVecEnv(env, describe)
