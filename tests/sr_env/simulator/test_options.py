"""The reset options: what they fix, and how wrong ones are named."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sr_env.degradation import bicubic_resize, kernel_family, quantize
from sr_env.simulator import SceneOptions, Scenes, Simulator, SimulatorSettings
from sr_env.utils.checks import UsageError


@pytest.fixture
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings


def make(settings: dict[str, Any], **changes: Any) -> Simulator:
    return Simulator(SimulatorSettings.from_kwargs(settings | changes))


def draw(simulator: Simulator, count: int, options: dict[str, Any] | None = None) -> Scenes:
    return simulator.draw(np.random.default_rng(0).random((count, 6)), options)


def test_none_leaves_one_of_several_to_chance(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    chance = draw(simulator, 3)
    options = {
        "photo": [None, "2" if "2" in simulator.photos.names else 2, None],
        "crop": [(1, 2), None, None],
        "kernel_width": [None, None, 0.7],
    }
    fixed = draw(simulator, 3, options)
    assert fixed.photo.tolist() == [chance.photo[0], 2, chance.photo[2]]
    assert fixed.corner[0].tolist() == [1, 2]
    assert fixed.corner[2].tolist() == chance.corner[2].tolist()
    widths = chance.kernels.widths.clone()
    widths[2] = 0.7
    torch.testing.assert_close(fixed.kernels.widths, widths)
    everything = draw(simulator, 3, {"photo": None, "crop": None, "kernel_width": None, "kernel": None})
    assert torch.equal(everything.lr, chance.lr)


@pytest.mark.parametrize("size", [5, 21])
def test_a_kernel_of_ones_own_is_what_blurs(settings: dict[str, Any], size: int) -> None:
    simulator = make(settings)
    kernel = np.random.default_rng(1).random((size, size))
    scenes = draw(simulator, 2, {"kernel": kernel})
    hr = (scenes.hr[1].permute(1, 2, 0) * 255).round().numpy()
    blurred = cv2.filter2D(hr.astype(np.float64), -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    image = torch.from_numpy(blurred / 255).permute(2, 0, 1)[None].float()
    lr = quantize(bicubic_resize(image, (16, 16)))
    torch.testing.assert_close(scenes.lr[1], lr[0], atol=1.01 / 255, rtol=0)
    assert float((scenes.lr[1] - lr[0]).abs().mean()) < 0.02 / 255
    torch.testing.assert_close(scenes.kernels.kernels.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(scenes.code, simulator.basis.encode(scenes.kernels.kernels))


def test_kernels_one_each_and_a_gaussian_like_the_familys(settings: dict[str, Any]) -> None:
    simulator = make(settings)
    drawn = draw(simulator, 3, {"kernel_width": 1.5})
    chance = draw(simulator, 3)
    same = draw(simulator, 3, {"kernel": drawn.kernels.kernels.numpy()})
    torch.testing.assert_close(same.lr, drawn.lr, atol=1.01 / 255, rtol=0)
    torch.testing.assert_close(same.code, drawn.code, atol=1e-4, rtol=1e-4)
    mixed = draw(simulator, 3, {"kernel": [None, np.ones((3, 3)), None]})
    torch.testing.assert_close(mixed.lr[[0, 2]], chance.lr[[0, 2]], atol=1.01 / 255, rtol=0)
    torch.testing.assert_close(mixed.kernels.kernels[1, 9:12, 9:12], torch.full((3, 3), 1 / 9))
    simulator.reset(np.random.default_rng(0).random((3, 6)), {"kernel": np.ones((3, 3))})
    assert np.isfinite(simulator.step(np.zeros((3, 10), np.float32))).all()
    np.testing.assert_allclose(simulator.info()["kernel_width"], np.sqrt(2 / 3), rtol=1e-5)  # of a 3 x 3 box


def test_two_widths_are_a_pair_in_the_anisotropic_family_alone(settings: dict[str, Any]) -> None:
    isotropic = draw(make(settings), 2, {"kernel_width": (1.0, 2.0)}).kernels.widths
    assert isotropic.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    options = SceneOptions.parse({"kernel_width": (1.0, 2.0)}, 2, make(settings).photos, kernel_family("anisotropic"))
    assert options.widths.tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_tensors_are_taken_as_arrays(settings: dict[str, Any]) -> None:
    kernels = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0))
    simulator, uniforms = make(settings), np.random.default_rng(0).random((2, 6))
    simulator.reset(uniforms, {"kernel": kernels, "photo": torch.tensor([1, 3])})
    info, lr = simulator.info(), simulator.scenes.lr
    simulator.reset(uniforms, {"kernel": kernels.numpy(), "photo": [1, 3]})
    assert info["photo"].tolist() == [1, 3]
    assert torch.equal(lr, simulator.scenes.lr)


def test_what_info_says_of_a_scene_may_be_given_again(settings: dict[str, Any]) -> None:
    simulator, uniforms = make(settings), np.random.default_rng(0).random((2, 6))
    simulator.reset(uniforms)
    info, lr = simulator.info(), simulator.scenes.lr
    simulator.reset(uniforms[::-1], {name: info[name] for name in ("photo", "crop", "kernel_width", "kernel_angle")})
    assert torch.equal(lr, simulator.scenes.lr)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"blur": 1}, "unknown reset option 'blur'.*photo, crop, kernel_width, kernel_angle"),
        ("photo", "reset options 'photo' are no mapping"),
        ({"photo": True}, "photo True is not a whole number"),
        ({"photo": 1.0}, "photo 1.0 is not a whole number"),
        ({"crop": (0.5, 0.5)}, r"crop=\(0.5, 0.5\) does not fit.*whole numbers"),
        ({"crop": (-1, 0)}, r"crop=\(-1, 0\) does not fit"),
        ({"crop": [(0, 0), (1, 1), (2, 2)]}, "3 entries for 2"),
        ({"crop": [(0, 0), (1, 1, 1)]}, "does not fit"),
        ({"kernel_width": 99}, "kernel_width=99 does not fit.*under 21"),
        ({"kernel_width": True}, "kernel_width=True does not fit"),
        ({"kernel_angle": 0.5}, "kernel_angle=0.5 would not count, since isotropic kernels have none"),
        ({"kernel_angle": [None, 1]}, r"kernel_angle=\[None, 1\] would not count"),
        ({"kernel_width": [(1.0, 1.0), (2.0, 1.0)]}, "isotropic kernels have one width"),
        ({"kernel_angle": float("inf")}, "kernel_angle=inf does not fit"),
        ({"kernel_angle": [0.0, float("nan")]}, "kernel_angle=.*does not fit"),
        ({"kernel": np.ones((4, 4))}, "kernels of shape .*odd"),
        ({"kernel": np.ones((23, 23))}, "at most 21"),
        ({"kernel": np.ones((3, 5))}, "does not fit"),
        ({"kernel": -np.ones((3, 3))}, "kernel weights from -1 to -1.*non-negative"),
        ({"kernel": np.zeros((3, 3))}, "kernel weights from 0 to 0.*positive sum"),
        ({"kernel": np.full((3, 3), np.nan)}, r"kernel=array\(\[\[nan, nan, nan\], \[nan.*of finite numbers"),
        ({"kernel": [np.ones((3, 3)), np.ones((5, 5))]}, "does not fit.*or as many of one shape for each"),
        ({"kernel": np.ones((3, 3, 3))}, "3 entries for 2"),
        ({"kernel": "box"}, "kernel='box' does not fit"),
        ({"kernel": np.ones((3, 3)), "kernel_width": 1.0}, "leave out kernel_width"),
        ({"photo": 5}, r"photo 5 is outside 0\.\.4"),
        ({"photo": "x.png"}, "unknown photo 'x.png'"),
        ({"photo": [0, 1, 2]}, "3 entries for 2"),
        ({"crop": (0, 400)}, "400"),
        ({"crop": 3}, "crop=3 does not fit"),
        ({"kernel_width": -1.0}, "positive"),
        ({"kernel_width": float("nan")}, "positive"),
        ({"kernel_width": "wide"}, "kernel_width='wide'"),
    ],
)
def test_wrong_options_are_named(settings: dict[str, Any], options: Any, told: str) -> None:
    simulator = make(settings)
    with pytest.raises(UsageError, match=told):
        simulator.reset(np.random.default_rng(0).random((2, 6)), options)


def test_noise_compression_and_sharpening_are_fixed(settings: dict[str, Any], tiny_real: dict[str, str]) -> None:
    simulator = make(settings, kernels="real", **tiny_real)
    chance = draw(simulator, 4)
    fixed = draw(simulator, 4, {"noise": [None, 0, 12, 3.5], "jpeg_quality": 0, "sharpening": [0.5, None, None, 0]})
    before, after = chance.kernels.corruption, fixed.kernels.corruption
    assert before is not None
    assert after is not None
    torch.testing.assert_close(after.noise, torch.tensor([float(before.noise[0]), 0, 12, 3.5]))
    assert after.quality.tolist() == [0] * 4
    torch.testing.assert_close(after.sharpening, torch.tensor([0.5, *before.sharpening[1:3].tolist(), 0]))
    assert torch.equal(after.seed, before.seed)
    assert torch.equal(fixed.kernels.kernels, chance.kernels.kernels)
    simulator.reset(np.random.default_rng(0).random((4, 6)), {"noise": 7, "jpeg_quality": 60, "sharpening": 0})
    info = simulator.info()
    for name, value in {"noise": 7, "jpeg_quality": 60, "sharpening": 0}.items():
        np.testing.assert_allclose(info[name], value)
    again = draw(simulator, 4, {name: info[name] for name in ("noise", "jpeg_quality", "sharpening")})
    assert torch.equal(again.lr, simulator.scenes.lr)


def test_a_width_for_one_scene_leaves_the_shapes_of_others(settings: dict[str, Any], tiny_real: dict[str, str]) -> None:
    simulator = make(settings, kernels="real", **tiny_real)
    uniforms = np.random.default_rng(1).random((40, 6))
    chance = simulator.draw(uniforms)
    fixed = simulator.draw(uniforms, {"kernel_width": [3.0] + [None] * 39})
    assert torch.equal(fixed.kernels.kernels[1:], chance.kernels.kernels[1:])
    assert torch.equal(fixed.lr[1:], chance.lr[1:])
    assert fixed.kernels.widths[0].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "noise"),
        ({"noise": 256}, "0 to 255 grey levels"),
        ({"jpeg_quality": 0.5}, "1 to 100, or 0 for no compression"),
        ({"sharpening": "much"}, "a strength of 0 to 10"),
        ({"noise": [1, 2]}, "2 entries for 3"),
    ],
)
def test_wrong_levels_are_named(
    settings: dict[str, Any], tiny_real: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        draw(make(settings, kernels="real", **tiny_real), 3, options)


def test_levels_need_kernels_that_know_them(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="noise=5 would not count, since isotropic kernels blur alone"):
        draw(make(settings), 1, {"noise": 5})
