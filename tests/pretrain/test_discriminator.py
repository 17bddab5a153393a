"""The discriminator: sizes, spectral norm, precision, copies, several processes, cost."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from blindsr_pretrain.discriminator import Discriminator
from blindsr_pretrain.losses import RealnessLoss, RelativisticAverageLoss
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sr_env.models.amnet import parameter_count


@pytest.fixture
def small() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(5, channels=4)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def weights(network: Discriminator) -> list[Tensor]:
    """Effective weights of all layers as matrices, with no further power iteration."""
    network.eval()
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    matrices = [layer.weight.detach().flatten(1) for layer in layers]
    network.train()
    return matrices


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (128, 128)])
@pytest.mark.parametrize("outputs", [1, 51])
def test_takes_any_size_from_64(size: tuple[int, int], outputs: int) -> None:
    network = Discriminator(outputs, channels=4)
    result = network(images(2, 3, *size))
    assert result.shape == (2, outputs)
    assert result.dtype == torch.float32


@pytest.mark.parametrize("size", [(63, 64), (64, 63)])
def test_refuses_less_than_64(small: Discriminator, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"image size {size[0]}x{size[1]} is under 64x64: give .* larger patches"):
        small(images(1, 3, *size))


@pytest.mark.parametrize("wrong", [{"outputs": 0}, {"outputs": 1, "channels": 0}])
def test_refuses_empty_layers(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"outputs=\d and channels=\d+ must both be >= 1"):
        Discriminator(**wrong)


def test_default_size() -> None:
    # 3x3 3->32, 4x4 32->64->128->256->256 with biases, 256->51, counted by hand
    convolutions = 27 * 32 + 32 + 16 * (32 * 64 + 64 * 128 + 128 * 256 + 256 * 256) + 64 + 128 + 256 + 256
    with torch.device("meta"):
        assert parameter_count(Discriminator(51)) == convolutions + 256 * 51 + 51 == 1_751_411


def test_spectral_norm_of_every_layer_stays_near_one(small: Discriminator) -> None:
    """While an optimiser moves the weights, and when they have grown sevenfold."""
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-3)
    for step in range(20):
        (-small(images(2, 3, 64, 64, seed=step)).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(7)
    small(images(1, 3, 64, 64))
    norms = [float(torch.linalg.matrix_norm(matrix, 2)) for matrix in weights(small)]
    assert norms == pytest.approx([1.0] * 6, abs=0.1)


def test_power_iteration_runs_once_per_training_forward_and_never_in_evaluation(small: Discriminator) -> None:
    image = images(1, 3, 64, 64)
    normalise = nn.functional.normalize
    weight, state = small.head.parametrizations.weight.original, small.head.parametrizations.weight[0]
    nn.init.normal_(weight)  # other weights than the vectors belong to
    left, right = state._u.clone(), state._v.clone()
    small.eval()
    first = small(image)
    assert torch.equal(small(image), first)
    assert torch.equal(state._u, left)
    small.train()
    small(image)
    left = normalise(weight.detach() @ right, dim=0)
    torch.testing.assert_close(state._u, left)
    torch.testing.assert_close(state._v, normalise(weight.detach().T @ left, dim=0))


def test_images_of_a_batch_do_not_see_each_other(small: Discriminator) -> None:
    small.eval()
    batch = images(3, 3, 64, 80)
    alone = torch.cat([small(image[None]) for image in batch])
    torch.testing.assert_close(small(batch), alone)


def test_bf16_and_channels_last(small: Discriminator) -> None:
    batch = images(2, 3, 64, 64)
    small.eval()
    wanted = small(batch)
    small = small.to(memory_format=torch.channels_last)
    batch = batch.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(small(batch), wanted)
    small.train()
    plain = copy.deepcopy(small)
    plain(batch)
    seen = []
    small.features[2].register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = small(batch)
    assert seen == [torch.bfloat16]  # the convolutions run in bf16 ...
    assert result.dtype == torch.float32  # ... the head does not
    torch.testing.assert_close(result, wanted, atol=0.02 * wanted.abs().max().item(), rtol=0.02)
    for one, other in zip(weights(small), weights(plain), strict=True):
        assert torch.equal(one, other)  # the power iteration neither
    result.sum().backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_gradient_reaches_images_while_the_weights_are_frozen(small: Discriminator) -> None:
    """The generator's step: frozen weights cost no gradient."""
    small.requires_grad_(False)
    image = images(1, 3, 64, 64).requires_grad_()
    RealnessLoss(5).generator(None, small(image), 0).backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in small.parameters())


def test_copies_are_independent(small: Discriminator) -> None:
    batch = images(1, 3, 64, 64)
    small(batch).sum().backward()
    twin = copy.deepcopy(small)
    small.eval(), twin.eval()
    wanted = small(batch)
    assert torch.equal(twin(batch), wanted)
    with torch.no_grad():
        small.head.bias.add_(1)
    assert torch.equal(twin(batch), wanted)
    fresh = Discriminator(5, channels=4).eval()
    fresh.load_state_dict(twin.state_dict())
    assert torch.equal(fresh(batch), wanted)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(small: Discriminator, one_process: None) -> None:
    """Two forwards before one backward, as a discriminator's step has them."""
    real, fake = images(2, 3, 64, 64), images(2, 3, 64, 64, seed=1)
    plain = copy.deepcopy(small)
    wrapped = DistributedDataParallel(small)
    loss = RealnessLoss(5)
    for network in (plain, wrapped):
        for _ in range(2):
            network.zero_grad()
            loss.discriminator(network(real), network(fake), 0).backward()
    for one, other in zip(plain.parameters(), wrapped.module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("loss", [RealnessLoss(), RealnessLoss(anchors="official"), RelativisticAverageLoss()])
def test_learns_to_tell_sharp_from_smooth(loss: Any) -> None:
    """Spectral norm leaves it able to: every step sees new images, and the loss falls to a quarter or less."""
    torch.manual_seed(0)
    network = Discriminator(loss.outputs, channels=8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.999))
    losses = []
    for step in range(60):
        noise = images(8, 3, 64, 64, seed=step)
        smooth = nn.functional.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False)
        real, fake = network(torch.cat([noise, smooth])).chunk(2)
        value = loss.discriminator(real, fake, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-10:]) / 10 < 0.25 * losses[0]
