"""Kernel families of users' own, and kernels of no family."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_env.degradation import (
    Degradation,
    KernelBasis,
    KernelFamily,
    anisotropic_kernels,
    available_families,
    families,
    family_of,
    isotropic_kernels,
    kernel_family,
    load_basis,
    register_family,
)
from sr_env.utils.checks import UsageError


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    monkeypatch.setattr(families, "_SAMPLES", 600)


class Box(KernelFamily):
    """Means over squares whose side is the width, rounded up to odd."""

    name = "box"

    def width_range(self, scale: int) -> tuple[float, float]:
        return 1.0, 2.0 * scale

    def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
        offsets = torch.arange(21, device=widths.device, dtype=widths.dtype) - 10
        taps = (offsets.abs() <= widths[:, :1] / 2).to(widths)
        return (taps[:, :, None] * taps[:, None]) / taps.sum(1)[:, None, None] ** 2


def test_a_registered_family_is_drawn_built_and_applied() -> None:
    register_family(Box)
    assert available_families() == ("isotropic", "anisotropic", "real", "box")
    degradation = Degradation(4, "box", "decimate")
    assert degradation.width_range == (1.0, 8.0)
    kernels = degradation.draw(np.array([[0.0, 0.9, 0.9], [0.5, 0.1, 0.2]]))
    torch.testing.assert_close(kernels.widths, torch.tensor([[1.0, 1.0], [4.5, 4.5]]))
    torch.testing.assert_close(kernels.angles, torch.zeros(2))
    hr = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    lr = degradation.reduce(hr, kernels)
    torch.testing.assert_close(lr[0], hr[0, :, ::4, ::4], atol=1e-5, rtol=0)
    torch.testing.assert_close(lr[1, :, 2, 3], hr[1, :, 6:11, 10:15].mean((1, 2)), atol=1e-5, rtol=0)


def test_its_basis_describes_its_kernels_within_the_range_of_actions() -> None:
    register_family(Box)
    basis = load_basis("box", 2)
    assert load_basis("box", 2) is basis
    kernels = Degradation(2, "box").draw(np.random.default_rng(0).random((50, 3))).kernels
    codes = basis.encode(kernels)
    torch.testing.assert_close(basis.decode(codes), kernels, atol=2e-3, rtol=0)
    assert basis.to_action(codes).abs().max() <= 0.8001
    assert family_of(basis, 2) == "box"
    assert family_of(load_basis("anisotropic", 2), 2) == "anisotropic"
    assert family_of(load_basis("isotropic", 3), 2) is None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_stored_basis_is_the_fit(scale: int) -> None:
    assert kernel_family("isotropic").fit(scale).matches(load_basis("isotropic", scale))


def test_a_basis_matches_itself_but_for_last_bits() -> None:
    basis = load_basis("isotropic", 4)
    state = {name: value * (1 + 1e-5) for name, value in basis.state_dict().items()}
    again = KernelBasis.from_state(state)
    assert again.digest != basis.digest
    assert again.matches(basis)
    assert not basis.matches(load_basis("isotropic", 3))
    assert not basis.matches(KernelBasis.fit(isotropic_kernels(torch.linspace(0.2, 4, 100)), 5))


def test_what_is_no_family_is_refused() -> None:
    class Doubled(Box):
        name = "doubled"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return 2 * super().kernels(widths, angles)

    class Growing(Box):
        name = "growing"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return super().kernels(widths, angles) * (1 + (widths[:, :1, None] > 3))

    class Ringing(Box):
        name = "ringing"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return 2 * super().kernels(widths, angles) - 1 / 441

    class Arrays(Box):
        name = "arrays"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return super().kernels(widths, angles).numpy()  # type: ignore[return-value]

    class Constant(Box):
        name = "constant"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return super().kernels(torch.ones_like(widths), angles)

    class Small(Box):
        name = "small"

        def kernels(self, widths: Tensor, angles: Tensor) -> Tensor:
            return super().kernels(widths, angles)[:, 3:-3, 3:-3]

    class Nameless(Box):
        name = ""

    class Taken(Box):
        name = "isotropic"

    with pytest.raises(UsageError, match="'doubled' makes kernels that sum to 2"):
        register_family(Doubled)
    with pytest.raises(UsageError, match="'growing' makes kernels that sum to 2"):
        register_family(Growing)
    with pytest.raises(UsageError, match=r"'ringing' makes kernels that sum to 1, the lowest weight being -0\.002268"):
        register_family(Ringing)
    with pytest.raises(UsageError, match="all kernels of the family are the same"):
        register_family(Constant)().basis(4)
    with pytest.raises(UsageError, match="'arrays' makes kernels ndarray of one width"):
        register_family(Arrays)
    with pytest.raises(UsageError, match=r"'small' makes kernels \[1, 15, 15\]"):
        register_family(Small)
    with pytest.raises(UsageError, match="Nameless has no name"):
        register_family(Nameless)
    with pytest.raises(UsageError, match="'isotropic' is registered already, Isotropic"):
        register_family(Taken)
    with pytest.raises(UsageError, match=r"unknown kernel family 'box'.*isotropic, anisotropic"):
        kernel_family("box")


def test_importing_the_degradation_needs_neither_agents_nor_metrics() -> None:
    """Pretraining and users with a loop of their own need none of it (Gymnasium comes with the package)."""
    code = (
        "import sys\n"
        "import sr_env.degradation\n"
        "unneeded = {'stable_baselines3', 'tyro', 'lpips', 'piq', 'sr_env.metrics', 'sr_env.envs'}\n"
        "print(*sorted(unneeded & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ------------------------------------------------------------------------------------------------------------- given


def test_given_kernels_are_centred_and_scaled_and_blur_as_given() -> None:
    array = np.zeros((2, 5, 5))
    array[0, 2, 2] = 7.0
    array[1, 2, :] = 1.0  # motion along x
    degradation = Degradation(2, reduction="decimate")
    kernels = degradation.given(array)
    assert kernels.kernels.shape == (2, 21, 21)
    assert kernels.kernels.dtype == torch.float32
    torch.testing.assert_close(kernels.kernels.sum((1, 2)), torch.ones(2))
    hr = torch.rand(2, 3, 24, 26, generator=torch.Generator().manual_seed(0))
    lr = degradation.reduce(hr, kernels)
    torch.testing.assert_close(lr[0], hr[0, :, ::2, ::2], atol=1e-5, rtol=0)
    torch.testing.assert_close(lr[1, :, 3, 4], hr[1, :, 6, 6:11].mean(1), atol=1e-5, rtol=0)


def test_given_kernels_are_correlated_not_turned() -> None:
    array = np.zeros((1, 3, 3))
    array[0, 1, 2] = 1.0  # the pixel to the right
    hr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    degradation = Degradation(2, reduction="decimate")
    lr = degradation.reduce(hr, degradation.given(array))
    torch.testing.assert_close(lr[..., :7], hr[:, :, ::2, 1:15:2], atol=1e-5, rtol=0)


def test_given_kernels_know_their_widths_and_angle() -> None:
    widths, angles = torch.tensor([[2.5, 1.2], [1.5, 1.5]]), torch.tensor([0.7, 0.0])
    kernels = Degradation(4).given(anisotropic_kernels(widths, angles))
    torch.testing.assert_close(kernels.widths, widths, atol=0.02, rtol=0)
    assert float(kernels.angles[0]) == pytest.approx(0.7, abs=1e-3)
    torch.testing.assert_close(kernels.kernels, anisotropic_kernels(widths, angles))
    assert kernels.taps is None


@pytest.mark.parametrize(
    ("kernels", "told"),
    [
        (np.ones((21, 21)), r"shape \[21, 21\] do not fit: give \[B, k, k\]"),
        (np.ones((1, 4, 4)), r"shape \[1, 4, 4\]"),
        (np.ones((1, 23, 23)), r"k odd and at most 21"),
        (np.ones((1, 3, 5)), r"shape \[1, 3, 5\]"),
        (np.ones((0, 3, 3)), r"shape \[0, 3, 3\]"),
        (np.full((1, 3, 3), np.nan), "sums"),
        (np.full((1, 3, 3), np.inf), "sums"),
        (np.zeros((1, 3, 3)), r"sums \[0.0\]"),
        (np.eye(3)[None] - 0.1, "weights from -0.1 to 0.9"),
        ("gauss", "no array of real numbers"),
        ([[["a"]]], "no array of real numbers"),
    ],
)
def test_wrong_given_kernels_are_named(kernels: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Degradation(4).given(kernels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "widths", [2.0, "ab", (1,), (0.2, 50), (0.0, 1.0), (2.0, 1.0), (1, 2, 3), (1, np.nan), (True, 2)]
)
def test_what_is_no_range_of_widths_is_named(widths: object) -> None:
    with pytest.raises(UsageError, match=r"kernel widths .* are not a range: give"):
        Degradation(4, widths=widths)  # type: ignore[arg-type]


def test_widths_and_angles_that_no_kernel_has_are_named() -> None:
    degradation = Degradation(4, "anisotropic")
    for width in (0.0, -1.0, np.nan, np.inf, 99.0):
        with pytest.raises(UsageError, match="kernel widths must be positive"):
            degradation.build(np.array([width]))
    with pytest.raises(UsageError, match="kernel angles must be finite"):
        degradation.build(np.array([1.0]), np.array([np.inf]))
