"""The upscaler: every kind of picture comes back as it was sent, and kernels are as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sr_env import Upscaler
from sr_env.degradation import bicubic_resize, isotropic_kernels, load_basis
from sr_env.models.predictor import KernelPredictor
from sr_env.upscale import codes, upscaler
from sr_env.upscale.upscaler import equivalent_widths
from sr_env.utils.checks import UsageError


def rendered(up: Upscaler, photo: np.ndarray) -> Tensor:
    """One forward pass of the networks themselves, float [1, 3, H, W], not clamped."""
    lr = torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        code = up.codes.kernel if up.codes.predictor is None else up.basis.to_code(up.codes.predictor(lr))
        return up.renderer(lr, code)


def levels(a: Any, b: Any) -> int:
    """Largest difference in grey levels."""
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


# ------------------------------------------------------------------------------------------------- kernels and regions


def test_regions_blend(make: Any, random_photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    photo = np.tile(random_photos[2], (2, 2, 1))[:400, :330]
    up = make(spatially_varying=True)
    result = up.upscale(photo)
    assert result.tiles == len(result.codes) == len(result.widths) > 4
    assert len(np.unique(result.codes, axis=0)) == result.tiles
    # Where every region says the same, regions are tiles and leave no trace.
    code = up.basis.encode(isotropic_kernels(torch.tensor([1.5])))
    monkeypatch.setattr(up.codes, "of_tiles", lambda lr: code.expand(len(lr), -1))
    assert levels(up.upscale(photo).pixels, make(kernel_width=1.5).upscale(photo).pixels) <= 1
    # Two regions that differ pass into each other over the ramp: in the middle lies the mean of both.
    wide = photo[:64, :260]
    codes = up.basis.encode(isotropic_kernels(torch.tensor([0.3, 3.5])))
    monkeypatch.setattr(up.codes, "of_tiles", lambda lr: codes)
    mixed = up.upscale(wide).pixels.astype(int)
    left, right = (make(kernel_width=w).upscale(wide).pixels.astype(int) for w in (0.3, 3.5))
    assert levels(left, right) > 8
    cut = 4 * 130
    assert levels(mixed[:, : cut - 64], left[:, : cut - 64]) <= 1
    assert levels(mixed[:, cut + 64 :], right[:, cut + 64 :]) <= 1
    inside = (np.minimum(left, right)[:, cut] > 0) & (np.maximum(left, right)[:, cut] < 255)  # nothing was clamped
    assert inside.mean() > 0.5
    assert levels(2 * mixed[:, cut][inside], (left + right)[:, cut][inside]) <= 3


def test_given_kernels(make: Any, photo: np.ndarray) -> None:
    by_width = make(kernel_width=1.3).upscale(photo)
    array = isotropic_kernels(torch.tensor([1.3]))[0].numpy()
    assert levels(make(kernel=5 * array).upscale(photo).pixels, by_width.pixels) <= 1  # made to sum to one
    assert by_width.widths == pytest.approx([1.3])
    assert levels(by_width.pixels, make(kernel_width=3.0).upscale(photo).pixels) > 4
    for bad, message in (
        ({"kernel": np.ones((5, 5))}, r"shape \[5, 5\]: give numbers \[21, 21\]"),
        ({"kernel": np.zeros((21, 21))}, "positive sum"),
        ({"kernel": np.full((21, 21), np.nan)}, "finite"),
        ({"kernel_width": 0.0}, "between 0 and 21"),
        ({"kernel_width": 1.0, "kernel": array}, "give one"),
        ({"kernel_width": 1.0, "spatially_varying": True}, "whole picture"),
        ({"kernel_width": 1.0, "predictor": "predictor_x4"}, "nothing is predicted"),
        ({"max_memory": 0}, "positive"),
        ({"scale": 5}, "unknown scale 5"),
        ({"scale": 2}, "is for scale 4, not 2"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**bad)


def test_equivalent_widths() -> None:
    basis, widths = load_basis("isotropic", 4), torch.tensor([0.4, 1.3, 2.6, 3.9])
    torch.testing.assert_close(equivalent_widths(basis.encode(isotropic_kernels(widths)), basis), widths)


def test_large_pictures_are_seen_as_a_mosaic(make: Any, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    features = KernelPredictor.features
    monkeypatch.setattr(
        KernelPredictor, "features", lambda self, lr: seen.append(tuple(lr.shape)) or features(self, lr)
    )
    whole = make().upscale(photo)
    monkeypatch.setattr(codes, "_WHOLE", (3 * 64) ** 2)
    large = np.tile(photo, (2, 2, 1))
    mosaic = make().upscale(large)
    assert seen == [(1, 3, 96, 130), (9, 3, 64, 64)]
    assert not np.array_equal(whole.codes, mosaic.codes)
    np.testing.assert_allclose(mosaic.codes, whole.codes, atol=0.3)


def test_default_models() -> None:
    assert [upscaler.default_model(scale) for scale in (2, 3, 4)] == ["amnet_l_x2", "amnet_l_x3", "amgan_real_x4"]
    assert [upscaler.default_model(scale, clean=True) for scale in (3, 4)] == ["amnet_l_x3", "amgan_x4"]
    assert Upscaler(clean=True, device="cpu").model == "amgan_x4"
    with pytest.raises(UsageError, match="clean chooses where no model is named: leave it out, or the model 'amnet_x4"):
        Upscaler("amnet_x4", clean=True)
    up = Upscaler(scale=2, device="cpu")
    assert (up.model, up.scale) == ("amnet_l_x2", 2)


# ----------------------------------------------------------------------------------------------------- kinds of images


def test_arrays_keep_their_kind(make: Any, photo: np.ndarray) -> None:
    up = make(kernel_width=1.0)
    exact = rendered(up, photo)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    for picture, top in ((photo, 255), (photo.astype(np.uint16) * 257, 65535)):
        result = up(picture)
        assert (result.dtype, result.shape) == (picture.dtype, exact.shape)
        assert np.abs(result - exact * top).max() <= 0.5 + top * 2e-6
    for dtype in (np.float16, np.float32, np.float64):
        result = up((photo / 255).astype(dtype))
        assert result.dtype == dtype
        assert np.abs(result - exact).max() < (2e-3 if dtype == np.float16 else 1e-5)


def test_gray_and_alpha(make: Any, photo: np.ndarray) -> None:
    up, gray, alpha = make(kernel_width=1.0), photo[:, :, 0], np.maximum(photo[:, :, 1], 1)  # nothing is hidden
    three = rendered(up, np.dstack([gray] * 3))[0]
    assert levels(up(gray), three.mean(0).clamp(0, 1).mul(255).round()) <= 1
    plane = torch.from_numpy(alpha.astype(np.float32))[None, None]
    larger = bicubic_resize(plane, (384, 520))[0, 0].clamp(0, 255).round().numpy()
    for picture, colour in ((np.dstack([gray, alpha]), up(gray)[:, :, None]), (np.dstack([photo, alpha]), up(photo))):
        for memory in (None, 2e6):
            result = up.upscale(picture, max_memory=memory).pixels
            assert levels(result[:, :, :-1], colour) <= 1
            assert levels(result[:, :, -1], larger) <= 1
    assert up(photo[:, :, :1]).shape == (384, 520, 1)


def test_tensors(make: Any, random_photos: list[np.ndarray]) -> None:
    up = make()
    batch = torch.from_numpy(np.stack([p[:40, :50] for p in random_photos[:3]])).permute(0, 3, 1, 2) / 255
    result = up(batch)
    assert (result.shape, result.dtype) == ((3, 3, 160, 200), torch.float32)
    for picture, larger in zip(batch, result, strict=True):
        torch.testing.assert_close(up(picture), larger, atol=1e-5, rtol=0)
        assert levels(up(picture.permute(1, 2, 0).mul(255).byte().numpy()), larger.permute(1, 2, 0) * 255) <= 1
    assert up(batch[0].double()).dtype == torch.float64
    assert 0 <= float(result.min()) <= float(result.max()) <= 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("1", "L"), ("P", "RGB"), ("CMYK", "RGB")],
)
def test_pil_images(make: Any, photo: np.ndarray, mode: str, expected: str) -> None:
    up, image = make(kernel_width=1.0), Image.fromarray(photo).convert(mode)
    result = up(image)
    assert (result.mode, result.size) == (expected, (520, 384))
    np.testing.assert_array_equal(np.asarray(result), up(np.asarray(image.convert(expected))))


def test_deep_pil_image(make: Any, photo: np.ndarray) -> None:
    gray = photo[:, :, 0].astype(np.uint16) * 257
    result = make(kernel_width=1.0)(Image.fromarray(gray))
    assert result.mode == "I;16"
    assert np.asarray(result).max() > 255


def test_a_predictor_in_onnx_is_refused_by_that_name(make: Any, tmp_path: Path) -> None:
    (tmp_path / "predictor.onnx").touch()
    with pytest.raises(UsageError, match=r"predictor '.*predictor\.onnx' is an ONNX file.*give the \.safetensors file"):
        make(predictor=tmp_path / "predictor.onnx")


def test_tiny_pictures_are_padded(make: Any) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    up = make(kernel_width=1.0)
    padded = np.pad(picture, ((0, 5), (0, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(up(picture), up(padded)[:12, :20])
    assert make()(picture[:1, :1]).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"shape \[4, 4, 5\]"),
        (np.zeros((0, 4), np.uint8), r"shape \[0, 4\]"),
        (np.zeros((9, 9), np.int32), "int32: give uint8"),
        (np.full((9, 9), 255.0), "scale them to"),
        (np.full((9, 9), np.nan), "scale them to"),
        (torch.zeros(1, 9, 9), r"\[1, 9, 9\]: give a float tensor"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), "uint8"),
        (torch.full((3, 9, 9), 2.0), "scale them to"),
        (Image.new("F", (9, 9)), "mode F"),
        ("photo.png", "cannot enlarge a str"),
    ],
)
def test_what_is_no_picture_is_refused(make: Any, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(kernel_width=1.0)(image)


class Blocks(nn.Module):
    """A renderer of nobody's: every pixel becomes a square."""

    scale, code_length, receptive_radius = 4, 10, 0

    def forward(self, lr: Tensor, code: Tensor) -> Tensor:
        return lr.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_any_module_can_render(photo: np.ndarray) -> None:
    up = Upscaler(Blocks(), kernel_width=1.0, device="cpu", precision="fp32")
    assert up.model == "Blocks"
    result = up.upscale(photo, max_memory=12e6)
    assert result.tiles > 1
    np.testing.assert_array_equal(result.pixels, photo.repeat(4, 0).repeat(4, 1))
    predicted = Upscaler(Blocks(), device="cpu", precision="fp32").upscale(photo)  # by the released predictor of x4
    np.testing.assert_array_equal(predicted.pixels, result.pixels)
    with pytest.raises(UsageError, match="Blocks is for scale 4, not 2"):
        Upscaler(Blocks(), scale=2, device="cpu")
    lost = Blocks()
    lost.forward = lambda lr, code: (lr - lr.max()).log().repeat_interleave(4, 2).repeat_interleave(4, 3)  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="renderer 'Blocks' makes numbers of this picture that are not finite"):
        Upscaler(lost, kernel_width=1.0, device="cpu", precision="fp32").upscale(photo)
    silent = Blocks()
    silent.receptive_radius = None  # type: ignore[assignment]
    with pytest.raises(UsageError, match="Blocks has no whole number receptive_radius"):
        Upscaler(silent, device="cpu")
