"""Where the weights of AlexNet's, VGG16's and VGG19's features come from (torchvision's, trained on ImageNet).

AlexNet's come with the package. VGG16 and VGG19 are found on demand, in this order:

1. the path given by the caller, else the folder named by the environment variable ``BLINDSR_WEIGHTS``
   (torchvision's ``vgg16-397923af.pth`` or safetensors such as ``vgg16.safetensors`` with the same key names);
2. torch hub's cache, then our own (``BLINDSR_CACHE``, else ``$XDG_CACHE_HOME/blindsr``, else ``~/.cache/blindsr``);
3. torchvision's download (a machine without internet fails here within seconds);
4. VGG16 only: a source distribution on the package index, see :mod:`sr_env.metrics.package_index`.

What was downloaded is written to our cache as safetensors, in one step, and verified whenever it is read.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_env.metrics import package_index
from sr_env.metrics.features import ConvFeatures, check_arch, torchvision_layers
from sr_env.utils.checks import MissingFileError, WeightsUnavailable
from sr_env.utils.files import atomic_write

_TORCHVISION = {  # the digits in the name are the start of the file's sha256
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}
_TORCHVISION_URL = "https://download.pytorch.org/models/"


def alexnet_features(
    layers: Sequence[int], *, weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> ConvFeatures:
    """AlexNet's features from the weights in the package (fp16, computed in fp32).

    Args:
        layers: ReLU indices, see :class:`ConvFeatures`.
        weights: A torchvision ``.pth`` or a safetensors file to use instead.
        device: Where the features live.
    """
    return _features("alexnet", layers, weights, device)


def vgg16_features(
    layers: Sequence[int],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    l2_pooling: bool = False,
) -> ConvFeatures:
    """VGG16's features; the module's docstring says where the weights are looked for.

    Args:
        layers: ReLU indices, see :class:`ConvFeatures`.
        weights: A torchvision ``.pth`` or a safetensors file; None looks for them and downloads them if need be.
        device: Where the features live.
        l2_pooling: Pool as DISTS does.

    Raises:
        MissingFileError: ``weights`` does not exist.
        WeightsUnavailable: A file cannot be read or the weights cannot be had anywhere (names everything tried).
    """
    return _features("vgg16", layers, weights, device, l2_pooling=l2_pooling)


def vgg19_features(
    layers: Sequence[int], *, weights: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> ConvFeatures:
    """VGG19's features; as :func:`vgg16_features`, but no package index carries these weights."""
    return _features("vgg19", layers, weights, device)


def find_local(arch: str) -> Path | None:
    """The file that would be used for ``arch`` without any download, or None.

    Raises:
        UsageError: ``arch`` is unknown.
    """
    check_arch(arch)
    return next((path for path in _candidates(arch) if path.is_file()), None)


def cache_folder() -> Path:
    """Our cache: ``BLINDSR_CACHE``, else ``$XDG_CACHE_HOME/blindsr``, else ``~/.cache/blindsr``."""
    if own := os.environ.get("BLINDSR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blindsr"


def load_asset(name: str) -> tuple[dict[str, Tensor], str]:
    """Tensors and source of a weight file in ``sr_env/metrics/assets``.

    Raises:
        WeightsUnavailable: The file is absent or damaged.
    """
    with resources.as_file(resources.files("sr_env.metrics") / "assets" / name) as path:
        return _read(path)


def _features(
    arch: str,
    layers: Sequence[int],
    weights: str | os.PathLike[str] | None,
    device: torch.device | str,
    *,
    l2_pooling: bool = False,
) -> ConvFeatures:
    path = None if weights is None else os.path.abspath(weights)
    if path is not None and not os.path.isfile(path):
        raise MissingFileError(f"no weight file {path}; give torchvision's {_TORCHVISION[arch]} or a safetensors file")
    state, source = _state(arch, path, torch.device(device))
    return ConvFeatures(arch, layers, state, source=source, l2_pooling=l2_pooling).to(device)


@lru_cache(maxsize=8)
def _state(arch: str, path: str | None, device: torch.device) -> tuple[dict[str, Tensor], str]:
    """Weights on one device, shared by every module that uses them there."""
    if path is not None:
        state, source = _read(Path(path))
        _check_state(arch, state, path)
    elif arch == "alexnet" and "BLINDSR_WEIGHTS" not in os.environ:
        state, source = load_asset("alexnet_features.safetensors")
    else:
        state, source = _resolve(arch)
    # A copy: what was read may be a view of the mapped file. Channels last, a fifth of AlexNet's time is saved (a
    # twentieth to a tenth of VGG's), most of it in the pooling, and values change by less than 1e-6.
    return {key: _on(value, device) for key, value in state.items()}, source


def _on(value: Tensor, device: torch.device) -> Tensor:
    layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
    return value.to(device, torch.float32, copy=True, memory_format=layout)


def _candidates(arch: str) -> list[Path]:
    """Local files that may hold the weights, in order of preference; they need not exist."""
    paths = []
    if folder := os.environ.get("BLINDSR_WEIGHTS"):
        paths += [Path(folder) / f"{arch}.safetensors", Path(folder) / _TORCHVISION[arch], Path(folder) / f"{arch}.pth"]
    if arch == "alexnet":
        return [*paths, Path(str(resources.files("sr_env.metrics") / "assets" / "alexnet_features.safetensors"))]
    return [
        *paths,
        Path(torch.hub.get_dir()) / "checkpoints" / _TORCHVISION[arch],
        cache_folder() / f"{arch}_features.safetensors",
    ]


def _resolve(arch: str) -> tuple[dict[str, Tensor], str]:
    """Find or fetch the weights of ``arch``."""
    tried: list[str] = []
    chosen = os.environ.get("BLINDSR_WEIGHTS")
    for path in _candidates(arch):
        if not path.is_file():
            tried.append(f"{path} (absent)")
            continue
        try:
            state, source = _read(path)
            _check_state(arch, state, path)
            return state, source
        except RuntimeError as error:
            if chosen and path.parent == Path(chosen):  # the user's own file: never pass over it in silence
                raise
            tried.append(str(error))

    routes: list[tuple[str, Callable[[], tuple[dict[str, Tensor], str]]]] = [
        (_TORCHVISION_URL + _TORCHVISION[arch], lambda: _from_torchvision(arch))
    ]
    if arch == "vgg16":
        routes.append((f"{package_index.SDIST} on the package index", package_index.from_index))
    for name, fetch in routes:
        try:
            state, source = fetch()
            _check_state(arch, state, name)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, tarfile.TarError) as error:
            tried.append(f"{name} ({error})")
            continue
        _store(arch, state, source)
        return state, source
    raise WeightsUnavailable(
        f"the weights of {arch} could not be had; tried {'; '.join(tried)}. Put torchvision's {_TORCHVISION[arch]} "
        f"into a folder and name the folder in the environment variable BLINDSR_WEIGHTS, or choose metrics that need "
        f"no VGG (psnr, ssim, lpips, niqe)"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read convolution weights (or an asset) and say where they came from."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
            if (digest := metadata.get("sha256")) and digest != _digest(state):
                raise RuntimeError("its sha256 differs from the one written with it")
            return state, metadata.get("source", str(path))
        _check_name_hash(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        return {key: value for key, value in loaded.items() if key.startswith("features.")}, f"torchvision {path.name}"
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsUnavailable(f"{path} cannot be used ({error}): delete it or replace it by a sound copy") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _check_name_hash(path: Path) -> None:
    """Check a torchvision file against the digits of its sha256 in its name."""
    if path.name not in _TORCHVISION.values():
        return
    expected = path.stem.rsplit("-", 1)[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise RuntimeError(f"its sha256 starts with {digest[:8]}, not with {expected}")


def _digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values."""
    sha = hashlib.sha256()
    for key in sorted(state):
        array = state[key].contiguous().numpy()
        sha.update(f"{key}{array.dtype}{array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()


def _check_state(arch: str, state: Mapping[str, Tensor], where: str | Path) -> None:
    with torch.device("meta"):
        layers = torchvision_layers(arch)
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            found = state.get(f"features.{index}.weight")
            if found is None or found.shape != layer.weight.shape or f"features.{index}.bias" not in state:
                raise WeightsUnavailable(
                    f"{where} does not hold {arch} (features.{index} is absent or has another shape): "
                    f"give torchvision's {_TORCHVISION[arch]}"
                )


def _store(arch: str, state: dict[str, Tensor], source: str) -> None:
    """Write the weights to our cache; a cache that cannot be written costs a download next time, not this run."""
    target = cache_folder() / f"{arch}_features.safetensors"
    try:
        with atomic_write(target) as temporary:
            save_file(state, temporary, {"source": source, "sha256": _digest(state)})
    except OSError as error:
        Console(stderr=True).print(f"could not keep the weights of {arch} at {target}: {error}")


def _from_torchvision(arch: str) -> tuple[dict[str, Tensor], str]:
    name = _TORCHVISION[arch]
    with tempfile.TemporaryFile() as file:
        limit = package_index.TORCHVISION_LIMIT
        digest = package_index.download(_TORCHVISION_URL + name, file, f"{arch} weights", limit=limit)
        if not digest.startswith(expected := name.rsplit("-", 1)[1].removesuffix(".pth")):
            raise RuntimeError(f"downloaded file has sha256 {digest[:8]}.., expected {expected}..")
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    state = {key: value.clone() for key, value in loaded.items() if key.startswith("features.")}
    return state, f"torchvision {name}"
