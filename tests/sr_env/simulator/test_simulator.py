"""The simulator: how scenes are drawn, rendered and scored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr_env.degradation import Degradation, bicubic_resize, load_basis, quantize
from sr_env.metrics import Metric, available_metrics, create_metric
from sr_env.models import AMNet, save_checkpoint
from sr_env.simulator import Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings


def make(settings: dict[str, Any], iterative: bool = False, **changes: Any) -> Simulator:
    return Simulator(SimulatorSettings.from_kwargs(settings | changes), iterative)


def luma_psnr(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """PSNR-Y written with NumPy alone, on 8-bit RGB images."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = ((a.astype(float) - b.astype(float)) @ weights)[border:-border, border:-border]
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def test_scene_is_the_photo_crop_degraded_as_told(settings: dict[str, Any], random_photos: list[np.ndarray]) -> None:
    simulator = make(settings)
    options = {"photo": 3, "crop": (10, 20), "kernel_width": 1.7}
    scenes = simulator.draw(np.random.default_rng(0).random((1, 6)), options)
    crop = random_photos[3][10:74, 20:84]
    np.testing.assert_array_equal((scenes.hr[0].permute(1, 2, 0) * 255).round().numpy(), crop)
    degradation = Degradation(4)
    hr = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(scenes.lr, degradation(hr, degradation.build(np.array([1.7]))))
    torch.testing.assert_close(simulator.basis.decode(scenes.code), scenes.kernels.kernels, atol=1e-3, rtol=0)


def test_draw_covers_all_photos_and_corners(settings: dict[str, Any], random_photos: list[np.ndarray]) -> None:
    simulator = make(settings)
    scenes = simulator.draw(np.random.default_rng(0).random((300, 6)))
    assert set(scenes.photo) == set(range(len(random_photos)))
    room = np.array([photo.shape[:2] for photo in random_photos])[scenes.photo] - 64
    assert (scenes.corner >= 0).all()
    assert (scenes.corner <= room).all()
    assert scenes.corner.max() > 100
    widths = scenes.kernels.widths[:, 0].numpy()
    assert 0.2 <= widths.min() < 0.4
    assert 3.8 < widths.max() <= 4.0
    # The edges of the unit interval stay inside, too.
    edge = simulator.draw(np.array([[np.nextafter(1, 0)] * 6, [0.0] * 6]))
    assert list(edge.photo) == [4, 0]
    assert list(edge.corner[0]) == [100, 168]


def test_reward_is_the_score_minus_the_reference(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    simulator.reset(np.random.default_rng(1).random((2, 6)))
    scenes = simulator.scenes
    actions = np.random.default_rng(2).uniform(-1, 1, (2, 10)).astype(np.float32)
    rewards = simulator.step(actions)
    with torch.no_grad():
        sr = quantize(simulator.renderer.network(scenes.lr, simulator.basis.to_code(torch.from_numpy(actions))))
    reference = quantize(bicubic_resize(scenes.lr, (64, 64)))
    for index in range(2):
        hr, a, b = ((x[index].permute(1, 2, 0) * 255).round().numpy() for x in (scenes.hr, sr, reference))
        expected = luma_psnr(a, hr, 4) - luma_psnr(b, hr, 4)
        assert rewards[index] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("reference", ["bicubic", "predictor", "none"])
def test_reference_is_what_is_subtracted(settings: dict[str, Any], reference: str) -> None:
    simulator = make(settings, reference=reference)
    simulator.reset(np.random.default_rng(1).random((3, 6)))
    told = simulator.info()
    rewards = simulator.step(np.zeros((3, 10), dtype=np.float32))
    baseline = np.zeros(3) if reference == "none" else told["score_reference"]
    np.testing.assert_allclose(rewards, simulator.info()["score"] - baseline, atol=1e-5)


def test_the_predictors_own_action_earns_nothing_against_itself(settings: dict[str, Any]) -> None:
    simulator = make(settings, reference="predictor")
    simulator.reset(np.random.default_rng(1).random((3, 6)))
    assert simulator.predictor is not None
    action = simulator.predictor.network(simulator.scenes.lr).numpy()
    np.testing.assert_allclose(simulator.step(action), 0, atol=1e-4)


def test_weighted_reward_counts_lower_is_better_negatively(settings: dict[str, Any]) -> None:
    simulator = make(settings, reward={"psnr": 1, "lpips": 20}, info_metrics=["ssim", "psnr"])
    simulator.reset(np.random.default_rng(1).random((2, 6)))
    rewards = simulator.step(np.zeros((2, 10), dtype=np.float32))
    info = simulator.info()
    gain = (info["psnr"] - info["psnr_reference"]) - 20 * (info["lpips"] - info["lpips_reference"])
    np.testing.assert_allclose(rewards, gain, rtol=1e-3, atol=1e-4)
    assert {"ssim", "ssim_reference"} <= set(info)


def test_iterative_rewards_add_up_to_the_one_step_reward(settings: dict[str, Any]) -> None:
    iterative = make(settings, True, reference="predictor", max_steps=3)
    uniforms = np.random.default_rng(1).random((2, 6))
    iterative.reset(uniforms)
    rng = np.random.default_rng(2)
    rewards = [iterative.step(rng.uniform(-1, 1, (2, 10)).astype(np.float32)) for _ in range(3)]
    observation = iterative.observation()
    assert isinstance(observation, dict)
    once = make(settings, reference="predictor")
    once.reset(uniforms)
    np.testing.assert_allclose(once.step(observation["code"]), np.sum(rewards, axis=0), atol=1e-3)
    with pytest.raises(RuntimeError, match="ended after 3"):
        iterative.step(np.zeros((2, 10), dtype=np.float32))


def test_an_action_moves_the_code_by_the_correction(settings: dict[str, Any]) -> None:
    simulator = make(settings, True, correction=0.25)
    simulator.reset(np.random.default_rng(1).random((1, 6)))
    before = simulator.observation()
    simulator.step(np.full((1, 10), 0.5, dtype=np.float32))
    after = simulator.observation()
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    np.testing.assert_allclose(after["code"] - before["code"], 0.125, atol=1e-6)


def test_bf16_rendering_is_close_to_fp32(settings: dict[str, Any]) -> None:
    uniforms, rewards = np.random.default_rng(1).random((4, 6)), []
    for precision in ("fp32", "bf16"):
        simulator = make(settings, precision=precision)
        simulator.reset(uniforms)
        rewards.append(simulator.step(np.zeros((4, 10), dtype=np.float32)))
    np.testing.assert_allclose(rewards[0], rewards[1], atol=0.1)
    assert not np.array_equal(rewards[0], rewards[1])


def test_metric_precision_is_that_of_learned_metrics_alone(settings: dict[str, Any]) -> None:
    uniforms, terms = np.random.default_rng(1).random((4, 6)), []
    for precision in ("fp32", "bf16"):
        simulator = make(settings, reward={"lpips": 1.0, "ssim": 1.0}, metric_precision=precision)
        with torch.autocast("cpu", torch.bfloat16):  # an ambient one is nothing to go by
            scenes = simulator.draw(uniforms)
            result = simulator.score(scenes, simulator.render(scenes.lr, scenes.code), scenes.code)
        terms.append(result.terms)
    (fp32, bf16), exact = terms, create_metric("lpips", border=4)
    assert torch.equal(fp32["lpips"], exact(result.sr, scenes.hr))
    assert not torch.equal(bf16["lpips"], fp32["lpips"])
    torch.testing.assert_close(bf16["lpips"], fp32["lpips"], atol=0.005, rtol=0)
    assert torch.equal(bf16["ssim"], fp32["ssim"])
    assert {value.dtype for value in bf16.values()} == {torch.float32}


def test_a_renderer_of_another_kernel_family_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="takes the codes of isotropic kernels, not of the family 'anisotropic'"):
        make(settings, kernels="anisotropic")


def test_anisotropic_kernels_with_fixed_widths_and_angle(settings: dict[str, Any], tmp_path: Path) -> None:
    renderer = save_checkpoint(
        tmp_path / "a.safetensors", AMNet(channels=4, blocks=1), load_basis("anisotropic"), 4, {}
    )
    simulator = make(settings, kernels="anisotropic", reduction="decimate", renderer=str(renderer), reference="bicubic")
    options = {"kernel_width": [(4.0, 1.0), (1.0, 4.0)], "kernel_angle": [0.0, 0.0]}
    kernels = simulator.draw(np.random.default_rng(0).random((2, 6)), options).kernels
    rows, columns = kernels.kernels.sum(2), kernels.kernels.sum(1)
    assert columns[0].max() < rows[0].max()  # broad along x: spread over the columns
    torch.testing.assert_close(kernels.kernels[0], kernels.kernels[1].T)


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (np.zeros((2, 9), np.float32), r"action shape \(2, 9\).*\(2, 10\)"),
        (np.zeros(10, np.float32), r"action shape \(10,\)"),
        (np.full((2, 10), np.nan, np.float32), "nan is outside"),
        (np.full((2, 10), 1.5, np.float32), "1.5 is outside"),
        (np.full((2, 10), -np.inf, np.float32), "-inf is outside"),
    ],
)
def test_wrong_actions_are_named_and_leave_the_episode_running(
    settings: dict[str, Any], actions: np.ndarray, told: str
) -> None:
    simulator = make(settings)
    with pytest.raises(RuntimeError, match="reset"):
        simulator.step(np.zeros((2, 10), dtype=np.float32))
    simulator.reset(np.random.default_rng(0).random((2, 6)))
    with pytest.raises(ValueError, match=told):
        simulator.step(actions)
    assert simulator.step(np.zeros((2, 10), dtype=np.float32)).shape == (2,)


@pytest.mark.parametrize("reward", [{"psnr": 1.0, "lpips": 1.0}, {"niqe": 1.0, "psnr": 1.0, "consistency": 0.1}])
def test_repeated_scenes_earn_what_single_ones_do(settings: dict[str, Any], reward: dict[str, float]) -> None:
    changes = {"reward": reward, "reference": "predictor", "patch_size": 128}
    once, thrice = make(settings, **changes), make(settings, **changes)
    uniforms = np.random.default_rng(1).random((2, 6))
    once.reset(uniforms)
    thrice.reset(uniforms, repeat=3)
    assert thrice.scenes.photo.tolist() == np.repeat(once.scenes.photo, 3).tolist()
    actions = np.random.default_rng(2).uniform(-1, 1, (6, 10)).astype(np.float32)
    rewards = thrice.step(actions).reshape(2, 3)
    for index in range(3):
        once.reset(uniforms)
        np.testing.assert_allclose(rewards[:, index], once.step(actions.reshape(2, 3, 10)[:, index]), atol=1e-4)
    assert np.ptp(rewards, axis=1).min() > 1e-4


def test_consistency_is_the_psnr_of_lr_made_again(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    scenes = simulator.draw(np.random.default_rng(0).random((3, 6)), {"kernel_width": [0.6, 1.7, 2.6]})
    # The photograph itself, with its own kernel, gives LR back but for its rounding: about 10 log10(12 * 255^2) dB.
    own = simulator.consistency(scenes.lr, scenes.hr, scenes.code)
    assert own.min() > 55
    assert own.max() <= 60
    wrong = simulator.consistency(scenes.lr, scenes.hr, scenes.code.roll(1, 0))
    assert (wrong < own - 5).all()
    kernel = simulator.basis.decode(scenes.code[1:2])
    again = simulator.degradation.reduce(scenes.hr[1:2], simulator.degradation.build(np.array([1.7])))
    expected = -10 * np.log10(float((again - scenes.lr[1:2]).square().mean()))
    assert float(kernel.sum()) == pytest.approx(1, abs=0.01)
    assert float(own[1]) == pytest.approx(min(expected, 60), abs=1.5)


def test_consistency_counts_in_the_reward(settings: dict[str, Any]) -> None:
    simulator = make(settings, reward={"psnr": 1, "consistency": 0.5})
    simulator.reset(np.random.default_rng(1).random((2, 6)))
    rewards = simulator.step(np.zeros((2, 10), dtype=np.float32))
    info = simulator.info()
    gain = info["psnr"] - info["psnr_reference"] + 0.5 * (info["consistency"] - info["consistency_reference"])
    np.testing.assert_allclose(rewards, gain, rtol=1e-3, atol=1e-4)


def test_no_metric_sees_the_border(settings: dict[str, Any]) -> None:
    names = ("psnr", "ssim", "lpips", "dists", "niqe", "brisque")
    simulator = make(settings, patch_size=160, info_metrics=[name for name in names if name in available_metrics()])
    scenes = simulator.draw(np.random.default_rng(0).random((1, 6)))
    sr = simulator.bicubic(scenes).sr
    spoiled = torch.rand(sr.shape, generator=torch.Generator().manual_seed(0))
    spoiled[..., 4:-4, 4:-4] = sr[..., 4:-4, 4:-4]
    own, other = (simulator.score(scenes, picture, scenes.code).terms for picture in (sr, spoiled))
    assert len(own) >= 5
    for name in own:
        assert torch.equal(own[name], other[name]), name
    one_inside = sr.clone()
    one_inside[..., 4:8, 4:8] = 1 - one_inside[..., 4:8, 4:8]
    assert simulator.score(scenes, one_inside, scenes.code).terms["psnr"] < own["psnr"]


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("kernel", [False, True])
def test_episodes_begun_again_are_those_of_a_simulator_of_their_own(
    settings: dict[str, Any], iterative: bool, kernel: bool
) -> None:
    changes = {"reward": {"psnr": 1.0, "lpips": 1.0}, "max_steps": 3, "reference": "predictor"}
    simulator, alone = (make(settings, iterative, **changes) for _ in range(2))
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 6)), rng.random((3, 6))
    options = {"kernel": np.eye(5)} if kernel else None
    simulator.reset(first)
    simulator.reset(second, options, where=np.array([True, False, True]))
    alone.reset(np.stack([second[0], first[1], second[2]]), options)
    actions = rng.uniform(-1, 1, (3, 10)).astype(np.float32)
    rewards, expected = simulator.step(actions), alone.step(actions)
    np.testing.assert_allclose(rewards[[0, 2]], expected[[0, 2]], atol=1e-4)
    if not kernel:
        np.testing.assert_allclose(rewards, expected, atol=1e-4)
    assert simulator.scenes.photo.tolist() == alone.scenes.photo.tolist()


def test_the_simulator_needs_nothing_of_the_environments() -> None:
    code = "import sys, sr_env.simulator; print([n for n in sys.modules if n.startswith('sr_env.envs')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reward_that_is_not_finite_is_refused_with_its_cause(settings: dict[str, Any]) -> None:
    class Undefined(Metric):
        name, higher_is_better, needs_reference = "undefined", True, False

        def _encode(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean((1, 2, 3)) * torch.nan

    actions = np.zeros((2, 10), dtype=np.float32)
    simulator = make(settings)
    simulator.reset(np.random.default_rng(0).random((2, 6)))
    simulator.metrics["psnr"] = Undefined()
    simulator.objective.metrics["psnr"] = Undefined()
    with pytest.raises(UsageError, match="the reward is not finite: psnr is nan, mend the metric"):
        simulator.step(actions)
    broken = make(settings)
    broken.reset(np.random.default_rng(0).random((2, 6)))
    next(broken.renderer.network.parameters()).data.fill_(torch.nan)
    with pytest.raises(UsageError, match="the renderer's SR has NaN"):
        broken.step(actions)


def test_actions_of_several_lengths_are_named(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    simulator.reset(np.random.default_rng(0).random((2, 6)))
    with pytest.raises(UsageError, match=r"actions are no array: give float32 \(2, 10\)"):
        simulator.step([[0.0], [0.0, 1.0]])  # type: ignore[arg-type]
