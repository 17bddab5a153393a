"""A blend is each renderer at its end and moves evenly from one to the other between them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sr_env.degradation import load_basis
from sr_env.models import AMNet, Checkpoint, blend_renderers, load_renderer, save_checkpoint
from sr_env.utils.checks import UsageError


@pytest.fixture
def ends(tiny_renderer: Path, tiny_textured: Path) -> tuple[Checkpoint[AMNet], Checkpoint[AMNet]]:
    return load_renderer(tiny_renderer), load_renderer(tiny_textured)


@pytest.fixture
def seen() -> tuple[Tensor, Tensor]:
    """LR images and their codes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 12, 9, generator=generator), torch.randn(2, 10, generator=generator)


@torch.no_grad()
def test_ends_are_the_renderers_own(
    ends: tuple[Checkpoint[AMNet], Checkpoint[AMNet]], seen: tuple[Tensor, Tensor]
) -> None:
    first, second = (checkpoint.network for checkpoint in ends)
    blend = blend_renderers(*ends, 0.5).network
    ran = {"first": 0, "second": 0}
    first.register_forward_hook(lambda *_: ran.update(first=ran["first"] + 1))
    second.register_forward_hook(lambda *_: ran.update(second=ran["second"] + 1))
    for texture, network in ((0, first), (1, second)):
        blend.texture = texture
        ran.update(first=0, second=0)
        sr = blend(*seen)
        assert ran == {"first": 1 - texture, "second": texture}  # the other one costs nothing
        assert torch.equal(sr, network(*seen))


@torch.no_grad()
def test_evenly_between(ends: tuple[Checkpoint[AMNet], Checkpoint[AMNet]], seen: tuple[Tensor, Tensor]) -> None:
    first, second = (checkpoint.network(*seen) for checkpoint in ends)
    blend = blend_renderers(*ends, 0.0).network
    whole = (second - first).abs().mean()
    assert whole > 0.05
    distances = []
    for texture in (0.0, 0.25, 0.5, 0.75, 1.0):
        blend.texture = texture
        sr = blend(*seen)
        torch.testing.assert_close(sr, (1 - texture) * first + texture * second)
        distances.append(float((sr - first).abs().mean() / whole))
    assert distances == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0], abs=1e-5)


def test_says_what_tiles_and_memory_need(ends: tuple[Checkpoint[AMNet], Checkpoint[AMNet]]) -> None:
    blend = blend_renderers(*ends, 0.5)
    assert (blend.scale, blend.network.scale, blend.network.code_length) == (4, 4, 10)
    assert blend.network.receptive_radius == 7 > ends[0].network.receptive_radius
    assert blend.network.architecture["channels"] == 8 > ends[1].network.architecture["channels"]
    assert blend.card["parameters"] == sum(checkpoint.card["parameters"] for checkpoint in ends)
    assert blend.card["blend"] == {"fidelity": "tiny_renderer", "perceptual": "tiny_textured"}
    assert not blend.network.training


def test_an_environment_s_renderer(
    ends: tuple[Checkpoint[AMNet], Checkpoint[AMNet]], seen: tuple[Tensor, Tensor]
) -> None:
    blend = blend_renderers(*ends, 0.3).network
    copied = load_renderer(blend, scale=4).network
    expected = blend(*seen)
    blend.texture = 1.0
    assert torch.equal(copied(*seen), expected)  # a copy keeps its own


def test_what_does_not_fit(ends: tuple[Checkpoint[AMNet], Checkpoint[AMNet]], tmp_path: Path) -> None:
    def other(name: str, scale: int, family: str) -> Checkpoint[AMNet]:
        network = AMNet(scale=scale, channels=6, blocks=1)
        path = tmp_path / f"{name}.safetensors"
        return load_renderer(save_checkpoint(path, network, load_basis(family, scale), scale, {}))

    with pytest.raises(UsageError, match=r"tiny_renderer\.safetensors and x2\.safetensors differ in scale \(4, 2\)"):
        blend_renderers(ends[0], other("x2", 2, "isotropic"), 0.5)
    with pytest.raises(UsageError, match="differ in kernel basis"):
        blend_renderers(ends[0], other("skew", 4, "anisotropic"), 0.5)
    blend = blend_renderers(*ends, 0.5).network
    for texture in (-0.01, 1.01, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=rf"texture {texture}: give 0 \(faithful\) to 1 \(textured\)"):
            blend.texture = texture
        with pytest.raises(UsageError, match=f"texture {texture}"):
            blend_renderers(*ends, texture)
    assert blend.texture == 0.5
