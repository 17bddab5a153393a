"""A network starts as a smaller one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from blindsr_pretrain.amnet import AMNetSettings
from blindsr_pretrain.inherit import inherit, translated
from blindsr_pretrain.trainer import Trainer
from torch import nn

from sr_env.degradation import isotropic_kernels, load_basis
from sr_env.models import amnet, load_renderer
from sr_env.utils.checks import UsageError


@pytest.mark.parametrize("size", [{"channels": 8, "blocks": 2}, {"channels": 12, "blocks": 4}])
def test_a_larger_renderer_starts_as_the_smaller_one(size: dict[str, int]) -> None:
    torch.manual_seed(0)
    smaller, larger = amnet.AMNet(channels=8, blocks=2), amnet.AMNet(**size)
    for parameter in smaller.parameters():  # what a fresh network has at zero is not zero after training
        nn.init.normal_(parameter, std=0.2)
    lr, code = torch.rand(2, 3, 10, 12), torch.randn(2, 10)
    wanted = smaller(lr, code)
    assert not torch.allclose(larger(lr, code), wanted, atol=1e-2)
    inherit(larger, smaller)
    torch.testing.assert_close(larger(lr, code), wanted, atol=1e-4, rtol=1e-4)
    larger(lr, code).square().mean().backward()
    # Nothing that was added stays dead: the last layers of new blocks and the new columns of old layers get gradients.
    for name in ("tail.weight", "body.1.conv1.weight", f"body.{size['blocks'] - 1}.conv2.weight"):
        gradient = larger.get_parameter(name).grad
        assert gradient is not None
        assert (gradient.flatten(2).abs().amax((0, 2)) > 0).all(), name


def test_a_renderer_starts_from_one_of_another_scale_but_for_the_tail() -> None:
    torch.manual_seed(0)
    four, two = amnet.AMNet(scale=4, channels=8, blocks=1), amnet.AMNet(scale=2, channels=8, blocks=1)
    tail = two.tail.weight.clone()
    inherit(two, four)
    assert torch.equal(two.body[0].conv1.weight, four.body[0].conv1.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(two.tail.weight, tail)


def test_a_renderer_too_large_to_start_from(
    settings: AMNetSettings, tiny_renderer: Path, trainer: Callable[..., Trainer]
) -> None:
    with pytest.raises(ValueError, match=r"'channels': 8.* does not fit into .*'channels': 6.* choose a larger --size"):
        inherit(amnet.AMNet(channels=6, blocks=1), load_renderer(tiny_renderer).network)
    figures = trainer(replace(settings, start=str(tiny_renderer), steps=1, learning_rate=1e-9)).run()
    unchanged = trainer(replace(settings, out=settings.out / "x")).task.held_out  # type: ignore[attr-defined]
    assert figures["psnr"] == pytest.approx(unchanged.score(load_renderer(tiny_renderer).network)[0]["psnr"], abs=1e-3)


def test_only_an_amnet_has_a_place_in_an_amnet() -> None:
    with pytest.raises(UsageError, match="a Identity has no place in an AMNet"):
        inherit(amnet.AMNet(channels=6, blocks=1), nn.Identity())


def test_a_renderer_starts_from_one_of_another_kernel_family() -> None:
    old, new = load_basis("isotropic", 4), load_basis("real", 4)
    torch.manual_seed(0)
    network = amnet.AMNet(channels=8, blocks=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.15)
    made = translated(network, old, new, (0.2, 4.0))
    assert made.code_length == new.code_length
    lr, widths = torch.rand(6, 3, 10, 12), torch.tensor([0.3, 0.8, 1.3, 2.0, 2.6, 3.5])
    before = network(lr, old.encode(isotropic_kernels(widths)))
    codes = new.encode(isotropic_kernels(widths, new.kernel_size))
    assert (made(lr, codes) - before).abs().mean() < 0.15 * (before - before.mean(0)).abs().mean()
    noisy = codes.clone()
    noisy[:, -3:] += 1
    assert torch.equal(made(lr, noisy), made(lr, codes))  # levels change nothing yet
    assert network.code_length == 10
