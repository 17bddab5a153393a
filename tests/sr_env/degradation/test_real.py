"""Blur, noise and compression as people have them: what is drawn, that each does what it says, and the longer code."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from sr_env.degradation import LEVELS, Corruption, Degradation, KernelBasis, Kernels, level_values, load_basis
from sr_env.degradation.corruption import WAYS, hashed_noise, hashed_uniforms
from sr_env.degradation.jpeg import compress, table_factor, table_quality
from sr_env.degradation.real import SHAPES
from sr_env.utils.checks import UsageError

UNIFORMS = np.random.default_rng(0).random((4000, 3))


def nothing(count: int = 1) -> Corruption:
    """A corruption that only reduces, bicubically."""
    return Corruption.nothing(torch.arange(count))


def drawn(count: int = 4000) -> Kernels:
    return Degradation(4, "real").draw(UNIFORMS[:count])


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
def test_jpeg_is_what_pillow_makes(quality: int) -> None:
    photo = data.astronaut()[100:228, 150:270]
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality, subsampling=2)
    wanted = np.asarray(Image.open(buffer)).astype(float)
    images = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    found = compress(images, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(found - found.round()).max() < 1e-3
    assert np.abs(found - wanted).mean() < 0.35 * np.abs(photo - wanted).mean()
    assert np.abs(found - wanted).mean() < 0.8


def test_quality_and_tables_are_each_others_inverse() -> None:
    quality = torch.arange(1.0, 101.0)
    torch.testing.assert_close(table_quality(table_factor(quality)), quality)
    assert table_factor(torch.tensor([50.0, 100.0, 25.0])).tolist() == [100, 0, 200]


def test_blocks_begin_where_those_of_the_larger_photograph_do() -> None:
    photo = torch.from_numpy(data.astronaut()[:80, :80]).permute(2, 0, 1)[None].float() / 255
    whole = compress(photo, torch.tensor([50.0]))
    crop = replace(nothing(), quality=torch.tensor([50.0]), phase=torch.tensor([[11, 6]]))
    found = crop.apply(photo[..., 11:, 6:])
    inside = (..., slice(6, 52), slice(11, 57))  # whole blocks of colour, whose edges look beyond
    torch.testing.assert_close(found[inside], whole[..., 11:, 6:][inside], atol=1.1 / 255, rtol=0)
    assert (compress(photo[..., 11:, 6:], torch.tensor([50.0]))[inside] - found[inside]).abs().max() > 5 / 255


def test_the_same_seed_gives_the_same_picture_in_every_batch() -> None:
    degradation = Degradation(4, "real")
    hr = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = degradation(hr, degradation.draw(UNIFORMS[:8]))
    torch.testing.assert_close(degradation(hr[5:6], degradation.draw(UNIFORMS[5:6])), lr[5:6], atol=1e-6, rtol=0)
    assert (lr * 255 - (lr * 255).round()).abs().max() < 1e-4
    other = degradation(hr, degradation.draw(UNIFORMS[8:16]))
    assert ((other - lr).abs().amax((1, 2, 3)) > 0.02).all()


def test_everything_is_drawn_as_often_as_it_says() -> None:
    corruption = drawn().corruption
    assert corruption is not None
    shares = torch.bincount(corruption.way, minlength=len(WAYS)) / 4000
    torch.testing.assert_close(shares, torch.tensor(list(WAYS.values())), atol=0.03, rtol=0)
    for values, share, low, high in (
        (corruption.noise, 0.6, 0, 15),
        (corruption.quality, 0.65, 40, 100),
        (corruption.sharpening, 0.25, 0, 1.5),
    ):
        there = values[values > 0]
        assert len(there) / 4000 == pytest.approx(share, abs=0.03)
        assert low <= there.min()
        assert 0.97 * high < there.max() <= high
    assert float(corruption.gray.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert corruption.phase.unique().tolist() == list(range(16))
    columns = torch.stack([corruption.noise, corruption.quality, corruption.sharpening, corruption.shot])
    assert (torch.corrcoef(columns) - torch.eye(4)).abs().max() < 0.06


def test_widths_are_those_of_the_kernels_whatever_their_shape() -> None:
    kernels = drawn(400)
    offsets = torch.arange(49.0) - 24
    spread = (kernels.kernels * (offsets[:, None].square() + offsets.square())).sum((1, 2)).sqrt()
    stated = kernels.widths.square().sum(1).sqrt()
    wide = (stated > 2) & (kernels.widths[:, 0] < 8)  # narrower ones are rounded by the grid, wider ones cut off
    torch.testing.assert_close(spread[wide], stated[wide], rtol=0.06, atol=0)
    peaks = kernels.kernels.amax((1, 2)) * stated.square()  # a disc is flat, a Gaussian is not
    assert peaks[wide].std() > 0.02
    assert kernels.widths.min() >= 0.199
    assert float(drawn().widths.max()) == pytest.approx(10, abs=0.05)
    assert sum(SHAPES.values()) == pytest.approx(1)


def test_no_way_of_reducing_shifts_the_picture() -> None:
    ramp = torch.linspace(0, 1, 64).expand(4, 3, 64, 64).contiguous()
    ways = replace(nothing(4), way=torch.arange(4))
    reduced = ways.reduce(ramp, 4)
    assert reduced.shape == (4, 3, 16, 16)
    wanted = ramp[..., ::4, :].unflatten(-1, (16, 4)).mean(-1)
    torch.testing.assert_close(reduced[..., 3:-3], wanted[..., 3:-3], atol=1e-5, rtol=0)
    noise = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))[:1].expand(4, -1, -1, -1)
    different = ways.reduce(noise, 4)
    assert all((different[i] - different[j]).abs().mean() > 1e-3 for i in range(4) for j in range(i))


def test_noise_has_its_level_its_light_and_its_colour() -> None:
    lr = torch.cat((torch.full((2, 3, 64, 64), 0.5), torch.full((2, 3, 64, 64), 0.125)))
    levels = replace(
        nothing(4), seed=torch.arange(4), noise=torch.full((4,), 8.0), shot=torch.tensor([0.0, 1.0, 0.0, 1.0])
    )
    noise = (levels.apply(lr) - lr) * 255
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([8, 8, 8, 4], rel=0.03)  # Poisson's at a quarter of the light
    assert noise.mean((1, 2, 3)).abs().max() < 0.3
    assert (noise[0, 0] - noise[0, 1]).std() > 8
    gray = (replace(levels, gray=torch.ones(4, dtype=torch.bool)).apply(lr) - lr) * 255
    torch.testing.assert_close(gray[:, 0], gray[:, 1])
    assert torch.equal(nothing(4).apply(lr), lr)


def test_hashed_numbers_look_random() -> None:
    noise = hashed_noise(torch.arange(50), 4001)
    assert noise.shape == (50, 4001)
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float((noise.abs() > 1.96).float().mean()) == pytest.approx(0.05, abs=0.004)
    assert (torch.corrcoef(noise) - torch.eye(50)).abs().max() < 0.08
    assert (torch.corrcoef(torch.stack((noise[0, :-1], noise[0, 1:]))) - torch.eye(2)).abs().max() < 0.08
    u = hashed_uniforms(torch.tensor([0, 1, 2**32 - 1]), 1000)
    assert 0 < u.min() < 0.01
    assert 0.99 < u.max() < 1


def test_a_longer_code_says_noise_compression_and_sharpening() -> None:
    basis, kernels = load_basis("real", 4), drawn(500)
    assert kernels.corruption is not None
    code = basis.code_of(kernels)
    assert code.shape == (500, basis.code_length) == (500, 15 + len(LEVELS))
    values = level_values(code[:, 15:])
    torch.testing.assert_close(values["noise"], kernels.corruption.noise)
    torch.testing.assert_close(values["sharpening"], kernels.corruption.sharpening)
    compressed = kernels.corruption.quality > 0
    torch.testing.assert_close(values["quality"][compressed], kernels.corruption.quality[compressed])
    assert (values["quality"][~compressed] == 100).all()
    assert basis.to_action(code).abs().max() < 0.85
    torch.testing.assert_close(basis.to_code(basis.to_action(code)), code, atol=1e-5, rtol=0)
    # A code without levels is that of a clean picture, and the kernel comes back whatever the levels.
    clean = basis.encode(kernels.kernels)
    assert (clean[:, 15:] == 0).all()
    assert torch.equal(basis.decode(code), basis.decode(clean))
    error = (basis.decode(code) - kernels.kernels).flatten(1).norm(dim=1) / kernels.kernels.flatten(1).norm(dim=1)
    assert error.mean() < 0.2


def test_a_basis_of_levels_survives_its_file_and_a_damaged_one_is_refused() -> None:
    basis = load_basis("real", 2)
    assert KernelBasis.from_state(basis.state_dict()).digest == basis.digest
    with pytest.raises(UsageError, match=r"half_range of shape \[17\], not \[18\]"):
        KernelBasis.from_state({**basis.state_dict(), "half_range": basis.half_range[:-1]})
    assert load_basis("isotropic").levels == 0
    assert load_basis("isotropic").lengthened([3.0]).code_length == 11


def test_kernels_by_width_keep_to_what_is_said() -> None:
    degradation = Degradation(4, "real")
    built = degradation.build(np.array([6.0, 0.5]))
    assert built.kernels.shape == (2, 49, 49)
    assert built.corruption is None
    with pytest.raises(UsageError, match=r"under 49"):
        degradation.build(np.array([50.0]))
    assert degradation.given(np.ones((1, 31, 31))).kernels.shape == (1, 49, 49)
    with pytest.raises(UsageError, match=r"at most 21"):
        Degradation(4).given(np.ones((1, 31, 31)))
