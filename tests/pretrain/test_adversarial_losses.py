"""The adversarial losses against values derived by hand, and a realness GAN that learns a mixture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from blindsr_pretrain.losses import (
    AdversarialLoss,
    RealnessLoss,
    RelativisticAverageLoss,
)
from torch import Tensor, nn

# --------------------------------------------------------------------------------------------------------- realness

# Three outcomes, support -1, 0, 1. A Gaussian of standard deviation 1/3.24: exp(-3.24^2 / 2) = 0.0052538 at the ends.
A1 = torch.tensor([0.0051992, 0.9896016, 0.0051992])
A1_ENTROPY = 0.0650316  # -0.9896016 ln 0.9896016 - 2 * 0.0051992 ln 0.0051992


def rows(*values: Tensor) -> Tensor:
    return torch.stack(values)


def test_supplement_anchors() -> None:
    real, fake = RealnessLoss(3).anchors(0)
    assert real == pytest.approx(A1.numpy(), abs=1e-6)
    assert fake == pytest.approx([1 / 3] * 3)
    real, fake = RealnessLoss().anchors(0)
    assert real.shape == fake.shape == (51,)
    assert real.sum() == pytest.approx(1)
    assert real == pytest.approx(real[::-1])
    assert (np.diff(real[:26]) > 0).all()
    assert real[0] / real[25] == pytest.approx(math.exp(-(3.24**2) / 2))
    assert real[33] / real[25] == pytest.approx(math.exp(-0.5 * (3.24 * 8 / 25) ** 2))
    np.testing.assert_array_equal(RealnessLoss().anchors(1)[0], real)


def test_realness_of_an_undecided_discriminator() -> None:
    """All outcomes alike: KL(A1 || U) = ln 3 - H(A1), and KL(U || U) = 0."""
    loss, outputs = RealnessLoss(3), torch.full((4, 3), 7.0)
    assert float(loss.discriminator(outputs, outputs, 0)) == pytest.approx(math.log(3) - A1_ENTROPY, abs=1e-6)
    assert float(loss.generator(None, outputs, 0)) == pytest.approx(math.log(3) - A1_ENTROPY, abs=1e-6)


def test_realness_of_a_perfect_discriminator() -> None:
    loss = RealnessLoss(3)
    real, fake = rows(A1, A1).log() + 5, torch.zeros(2, 3)
    assert float(loss.discriminator(real, fake, 0)) == pytest.approx(0, abs=1e-6)
    # The other way round: KL(A1 || U) + KL(U || A1), the latter -ln 3 - (2 ln 0.0051992 + ln 0.9896016) / 3.
    assert float(loss.discriminator(fake, real, 0)) == pytest.approx(1.0335807 + 2.4110405, abs=1e-5)


def test_generator_wins_where_the_discriminator_sees_real() -> None:
    """KL(A1 || A1) - KL(U || A1) = -2.411; for a batch, the mean."""
    loss = RealnessLoss(3)
    assert float(loss.generator(None, rows(A1).log(), 0)) == pytest.approx(-2.4110405, abs=1e-5)
    mixed = rows(A1.log(), torch.zeros(3))
    assert float(loss.generator(None, mixed, 0)) == pytest.approx((-2.4110405 + 1.0335807) / 2, abs=1e-5)


def test_cross_entropy_differs_by_the_entropy_of_the_anchors() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(4, 3, generator=generator).requires_grad_() for _ in range(2))
    kl, cross = RealnessLoss(3), RealnessLoss(3, form="cross_entropy")
    one, other = kl.discriminator(real, fake, 0), cross.discriminator(real, fake, 0)
    assert float((other - one).detach()) == pytest.approx(A1_ENTROPY + math.log(3), abs=1e-5)
    torch.testing.assert_close(torch.autograd.grad(one, (real, fake)), torch.autograd.grad(other, (real, fake)))
    one, other = kl.generator(None, fake, 0), cross.generator(None, fake, 0)
    assert float((other - one).detach()) == pytest.approx(A1_ENTROPY - math.log(3), abs=1e-5)
    torch.testing.assert_close(torch.autograd.grad(one, fake), torch.autograd.grad(other, fake))


def test_official_anchors_are_histograms_of_new_samples() -> None:
    loss = RealnessLoss(anchors="official")
    real, fake = loss.anchors(0)
    for anchor in (real, fake):
        assert anchor.sum() == pytest.approx(1)
        assert (anchor >= 0).all()
        np.testing.assert_allclose(anchor * 1000, np.round(anchor * 1000), atol=1e-9)  # counts of 1000 numbers
        assert anchor[0] > 0  # the bins span the sample
        assert anchor[-1] > 0
    means = np.mean([loss.anchors(seed) for seed in range(50)], 0)
    assert means[0] == pytest.approx([1 / 51] * 51, rel=0.15)  # the real one is flat
    bell = RealnessLoss().anchors(0)[0]
    assert means[1][17:34].sum() == pytest.approx(bell[17:34].sum(), abs=0.05)  # the fake one the bell
    assert means[1].argmax() == pytest.approx(25, abs=3)
    for same, now in zip(loss.anchors(0), (real, fake), strict=True):
        np.testing.assert_array_equal(same, now)
    for new, now in zip(loss.anchors(1), (real, fake), strict=True):
        assert not np.array_equal(new, now)


@pytest.mark.parametrize("form", ["kl", "cross_entropy"])
def test_official_losses_use_the_seed_and_take_empty_bins(form: Any) -> None:
    loss = RealnessLoss(anchors="official", form=form)
    seed = next(seed for seed in range(50) if (loss.anchors(seed)[1] == 0).any())
    real, fake = (torch.from_numpy(anchor)[None].clamp(min=1e-12).log() for anchor in loss.anchors(seed))
    entropies = -sum(float((anchor * np.log(np.maximum(anchor, 1e-12))).sum()) for anchor in loss.anchors(seed))
    best = 0.0 if form == "kl" else entropies
    assert float(loss.discriminator(real, fake, seed)) == pytest.approx(best, abs=1e-6)
    assert float(loss.discriminator(real, fake, seed + 1)) > best + 0.01
    assert float(loss.generator(None, real, seed)) < 0 < float(loss.generator(None, fake, seed))


@pytest.mark.parametrize(
    "wrong",
    [{"outcomes": 2}, {"outcomes": True}, {"outcomes": 51.0}, {"anchors": "gauss"}, {"form": "js"}],
)
def test_realness_refuses(wrong: dict[str, Any]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name} (is )?{value!r}: (give|choose)"):
        RealnessLoss(**wrong)


# ----------------------------------------------------------------------------------------------------- relativistic


def test_relativistic_average_by_hand() -> None:
    loss = RelativisticAverageLoss()
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-2.0]])
    # against the other's mean: real 2, 4; fake -2, -4. ln(1 + e^-2) = 0.126928, ln(1 + e^-4) = 0.0181499
    assert float(loss.discriminator(real, fake, 0)) == pytest.approx(0.1450779, abs=1e-6)
    assert float(loss.generator(real, fake, 0)) == pytest.approx(2 + 4 + 0.1450779, abs=1e-6)
    equal = torch.full((3, 1), -4.0)
    assert float(loss.discriminator(equal, equal, 0)) == pytest.approx(2 * math.log(2))
    assert float(loss.generator(equal, equal, 0)) == pytest.approx(2 * math.log(2))
    with pytest.raises(ValueError, match=r"needs D\(real\)"):
        loss.generator(None, fake, 0)


# ------------------------------------------------------------------------------------------------ both adversaries

ADVERSARIES = [
    RealnessLoss(5),
    RealnessLoss(5, form="cross_entropy"),
    RealnessLoss(5, anchors="official"),
    RelativisticAverageLoss(),
]


@pytest.mark.parametrize("loss", ADVERSARIES)
def test_gradients_of_adversarial_losses(loss: AdversarialLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.randn(3, loss.outputs, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda r, f: loss.discriminator(r, f, 3), (real, fake))
    if loss.needs_real:
        assert torch.autograd.gradcheck(lambda r, f: loss.generator(r, f, 3), (real, fake))
    else:
        assert torch.autograd.gradcheck(lambda f: loss.generator(None, f, 3), (fake,))


@pytest.mark.parametrize("loss", ADVERSARIES)
def test_a_step_down_the_gradient_does_what_it_is_for(loss: AdversarialLoss) -> None:
    """The discriminator's loss parts the two kinds, the generator's lets the fake look more real."""
    start = torch.zeros(4, loss.outputs)
    real, fake = start.clone().requires_grad_(), start.clone().requires_grad_()
    loss.discriminator(real, fake, 0).backward()
    assert real.grad is not None
    assert fake.grad is not None
    real, fake = (start - 5 * real.grad).detach(), (start - 5 * fake.grad).detach()
    assert not torch.equal(real, fake)
    fooling = fake.clone().requires_grad_()
    loss.generator(real, fooling, 0).backward()
    assert fooling.grad is not None
    moved = fake - 0.1 * fooling.grad
    assert float(loss.discriminator(real, moved, 0)) > float(loss.discriminator(real, fake, 0))
    assert float((moved - real).norm()) < float((fake - real).norm())


@pytest.mark.parametrize("loss", ADVERSARIES)
def test_adversarial_losses_in_float32_under_autocast(loss: AdversarialLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(4, loss.outputs, generator=generator).bfloat16() for _ in range(2))
    wanted = [loss.discriminator(real.float(), fake.float(), 0), loss.generator(real.float(), fake.float(), 0)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [loss.discriminator(real, fake, 0), loss.generator(real, fake, 0)]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("loss", ADVERSARIES)
@pytest.mark.parametrize("shape", [(4,), (4, 7), (4, 5, 1)])
def test_outputs_of_another_shape(loss: AdversarialLoss, shape: tuple[int, ...]) -> None:
    right, wrong = torch.zeros(4, loss.outputs), torch.zeros(shape)
    for call in (
        lambda: loss.discriminator(right, wrong, 0),
        lambda: loss.discriminator(wrong, right, 0),
        lambda: loss.generator(right, wrong, 0),
    ):
        with pytest.raises(ValueError, match=rf"Loss takes .* with {loss.outputs} of them, \[B, {loss.outputs}\], not"):
            call()


# ---------------------------------------------------------------------------------------------------- a game in 2-D

MODES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
SPREAD = 0.15


def mlp(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(2, 64), nn.LeakyReLU(0.2)), *(nn.Linear(64, 64), nn.LeakyReLU(0.2)), nn.Linear(64, outputs)
    )


def shares(generator: nn.Module) -> Tensor:
    """Share of 4000 samples within three standard deviations of each mode."""
    with torch.no_grad():
        distances = torch.cdist(generator(torch.randn(4000, 2)), MODES)
    return (distances < 3 * SPREAD).float().mean(0)


@pytest.mark.parametrize("anchors", ["supplement", "official"])
def test_realness_gan_matches_a_mixture_of_gaussians(anchors: Any) -> None:
    """Every mode gets its quarter, few samples fall between; without training none of it holds."""
    loss, steps, batch = RealnessLoss(anchors=anchors), 800, 128
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator, discriminator = mlp(2), mlp(loss.outputs)
        assert shares(generator).sum() < 0.3
        players = [
            torch.optim.Adam(generator.parameters(), 3e-3, betas=(0.5, 0.999)),
            torch.optim.Adam(discriminator.parameters(), 6e-3, betas=(0.5, 0.999)),
        ]
        schedules = [
            torch.optim.lr_scheduler.LambdaLR(player, lambda step: min(1.0, 2 - 2 * step / steps)) for player in players
        ]
        for step in range(steps):
            real = MODES[torch.randint(4, (batch,))] + SPREAD * torch.randn(batch, 2)
            fake = generator(torch.randn(batch, 2))
            of_real, of_fake = discriminator(torch.cat([real, fake.detach()])).chunk(2)
            players[1].zero_grad()
            loss.discriminator(of_real, of_fake, step).backward()
            players[1].step()
            players[0].zero_grad()
            loss.generator(None, discriminator(fake), step).backward()
            players[0].step()
            for schedule in schedules:
                schedule.step()
        found = shares(generator)
    assert found.sum() > 0.8
    assert found.min() > 0.15
