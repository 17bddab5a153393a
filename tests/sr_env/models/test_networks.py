"""Renderer and predictor: sizes, ranges, what the code does, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_env.models import SIZES, AMLayer, AMNet, create_amnet
from sr_env.models.amnet import parameter_count
from sr_env.models.predictor import KernelPredictor


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def codes(count: int, length: int = 10, seed: int = 1) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed))


def renderer(scale: int = 4, modulated: bool = True) -> AMNet:
    """A small network; ``modulated`` moves it off its start, at which the code has no say."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AMNet(scale=scale, channels=8, blocks=2)
        if modulated:
            for block in network.body:
                nn.init.normal_(block.modulation.mlp[-1].weight, std=0.2)
    return network.eval().requires_grad_(False)


def predictor() -> KernelPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KernelPredictor(channels=8).eval().requires_grad_(False)


# --------------------------------------------------------------------------------------------------------- renderer


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (8, 31), (9, 11), (48, 48), (57, 8)])
def test_any_lr_size(scale: int, size: tuple[int, int]) -> None:
    sr = renderer(scale)(images(2, 3, *size), codes(2))
    assert sr.shape == (2, 3, scale * size[0], scale * size[1])
    assert sr.isfinite().all()


@pytest.mark.parametrize(("size", "low", "high"), [("amnet_l", 0.35e6, 0.45e6), ("amnet", 1.4e6, 1.6e6)])
def test_named_sizes(size: str, low: float, high: float) -> None:
    for scale in (2, 3, 4):
        network = create_amnet(size, scale)
        assert network.scale == scale
        assert low < parameter_count(network) < high
        assert network.architecture["channels"] == SIZES[size]["channels"]
        assert AMNet(**network.architecture).state_dict().keys() == network.state_dict().keys()


def test_fresh_network_is_unmodulated() -> None:
    network = renderer(modulated=False)
    network.smooth = True
    lr = images(2, 3, 12, 10)
    assert torch.equal(network(lr, codes(2)), network(lr, 3 * codes(2, seed=9)))
    # The same weights without any AMLayer, written out.
    features = skip = network.head(lr)
    for block in network.body:
        features = features + block.conv2(block.conv1(features).relu())
    detail = F.pixel_shuffle(network.tail(features + skip), 4)
    base = F.interpolate(lr, size=(48, 40), mode="bilinear")
    box = torch.tensor([1.0, 2.0, 2.0, 2.0, 1.0]) / 8
    smoothed = F.conv2d(detail.flatten(0, 1)[:, None], torch.outer(box, box)[None, None]).unflatten(0, (2, 3))[:, :, 0]
    sr = network(lr, codes(2))
    torch.testing.assert_close(sr[..., 2:-2, 2:-2], smoothed + base[..., 2:-2, 2:-2])
    # At the border the mean is over the pixels that are there.
    corner = (detail[:, :, :2, :2].mean((2, 3)) + detail[:, :, :3, :2].mean((2, 3))) / 4 + (
        detail[:, :, :2, :3].mean((2, 3)) + detail[:, :, :3, :3].mean((2, 3))
    ) / 4
    torch.testing.assert_close(sr[..., 0, 0], corner + base[..., 0, 0])
    plain = AMNet(**{**network.architecture, "smooth": False})
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(plain(lr, codes(2)), detail + base)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_no_grid_of_the_period_of_the_scale_in_a_flat_area(scale: int) -> None:
    torch.manual_seed(0)
    network = AMNet(scale, 8, 1, smooth=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    lr, inside = torch.full((1, 3, 20, 20), 0.4), (..., slice(6 * scale, -6 * scale), slice(6 * scale, -6 * scale))
    flat = network(lr, codes(1))[inside]
    assert float(flat.std((2, 3)).max()) < 1e-5
    network.smooth = False
    assert float(network(lr, codes(1))[inside].std((2, 3)).min()) > 0.1


def test_code_matters_once_the_modulation_is_not_zero() -> None:
    network, lr = renderer(), images(1, 3, 12, 12)
    one, other = network(lr, codes(1)), network(lr, codes(1, seed=2))
    assert (one - other).abs().max() > 1e-3


def test_every_parameter_of_the_modulation_learns() -> None:
    network = renderer().requires_grad_(True)
    network(images(2, 3, 8, 8), codes(2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_amlayer_is_scale_and_shift_per_channel() -> None:
    torch.manual_seed(5)
    layer = AMLayer(6, 10)
    nn.init.normal_(layer.mlp[-1].weight)
    nn.init.normal_(layer.mlp[-1].bias)
    features, code = images(3, 6, 5, 7), codes(3)
    out = layer(features, code)
    first, last = layer.mlp[0], layer.mlp[2]
    for b in range(3):
        numbers = last.weight @ (first.weight @ code[b] + first.bias).clamp_min(0) + last.bias
        for c in range(6):
            torch.testing.assert_close(out[b, c], features[b, c] * (1 + numbers[c]) + numbers[6 + c])


def test_each_image_is_rendered_with_its_own_code() -> None:
    network, lr, code = renderer(), images(3, 3, 10, 13), codes(3)
    apart = torch.cat([network(lr[i : i + 1], code[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(lr, code), apart, atol=1e-5, rtol=0)


def test_renderer_follows_a_shift_of_the_picture() -> None:
    """Fully convolutional: away from the border, shifting LR by a pixel shifts SR by ``scale``."""
    network, code = renderer(3), codes(1)
    wide = images(1, 3, 30, 31)
    left, right = network(wide[..., :30], code), network(wide[..., 1:], code)
    torch.testing.assert_close(left[..., 21:-21, 24:-21], right[..., 21:-21, 21:-24], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(7, 9), (9, 7), (1, 1)])
def test_too_small_lr(size: tuple[int, int]) -> None:
    for call in (lambda lr: renderer()(lr, codes(1)), predictor()):
        with pytest.raises(ValueError, match=f"LR size {size[0]}x{size[1]} is under 8x8"):
            call(images(1, 3, *size))


@pytest.mark.parametrize("shape", [(2, 9), (1, 10), (10,), (2, 10, 1)])
def test_wrong_code_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"code shape .* takes \(2, 10\)"):
        renderer()(images(2, 3, 8, 8), torch.zeros(shape))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match=r"scale 5.*2, 3, 4"):
        AMNet(scale=5)
    with pytest.raises(ValueError, match=r"'amnet_xl'.*amnet, amnet_l"):
        create_amnet("amnet_xl")
    with pytest.raises(ValueError, match="blocks=0"):
        AMNet(blocks=0)


# -------------------------------------------------------------------------------------------------------- predictor


@pytest.mark.parametrize("size", [(8, 8), (8, 21), (9, 9), (15, 10), (64, 48)])
def test_predictor_takes_any_size(size: tuple[int, int]) -> None:
    action = predictor()(images(2, 3, *size))
    assert action.shape == (2, 10)
    assert action.dtype == torch.float32
    assert action.isfinite().all()


def test_predictor_stays_in_range_whatever_it_sees() -> None:
    network = predictor()
    with torch.no_grad():
        network.head[-1].weight.mul_(1000)
    extreme = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16), images(3, 16, 16).round()])
    assert network(extreme).abs().max() <= 1
    with torch.autocast("cpu", torch.bfloat16):
        action = predictor()(extreme)
    assert action.dtype == torch.float32
    assert action.abs().max() < 1


def test_predictor_batch_equals_one_by_one() -> None:
    network, lr = predictor(), images(4, 3, 17, 14)
    apart = torch.cat([network(lr[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(lr), apart, atol=1e-6, rtol=0)
    assert (apart[0] - apart[1]).abs().max() > 1e-5


def test_predictor_features_are_two_means() -> None:
    network, lr = predictor(), images(2, 3, 20, 12)
    features = network.features(lr)
    assert features.shape == (2, network.feature_size)
    maps = network.stem(4 * lr - 2)
    half = network.feature_size // 2
    torch.testing.assert_close(features[:, :half], maps.mean((2, 3)))
    gate = network.gate(maps).sigmoid()
    torch.testing.assert_close(features[:, half:], (gate * maps).sum((2, 3)) / gate.sum((2, 3)), rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(network(lr), network.head(features).tanh())


def test_predictor_rebuilds_from_its_architecture() -> None:
    network = KernelPredictor(channels=4, code_length=7, hidden=9)
    again = KernelPredictor(**network.architecture)
    again.load_state_dict(network.state_dict())
    lr = images(1, 3, 8, 8)
    assert torch.equal(again(lr), network(lr))
