"""USRNet: its authors' files fit, and it inverts our degradation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blindsr_agents.peers import USRNet, load_usrgan

from sr_env.degradation import Degradation

# ------------------------------------------------------------------------------------------------------------ USRGAN
from sr_env.utils.checks import UsageError
from sr_env.utils.images import to_images


def small_usrnet(scale: int) -> USRNet:
    torch.manual_seed(0)
    return USRNet(scale, channels=(4, 6, 8, 10), blocks=2, iterations=3, hidden=8).eval()


def test_usrgan_has_the_keys_of_its_authors() -> None:
    stages = [f"p.m_down{n}.{block}.res.{conv}" for n in (1, 2, 3) for block in (0, 1) for conv in (0, 2)]
    stages += [f"p.m_up{n}.{block}.res.{conv}" for n in (1, 2, 3) for block in (1, 2) for conv in (0, 2)]
    stages += [f"p.m_body.{block}.res.{conv}" for block in (0, 1) for conv in (0, 2)]
    stages += ["p.m_head", "p.m_tail", *(f"p.m_down{n}.2" for n in (1, 2, 3)), *(f"p.m_up{n}.0" for n in (1, 2, 3))]
    keys = {f"{stage}.weight" for stage in stages}
    keys |= {f"h.mlp.{layer}.{part}" for layer in (0, 2, 4) for part in ("weight", "bias")}
    state = USRNet().state_dict()
    assert set(state) == keys
    assert state["p.m_up3.0.weight"].shape == (512, 256, 2, 2)
    assert sum(value.numel() for value in state.values()) == pytest.approx(17.02e6, rel=1e-3)  # the paper's 17.02 M


def test_usrgan_from_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "usrgan.pth"
    network = small_usrnet(3)
    torch.save(network.state_dict(), path)
    lr, kernels = torch.rand(2, 3, 11, 14), Degradation(3).build(np.array([0.8, 2.0])).kernels
    sr = load_usrgan(path, 3)(lr, kernels)
    assert sr.shape == (2, 3, 33, 42)
    torch.testing.assert_close(sr, network(lr, kernels))
    torch.testing.assert_close(sr[1:], network(lr[1:], kernels[1:]), atol=1e-5, rtol=1e-4)
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match=r"does not hold USRNet: 'p\.m_head\.weight'"):
        load_usrgan(path)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_usrnet_inverts_our_degradation(scale: int, random_photos: list[np.ndarray]) -> None:
    """Away from the border, its data step gives an image that our own blur and reduction turn back into LR."""
    side = 40 * scale
    hr = to_images(random_photos[1][None, :side, :side].copy())
    kernels = Degradation(scale, "anisotropic").build(np.array([[1.5, 0.8]]), np.array([0.5]))
    degradation = Degradation(scale, "anisotropic")
    lr = degradation.reduce(hr, kernels)
    network = small_usrnet(scale)
    kernel = network.decimation_kernel(kernels.kernels)
    reach = kernel.shape[-1] // 2
    spectrum = torch.fft.fft2(F.pad(kernel, (0, side - kernel.shape[-1]) * 2).roll((-reach, -reach), (1, 2)))[:, None]
    start = F.interpolate(lr, scale_factor=scale)
    x = network.data_step(start, lr, spectrum, torch.full((1, 1, 1, 1), 1e-4))
    inside = (..., slice(10, -10), slice(10, -10))
    before = (degradation.reduce(start, kernels) - lr)[inside].abs().max()
    after = (degradation.reduce(x, kernels) - lr)[inside].abs().max()
    assert after < 0.005 < before
