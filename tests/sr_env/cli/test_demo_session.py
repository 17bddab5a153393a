"""What the page renders is what the upscaler renders, and what cannot be opened is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_env import Upscaler
from sr_env.cli import demo_session as module
from sr_env.cli.demo_session import BLEND, DETAIL, Studio, View, write_examples
from sr_env.degradation import bicubic_resize, isotropic_kernels
from sr_env.metrics import create_metric
from sr_env.utils.checks import UsageError
from sr_env.utils.images import to_images


@pytest.fixture(scope="module")
def studio(tiny_renderer: Path, textures: tuple[Path, Path]) -> Studio:
    return Studio(str(tiny_renderer), device="cpu", precision="fp32", max_pixels=100_000)


@pytest.fixture
def photo(random_photos: list[np.ndarray], tmp_path: Path) -> Path:
    Image.fromarray(random_photos[0][:40, :52]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def opened(studio: Studio, photo: Path) -> View:
    return studio.open(photo, None, studio.model)


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_predicted_kernel_gives_the_upscalers_picture(studio: Studio, opened: View, photo: Path) -> None:
    own = Upscaler(studio.model, device="cpu", precision="fp32").upscale(pixels(photo))
    shown = studio.show(opened)
    np.testing.assert_array_equal(shown.after, own.pixels)
    assert shown.width == pytest.approx(own.widths[0])
    bicubic = bicubic_resize(to_images(pixels(photo)[None]), (160, 208)).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(shown.before / 255 - bicubic).max() <= 0.5 / 255 + 1e-6
    assert shown.bars is None
    assert shown.values == {}


def test_moving_the_kernel(studio: Studio, opened: View) -> None:
    basis = studio.upscaler(studio.model).basis
    moved = studio.with_width(opened, 2.5)
    np.testing.assert_allclose(moved.code, basis.encode(isotropic_kernels(torch.tensor([2.5])))[0], atol=1e-6)
    moved = replace(moved, shifts=(0.5, 0.0, -1.0))
    np.testing.assert_allclose(moved.code - moved.base, [0.5, 0, -1, *[0] * 7], atol=1e-6)
    assert studio.show(studio.with_width(opened, 2.5)).width == pytest.approx(2.5, abs=0.02)
    first, second = studio.show(opened), studio.show(moved)
    np.testing.assert_array_equal(first.before, second.before)
    assert np.abs(first.after.astype(int) - second.after).max() > 5
    assert (first.kernel != second.kernel).any()
    with pytest.raises(ValueError, match=r"kernel width 9: give 0\.2 to 4\.0"):
        studio.with_width(opened, 9)


def test_moving_the_share_of_noise(photo: Path, tiny_real: dict[str, str]) -> None:
    studio = Studio(tiny_real["renderer"], device="cpu", precision="fp32")
    view = studio.open(photo, None, studio.model)
    assert (view.denoise, view.widths) == (1.0, (0.2, 9.0))
    for share in (0.0, 0.4, 1.0):
        own = Upscaler(tiny_real["renderer"], denoise=share, device="cpu", precision="fp32").upscale(pixels(photo))
        moved = studio.with_denoise(view, share)
        np.testing.assert_allclose(moved.code, own.codes[0], atol=1e-6)
        assert np.abs(studio.show(moved).after.astype(int) - own.pixels).max() <= 1
        assert studio.open(photo, None, studio.model, denoise=share).denoise == share
    assert "JPEG of quality" in studio.show(view).text
    assert studio.with_width(view, 8.0).code[-3:] == pytest.approx(view.code[-3:])
    with pytest.raises(UsageError, match=r"denoise 2: give a share from 0 to 1$"):
        studio.with_denoise(view, 2)


def test_moving_the_texture(studio: Studio, opened: View, photo: Path, textures: tuple[Path, Path]) -> None:
    view = studio.open(photo, None, BLEND)
    assert (view.texture, opened.texture) == (1.0, None)
    options = {"device": "cpu", "precision": "fp32"}
    for texture, path in zip((0, 1), textures, strict=True):
        own = Upscaler(path, **options)(pixels(photo))
        np.testing.assert_array_equal(studio.show(studio.with_texture(view, texture)).after, own)
    between = studio.open(photo, None, BLEND, 0.5)
    shown = studio.show(between)
    own = Upscaler(texture=0.5, **options)(pixels(photo))
    np.testing.assert_array_equal(shown.after, own)
    assert studio.show(view).after.tobytes() != shown.after.tobytes()  # each view keeps its texture
    studio.write_whole(between, photo.with_name("whole.png"))
    np.testing.assert_array_equal(pixels(photo.with_name("whole.png")), own)
    with pytest.raises(UsageError, match="choose AMNet to AMGAN"):
        studio.with_texture(opened, 0.5)
    with pytest.raises(UsageError, match=r"denoise 0\.5: give a share from 0 to 1; .* knows of no noise"):
        studio.with_denoise(opened, 0.5)
    with pytest.raises(UsageError, match="texture 9: give 0"):
        studio.with_texture(view, 9)
    with pytest.raises(UsageError, match="texture nan: give 0"):
        studio.open(photo, None, BLEND, float("nan"))


@pytest.mark.parametrize("centre", [(0, 0), (100, 110), (255, 170)])
def test_detail_is_part_of_the_whole(
    studio: Studio, random_photos: list[np.ndarray], tmp_path: Path, centre: tuple[int, int]
) -> None:
    Image.fromarray(random_photos[2]).save(tmp_path / "large.png")  # 256 x 180
    view = replace(studio.open(tmp_path / "large.png", None, studio.model), centre=centre)
    rows, columns = view.detail
    assert (rows.stop - rows.start, columns.stop - columns.start) == (DETAIL, DETAIL)
    whole = studio.upscaler(studio.model).upscale(view.lr, code=view.code).pixels
    shown = studio.show(view).after
    expected = whole[4 * rows.start : 4 * rows.stop, 4 * columns.start : 4 * columns.stop]
    assert np.abs(shown.astype(int) - expected).max() <= 1
    assert "A part is shown" in studio.show(view).text


def test_metrics_against_the_truth(studio: Studio, photo: Path, tmp_path: Path) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (160, 208, 3), dtype=np.uint8)
    Image.fromarray(truth).save(tmp_path / "truth.png")
    shown = studio.show(studio.open(photo, tmp_path / "truth.png", studio.model))
    assert set(shown.values) == set(module.METRICS)
    for name, (before, after) in shown.values.items():
        metric = create_metric(name, border=4)
        for picture, value in ((shown.before, before), (shown.after, after)):
            assert float(metric(to_images(picture[None]), to_images(truth[None]))) == pytest.approx(value, rel=1e-4)
    assert shown.bars is not None


def test_tiny_pictures_leave_out_what_needs_more_pixels(studio: Studio, tmp_path: Path) -> None:
    Image.new("RGB", (8, 9)).save(tmp_path / "lr.png")
    Image.new("RGB", (32, 36)).save(tmp_path / "hr.png")
    shown = studio.show(studio.open(tmp_path / "lr.png", tmp_path / "hr.png", studio.model))
    assert shown.after.shape == (36, 32, 3)
    assert "psnr" in shown.values
    assert shown.bars is not None


@pytest.mark.parametrize(
    ("size", "truth", "message"),
    [
        (None, None, r"^cannot read the image 'a\.png': not a picture"),
        ((1, 1), None, r"^'a\.png' has 1x1 pixels: give 8 or more"),
        ((400, 300), None, r"^'a\.png' has 400x300 pixels, over the limit of 0\.1 megapixels: .*--max-pixels 120000,"),
        ((20, 30), (2000, 1000), r"^'b\.png' has .*over the limit of 1\.6 megapixels: .*--max-pixels 125000,"),
        ((20, 30), (80, 119), r"^the ground truth has 80x119 pixels, the result 80x120"),
    ],
)
def test_what_cannot_be_opened(
    studio: Studio, tmp_path: Path, size: tuple[int, int] | None, truth: tuple[int, int] | None, message: str
) -> None:
    if size is None:
        (tmp_path / "a.png").write_text("not a picture")
    else:
        Image.new("RGB", size).save(tmp_path / "a.png")
    if truth is not None:
        Image.new("RGB", truth).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=message) as caught:
        studio.open(tmp_path / "a.png", None if truth is None else tmp_path / "b.png", studio.model)
    assert str(tmp_path) not in str(caught.value)


def test_only_offered_models(studio: Studio, photo: Path, tmp_path: Path) -> None:
    shutil.copy(studio.model, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="unknown model"):
        studio.open(photo, None, str(tmp_path / "other.safetensors"))
    assert {BLEND, "amgan_x4", "amnet_l_x2"} < set(studio.models)


def test_whole_picture_keeps_alpha_and_depth(studio: Studio, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 24, 4), dtype=np.uint8), "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(rng.integers(0, 65536, (20, 24), dtype=np.uint16)).save(tmp_path / "deep.png")
    for name, mode in (("rgba", "RGBA"), ("deep", "I;16")):
        view = studio.with_width(studio.open(tmp_path / f"{name}.png", None, studio.model), 1.5)
        studio.write_whole(view, tmp_path / "out" / f"{name}.png")
        result = Image.open(tmp_path / "out" / f"{name}.png")
        assert (result.size, result.mode) == ((96, 80), mode)
    own = Upscaler(studio.model, device="cpu", precision="fp32", kernel_width=1.5)(pixels(tmp_path / "rgba.png"))
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "rgba.png"), own)


def test_examples(tmp_path: Path) -> None:
    for lr, hr in write_examples(tmp_path, 4):
        small, large = pixels(lr), pixels(hr)
        assert large.shape == (4 * small.shape[0], 4 * small.shape[1], 3)
        assert small.shape[0] * small.shape[1] < 160 * 110  # all of it is shown at once
        assert np.abs(large[::4, ::4].astype(float) - small).mean() < 25


def test_wrong_limit(tiny_renderer: Path) -> None:
    with pytest.raises(UsageError, match="leave no photograph"):
        Studio(str(tiny_renderer), max_pixels=9)
