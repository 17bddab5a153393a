"""Kernels, their code, blur and reduction, each against a reference written another way."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image

from sr_env.degradation import (
    ANISOTROPIC_WIDTHS,
    ISOTROPIC_WIDTHS,
    REPORTED_WIDTHS,
    Degradation,
    KernelBasis,
    anisotropic_kernels,
    available_families,
    basis_path,
    bicubic_resize,
    blur,
    gaussian_taps,
    isotropic_kernels,
    kernel_family,
    load_basis,
    quantize,
    soften,
)
from sr_env.models.checkpoint import RELEASED, read_card

SCALES = (2, 3, 4)


def family(kind: str, scale: int, count: int, seed: int = 0) -> torch.Tensor:
    """Kernels drawn from a family at random, [count, K, K]."""
    return Degradation(scale, kind).draw(np.random.default_rng(seed).random((count, 3))).kernels  # type: ignore[arg-type]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


# -------------------------------------------------------------------------------------------------------------- kernels


def test_reported_widths_are_among_those_trained_on() -> None:
    assert REPORTED_WIDTHS[4] == (0.2, 1.3, 2.6)  # Table 1 of the supplement
    for scale in SCALES:
        low, high = ISOTROPIC_WIDTHS[scale]
        assert low <= min(REPORTED_WIDTHS[scale]) < max(REPORTED_WIDTHS[scale]) <= high
        assert max(REPORTED_WIDTHS[scale]) / scale == pytest.approx(2.6 / 4)


def gaussian_by_hand(width_x: float, width_y: float, angle: float, size: int = 21) -> np.ndarray:
    """The density exp(-0.5 d' C^-1 d) with the covariance C = R diag(wx^2, wy^2) R', one pixel at a time."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([width_x**2, width_y**2]) @ turn.T)
    kernel = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            d = np.array([column - size // 2, row - size // 2])
            kernel[row, column] = math.exp(-0.5 * d @ inverse @ d)
    return kernel / kernel.sum()


@pytest.mark.parametrize(("wx", "wy", "angle"), [(4.0, 1.0, 0.0), (2.0, 0.7, 0.6), (5.0, 0.6, 2.5), (1.5, 1.5, 1.0)])
def test_anisotropic_kernel_is_the_density_of_its_covariance(wx: float, wy: float, angle: float) -> None:
    kernel = anisotropic_kernels(torch.tensor([[wx, wy]], dtype=torch.float64), torch.tensor([angle]).double())[0]
    np.testing.assert_allclose(kernel.numpy(), gaussian_by_hand(wx, wy, angle), atol=1e-7)


@pytest.mark.parametrize("width", [0.2, 1.3, 2.6, 4.0])
def test_isotropic_kernel_is_the_density_of_its_width(width: float) -> None:
    kernel = isotropic_kernels(torch.tensor([width]))[0]
    np.testing.assert_allclose(kernel.numpy(), gaussian_by_hand(width, width, 0.0), atol=1e-6)
    taps = gaussian_taps(torch.tensor([width]))[0]
    np.testing.assert_allclose(torch.outer(taps, taps).numpy(), kernel.numpy(), atol=1e-7)


@pytest.mark.parametrize("kind", available_families())
@pytest.mark.parametrize("scale", SCALES)
def test_kernels_sum_to_one_and_are_symmetric(kind: str, scale: int) -> None:
    kernels = family(kind, scale, 64)
    assert kernels.dtype == torch.float32
    assert kernels.shape == (64, *(kernel_family(kind).size,) * 2)
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(64), atol=1e-6, rtol=0)
    torch.testing.assert_close(kernels, kernels.flip(1, 2), atol=1e-6, rtol=0)  # a half turn
    if kind == "isotropic":
        torch.testing.assert_close(kernels, kernels.mT, atol=1e-7, rtol=0)
        torch.testing.assert_close(kernels, kernels.flip(1), atol=1e-7, rtol=0)


def test_angle_is_measured_from_the_x_axis() -> None:
    widths = torch.tensor([[4.0, 1.0]]).repeat(3, 1)
    flat, upright, diagonal = anisotropic_kernels(widths, torch.tensor([0.0, math.pi / 2, math.pi / 4]))
    offsets = torch.arange(21) - 10.0

    def moments(kernel: torch.Tensor) -> tuple[float, float, float]:
        x, y = offsets[None, :], offsets[:, None]
        return float((kernel * x**2).sum()), float((kernel * y**2).sum()), float((kernel * x * y).sum())

    along_x, along_y, mixed = moments(flat)
    assert along_x > 8 * along_y  # broad along x, the last axis
    assert abs(mixed) < 1e-5
    torch.testing.assert_close(upright, flat.mT, atol=1e-6, rtol=0)
    assert moments(diagonal)[2] > 3  # x and y (downwards) grow together


def test_draw_fills_the_stated_ranges() -> None:
    uniforms = np.random.default_rng(0).random((4000, 3))
    for scale in SCALES:
        drawn = Degradation(scale).draw(uniforms)
        low, high = ISOTROPIC_WIDTHS[scale]
        width = drawn.widths[:, 0].numpy()
        np.testing.assert_allclose(width, low + (high - low) * uniforms[:, 0], rtol=1e-6)
        assert (drawn.widths[:, 0] == drawn.widths[:, 1]).all()
        assert (drawn.angles == 0).all()
        assert drawn.taps is not None
    drawn = Degradation(4, "anisotropic").draw(uniforms)
    low, high = ANISOTROPIC_WIDTHS
    assert low <= drawn.widths.min() < low + 0.01
    assert high - 0.01 < drawn.widths.max() <= high
    assert drawn.angles.min() >= 0
    assert math.pi - 0.01 < drawn.angles.max() < math.pi
    assert abs(float(np.corrcoef(drawn.widths.T.numpy())[0, 1])) < 0.05  # the two widths are drawn apart
    assert drawn.taps is None
    chosen = Degradation(4, widths=(1.0, 1.5)).draw(uniforms).widths
    assert 1.0 <= chosen.min() < chosen.max() <= 1.5


# ------------------------------------------------------------------------------------------------------ the kernel code


@pytest.mark.parametrize("scale", SCALES)
def test_pca_round_trip_of_the_isotropic_family(scale: int) -> None:
    basis = load_basis("isotropic", scale)
    kernels = isotropic_kernels(torch.linspace(*ISOTROPIC_WIDTHS[scale], 777))
    back = basis.decode(basis.encode(kernels))
    assert basis.code_length == 10
    assert basis.kernel_size == 21
    assert (back - kernels).abs().max() <= 1e-3
    torch.testing.assert_close(back.sum((1, 2)), torch.ones(777), atol=1e-4, rtol=0)


def test_pca_round_trip_of_the_anisotropic_family() -> None:
    """Ten components cannot hold it all, but must hold 95 % of its variance."""
    basis, kernels = load_basis("anisotropic"), family("anisotropic", 4, 500, seed=5)
    error = (basis.decode(basis.encode(kernels)) - kernels).square().sum()
    assert error < 0.05 * (kernels - kernels.mean(0)).square().sum()


@pytest.mark.parametrize(("kind", "scale"), [("isotropic", 2), ("isotropic", 3), ("isotropic", 4), ("anisotropic", 4)])
def test_basis_is_the_principal_subspace(kind: str, scale: int) -> None:
    """Against numpy's SVD of fresh samples: orthonormal, ordered, and no other ten components explain more."""
    basis = load_basis(kind, scale)  # type: ignore[arg-type]
    torch.testing.assert_close(basis.components @ basis.components.T, torch.eye(10), atol=1e-4, rtol=0)
    flat = family(kind, scale, 3000, seed=7).flatten(1).double().numpy()
    centred = flat - basis.mean.double().numpy()
    kept = np.linalg.norm(centred @ basis.components.double().numpy().T) ** 2
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    assert kept > 0.999 * (singular[:10] ** 2).sum()
    deviation = (centred @ basis.components.double().numpy().T).std(0)
    assert (deviation[1:] < 1.05 * deviation[:-1]).all()  # up to the noise of fresh samples: falling


@pytest.mark.parametrize(("kind", "scale"), [("isotropic", 2), ("isotropic", 3), ("isotropic", 4), ("anisotropic", 2)])
def test_code_and_action_round_trip(kind: str, scale: int) -> None:
    basis = load_basis(kind, scale)  # type: ignore[arg-type]
    codes = basis.encode(family(kind, scale, 2000))
    actions = basis.to_action(codes)
    assert actions.abs().max() <= 0.83  # the anisotropic family was sampled, not swept, when its range was measured
    assert actions.abs().amax(0)[:3].min() > 0.5
    torch.testing.assert_close(basis.to_code(actions), codes, atol=1e-5, rtol=1e-5)
    uniform = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (50, 10))).float()
    torch.testing.assert_close(basis.to_action(basis.to_code(uniform)), uniform, atol=1e-5, rtol=0)
    # Unit variance in the leading components; those with next to no variance are not blown up to it.
    assert 0.5 < codes[:, 0].std() < 2
    assert codes[:, -1].std() < 0.5 or kind == "anisotropic"


def test_fit_does_not_depend_on_the_order_of_the_samples() -> None:
    widths = torch.linspace(0.2, 4.0, 400, dtype=torch.float64)
    one = KernelBasis.fit(isotropic_kernels(widths))
    two = KernelBasis.fit(isotropic_kernels(widths.flip(0)))
    torch.testing.assert_close(one.components[:4], two.components[:4], atol=1e-5, rtol=0)
    torch.testing.assert_close(one.half_range, two.half_range, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("kind", "scale"), [("isotropic", 4), ("anisotropic", 3)])
def test_basis_loads_bit_identical_in_another_process(kind: str, scale: int) -> None:
    basis = load_basis(kind, scale)  # type: ignore[arg-type]
    code = (
        "import scipy.linalg, scipy.ndimage\n"  # another linear algebra library, loaded first
        "import numpy as np; scipy.linalg.eigh(np.eye(3))\n"
        "from sr_env.degradation import load_basis\n"
        f"basis = load_basis({kind!r}, {scale})\n"
        "print(basis.digest)\n"
        "print(b''.join(v.numpy().tobytes() for _, v in sorted(basis.state_dict().items())).hex())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == basis.digest
    assert bytes.fromhex(told[1]) == b"".join(v.numpy().tobytes() for _, v in sorted(basis.state_dict().items()))


def test_digest_follows_the_bytes_and_matches_the_shipped_renderer() -> None:
    basis = load_basis("isotropic", 4)
    state = {name: value.clone() for name, value in basis.state_dict().items()}
    assert KernelBasis.from_state(state).digest == basis.digest
    state["components"][3, 200] = torch.nextafter(state["components"][3, 200], torch.tensor(9.0))
    assert KernelBasis.from_state(state).digest != basis.digest
    assert len({load_basis(kind, scale).digest for kind in available_families() for scale in SCALES}) == 7
    if (RELEASED / "amnet_l_x4.safetensors").is_file():
        assert read_card("amnet_l_x4")["basis"] == basis.digest


def test_every_family_has_its_file() -> None:
    assert all(basis_path(kind, scale).is_file() for kind in available_families() for scale in SCALES)


# --------------------------------------------------------------------------------------------------- blur and reduction


@pytest.mark.parametrize("kind", available_families())
def test_blur_is_scipy_convolution_with_the_nearest_border(kind: str) -> None:
    images, kernels = noise(3, 3, 37, 50), family(kind, 4, 3)
    out = blur(images, kernels).numpy()
    for image, kernel, blurred in zip(images.numpy(), kernels.numpy(), out, strict=True):
        for channel in range(3):
            wanted = scipy.ndimage.convolve(image[channel].astype(np.float64), kernel, mode="nearest")
            np.testing.assert_allclose(blurred[channel], wanted, atol=2e-6)


def test_blur_of_an_image_smaller_than_the_kernel() -> None:
    image, kernel = noise(1, 1, 8, 9), isotropic_kernels(torch.tensor([3.0]))
    wanted = scipy.ndimage.convolve(image[0, 0].double().numpy(), kernel[0].double().numpy(), mode="nearest")
    np.testing.assert_allclose(blur(image, kernel)[0, 0].numpy(), wanted, atol=2e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_bicubic_reduction_is_pils_of_float_images(scale: int) -> None:
    image = noise(1, 1, 24 * scale, 31 * scale)
    wanted = Image.fromarray(image[0, 0].numpy(), mode="F").resize((31, 24), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(bicubic_resize(image, (24, 31))[0, 0].numpy(), np.asarray(wanted), atol=1e-5)


@pytest.mark.parametrize("reduction", ["bicubic", "decimate"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["isotropic", "anisotropic"])
def test_degradation_is_scipy_blur_then_pil_reduction_then_8_bit(kind: str, scale: int, reduction: str) -> None:
    """The whole path from outside libraries alone, in 8-bit levels; a level off only where it rounds at a half."""
    degradation = Degradation(scale, kind, reduction)  # type: ignore[arg-type]
    hr = noise(2, 3, 20 * scale, 16 * scale)
    kernels = degradation.draw(np.random.default_rng(1).random((2, 3)))
    lr = degradation(hr, kernels)
    assert lr.dtype == torch.float32
    assert lr.shape == (2, 3, 20, 16)
    exact = np.empty(lr.shape)
    for b in range(2):
        for c in range(3):
            blurred = scipy.ndimage.convolve(hr[b, c].numpy(), kernels.kernels[b].numpy(), mode="nearest")
            if reduction == "decimate":
                exact[b, c] = blurred[::scale, ::scale]
            else:
                exact[b, c] = Image.fromarray(blurred, mode="F").resize((16, 20), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(degradation.reduce(hr, kernels).numpy(), exact, atol=1e-5)
    levels = lr.numpy() * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    assert np.abs(levels - exact.clip(0, 1) * 255).max() <= 0.5 + 1e-2


@pytest.mark.parametrize("reduction", ["bicubic", "decimate"])
@pytest.mark.parametrize("scale", SCALES)
def test_separable_operator_is_fft_blur_and_interpolate(scale: int, reduction: str) -> None:
    degradation = Degradation(scale, "isotropic", reduction)  # type: ignore[arg-type]
    hr = noise(4, 3, 12 * scale, 17 * scale)
    kernels = degradation.draw(np.random.default_rng(2).random((4, 3)))
    blurred = blur(hr, kernels.kernels)
    if reduction == "decimate":
        wanted = blurred[:, :, ::scale, ::scale]
    else:
        wanted = F.interpolate(blurred, scale_factor=1 / scale, mode="bicubic", antialias=True)
    torch.testing.assert_close(degradation.reduce(hr, kernels), wanted, atol=5e-6, rtol=0)


@pytest.mark.parametrize("kind", available_families())
def test_every_image_gets_its_own_kernel(kind: str) -> None:
    degradation = Degradation(4, kind)  # type: ignore[arg-type]
    hr = noise(1, 3, 64, 64).repeat(5, 1, 1, 1)
    uniforms = np.random.default_rng(3).random((5, 3))
    together = degradation(hr, degradation.draw(uniforms))
    apart = torch.cat([degradation(hr[:1], degradation.draw(uniforms[i : i + 1])) for i in range(5)])
    # Sums may be ordered differently, and then a value near a half rounds the other way.
    off = (together - apart).abs()
    assert off.max() < 1.001 / 255
    assert (off > 1e-4).float().mean() < 1e-3
    assert (together[0] - together[1]).abs().mean() > 1e-3


def test_soften_is_a_scipy_blur_of_its_own_width_per_image() -> None:
    images, widths = noise(4, 3, 33, 40), torch.tensor([0.0, 0.4, 1.0, 1.5])
    with torch.autocast("cpu", torch.bfloat16):  # as in a training step
        out = soften(images, widths)
    assert torch.equal(out[0], images[0])
    for image, width, softened in zip(images[1:], widths[1:], out[1:], strict=True):
        kernel = gaussian_by_hand(float(width), float(width), 0.0)
        for channel in range(3):
            wanted = scipy.ndimage.convolve(image[channel].double().numpy(), kernel, mode="nearest")
            np.testing.assert_allclose(softened[channel].numpy(), wanted, atol=3e-6)


def test_a_width_of_next_to_nothing_leaves_the_image() -> None:
    hr = noise(1, 3, 16, 16)
    out = Degradation(4, reduction="decimate").reduce(hr, Degradation(4).build(np.array([0.05])))
    torch.testing.assert_close(out, hr[..., ::4, ::4])


@pytest.mark.parametrize("kind", available_families())
def test_autocast_does_not_touch_the_degradation(kind: str) -> None:
    """A training step degrades under autocast; in bf16 the LR image would be off by more than a grey level."""
    degradation, basis = Degradation(4, kind), load_basis(kind, 4)  # type: ignore[arg-type]
    hr, uniforms = noise(2, 3, 64, 64), np.random.default_rng(4).random((2, 3))
    kernels = degradation.draw(uniforms)
    lr, code = degradation(hr, kernels), basis.code_of(kernels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degradation(hr, degradation.draw(uniforms)), lr)
        assert torch.equal(basis.code_of(kernels), code)
        assert basis.decode(code).dtype == torch.float32


def test_reduce_is_differentiable_whatever_ran_before() -> None:
    degradation = Degradation(4)
    hr = noise(1, 3, 44, 52)
    with torch.inference_mode():  # first to see this size: what it leaves behind must not block gradients
        degradation(hr, degradation.build(np.array([1.0])))
    image, widths = hr.clone().requires_grad_(), torch.tensor([1.5], requires_grad=True)
    taps = gaussian_taps(widths)
    kernels = degradation.build(np.array([1.5]))
    kernels = type(kernels)(taps[:, :, None] * taps[:, None], kernels.widths, kernels.angles, taps)
    degradation.reduce(image, kernels).square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert widths.grad is not None
    step = 1e-2
    energy = [
        float(degradation.reduce(hr, degradation.build(np.array([1.5 + s]))).square().sum()) for s in (-step, step)
    ]
    assert float(widths.grad) == pytest.approx((energy[1] - energy[0]) / (2 * step), rel=0.02)


def test_quantize_is_what_saving_to_8_bit_does() -> None:
    values = torch.tensor([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 100.49 / 255, 254.6 / 255, 1.0, 1.7])
    assert (quantize(values) * 255).round().tolist() == [0, 0, 0, 1, 100, 255, 255, 255]
    every = torch.arange(256) / 255
    assert torch.equal(quantize(every), every)
    assert values[0] == pytest.approx(-0.3)  # the argument is left alone


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": 5}, "scale 5.*2, 3, 4"),
        ({"kernels": "motion"}, "'motion'.*isotropic, anisotropic"),
        ({"reduction": "area"}, "'area'.*bicubic, decimate"),
        ({"widths": (0.0, 2.0)}, r"0 < low <= high"),
        ({"widths": (3.0, 2.0)}, r"\(3.0, 2.0\)"),
        ({"widths": (float("nan"), 2.0)}, "not a range"),
        ({"widths": (1.0, float("inf"))}, "not a range"),
    ],
)
def test_bad_settings_name_the_valid_ones(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Degradation(**settings)


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_widths(width: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        Degradation(4).build(np.array([1.0, width]))


def test_bad_size_and_names() -> None:
    with pytest.raises(ValueError, match="30x32 is not divisible by scale 4"):
        Degradation(4)(noise(1, 3, 30, 32), Degradation(4).build(np.array([1.0])))
    with pytest.raises(ValueError, match="isotropic, anisotropic"):
        load_basis("box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2, 3, 4"):
        load_basis("isotropic", 8)
    with pytest.raises(ValueError, match="lacks centre, half_range"):
        KernelBasis.from_state({name: torch.zeros(1) for name in ("mean", "components", "scale")})
